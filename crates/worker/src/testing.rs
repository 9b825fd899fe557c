//! What the tests of this crate stand on: one Postgres for all of them, and a migrated database for each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Parser as _;
use confab_protocol::command::{
    AddParticipants, Caller, Command, CreateConversation, Outcome, RemoveParticipant, Request,
    SendAnswer, SendMessage, Sent,
};
use confab_protocol::error::Code;
use confab_protocol::event::Member;
use confab_protocol::ids::{ClientId, ConversationId, EventId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::{ConversationType, Role};
use prometheus_client::registry::Registry;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use uuid::Uuid;

use crate::commit::{CommandOutcome, Committer, Item};
use crate::database::{self, Pool};
use crate::decision::Locked;
use crate::error::CommandError;
use crate::messages;
use crate::metrics::Metrics;
use crate::origin::Origin;
use crate::planner::Open;
use crate::settings::{DatabaseSettings, Settings};

mod commands;
mod driving;
mod servers;

pub(crate) use commands::{
    deletion, edit, event_of, patch, patch_of_version, repeated, role_change, unsend,
};
use servers::server;
pub(crate) use servers::{durability, programs};

/// A test holds locks in transactions for as long as it wants.
const KEPT: [(&str, &str); 1] = [("idle_in_transaction_session_timeout", "0")];
/// Connections of each pool of a test.
const CONNECTIONS: u32 = 20;
/// How long a test waits for what comes at once on an idle machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// A test's own database, and a worker's committer on it.
pub(crate) struct Fixture {
    pub(crate) url: String,
    /// For what the test looks up itself.
    pub(crate) pool: PgPool,
    /// A worker's own.
    pub(crate) connections: Pool,
    pub(crate) committer: Committer,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let url = server().await.database(&name).await.unwrap();
        let database = DatabaseSettings::of_url(url.clone());
        database::migrate(&database).await.unwrap();
        let pool = pool(&url);
        let committer = committer(&url);
        Self {
            connections: connections(&url),
            url,
            pool,
            committer,
        }
    }

    /// Another worker's committer, with connections of its own.
    pub(crate) fn another_committer(&self) -> Committer {
        committer(&self.url)
    }

    /// A pool of one connection, of a worker's kind.
    pub(crate) fn one_connection(&self) -> Pool {
        Pool::new(options(&self.url), 1, DEADLINE)
    }

    /// A group; the first user begins it.
    pub(crate) async fn group(&self, users: &[&str]) -> ConversationId {
        self.begin(ConversationType::Group, users).await
    }

    /// A conversation; the first user begins it.
    pub(crate) async fn begin(&self, r#type: ConversationType, users: &[&str]) -> ConversationId {
        let key = Uuid::now_v7().to_string();
        let command = creation(&key, r#type, users);
        let (outcome, _) = self.alone(users[0], command).await;
        match outcome.unwrap() {
            Outcome::Created(created) => created.conversation,
            other => panic!("{other:?}"),
        }
    }

    /// Carries out a command that goes alone; says also how many events it appended.
    pub(crate) async fn alone(&self, user: &str, command: Command) -> (CommandOutcome, usize) {
        self.alone_as(caller(user), command).await
    }

    /// The same by any caller.
    pub(crate) async fn alone_as(
        &self,
        caller: Caller,
        command: Command,
    ) -> (CommandOutcome, usize) {
        let request = Request {
            event: event_of(caller.user.as_str(), &command),
            caller,
            ..request("nobody", command)
        };
        let (outcome, committed) = self.committer.finish_alone(&request, soon()).await;
        (
            outcome,
            committed.map_or(0, |committed| committed.events.len()),
        )
    }

    /// Sends one message.
    pub(crate) async fn send(&self, item: Item) -> CommandOutcome {
        self.committer
            .finish_batch(&[item])
            .await
            .outcomes
            .remove(0)
    }

    pub(crate) async fn remove(&self, by: &str, user: &str, from: ConversationId) {
        let (outcome, _) = self.alone(by, removal(from, user)).await;
        outcome.unwrap();
    }

    /// The types of a log's events, whose seqs have no gaps and end at the conversation's own.
    pub(crate) async fn log(&self, conversation: ConversationId) -> Vec<String> {
        let rows: Vec<(i64, String)> =
            sqlx::query_as("select seq, type from events where conversation_id = $1 order by seq")
                .bind(conversation.0)
                .fetch_all(&self.pool)
                .await
                .unwrap();
        let (last,): (i64,) = sqlx::query_as("select last_seq from conversations where id = $1")
            .bind(conversation.0)
            .fetch_one(&self.pool)
            .await
            .unwrap();
        assert!(rows.iter().map(|(seq, _)| *seq).eq(1..=last));
        rows.into_iter().map(|(_, event_type)| event_type).collect()
    }

    /// Makes sure that what counts members and memberships is what there are.
    pub(crate) async fn assert_counts(&self) {
        let (wrong,): (i64,) = sqlx::query_as(
            "select (select count(*) from conversations c where members <> \
                    (select count(*) from participants where conversation_id = c.id and left_seq is null)) \
                + (select count(*) from user_counts u where memberships <> \
                    (select count(*) from participants \
                        where tenant = u.tenant and user_id = u.user_id and left_seq is null))",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap();
        assert_eq!(wrong, 0);
    }

    /// Holds the conversation's lock until what it gives is rolled back. Postgres serves those who wait in their order.
    pub(crate) async fn hold(
        &self,
        conversation: ConversationId,
    ) -> sqlx::Transaction<'static, sqlx::Postgres> {
        let mut holder = self.pool.begin().await.unwrap();
        sqlx::query("select from conversations where id = $1 for no key update")
            .bind(conversation.0)
            .execute(&mut *holder)
            .await
            .unwrap();
        holder
    }

    /// Waits until this many statements wait for a lock.
    pub(crate) async fn waiters(&self, count: i64) {
        self.waiters_for(count, 0).await;
    }

    /// Waits until so many statements stand in Postgres' own queue for a lock: who only tries for a moment has no place in it.
    pub(crate) async fn queued(&self, count: i64) {
        self.waiters_for(count, 100).await;
    }

    async fn waiters_for(&self, count: i64, ms: i64) {
        let waiting = "select count(*) from pg_stat_activity \
            where datname = current_database() and wait_event_type = 'Lock' \
            and clock_timestamp() - query_start >= $1 * interval '1 ms'";
        eventually("statements wait for a lock", async || {
            let query = sqlx::query_as(waiting).bind(ms);
            let (found,): (i64,) = query.fetch_one(&self.pool).await.unwrap();
            (found == count).then_some(())
        })
        .await;
    }
}

pub(crate) fn committer(url: &str) -> Committer {
    let metrics = Metrics::new(&mut Registry::default());
    let short = || options(url).options([database::SHORT_LOCK_TIMEOUT]);
    let pool = |options| Pool::new(options, CONNECTIONS, DEADLINE);
    let pools = [pool(short()), pool(short()), pool(options(url))];
    Committer::new(pools, metrics)
}

pub(crate) fn caller(user: &str) -> Caller {
    Caller {
        tenant: "default".parse().unwrap(),
        user: user.parse().unwrap(),
        admin: false,
    }
}

/// The product's own backend, with `confab:admin`.
pub(crate) fn backend() -> Caller {
    Caller {
        admin: true,
        ..caller("backend")
    }
}

/// A group of three whose caller has this role.
pub(crate) fn locked(role: Option<Role>) -> Locked {
    Locked {
        r#type: ConversationType::Group,
        last_seq: 5,
        members: 3,
        deleted_at: None,
        role,
        was_member: role.is_some(),
        now: "2026-11-23T10:20:30.123Z".parse().unwrap(),
    }
}

/// Why it was refused.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, CommandError>) -> Code {
    match result.unwrap_err() {
        CommandError::Refused(failure) => failure.code,
        other => panic!("{other}"),
    }
}

