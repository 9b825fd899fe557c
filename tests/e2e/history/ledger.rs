//! Reads the logs and memberships that Postgres holds.

use std::collections::BTreeMap;

use confab_protocol::event::{
    ConversationCreated, ConversationUpdated, EventType, ParticipantAdded, ParticipantRemoved,
    ParticipantUpdated,
};
use confab_protocol::ids::{ClientId, ConversationId, EventId, Seq, UserId};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::record::{LogAction, Millis};

/// All conversations.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    pub(crate) logs: BTreeMap<ConversationId, ConversationLog>,
    /// Whether nothing was stored after it was read: what is not in it does not exist.
    pub(crate) is_final: bool,
}

/// A conversation.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConversationLog {
    /// In the order of their seqs.
    pub(crate) rows: Vec<LogRow>,
    pub(crate) memberships: BTreeMap<UserId, Vec<MemberInterval>>,
    /// The highest of a user's read marks: each membership's is above those before.
    pub(crate) read: BTreeMap<UserId, Seq>,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogRow {
    pub(crate) seq: Seq,
    pub(crate) id: EventId,
    pub(crate) r#type: EventType,
    pub(crate) actor: UserId,
    /// When its commit began.
    pub(crate) at: Millis,
    pub(crate) action: LogAction,
    /// Whose memberships begin with it.
    pub(crate) joins: Vec<UserId>,
}

/// From the event that names the user to the one that ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemberInterval {
    pub(crate) joined: Seq,
    pub(crate) left: Option<Seq>,
}

impl ConversationLog {
    /// The event of a seq.
    pub(crate) fn row(&self, seq: Seq) -> Option<&LogRow> {
        let at = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.rows.get(at)
    }

    /// When an event's commit began.
    pub(crate) fn time(&self, seq: Seq) -> Millis {
        self.row(seq).map_or(Millis::MAX, |row| row.at)
    }

    /// How many members there are behind an event.
    pub(crate) fn members_behind(&self, seq: Seq) -> usize {
        let all = self.memberships.values().flatten();
        let present =
            |one: &&MemberInterval| one.joined <= seq && one.left.is_none_or(|left| left > seq);
        all.filter(present).count()
    }

    pub(crate) fn head(&self) -> Seq {
        self.rows.last().map_or(0, |row| row.seq)
    }

    pub(crate) fn memberships_of(&self, user: &UserId) -> &[MemberInterval] {
        self.memberships.get(user).map_or(&[], Vec::as_slice)
    }

    /// The memberships as the events say them.
    pub(crate) fn derived(&self) -> BTreeMap<UserId, Vec<MemberInterval>> {
        let mut all: BTreeMap<UserId, Vec<MemberInterval>> = BTreeMap::new();
        for row in &self.rows {
            let seq = row.seq;
            for user in &row.joins {
                let (joined, left) = (seq, None);
                all.entry(user.clone())
                    .or_default()
                    .push(MemberInterval { joined, left });
            }
            let ends = |user: &UserId| match &row.action {
                LogAction::Remove(removed) => removed == user,
                action => *action == LogAction::End,
            };
            for (_, memberships) in all.iter_mut().filter(|(user, _)| ends(user)) {
                let open = memberships.iter_mut().find(|one| one.left.is_none());
                open.into_iter().for_each(|one| one.left = Some(seq));
            }
        }
        all
    }
}

type Columns = (
    Uuid,
    i64,
    Uuid,
    String,
    String,
    i64,
    Option<Uuid>,
    Option<i64>,
    String,
);

