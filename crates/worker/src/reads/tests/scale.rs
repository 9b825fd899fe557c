//! What pages cost in a large installation, beside an empty one: in plans and in what they touch, never in time.

use std::time::{Duration, Instant};

use confab_protocol::ids::ConversationId;
use confab_protocol::query::{History, ListConversations, ListOrder, Query};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection, PgPool, Row as _};
use uuid::Uuid;

use super::super::{ROOM, conversations, events, history, list, messages, participants};
use super::ask;
use crate::testing::{Fixture, caller, message, sent, soak};

/// Conversations of the user in many of them.
const MANY: i32 = 5000;
/// Members of the large channel.
const MEMBERS: i64 = 20_000;

#[tokio::test]
async fn a_page_of_a_large_installation_touches_what_one_of_an_empty_one_does() {
    let fixture = Fixture::new().await;
    for table in ["conversations", "participants", "recents", "events"] {
        let off = format!("alter table {table} set (autovacuum_enabled = off)");
        execute(&fixture.pool, &off).await;
    }
    let empty = Case::begin(&fixture, "alice", 150, 2000, 1500).await;
    let before = empty.measure(&fixture).await;
    let events = i64::try_from(soak(1_000_000, 100_000)).unwrap();
    let large = Case::begin(&fixture, "bob", MANY, events, MEMBERS).await;
    // Nothing was analyzed yet: plans are those of empty tables.
    let grown = large.measure(&fixture).await;
    execute(&fixture.pool, "analyze").await;
    let analyzed = large.measure(&fixture).await;
    for (small, measured) in before.iter().cycle().zip(grown.iter().chain(&analyzed)) {
        println!(
            "{}: {} -> {} buffers, {} -> {} rows",
            measured.name, small.buffers, measured.buffers, small.rows, measured.rows
        );
        // A tree of a million entries is deeper by one or two pages a look-up.
        assert!(measured.buffers <= small.buffers * 2 + 150, "{measured:#?}");
        assert!(measured.rows <= small.rows + 100, "{measured:#?}");
    }
    for (name, query) in empty.queries() {
        let small = time(&fixture, &query).await;
        let (_, query) = large
            .queries()
            .into_iter()
            .find(|(n, _)| *n == name)
            .unwrap();
        let grown = time(&fixture, &query).await;
        println!(
            "{name}: {small:?} beside few, {grown:?} beside {events} events and {MANY} conversations"
        );
    }
}

/// A user with many conversations, and a channel with a long log.
struct Case {
    user: &'static str,
    channel: ConversationId,
    conversations: i32,
    events: i64,
    message: Uuid,
    connection_url: String,
}

/// What a statement has touched.
#[derive(Debug)]
struct Measured {
    name: &'static str,
    buffers: i64,
    rows: i64,
}

impl Case {
    async fn begin(
        fixture: &Fixture,
        user: &'static str,
        conversations: i32,
        events: i64,
        members: i64,
    ) -> Self {
        begin_many(&fixture.pool, user, conversations).await;
        let channel = fixture.group(&[user]).await;
        fill(&fixture.pool, channel, user, events, members).await;
        let message = sent(fixture.send(message(channel, user, "last")).await).message_id;
        Self {
            user,
            channel,
            conversations,
            events,
            message: message.0,
            connection_url: fixture.url.clone(),
        }
    }

