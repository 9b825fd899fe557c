//! What was edited or deleted away stands in no table: neither as it was, nor as anything that it could be found by.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::{
    BASE64_STANDARD_NO_PAD as STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD,
};
use confab_protocol::command::{Command, CreateConversation, SendMessage};
use confab_protocol::json::JsonText;
use confab_protocol::resource::ConversationType;

use crate::commit::Item;
use crate::messages;
use crate::origin::Origin;
use crate::planner::Open;
use crate::testing::{
    Fixture, backend, caller, creation, edit, key, message, removal, sent, soon, unsend,
};

/// The rows of every table as text, with the table's name before each.
async fn everything(fixture: &Fixture) -> Vec<String> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select quote_ident(tablename) from pg_tables where schemaname = 'public'",
    )
    .fetch_all(&fixture.pool)
    .await
    .unwrap();
    assert!(tables.len() >= 10, "{tables:?}");
    let mut rows = Vec::new();
    for table in tables {
        let all = format!("select '{table}: ' || t::text from {table} t");
        let found: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(all))
            .fetch_all(&fixture.pool)
            .await
            .unwrap();
        rows.extend(found);
    }
    rows
}

/// Bytes in hexadecimal, and in both alphabets of base64 (RFC 4648), without what depends on the bytes behind them.
fn written(bytes: &[u8]) -> [String; 3] {
    let whole = &bytes[..bytes.len() - bytes.len() % 3];
    [
        bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        STANDARD_NO_PAD.encode(whole),
        URL_SAFE_NO_PAD.encode(whole),
    ]
}

/// The rows that hold a text, or its hash or that of a payload with it, as it is or in hexadecimal or base64.
async fn found(fixture: &Fixture, texts: &[&str]) -> Vec<String> {
    let mut traces: Vec<String> = Vec::new();
    for text in texts {
        let hash = digest(&SHA256, text.as_bytes());
        traces.extend(written(hash.as_ref()));
        traces.extend(written(text.as_bytes()));
        traces.push((*text).to_owned());
    }
    let mut rows = everything(fixture).await;
    rows.retain(|row| traces.iter().any(|trace| row.contains(trace)));
    rows
}

fn with_payload(item: Item, payload: &str) -> Item {
    let message = SendMessage {
        payload: JsonText::trusted(payload.to_owned()),
        ..item.append.message
    };
    Item {
        append: messages::send(caller("alice"), message).unwrap(),
        deadline: soon(),
        open: Open::default(),
        origin: Origin::default(),
    }
}

#[tokio::test]
async fn deleted_content_is_in_no_table() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let payloads = [
        r#"{"kind":"text","content":"my pin is 532316","payloadSizeBytes":null,"replyTo":null,"metadata":{"m":"pin-metadata"}}"#,
        r#"{"kind":"text","content":"my pin is 904187","payloadSizeBytes":null,"replyTo":null,"metadata":{}}"#,
    ];
    let mut texts = payloads.to_vec();
    texts.extend([
        "532316",
        "904187",
        "pin-metadata",
        "my pin is 532316",
        "\"my pin is 532316\"",
    ]);
    texts.extend(["771290", "my pin is 771290", "\"my pin is 771290\""]);
    let mut ids = Vec::new();
    let alone = with_payload(message(group, "alice", ""), payloads[0]);
    ids.push(sent(fixture.send(alone).await).message_id);
    let batch = [
        with_payload(message(group, "alice", ""), payloads[1]),
        message(group, "bob", "filler"),
    ];
    let batch = fixture.committer.finish_batch(&batch).await.outcomes;
    ids.push(sent(batch[0].clone()).message_id);
    assert!(found(&fixture, &texts).await.len() >= 2);
    // One is edited first, once more to what it says already, and each edit and deletion is repeated.
    let commands = [
        edit(None, ids[0], "my pin is 771290"),
        edit(None, ids[0], "my pin is 771290"),
        edit(None, ids[0], "harmless"),
        unsend(None, ids[0]),
        unsend(None, ids[0]),
        edit(None, ids[1], "harmless"),
    ];
    for command in commands {
        for _ in 0..2 {
            fixture.alone("alice", command.clone()).await.0.unwrap();
        }
    }
    let left = found(&fixture, &texts).await;
    assert!(left.is_empty(), "{left:?}");
    let settled: i64 = sqlx::query_scalar("select count(*) from settled_keys")
        .fetch_one(&fixture.pool)
        .await
        .unwrap();
    assert_eq!(settled, 2, "an edit and a deletion that changed nothing");
    fixture
        .alone("alice", unsend(None, ids[1]))
        .await
        .0
        .unwrap();
    let left = found(&fixture, &["harmless", "\"harmless\""]).await;
    assert!(left.is_empty(), "{left:?}");
}

/// A deleted conversation keeps its log. Nothing beside that tells what it was created with, and nothing at all what was refused.
#[tokio::test]
async fn creation_is_kept_in_its_log_alone() {
    let fixture = Fixture::new().await;
    let body = r#"{"type":"group","participants":["bob"],"metadata":{"name":"pin 532316"}}"#;
    let with_body = |command: Command| {
        let Command::CreateConversation(create) = command else {
            panic!("a creation");
        };
        let metadata = r#"{"name":"pin 532316"}"#.to_owned();
        Command::CreateConversation(CreateConversation {
            request_hash: digest(&SHA256, body.as_bytes())
                .as_ref()
                .try_into()
                .unwrap(),
            metadata: JsonText::trusted(metadata),
            ..create
        })
    };
    let command = with_body(creation("k", ConversationType::Group, &["bob"]));
    fixture.alone("alice", command).await.0.unwrap();
    let direct = || {
        with_body(creation(
            &key().to_string(),
            ConversationType::Direct,
            &["alice", "bob"],
        ))
    };
    for is_refused in [false, true] {
        let (outcome, _) = fixture.alone("alice", direct()).await;
        assert_eq!(outcome.is_err(), is_refused);
    }
    let tables = async || {
        let rows = found(&fixture, &["pin 532316", body]).await;
        let tables = rows
            .iter()
            .map(|row| row.split(':').next().unwrap().to_owned());
        let mut tables: Vec<_> = tables.collect();
        tables.dedup();
        tables
    };
    let mut named = tables().await;
    named.sort_unstable();
    named.dedup();
    assert_eq!(named, ["conversations", "events"]);

    let id: uuid::Uuid = sqlx::query_scalar("select id from conversations where type = 'group'")
        .fetch_one(&fixture.pool)
        .await
        .unwrap();
    let id = confab_protocol::ids::ConversationId(id);
    for user in ["bob", "alice"] {
        let leaving = removal(id, user);
        fixture.alone_as(backend(), leaving).await.0.unwrap();
    }
    let kept = "select count(*) from creation_keys where key = 'k' and request_hash is null and hash_key is null";
    let kept: i64 = sqlx::query_scalar(kept)
        .fetch_one(&fixture.pool)
        .await
        .unwrap();
    assert_eq!(kept, 1, "the last one who left took it along");
}
