//! A client repeats unanswered commands at another gateway, and each is executed once.

use std::time::Duration;

use confab_client::{ResumeOptions, Resuming};
use confab_protocol::ids::{ConversationId, EventId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::MessageContent;
use confab_stack::{Proxy, Traffic};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Cluster, Setup, User, eventually, id_of};

const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

/// A conversation with one message.
struct Subject {
    path: String,
    conversation: ConversationId,
    message: EventId,
}

impl Subject {
    async fn begin(user: &User) -> Self {
        let path = user.begins(1, "group", &["bob"]).await;
        let message = user.says(1, &path, "first").await;
        Self {
            conversation: id_of(&path).parse().unwrap(),
            message: serde_json::from_value(message["id"].clone()).unwrap(),
            path,
        }
    }

    fn route(&self) -> String {
        format!("/v1/messages/{}", self.message)
    }

    async fn message(&self, user: &User) -> Value {
        user.get(1, &self.route()).await.ok(200)["message"].clone()
    }

    /// The types of all events.
    async fn log(&self, user: &User) -> Vec<Value> {
        let log = user.get(1, &format!("{}/events", self.path)).await.ok(200);
        log.each("events", "type")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unanswered_commands_are_repeated_at_another_gateway() {
    let mut cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let (edited, deleted) = (Subject::begin(&alice).await, Subject::begin(&alice).await);
    let first = ([127, 0, 0, 1], cluster.gateways[0].port()).into();
    let mut link = Proxy::start(first).await.unwrap();
    let urls = vec![
        format!("http://127.0.0.1:{}", link.port()),
        cluster.gateways[1].url(),
    ];
    let options = ResumeOptions::new(urls, alice.token.as_str());
    let (resuming, mut changes) = Resuming::open(options).await.unwrap();
    let mut hearing = JoinSet::new();
    hearing.spawn(async move { while changes.next().await.is_some() {} });

    // What is answered from now on gets lost.
    link.set(Traffic::SwallowDown).await;
    let content = MessageContent {
        content: Some(JsonText::of(&"second").unwrap()),
        ..MessageContent::default()
    };
    let commands = async {
        tokio::join!(
            resuming.edit(edited.conversation, edited.message, content),
            resuming.delete(deleted.conversation, deleted.message),
            resuming.read(edited.conversation, 2),
        )
    };
    let fault = async {
        eventually("all are carried out", WAIT_TIMEOUT, async || {
            let read = alice.get(1, &edited.path).await.ok(200);
            let is_done = edited.message(&alice).await["content"] == "second"
                && deleted.message(&alice).await["deletedAt"].is_string()
                && read["conversation"]["lastReadSeq"] == 2;
            is_done.then_some(())
        })
        .await;
        // Another device of hers goes on meanwhile.
        let later = json!({"content": "third"});
        alice.patch(1, &edited.route(), later).await.ok(200);
        cluster.gateways[0].process_mut().kill().unwrap();
        link.set(Traffic::Refuse).await;
    };
    let ((edit, deletion, mark), ()) = tokio::join!(commands, fault);

    let (edit, deletion) = (edit.unwrap(), deletion.unwrap());
    assert_eq!((edit.seq, edit.duplicate), (3, true));
    assert_eq!((deletion.seq, deletion.duplicate), (3, true));
    assert_eq!(mark, Ok(2));
    assert_eq!(edited.message(&alice).await["content"], "third");
    let begin = ["conversation.created", "message.created"];
    let edits = ["message.edited", "message.edited"];
    assert_eq!(edited.log(&alice).await, [begin, edits].concat());
    let deletions = [&begin[..], &["message.deleted"]].concat();
    assert_eq!(deleted.log(&alice).await, deletions);
    drop(resuming);
    cluster.end().await;
}