impl Ledger {
    /// Reads it in one snapshot.
    ///
    /// # Errors
    /// When Postgres is away.
    pub(crate) async fn read(store: &PgPool, is_final: bool) -> Result<Self, sqlx::Error> {
        let mut snapshot = store.begin().await?;
        sqlx::query("set transaction isolation level repeatable read, read only")
            .execute(&mut *snapshot)
            .await?;
        let mut logs = read_rows(&mut snapshot).await?;
        let memberships: Vec<(Uuid, String, i64, Option<i64>, i64)> = sqlx::query_as(
            "select conversation_id, user_id, joined_seq, left_seq, last_read_seq from participants order by conversation_id, user_id, joined_seq",
        )
        .fetch_all(&mut *snapshot)
        .await?;
        snapshot.rollback().await?;
        for (conversation, user, joined, left, read) in memberships {
            let log = logs.entry(ConversationId(conversation)).or_default();
            let user: UserId = user.parse().unwrap();
            let highest = log.read.entry(user.clone()).or_default();
            *highest = number(read).max(*highest);
            let memberships = log.memberships.entry(user).or_default();
            memberships.push(MemberInterval {
                joined: number(joined),
                left: left.map(number),
            });
        }
        Ok(Self { logs, is_final })
    }
}

async fn read_rows(
    snapshot: &mut Transaction<'_, Postgres>,
) -> Result<BTreeMap<ConversationId, ConversationLog>, sqlx::Error> {
    let rows: Vec<Columns> = sqlx::query_as(
        "select conversation_id, seq, id, type, actor, (extract(epoch from created_at) * 1000)::bigint, client_id, target_seq, payload from events order by conversation_id, seq",
    )
    .fetch_all(&mut **snapshot)
    .await?;
    let mut logs: BTreeMap<ConversationId, ConversationLog> = BTreeMap::new();
    for (conversation, seq, id, r#type, actor, at, client_id, target, payload) in rows {
        let log = logs.entry(ConversationId(conversation)).or_default();
        let (r#type, target) = (r#type.parse().unwrap(), target.map(number));
        let target = target.and_then(|seq| log.row(seq)).map(|row| row.id);
        let (action, joins) = action(r#type, client_id.map(ClientId), target, &payload);
        log.rows.push(LogRow {
            seq: number(seq),
            id: EventId(id),
            r#type,
            actor: actor.parse().unwrap(),
            at,
            action,
            joins,
        });
    }
    Ok(logs)
}

fn number(seq: i64) -> Seq {
    seq.try_into().unwrap()
}

/// What an event says was done, and whom it names as new members.
fn action(
    r#type: EventType,
    client_id: Option<ClientId>,
    target: Option<EventId>,
    payload: &str,
) -> (LogAction, Vec<UserId>) {
    let users = |members: Vec<confab_protocol::event::Member>| {
        let users = members.into_iter().map(|member| member.user_id);
        users.collect::<Vec<_>>()
    };
    let action = match r#type {
        EventType::ConversationCreated => {
            let created: ConversationCreated = parse(payload);
            return (LogAction::Create, users(created.participants));
        }
        EventType::ParticipantAdded => {
            let added: ParticipantAdded = parse(payload);
            let users = users(added.participants);
            return (LogAction::Add(users.clone()), users);
        }
        EventType::MessageCreated => LogAction::Send(client_id.unwrap()),
        EventType::MessageEdited => LogAction::Edit(target.unwrap()),
        EventType::MessageDeleted => LogAction::Delete(target.unwrap()),
        EventType::ParticipantRemoved => {
            LogAction::Remove(parse::<ParticipantRemoved>(payload).user_id)
        }
        EventType::ParticipantUpdated => {
            let updated: ParticipantUpdated = parse(payload);
            LogAction::Role(updated.user_id, updated.role.as_str().to_owned())
        }
        EventType::ConversationUpdated => {
            let updated: ConversationUpdated = parse(payload);
            let metadata: Value = serde_json::from_str(updated.metadata.as_str()).unwrap();
            LogAction::Name(metadata["name"].as_str().unwrap_or_default().to_owned())
        }
        EventType::ConversationDeleted => LogAction::End,
    };
    (action, Vec::new())
}

fn parse<T: DeserializeOwned>(payload: &str) -> T {
    serde_json::from_str(payload).unwrap_or_else(|error| panic!("{error}: {payload}"))
}
