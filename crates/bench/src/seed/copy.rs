//! Writes a seed by COPY, in the order of the events' times; the log's indexes are made behind it.
//!
//! The log is written once: rows that are copied in the transaction that emptied their table are frozen as they come, so that the vacuum
//! behind it has no page to write again.

use std::fmt::Write as _;

use confab_protocol::event::{ConversationCreated, EventType, Member};
use confab_protocol::json::JsonText;
use confab_protocol::resource::{Conversation, ConversationType, MessageBody, Role};
use confab_protocol::timestamp::Timestamp;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use time::OffsetDateTime;

use super::{Seed, conversation_id, id, user_id, user_name};
use crate::Error;

/// Bytes that are handed to Postgres at once.
const COPY_CHUNK_BYTES: usize = 1 << 20;
/// The kinds of ids beside conversations'.
const EVENT_ID: u8 = 1;
const CLIENT_ID: u8 = 2;

/// Fills an empty database with confab's schema; `tell` hears what goes on.
pub(crate) async fn fill(database: &str, seed: &Seed, tell: impl Fn(String)) -> Result<(), Error> {
    seed.check()?;
    let mut postgres = PgConnection::connect(database).await?;
    run(&mut postgres, "set maintenance_work_mem = '512MB'").await?;
    let definitions = take_indexes(&mut postgres).await?;
    let mut last = vec![0; usize::try_from(seed.conversations).unwrap_or(usize::MAX)];
    run(&mut postgres, "begin; truncate events").await?;
    events(&mut postgres, seed, &mut last, &tell).await?;
    run(&mut postgres, "commit").await?;
    for definition in definitions {
        tell(definition.clone());
        run(&mut postgres, &definition).await?;
    }
    tell("what is projected from the log is written".to_owned());
    projections(&mut postgres, seed, &last).await?;
    tell("vacuuming".to_owned());
    for table in [
        "events",
        "conversations",
        "participants",
        "recents",
        "user_counts",
    ] {
        run(&mut postgres, &format!("vacuum (freeze, analyze) {table}")).await?;
    }
    run(&mut postgres, "checkpoint").await?;
    Ok(postgres.close().await?)
}

/// Drops the log's indexes; gives the statements that make them again.
async fn take_indexes(postgres: &mut PgConnection) -> Result<Vec<String>, Error> {
    let mut definitions = Vec::new();
    let keys = "select conname, pg_get_constraintdef(oid) from pg_constraint \
        where conrelid = 'events'::regclass and contype = 'p'";
    let keys: Vec<(String, String)> = sqlx::query_as(keys).fetch_all(&mut *postgres).await?;
    for (name, definition) in keys {
        run(
            postgres,
            &format!("alter table events drop constraint {name}"),
        )
        .await?;
        definitions.push(format!(
            "alter table events add constraint {name} {definition}"
        ));
    }
    let indexes = "select indexname, indexdef from pg_indexes \
        where schemaname = current_schema() and tablename = 'events'";
    let indexes: Vec<(String, String)> = sqlx::query_as(indexes).fetch_all(&mut *postgres).await?;
    for (name, definition) in indexes {
        run(postgres, &format!("drop index {name}")).await?;
        definitions.push(definition);
    }
    Ok(definitions)
}

async fn run(postgres: &mut PgConnection, statement: &str) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(postgres)
        .await?;
    Ok(())
}

/// The log; gives, for each conversation, which event is its last one.
async fn events(
    postgres: &mut PgConnection,
    seed: &Seed,
    last: &mut [u64],
    tell: impl Fn(String),
) -> Result<(), Error> {
    let mut copy = postgres
        .copy_in_raw("copy events (conversation_id, seq, id, type, actor, client_id, created_at, payload, messages, actor_messages) from stdin (freeze)")
        .await?;
    let mut rows = String::with_capacity(COPY_CHUNK_BYTES + 4096);
    for n in 0..seed.events {
        let (conversation, seq) = seed.place(n);
        if let Some(last) = usize::try_from(conversation)
            .ok()
            .and_then(|at| last.get_mut(at))
        {
            *last = n;
        }
        event(&mut rows, seed, n, (conversation, seq))?;
        if rows.len() >= COPY_CHUNK_BYTES {
            copy.send(rows.as_bytes()).await?;
            rows.clear();
            tell(format!("{n} of {} events are written", seed.events));
        }
    }
    copy.send(rows.into_bytes()).await?;
    copy.finish().await?;
    Ok(())
}

fn event(
    rows: &mut String,
    seed: &Seed,
    n: u64,
    (conversation, seq): (u64, u64),
) -> Result<(), Error> {
    let at = Seed::at(n);
    let (event_type, payload) = if seq == 1 {
        let payload = creation(seed, conversation, at)?;
        (EventType::ConversationCreated, payload)
    } else {
        (EventType::MessageCreated, message(n, seed.text)?)
    };
    let messages = seq - 1;
    // Members send in turns.
    let own = match messages {
        0 => r"\N".to_owned(),
        sent => sent.div_ceil(seed.members).to_string(),
    };
    let row = writeln!(
        rows,
        "{}\t{seq}\t{}\t{}\t{}\t{}\t{}\t{}\t{messages}\t{own}",
        conversation_id(conversation),
        id(n, EVENT_ID),
        event_type.as_str(),
        user_name(seed.member(conversation, seq - 1)),
        id(n, CLIENT_ID),
        Timestamp::new(at),
        payload.replace('\\', r"\\"),
    );
    row.map_err(|_full| Error::Failed("a row could not be written".to_owned()))
}

