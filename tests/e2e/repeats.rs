//! A repeated command is compared by meaning with the stored one, or by key once the content is gone.

use confab_client::{Encoding, NewMessage, SendError};
use confab_protocol::error::Code;
use confab_protocol::ids::{ClientId, ConversationId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::MessageBody;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Cluster, Member, Setup, User, id_of, text};

mod keyed;
mod unanswered;

const MESSAGES_PATH: &str = "/v1/messages";

/// A user's messages of one key in one conversation.
struct KeyedSender {
    user: User,
    conversation: String,
    client_id: Uuid,
}

impl KeyedSender {
    async fn post(&self, gateway: usize, content: Value) -> crate::support::Answer {
        let message = json!({
            "conversationId": self.conversation,
            "clientId": self.client_id,
            "kind": "text",
            "content": content,
        });
        self.user.post(gateway, MESSAGES_PATH, message).await
    }

    /// Asserts that this is taken as a repeat of what was sent first.
    async fn repeats(&self, gateway: usize, content: Value) -> Value {
        let sent = self.post(gateway, content).await.ok(201);
        assert_eq!(
            (&sent["message"]["seq"], sent.header("idempotent-replayed")),
            (&json!(2), Some("true"))
        );
        sent["message"].clone()
    }

    async fn differs(&self, gateway: usize, content: Value) {
        let told = self.post(gateway, content).await;
        told.refused(422, "IDEMPOTENCY_KEY_REUSED");
    }
}