pub(crate) fn request(user: &str, command: Command) -> Request {
    Request {
        request_id: "r-1".into(),
        traceparent: None,
        caller: caller(user),
        event: event_of(user, &command),
        command,
    }
}

/// A creation whose request is told from another by its type and users.
pub(crate) fn creation(key: &str, r#type: ConversationType, users: &[&str]) -> Command {
    let mut hash = [0; 32];
    hash[0] = u8::try_from(users.len()).unwrap();
    hash[1] = r#type.as_str().as_bytes()[0];
    Command::CreateConversation(CreateConversation {
        conversation: ConversationId(Uuid::now_v7()),
        key: key.to_owned(),
        request_hash: hash,
        r#type,
        participants: users.iter().map(|user| user.parse().unwrap()).collect(),
        metadata: JsonText::empty_object(),
    })
}

pub(crate) fn addition(conversation: ConversationId, users: &[&str]) -> Command {
    let member = |user: &&str| Member {
        user_id: user.parse().unwrap(),
        role: Role::Member,
    };
    Command::AddParticipants(AddParticipants {
        conversation,
        participants: users.iter().map(member).collect(),
        client_id: key(),
    })
}

pub(crate) fn removal(conversation: ConversationId, user: &str) -> Command {
    Command::RemoveParticipant(RemoveParticipant {
        conversation,
        user: user.parse().unwrap(),
        client_id: key(),
    })
}