/// The payload of a message, as gateways encode it.
pub(crate) fn message(n: u64, text: usize) -> Result<String, Error> {
    let text = format!("{:x<text$}", format!("message {n} "));
    let body = MessageBody {
        kind: "text".to_owned(),
        content: Some(JsonText::of(&serde_json::json!({ "text": text }))?),
        encrypted_content: None,
        payload_size_bytes: None,
        reply_to: None,
        metadata: JsonText::empty_object(),
    };
    Ok(serde_json::to_string(&body)?)
}

fn metadata(conversation: u64) -> String {
    format!(r#"{{"title":"Conversation {conversation}"}}"#)
}

/// The payload of a conversation's first event.
fn creation(seed: &Seed, number: u64, at: OffsetDateTime) -> Result<String, Error> {
    let at = Timestamp::new(at);
    let members = (0..seed.members).map(|place| {
        Ok::<_, Error>(Member {
            user_id: user_id(seed.member(number, place))?,
            role: if place == 0 {
                Role::Admin
            } else {
                Role::Member
            },
        })
    });
    let data = ConversationCreated {
        conversation: Conversation {
            id: conversation_id(number),
            r#type: ConversationType::Group,
            metadata: JsonText::trusted(metadata(number)),
            version: 1,
            created_by: user_id(seed.member(number, 0))?,
            created_at: at,
            updated_at: at,
            deleted_at: None,
            last_seq: 1,
            last_event_at: at,
            role: None,
            joined_at: None,
            last_read_seq: None,
            unread_count: None,
            last_message: None,
            members: None,
            member_count: None,
        },
        participants: members.collect::<Result<_, _>>()?,
    };
    Ok(serde_json::to_string(&data)?)
}

/// What is projected from the log: conversations, memberships, what lists by the last event are made from, and counts.
async fn projections(postgres: &mut PgConnection, seed: &Seed, last: &[u64]) -> Result<(), Error> {
    let (mut conversations, mut participants, mut recents) =
        (String::new(), String::new(), String::new());
    for (number, last) in (0..).zip(last) {
        let (id, head) = (conversation_id(number), seed.head(number));
        let (begun, at) = (
            Timestamp::new(Seed::at(number)),
            Timestamp::new(Seed::at(*last)),
        );
        let message = if head > 1 {
            head.to_string()
        } else {
            r"\N".to_owned()
        };
        let creator = user_name(seed.member(number, 0));
        conversations += &format!(
            "{id}\tdefault\tgroup\t{}\t{creator}\t{begun}\t{begun}\t{head}\t{message}\t{at}\t{at}\t{}\t{}\n",
            metadata(number),
            seed.members,
            head - 1
        );
        for place in 0..seed.members {
            let user = user_name(seed.member(number, place));
            let role = if place == 0 { "admin" } else { "member" };
            // Some have read all, some not yet.
            let read = head.saturating_sub((number + place) % 20).max(1);
            participants +=
                &format!("{id}\t{user}\t1\tdefault\t{role}\t{place}\t{begun}\t{read}\n");
            recents += &format!("{id}\t{user}\tdefault\tgroup\t{at}\n");
        }
    }
    let counts = "insert into user_counts (tenant, user_id, memberships) \
        select tenant, user_id, count(*) from participants group by 1, 2";
    for (into, rows) in [
        (
            "conversations (id, tenant, type, metadata, created_by, created_at, updated_at, last_seq, last_message_seq, last_event_at, active_at, members, messages)",
            conversations,
        ),
        (
            "participants (conversation_id, user_id, joined_seq, tenant, role, position, joined_at, last_read_seq)",
            participants,
        ),
        (
            "recents (conversation_id, user_id, tenant, type, active_at)",
            recents,
        ),
    ] {
        let mut copy = postgres
            .copy_in_raw(&format!("copy {into} from stdin"))
            .await?;
        for piece in rows.as_bytes().chunks(COPY_CHUNK_BYTES) {
            copy.send(piece).await?;
        }
        copy.finish().await?;
    }
    run(postgres, counts).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_one_line_of_ten_columns() {
        let seed = Seed {
            events: 10,
            conversations: 2,
            members: 2,
            text: 20,
        };
        for n in [0, 5] {
            let mut row = String::new();
            event(&mut row, &seed, n, seed.place(n)).unwrap();
            assert_eq!(row.matches('\n').count(), 1);
            assert_eq!(row.trim_end().split('\t').count(), 10, "{row}");
        }
        let payload = message(5, 20).unwrap();
        assert!(
            payload.contains(r#"{"text":"message 5 xxxxxxxxxx"}"#),
            "{payload}"
        );
    }
}
