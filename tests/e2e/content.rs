//! After an edit or a deletion every reader gets the same content, and the old content is gone.

use std::time::Duration;

use confab_protocol::event::EventType;
use confab_protocol::ids::{ConversationId, Seq};
use serde_json::{Value, json};

use crate::support::{Cluster, Setup, User, id_of};

mod storm;

const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);
/// In all content and metadata that must not be found again.
const CONTENT_MARKER: &str = "zq7Marker";
const MESSAGES_PATH: &str = "/v1/messages";

/// A conversation of two, and one message of it.
struct Fixture {
    cluster: Cluster,
    alice: User,
    bob: User,
    path: String,
    /// What was sent.
    send: Value,
    /// The message's path.
    route: String,
    seq: Seq,
}

impl Fixture {
    /// A message with the marker in its content and, where it `is_deletion` that follows, in its metadata.
    async fn begin(is_deletion: bool) -> Self {
        let cluster = Cluster::start(Setup::default()).await;
        let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
        let path = alice.begins(0, "group", &["bob"]).await;
        bob.says(1, &path, "before it").await;
        let metadata = if is_deletion {
            json!({"m": CONTENT_MARKER})
        } else {
            json!({"m": 1})
        };
        let send = json!({
            "conversationId": id_of(&path),
            "clientId": "01890a5d-ac96-774b-bcce-b302099a8057",
            "kind": "text",
            "content": {"text": format!("{CONTENT_MARKER} 1")},
            "metadata": metadata,
        });
        let sent = alice.post(0, MESSAGES_PATH, send.clone()).await.ok(201);
        Self {
            route: format!("{MESSAGES_PATH}/{}", sent.text("/message/id")),
            seq: sent["message"]["seq"].as_u64().unwrap(),
            cluster,
            alice,
            bob,
            path,
            send,
        }
    }

    fn conversation(&self) -> ConversationId {
        id_of(&self.path).parse().unwrap()
    }

    /// Every answer of every route that could tell of the message, to either user at either gateway.
    async fn everything(&self) -> Vec<(String, Value)> {
        let routes = [
            self.route.clone(),
            self.path.clone(),
            format!("{}/messages", self.path),
            format!("/v1/messages/conversation/{}", id_of(&self.path)),
            format!("{}/messages?sender=alice&kind=text", self.path),
            format!("{}/events", self.path),
            format!("{}/participants?includeLeft=true", self.path),
            "/v1/conversations".to_owned(),
            "/v1/conversations?order=created&type=group".to_owned(),
        ];
        let mut answers = Vec::new();
        for user in [&self.alice, &self.bob] {
            for gateway in 0..2 {
                for route in &routes {
                    let answer = user.get(gateway, route).await.ok(200);
                    answers.push((format!("GET {route} by {}", user.id), answer.body));
                }
            }
        }
        for gateway in 0..2 {
            let repeat = self
                .alice
                .post(gateway, MESSAGES_PATH, self.send.clone())
                .await;
            answers.push((format!("repeat {gateway}"), repeat.ok(201).body));
        }
        answers
    }

    /// What a client that comes now, with nothing, has of the log at either gateway.
    async fn told_later(&self) -> Vec<(String, Value)> {
        let conversation = self.conversation();
        let mut told = Vec::new();
        for (user, gateway) in [(&self.alice, 1), (&self.bob, 0), (&self.bob, 1)] {
            let log = user.comes_late(conversation, gateway).await;
            let seqs: Vec<Seq> = log.iter().map(|event| event.seq).collect();
            assert_eq!(seqs, (1..=log.len() as Seq).collect::<Vec<_>>());
            let log = serde_json::to_value(log).unwrap();
            told.push((format!("{} comes to {gateway}", user.id), log));
        }
        told
    }

    /// Asserts that all that is served of the message is this, and that the marker is nowhere.
    async fn assert_served(&self, message: &Value) {
        let mut answers = self.everything().await;
        answers.extend(self.told_later().await);
        let mut seen = 0;
        for (place, answer) in &answers {
            let text = answer.to_string();
            assert!(!text.contains(CONTENT_MARKER), "{place}: {text}");
            let mut found = Vec::new();
            messages(answer, &message["id"], &mut found);
            for told in &found {
                assert_eq!(*told, message, "{place}");
            }
            seen += found.len();
        }
        // By route, history, log and repeat; more for each edit that carries it.
        assert!(seen >= 2 * 2 * 5 + 2 + 3, "{seen}");
        self.assert_previews(&answers, message);
        assert_not_stored(&self.cluster).await;
    }