pub(crate) fn key() -> ClientId {
    ClientId(Uuid::now_v7())
}

/// A message with a key of its own.
pub(crate) fn message(conversation: ConversationId, user: &str, text: &str) -> Item {
    keyed(conversation, user, text, key())
}

/// A message with this key; its text goes into the payload as it is.
pub(crate) fn keyed(
    conversation: ConversationId,
    user: &str,
    text: &str,
    client_id: ClientId,
) -> Item {
    let payload = format!(r#"{{"kind":"text","content":"{text}","metadata":{{}}}}"#);
    let message = SendMessage {
        conversation,
        message: EventId(Uuid::now_v7()),
        client_id,
        payload: JsonText::trusted(payload),
        reply_to: None,
        answer: SendAnswer::Message,
    };
    Item {
        append: messages::send(caller(user), message).unwrap(),
        deadline: soon(),
        open: Open::default(),
        origin: Origin::default(),
    }
}

pub(crate) fn sent(outcome: CommandOutcome) -> Sent {
    match outcome.unwrap() {
        Outcome::Sent(sent) => sent,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn code(outcome: CommandOutcome) -> Code {
    outcome.unwrap_err().code
}

/// The end of a generous budget.
pub(crate) fn soon() -> Instant {
    Instant::now() + DEADLINE
}

/// Waits until `look` finds something, and gives it.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let until = soon();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < until, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A count: the full one with `CONFAB_TEST_SOAK=1`, else one that keeps the whole run short.
pub(crate) fn soak(full: usize, small: usize) -> usize {
    if is_soak() { full } else { small }
}

pub(crate) fn is_soak() -> bool {
    std::env::var_os("CONFAB_TEST_SOAK").is_some_and(|value| value == "1")
}

/// A worker's connections, but for the patience that a busy machine needs: with locks, and with connections.
pub(crate) fn connections(url: &str) -> Pool {
    connections_of(url, CONNECTIONS)
}

/// The same, so many.
pub(crate) fn connections_of(url: &str, count: u32) -> Pool {
    Pool::new(options(url), count, DEADLINE)
}

/// The same for what a test looks up itself.
pub(crate) fn pool(url: &str) -> PgPool {
    PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(DEADLINE)
        .connect_lazy_with(options(url).options(KEPT))
}

fn options(url: &str) -> PgConnectOptions {
    database::options(&settings(url), "tests").unwrap()
}

/// A worker's settings on this database.
pub(crate) fn settings(url: &str) -> Settings {
    #[derive(clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        settings: Settings,
    }
    let arguments = ["worker", "--database-url", url, "--lock-timeout-ms", "7000"];
    Arguments::parse_from(arguments).settings
}
