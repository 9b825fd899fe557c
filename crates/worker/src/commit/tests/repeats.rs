//! A repeat is compared with what stands, by what both say: alone and in a batch.

use confab_protocol::command::{Command, Outcome, SendMessage};
use confab_protocol::error::Code;
use confab_protocol::ids::{ClientId, ConversationId, EventId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::{Message, Role};
use confab_protocol::wire::{json_of_msgpack, msgpack_of_json};
use uuid::Uuid;

use crate::commit::{CommandOutcome, Item};
use crate::messages;
use crate::origin::Origin;
use crate::planner::Open;
use crate::testing::{
    Fixture, addition, caller, code, edit, key, message, patch, removal, repeated, role_change,
    sent, soon, unsend,
};

/// Sends of one key in one conversation.
struct Sender {
    fixture: Fixture,
    conversation: ConversationId,
    client_id: ClientId,
}

impl Sender {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        let conversation = fixture.group(&["alice", "bob"]).await;
        Self {
            fixture,
            conversation,
            client_id: key(),
        }
    }

    fn item(&self, payload: &str) -> Item {
        let given = message(self.conversation, "alice", "").append.message;
        let message = SendMessage {
            client_id: self.client_id,
            payload: JsonText::trusted(payload.to_owned()),
            ..given
        };
        Item {
            append: messages::send(caller("alice"), message).unwrap(),
            deadline: soon(),
            open: Open::default(),
            origin: Origin::default(),
        }
    }

    /// Sends this alone, then between two others: both must be told the same.
    async fn send(&self, payload: &str) -> CommandOutcome {
        let alone = self.fixture.send(self.item(payload)).await;
        let filler = || message(self.conversation, "bob", "filler");
        let batch = [filler(), self.item(payload), filler()];
        let mut outcomes = self.fixture.committer.finish_batch(&batch).await.outcomes;
        let batched = outcomes.remove(1);
        let told = |outcome: &CommandOutcome| match outcome {
            Ok(_) => Ok(sent(outcome.clone()).seq),
            Err(failure) => Err(failure.code),
        };
        assert_eq!(told(&alone), told(&batched), "{payload}");
        batched
    }

    /// Sends this for the first time, and again.
    async fn begins(&self, payload: &str) {
        let first = sent(self.fixture.send(self.item(payload)).await);
        assert_eq!((first.seq, first.duplicate), (2, false));
        self.repeats(payload).await;
    }

    /// Asserts that this is a repeat of what was sent first.
    async fn repeats(&self, payload: &str) {
        let sent = sent(self.send(payload).await);
        assert_eq!((sent.seq, sent.duplicate), (2, true), "{payload}");
    }

    async fn differs(&self, payload: &str) {
        let told = code(self.send(payload).await);
        assert_eq!(told, Code::IdempotencyKeyReused, "{payload}");
    }

    async fn message(&self) -> EventId {
        let id: Uuid =
            sqlx::query_scalar("select id from events where conversation_id = $1 and seq = 2")
                .bind(self.conversation.0)
                .fetch_one(&self.fixture.pool)
                .await
                .unwrap();
        EventId(id)
    }
}

/// A payload as gateways encode it.
fn body(content: &str) -> String {
    format!(
        r#"{{"kind":"text","content":{content},"payloadSizeBytes":null,"replyTo":null,"metadata":{{}}}}"#
    )
}