/// Sends the first one.
async fn first(cluster: &Cluster, content: Value) -> KeyedSender {
    let user = cluster.user("alice");
    let path = user.begins(0, "group", &["bob"]).await;
    let sender = KeyedSender {
        user,
        conversation: id_of(&path).to_owned(),
        client_id: Uuid::now_v7(),
    };
    let sent = sender.post(0, content).await.ok(201);
    assert_eq!(sent.header("idempotent-replayed"), None);
    sender
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeat_matches_by_key_after_content_deletion() {
    let cluster = Cluster::start(Setup::default()).await;
    let sender = first(&cluster, json!("one")).await;
    let message = sender.repeats(1, json!("one")).await;
    sender.differs(1, json!("other")).await;

    let route = format!("{MESSAGES_PATH}/{}", message["id"].as_str().unwrap());
    let edited = json!({"content": "edited"});
    sender.user.patch(1, &route, edited).await.ok(200);
    for content in ["one", "edited", "other"] {
        let told = sender.repeats(0, json!(content)).await;
        assert_eq!(told["content"], "edited");
    }
    let deleted = sender.user.delete(0, &route).await.ok(200);
    for content in ["one", "edited", "other"] {
        let told = sender.repeats(1, json!(content)).await;
        assert_eq!(told, deleted["message"]);
        assert!(told.get("content").is_none());
    }
    cluster.end().await;
}

/// It appended nothing, and its repeat brings nothing back that came between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeat_of_an_edit_of_nothing_undoes_nothing() {
    let cluster = Cluster::start(Setup::default()).await;
    let sender = first(&cluster, json!("one")).await;
    let message = sender.repeats(1, json!("one")).await;
    let route = format!("{MESSAGES_PATH}/{}", message["id"].as_str().unwrap());
    let edit = async |gateway: usize, key: Uuid, content: &str| {
        let key = key.to_string();
        let body = Some(json!({ "content": content }));
        let keyed = [("idempotency-key", key.as_str())];
        sender
            .user
            .call(gateway, "PATCH", &route, &keyed, body)
            .await
    };
    let head = async |gateway: usize| {
        let path = format!("/v1/conversations/{}", sender.conversation);
        let told = sender.user.get(gateway, &path).await.ok(200);
        told["conversation"]["lastSeq"].clone()
    };
    let (nothing, change) = (Uuid::now_v7(), Uuid::now_v7());
    let found = edit(0, nothing, "one").await.ok(200);
    assert_eq!(found["message"], message);
    let again = edit(1, nothing, "one").await.ok(200);
    assert_eq!(again.body, found.body);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let other = edit(1, nothing, "other").await;
    other.refused(422, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(head(0).await, json!(2));

    let changed = edit(1, change, "two").await.ok(200);
    assert_eq!(changed.header("idempotent-replayed"), None);
    // Behind a change its key alone is recognised.
    for (gateway, content) in [(0, "one"), (1, "other")] {
        let again = edit(gateway, nothing, content).await.ok(200);
        assert_eq!(again["message"], changed["message"]);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
    }
    assert_eq!(head(1).await, json!(3));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbour_of_an_integer_above_2_53_differs() {
    let cluster = Cluster::start(Setup::default()).await;
    let content = |id: u64| json!({"id": id, "text": "é"});
    let sender = first(&cluster, content(9_007_199_254_740_993)).await;
    sender.repeats(1, content(9_007_199_254_740_993)).await;
    for id in [9_007_199_254_740_992, 9_007_199_254_740_994] {
        sender.differs(0, content(id)).await;
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeat_in_another_encoding_is_a_repeat() {
    let cluster = Cluster::start(Setup::default()).await;
    let user = cluster.user("alice");
    let as_json = user.on(0).await;
    let packed = user.speaking(Encoding::MsgPack, 1).await;
    let conversation = as_json.create_group(&["bob".parse().unwrap()]).await;
    let written = r#"{"z" : 18446744073709551615, "a":[1.50, -0.0, 1e2, "\u00e9"]}"#;
    let body = MessageBody {
        content: Some(JsonText::trusted(written.to_owned())),
        ..text("")
    };
    for (one, other) in [(&as_json, &packed), (&packed, &as_json)] {
        let id = ClientId(Uuid::now_v7());
        let (seq, is_repeat) = send(one, conversation, id, &body).await.unwrap();
        assert!(!is_repeat);
        for door in [one, other] {
            let told = send(door, conversation, id, &body).await;
            assert_eq!(told, Ok((seq, true)));
        }
        let message = NewMessage {
            conversation_id: conversation,
            client_id: Some(id),
            body: body.clone(),
        };
        let posted = other.http.send_message(&message).await.unwrap();
        assert_eq!((posted.answer.seq, posted.replayed), (seq, true));
        let changed = MessageBody {
            content: Some(JsonText::trusted(written.replace("5,", "6,"))),
            ..body.clone()
        };
        let told = send(other, conversation, id, &changed).await;
        assert_eq!(told, Err(Code::IdempotencyKeyReused));
    }
    drop((as_json, packed));
    cluster.end().await;
}

async fn send(
    door: &Member,
    conversation: ConversationId,
    id: ClientId,
    body: &MessageBody,
) -> Result<(u64, bool), Code> {
    let pending = door.session.submit(id, conversation, body.clone()).await;
    match pending.unwrap().ack().await {
        Ok(ack) => Ok((ack.seq, ack.duplicate)),
        Err(SendError::Refused(refusal)) => Err(refusal.code),
        Err(error) => panic!("{error}"),
    }
}

/// A newer version may store a field that an older one did not, and the other way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeat_survives_an_upgrade_with_a_new_field() {
    let cluster = Cluster::start(Setup::default()).await;
    let sender = first(&cluster, json!("one")).await;
    for change in [
        r#"payload = replace(payload, '"metadata":', '"added":null,"metadata":')"#,
        r#"payload = '{"metadata":{},"content":"one","kind":"text"}'"#,
    ] {
        let update = format!("update events set {change} where type = 'message.created'");
        let updated = sqlx::query(sqlx::AssertSqlSafe(update))
            .execute(&cluster.store)
            .await
            .unwrap();
        assert_eq!(updated.rows_affected(), 1);
        sender.repeats(0, json!("one")).await;
        sender.differs(1, json!("other")).await;
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeat_of_a_creation_outlives_its_conversation() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let create = async |gateway: usize, name: &str| {
        let group = json!({"type": "group", "participants": ["bob"], "metadata": {"name": name}});
        let key = [("idempotency-key", "k")];
        alice
            .call(gateway, "POST", "/v1/conversations", &key, Some(group))
            .await
    };
    let first = create(0, "one").await.ok(201);
    let path = first.header("location").unwrap().to_owned();
    let metadata = json!({"metadata": {"name": "renamed"}});
    alice.patch(1, &path, metadata).await.ok(200);
    create(0, "other")
        .await
        .refused(422, "IDEMPOTENCY_KEY_REUSED");
    let is_first = |answer: crate::support::Answer| {
        let told = answer.ok(201);
        assert_eq!(told.body, first.body);
        for header in ["location", "etag"] {
            assert_eq!(told.header(header), first.header(header));
        }
        assert_eq!(told.header("idempotent-replayed"), Some("true"));
    };
    is_first(create(1, "one").await);
    alice.delete(0, &path).await.ok(200);
    is_first(create(1, "one").await);
    is_first(create(0, "other").await);
    cluster.end().await;
}

/// Who writes its queue anew after a restart writes members in another order, and has escapes, numbers and spaces of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creation_written_in_another_form_is_a_repeat() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let create = async |gateway: usize, key: &str, body: &str| {
        let key = [("idempotency-key", key)];
        alice
            .write(gateway, "POST", "/v1/conversations", &key, body)
            .await
    };
    let written = r#"{"type":"group","participants":["bob","zoé"],"metadata":{"name":"é/","custom":{"a":1,"b":[1.50,{"c":null}]}}}"#;
    let first = create(0, "k", written).await.ok(201);
    for (gateway, again) in [
        (1, written),
        (
            0,
            r#"{ "metadata":{"custom":{"b":[15e-1,{"c":null}],"a":1.0},"description":null,"name":"\u00e9\/"}, "participants":["bob","zo\u00e9","bob"], "type":"gr\u006fup" }"#,
        ),
    ] {
        let told = create(gateway, "\"k\"", again).await.ok(201);
        assert_eq!(told.body, first.body);
        assert_eq!(told.header("idempotent-replayed"), Some("true"));
    }
    for (one, other) in [
        ("1.50", "1.51"),
        (r#""c":null"#, ""),
        ("é/", "è/"),
        (r#""a":1"#, r#""a":"1""#),
        (r#""bob","zoé""#, r#""bob""#),
        ("group", "channel"),
    ] {
        let changed = written.replace(one, other);
        let told = create(0, "k", &changed).await;
        told.refused(422, "IDEMPOTENCY_KEY_REUSED");
    }
    // Its metadata may be left out where there are none.
    let plain = r#"{"type":"group","participants":["bob"]}"#;
    let empty = r#"{"participants":["bob"],"metadata":{"name":null},"type":"group"}"#;
    let first = create(1, "plain", plain).await.ok(201);
    assert_eq!(create(0, "plain", empty).await.ok(201).body, first.body);
    cluster.end().await;
}