    /// Each statement, with the types of its parameters and their values.
    fn statements(&self) -> Vec<(&'static str, String, &'static str, String)> {
        let (user, channel, message) = (self.user, self.channel, self.message);
        let (end, middle) = (self.events + 1, self.events / 2);
        let all = "'{direct,group,channel}'";
        let recent = |at: &str| {
            format!("'default', '{user}', {all}, 'ffffffff-ffff-ffff-ffff-ffffffffffff', 51, {at}")
        };
        let created = |examined| {
            format!(
                "'default', '{user}', {all}, 'ffffffff-ffff-ffff-ffff-ffffffffffff', 51, {examined}"
            )
        };
        let history = |from: i64, kind: &str| {
            format!(
                "'{channel}', {from}, {}, null, {kind}, 51, {ROOM}",
                from + 1000
            )
        };
        let from = |seq: i64| format!("'{channel}', {seq}, 0, 101");
        let typed = "text, text, text[], uuid, bigint";
        let by_recent = format!("{typed}, timestamptz").leak();
        let by_created = format!("{typed}, bigint").leak();
        let ranged = "uuid, bigint, bigint, text, text, bigint, bigint";
        let listed = "uuid, bigint, integer, bigint";
        let since = "select first_seq_since($1, $2, $3)".to_owned();
        let at = format!("'{channel}', {end}, now() - {middle} * interval '1 second'");
        let one = format!("'{channel}', '{user}'");
        let get = format!("'{message}', 'default', '{user}'");
        let log = format!("'{channel}', 'default', {middle}, {end}, {ROOM}, 1000");
        let list = |order| list::statement(order);
        vec![
            (
                "recent",
                list(ListOrder::Recent),
                by_recent,
                recent("'9999-12-31'"),
            ),
            (
                "recent, deep",
                list(ListOrder::Recent),
                by_recent,
                recent(&format!(
                    "now() - {} * interval '5 seconds'",
                    self.conversations
                )),
            ),
            ("created", list(ListOrder::Created), by_created, created(51)),
            (
                "created, a type",
                list(ListOrder::Created),
                by_created,
                created(1000),
            ),
            (
                "history",
                history::STATEMENT.to_owned(),
                ranged,
                history(end - 1000, "null"),
            ),
            (
                "history, nothing of it",
                history::STATEMENT.to_owned(),
                ranged,
                history(middle, r#"'{"kind":"image",'"#),
            ),
            ("since", since, "uuid, bigint, timestamptz", at),
            (
                "log",
                events::range(),
                "uuid, text, bigint, bigint, bigint, bigint",
                log,
            ),
            (
                "message",
                messages::STATEMENT.to_owned(),
                "uuid, text, text",
                get,
            ),
            (
                "conversation",
                conversations::statement(),
                "uuid, text",
                one,
            ),
            (
                "participants",
                participants::statement("left_seq is null"),
                listed,
                from(2),
            ),
            (
                "participants ever",
                participants::statement("true"),
                listed,
                from(2),
            ),
            (
                "admins",
                participants::statement("left_seq is null and role = 'admin'"),
                listed,
                from(0),
            ),
        ]
    }

    /// Runs each statement as workers have it planned; none scans a table, or sorts more than a page.
    async fn measure(&self, fixture: &Fixture) -> Vec<Measured> {
        drop(fixture.pool.acquire().await.unwrap());
        let mut connection = PgConnection::connect(&self.connection_url).await.unwrap();
        for setting in crate::database::PLANS {
            let text = format!("set {} = {}", setting.0, setting.1);
            sqlx::query(sqlx::AssertSqlSafe(text))
                .execute(&mut connection)
                .await
                .unwrap();
        }
        let mut all = Vec::new();
        for (n, (name, text, types, values)) in self.statements().into_iter().enumerate() {
            let prepare = format!("prepare s{n}({types}) as {text}");
            sqlx::query(sqlx::AssertSqlSafe(prepare))
                .execute(&mut connection)
                .await
                .unwrap();
            let execute = format!("explain (analyze, buffers, format json) execute s{n}({values})");
            // The second time, as all but the first: dead entries were marked, the catalog is known.
            let mut plan = Value::Null;
            for _ in 0..2 {
                let row = sqlx::query(sqlx::AssertSqlSafe(execute.clone()))
                    .fetch_one(&mut connection)
                    .await
                    .unwrap();
                let text: String = row.try_get_unchecked(0).unwrap();
                plan = serde_json::from_str::<Value>(&text).unwrap()[0]["Plan"].take();
            }
            let mut rows = 0;
            walk(&plan, &mut |node| rows += look(name, node));
            let pages = |name: &str| plan[name].as_i64().unwrap();
            all.push(Measured {
                name,
                buffers: pages("Shared Hit Blocks") + pages("Shared Read Blocks"),
                rows,
            });
        }
        all
    }

    fn queries(&self) -> Vec<(&'static str, Query)> {
        let list = |order| ListConversations {
            caller: caller(self.user),
            limit: 50,
            cursor: None,
            r#type: None,
            order,
        };
        let history = History {
            caller: caller(self.user),
            conversation: self.channel,
            limit: 50,
            before: None,
            after: None,
            cursor: None,
            sender: None,
            kind: None,
            from: None,
            to: None,
        };
        vec![
            ("recent", Query::ListConversations(list(ListOrder::Recent))),
            (
                "created",
                Query::ListConversations(list(ListOrder::Created)),
            ),
            ("history", Query::History(history)),
        ]
    }
}

fn walk(node: &Value, look: &mut impl FnMut(&Value)) {
    look(node);
    for child in node["Plans"].as_array().into_iter().flatten() {
        walk(child, look);
    }
}

/// How many rows a node of a plan has read.
fn look(name: &str, node: &Value) -> i64 {
    let kind = node["Node Type"].as_str().unwrap();
    for bad in ["Seq Scan", "Bitmap", "Hash Join", "Merge Join"] {
        assert!(!kind.contains(bad), "{name}: {node:#}");
    }
    let number = |name: &str| node[name].as_f64().unwrap_or_default();
    let loops = number("Actual Loops");
    if kind.contains("Sort") {
        assert!(number("Actual Rows") * loops <= 300.0, "{name}: {node:#}");
    }
    if !kind.starts_with("Index") {
        return 0;
    }
    let removed = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
    format!("{:.0}", (number("Actual Rows") + removed) * loops)
        .parse()
        .unwrap()
}

/// Groups of a user whose last events lie ten seconds apart, within the minute of `recents`; each with a message.
pub(super) async fn begin_many(pool: &PgPool, user: &str, count: i32) {
    let ids: Vec<Uuid> = (0..count).map(|_| Uuid::now_v7()).collect();
    sqlx::query(
        "with begun as ( \
            insert into conversations (id, tenant, type, metadata, created_by, created_at, updated_at, last_seq, \
                last_message_seq, last_event_at, active_at, members) \
            select id, 'default', 'group', '{}', $2, at, at, 2, 2, at, at - n % 59 * interval '1 second', 1 \
            from unnest($1::uuid[]) with ordinality as t(id, n) \
            cross join lateral (select date_trunc('milliseconds', now()) - n * interval '10 seconds' as at) a \
            returning id, active_at, last_event_at), \
        joined as ( \
            insert into participants \
                (conversation_id, user_id, joined_seq, tenant, role, position, joined_at, last_read_seq) \
            select id, $2, 1, 'default', 'admin', 0, last_event_at, 1 from begun), \
        listed as ( \
            insert into recents (conversation_id, user_id, tenant, type, active_at) \
            select id, $2, 'default', 'group', active_at from begun) \
        insert into events (conversation_id, seq, id, type, actor, created_at, payload) \
        select id, n, gen_random_uuid(), case n when 1 then 'conversation.created' else 'message.created' end, $2, \
            last_event_at, '{\"kind\":\"text\",\"content\":1,\"payloadSizeBytes\":null,\"replyTo\":null,\"metadata\":{}}' \
        from begun cross join generate_series(1, 2) as n",
    )
    .bind(ids)
    .bind(user)
    .execute(pool)
    .await
    .unwrap();
}

/// Fills a conversation's log, an event a second, and its members; its first one has read nothing.
async fn fill(pool: &PgPool, conversation: ConversationId, user: &str, events: i64, members: i64) {
    sqlx::query(
        "insert into events (conversation_id, seq, id, type, actor, created_at, payload) \
         select $1, n, gen_random_uuid(), 'message.created', 'u' || n % 100, now() - ($2 - n) * interval '1 second', \
            '{\"kind\":\"text\",\"content\":\"' || repeat('x', 200) || '\",\"payloadSizeBytes\":null,\"replyTo\":null,\"metadata\":{}}' \
         from generate_series(2, $2) as n",
    )
    .bind(conversation.0)
    .bind(events)
    .execute(pool)
    .await
    .unwrap();
    sqlx::query(
        "insert into participants (conversation_id, user_id, joined_seq, tenant, role, position, joined_at, left_seq, \
            left_at, last_read_seq) \
         select $1, $2 || 's' || n, 2 + n / 1000, 'default', 'member', n % 1000, now(), \
            case when n % 2 = 0 then 2 + n end, case when n % 2 = 0 then now() end, 2 from generate_series(1, $3) as n",
    )
    .bind(conversation.0)
    .bind(user)
    .bind(members)
    .execute(pool)
    .await
    .unwrap();
    sqlx::query(
        "update conversations set last_seq = $2, last_message_seq = $2, last_event_at = now(), members = 1 + $3 / 2 \
         where id = $1",
    )
    .bind(conversation.0)
    .bind(events)
    .bind(members)
    .execute(pool)
    .await
    .unwrap();
}

async fn execute(pool: &PgPool, text: &str) {
    sqlx::query(sqlx::AssertSqlSafe(text.to_owned()))
        .execute(pool)
        .await
        .unwrap();
}

/// The median time of a query.
async fn time(fixture: &Fixture, query: &Query) -> Duration {
    let mut times = Vec::new();
    for _ in 0..21 {
        let began = Instant::now();
        ask(fixture, query.clone()).await;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times[10]
}