#[tokio::test]
async fn repeat_written_otherwise_is_a_repeat() {
    let sender = Sender::new().await;
    let first = body(r#"{"id":9007199254740993,"rate":0.10,"text":"é"}"#);
    sender.begins(&first).await;
    for content in [
        r#"{ "text": "\u00e9", "rate": 1e-1, "id": 9007199254740993 }"#,
        r#"{"id":9007199254740993,"rate":0.1,"text":"é"}"#,
    ] {
        sender.repeats(&body(content)).await;
    }
    for content in [
        r#"{"id":9007199254740992,"rate":0.1,"text":"é"}"#,
        r#"{"id":9007199254740994,"rate":0.1,"text":"é"}"#,
        r#"{"id":9007199254740993.0,"rate":0.1,"text":"e"}"#,
        r#"{"id":9007199254740993,"rate":0.1,"text":"é","more":null}"#,
    ] {
        sender.differs(&body(content)).await;
    }
}

#[tokio::test]
async fn repeat_by_messagepack_is_a_repeat() {
    let sender = Sender::new().await;
    let first = body(r#"{"big":18446744073709551615,"rate":0.10,"list":[1.0,-2,null]}"#);
    sender.begins(&first).await;
    let packed = msgpack_of_json(br#"{"list":[1,-2,null],"rate":0.1,"big":18446744073709551615}"#);
    let content = json_of_msgpack(&packed.unwrap()).unwrap();
    let content = std::str::from_utf8(&content).unwrap();
    sender.repeats(&body(content)).await;
}

#[tokio::test]
async fn everything_a_message_is_counts_in_a_repeat() {
    let sender = Sender::new().await;
    let first = body("1");
    sender.begins(&first).await;
    let target = message(sender.conversation, "bob", "target");
    let reply_to = sender.fixture.send(target).await;
    let reply_to = format!(r#""replyTo":"{}""#, sent(reply_to).message_id);
    for (given, instead) in [
        (r#""kind":"text""#, r#""kind":"image""#),
        (r#""replyTo":null"#, reply_to.as_str()),
        (r#""metadata":{}"#, r#""metadata":{"a":1}"#),
        (r#""content":1,"#, r#""encryptedContent":"AA==","#),
    ] {
        sender.differs(&first.replace(given, instead)).await;
    }
}

#[tokio::test]
async fn repeat_after_an_upgrade_with_a_new_field_is_a_repeat() {
    let sender = Sender::new().await;
    let first = body("1");
    sender.begins(&first).await;
    let stored = async |payload: &str| {
        sqlx::query("update events set payload = $2 where conversation_id = $1 and seq = 2")
            .bind(sender.conversation.0)
            .bind(payload)
            .execute(&sender.fixture.pool)
            .await
            .unwrap();
    };
    let newer = first.replace(r#""metadata":{}"#, r#""metadata":{},"added":null"#);
    let older = r#"{"kind":"text","content":1}"#;
    for payload in [newer.as_str(), older] {
        stored(payload).await;
        for given in [first.as_str(), newer.as_str(), older] {
            sender.repeats(given).await;
        }
        let set = first.replace(r#""metadata":{}"#, r#""metadata":{},"added":1"#);
        sender.differs(&set).await;
    }
}

#[tokio::test]
async fn repeat_after_an_edit_or_deletion_goes_by_its_key() {
    let sender = Sender::new().await;
    let first = body("1");
    sender.begins(&first).await;
    sender.differs(&body("2")).await;
    let id = sender.message().await;
    for change in [edit(None, id, "edited"), unsend(None, id)] {
        sender.fixture.alone("alice", change).await.0.unwrap();
        for content in ["1", "2", r#""edited""#] {
            sender.repeats(&body(content)).await;
        }
    }
}

#[tokio::test]
async fn repeat_of_an_edit_is_compared_while_it_stands() {
    let sender = Sender::new().await;
    sender.begins(&body("1")).await;
    let (fixture, id) = (&sender.fixture, sender.message().await);
    let of = |text: &str, client_id| {
        let Command::EditMessage(mut command) = edit(None, id, text) else {
            panic!("an edit");
        };
        command.client_id = client_id;
        Command::EditMessage(command)
    };
    let (one, two) = (key(), key());
    let seq = sent(fixture.alone("alice", of("same", one)).await.0).seq;
    let again = async |text: &str, client_id| {
        let (outcome, events) = fixture.alone("alice", of(text, client_id)).await;
        assert_eq!(events, 0, "{text}");
        outcome.map(|outcome| sent(Ok(outcome)).seq)
    };
    assert_eq!(again("same", one).await.unwrap(), seq);
    let other = again("other", one).await.unwrap_err();
    assert_eq!(other.code, Code::IdempotencyKeyReused);

    // It changes nothing, and is no event: what it found is the edit before.
    assert_eq!(again("same", two).await.unwrap(), seq);
    assert_eq!(again("same", two).await.unwrap(), seq);
    assert!(again("other", two).await.is_err());
    let later = sent(fixture.alone("alice", of("later", key())).await.0).seq;
    assert_eq!(later, seq + 1);
    for (text, client_id) in [("same", one), ("other", one), ("same", two), ("other", two)] {
        assert_eq!(again(text, client_id).await.unwrap(), seq, "{text}");
    }
    fixture.alone("alice", unsend(None, id)).await.0.unwrap();
    for text in ["same", "other"] {
        assert_eq!(again(text, two).await.unwrap(), seq, "{text}");
    }
}

#[tokio::test]
async fn repeated_edit_does_not_overwrite_a_later_one() {
    let sender = Sender::new().await;
    sender.begins(&body("1")).await;
    let (fixture, id) = (&sender.fixture, sender.message().await);
    let early = edit(None, id, "early");
    let first = fixture.alone("alice", early.clone()).await.0;
    assert!(!sent(first.clone()).duplicate);
    fixture
        .alone("alice", edit(None, id, "late"))
        .await
        .0
        .unwrap();
    // Another connection's, with the same id of its frame.
    let request = repeated("alice", early);
    let (again, committed) = fixture.committer.finish_alone(&request, soon()).await;
    let again = sent(again);
    assert!(committed.is_none());
    assert_eq!((again.seq, again.duplicate), (sent(first).seq, true));
    let message: Message = serde_json::from_str(again.message.unwrap().as_str()).unwrap();
    assert_eq!(message.content.unwrap().as_str(), r#""late""#);
    assert_eq!(message.version, 3);
}

#[tokio::test]
async fn repeated_membership_changes_change_nothing() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let commands = [
        addition(group, &["carol"]),
        role_change(group, "bob", Role::Admin),
        removal(group, "carol"),
        patch(group, r#"{"name":"x"}"#),
    ];
    for command in &commands {
        fixture.alone("alice", command.clone()).await.0.unwrap();
    }
    let log = fixture.log(group).await;
    for command in commands {
        let request = repeated("alice", command);
        let (outcome, committed) = fixture.committer.finish_alone(&request, soon()).await;
        assert!(committed.is_none());
        let replayed = match outcome.unwrap() {
            Outcome::Added { replayed, .. }
            | Outcome::RoleChanged { replayed, .. }
            | Outcome::Removed { replayed, .. }
            | Outcome::Updated { replayed, .. } => replayed,
            other => panic!("{other:?}"),
        };
        assert!(replayed);
    }
    assert_eq!(fixture.log(group).await, log);
}

#[tokio::test]
async fn membership_key_with_another_request_is_refused() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let used = addition(group, &["carol"]);
    fixture.alone("alice", used.clone()).await.0.unwrap();
    let Command::AddParticipants(used) = used else {
        panic!("an addition");
    };
    let Command::AddParticipants(mut other) = addition(group, &["dave"]) else {
        panic!("an addition");
    };
    other.client_id = used.client_id;
    let (outcome, events) = fixture
        .alone("alice", Command::AddParticipants(other))
        .await;
    assert_eq!((code(outcome), events), (Code::IdempotencyKeyReused, 0));
    let renamed = patch(group, r#"{"name":"x"}"#);
    fixture.alone("alice", renamed.clone()).await.0.unwrap();
    let Command::UpdateConversation(mut other) = renamed else {
        panic!("a change");
    };
    other.patch = JsonText::trusted(r#"{"name":"y"}"#.to_owned());
    let (outcome, events) = fixture
        .alone("alice", Command::UpdateConversation(other))
        .await;
    assert_eq!((code(outcome), events), (Code::IdempotencyKeyReused, 0));
}
