//! The log over HTTP returns stored events in order, with later edits and deletions applied.

use confab_client::NewMessage;
use confab_protocol::json::JsonText;
use confab_protocol::resource::{MessageBody, Role};
use serde_json::{Value, json};

use crate::support::{Cluster, Setup, id_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_is_read_from_any_seq_to_head() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "group", &["bob"]).await;
    for words in ["one", "two", "three", "four"] {
        alice.says(1, &path, words).await;
    }
    alice
        .http(0)
        .set_role(
            id_of(&path).parse().unwrap(),
            &"bob".parse().unwrap(),
            Role::Admin,
        )
        .await
        .unwrap();
    let read = async |query: &str| {
        let page = bob.get(1, &format!("{path}/events{query}")).await.ok(200);
        (page.each("events", "seq"), page["headSeq"].clone())
    };
    let numbers =
        |range: std::ops::RangeInclusive<u64>| -> Vec<Value> { range.map(Value::from).collect() };
    assert_eq!(read("").await, (numbers(1..=6), json!(6)));
    assert_eq!(read("?limit=2").await, (numbers(1..=2), json!(6)));
    assert_eq!(read("?after=2&limit=3").await, (numbers(3..=5), json!(6)));
    for beyond in [6, 7, u64::MAX] {
        assert_eq!(read(&format!("?after={beyond}")).await, (vec![], json!(6)));
    }
    let log = bob.get(0, &format!("{path}/events")).await;
    for event in log.list("events") {
        let members: Vec<_> = event
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(
            members,
            [
                "actor",
                "conversationId",
                "createdAt",
                "data",
                "id",
                "seq",
                "type"
            ]
        );
    }
    let bad = bob
        .get(0, &format!("{path}/events?after=x&limit=1001&before=1"))
        .await;
    bad.invalid(&["after", "before", "limit"]);
    bob.get(0, &format!("{path}/events?limit=0&after=-1"))
        .await
        .invalid(&["after", "limit"]);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_largest_messages_add_up() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    let conversation = id_of(&path).parse().unwrap();
    let largest = NewMessage {
        conversation_id: conversation,
        client_id: None,
        body: MessageBody {
            kind: "x-large".into(),
            content: None,
            encrypted_content: Some("A".repeat(4 * 87_381)),
            payload_size_bytes: None,
            reply_to: None,
            metadata: JsonText::empty_object(),
        },
    };
    for number in 0..9 {
        alice.http(number % 2).send_message(&largest).await.unwrap();
    }
    let page = alice
        .get(0, &format!("{path}/messages?limit=200"))
        .await
        .ok(200);
    let (count, bytes) = (page.list("messages").len(), page.response.body.len());
    // More than one answer of a worker holds, and less than two MiB.
    assert!(
        (3..=5).contains(&count) && bytes < 2 * 1024 * 1024,
        "{count} of {bytes} bytes"
    );
    let history = alice.http(1).history(conversation).await.unwrap();
    let seqs: Vec<_> = history.iter().map(|message| message.seq).collect();
    assert_eq!(seqs, (2..=10).collect::<Vec<_>>());

    let page = alice
        .get(1, &format!("{path}/events?limit=1000"))
        .await
        .ok(200);
    assert!((3..=6).contains(&page.list("events").len()) && page["headSeq"] == 10);
    let log = alice.http(0).events(conversation, 0).await.unwrap();
    let seqs: Vec<_> = log.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=10).collect::<Vec<_>>());
    cluster.end().await;
}