    /// The lists show the message that they name as the last one as it is now.
    fn assert_previews(&self, answers: &[(String, Value)], message: &Value) {
        let lists = answers.iter().filter(|(place, _)| {
            place.contains("/v1/conversations by") || place.contains("order=")
        });
        let mut count = 0;
        for (place, list) in lists {
            let preview = &list["conversations"][0]["lastMessage"];
            assert_eq!(preview["id"], message["id"], "{place}");
            let content = message.get("content").unwrap_or(&Value::Null);
            assert_eq!(
                (&preview["content"], &preview["deletedAt"]),
                (content, &message["deletedAt"]),
                "{place}"
            );
            count += 1;
        }
        assert_eq!(count, 8, "{} {}", self.alice.id, self.bob.id);
    }
}

/// Every message of this id inside a value: what has a sender and a seq of its own, but for the previews in lists.
fn messages<'a>(value: &'a Value, id: &Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Array(list) => list.iter().for_each(|element| messages(element, id, found)),
        Value::Object(members) => {
            if members.get("id") == Some(id) && members.contains_key("clientId") {
                found.push(value);
            }
            members
                .values()
                .for_each(|member| messages(member, id, found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Asserts that no table of the store has the marker in any row.
async fn assert_not_stored(cluster: &Cluster) {
    let tables: Vec<String> = sqlx::query_scalar(
        "select tablename::text from pg_tables where schemaname = 'public' order by tablename",
    )
    .fetch_all(&cluster.store)
    .await
    .unwrap();
    assert!(tables.iter().any(|table| table == "events"), "{tables:?}");
    for table in tables {
        let rows =
            format!("select t::text from \"{table}\" t where t::text like '%{CONTENT_MARKER}%'");
        let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(rows))
            .fetch_all(&cluster.store)
            .await
            .unwrap();
        assert!(rows.is_empty(), "{table}: {rows:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edited_message_serves_only_latest_content() {
    let fixture = Fixture::begin(false).await;
    let live = fixture.bob.on(1).await;
    let edits = [
        json!({"content": {"text": format!("{CONTENT_MARKER} 2")}}),
        json!({"content": [format!("{CONTENT_MARKER} 2 again")]}),
        json!({"content": {"text": format!("{CONTENT_MARKER} 3")}}),
        json!({"content": ["at", "last"]}),
    ];
    let mut last = Value::Null;
    for (number, edit) in edits.into_iter().enumerate() {
        let edited = fixture
            .alice
            .patch(number % 2, &fixture.route, edit.clone())
            .await;
        last = edited.ok(200)["message"].clone();
        for (name, value) in edit.as_object().unwrap() {
            assert_eq!(&last[name], value);
        }
    }
    assert_eq!(
        (&last["seq"], &last["metadata"]),
        (&json!(fixture.seq), &json!({"m": 1}))
    );
    fixture.assert_served(&last).await;

    // Who was there heard each edit, with what the message was then or became since.
    let head = fixture.seq + 4;
    live.hears(fixture.conversation(), head, ARRIVAL_TIMEOUT)
        .await;
    let record = live.record.borrow();
    let heard = &record.events[&fixture.conversation()];
    let edited = heard
        .iter()
        .filter(|e| e.r#type == EventType::MessageEdited);
    let edited: Vec<Value> = edited
        .map(|event| serde_json::from_str(event.data.as_str()).unwrap())
        .collect();
    assert_eq!(edited.len(), 4);
    assert!(edited.iter().all(|data| data["targetSeq"] == fixture.seq));
    assert_eq!(edited[3]["message"], last);
    drop(record);
    drop(live);
    fixture.cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_content_is_neither_served_nor_stored() {
    for edits in [0, 2] {
        let fixture = Fixture::begin(true).await;
        let live = fixture.bob.on(1).await;
        for number in 0..edits {
            let edit = json!({"content": {"text": format!("{CONTENT_MARKER} edit {number}")}});
            let edited = fixture.alice.patch(number % 2, &fixture.route, edit).await;
            edited.ok(200);
        }
        let deleted = fixture.alice.delete(1, &fixture.route).await.ok(200);
        let message = &deleted["message"];
        assert_eq!(
            (&message["seq"], &message["metadata"], &message["sender"]),
            (&json!(fixture.seq), &json!({}), &json!("alice"))
        );
        assert!(message.get("content").is_none() && message["deletedAt"].is_string());
        fixture.assert_served(message).await;
        let repeated = fixture.alice.delete(0, &fixture.route).await.ok(200);
        assert_eq!(&repeated["message"], message);

        let head = fixture.seq + edits as Seq + 1;
        live.hears(fixture.conversation(), head, ARRIVAL_TIMEOUT)
            .await;
        let record = live.record.borrow();
        let last = record.events[&fixture.conversation()].last().unwrap();
        assert_eq!((last.seq, last.r#type), (head, EventType::MessageDeleted));
        let data: Value = serde_json::from_str(last.data.as_str()).unwrap();
        assert_eq!(
            (&data["targetSeq"], &data["messageId"]),
            (&json!(fixture.seq), &message["id"])
        );
        drop(record);
        drop(live);
        fixture.cluster.end().await;
    }
}
