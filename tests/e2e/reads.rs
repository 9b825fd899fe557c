//! Read marks only advance, and only in the user's own conversations.

use serde_json::{Value, json};

use crate::support::{Cluster, Setup, User, id_of};

const READ_MARKS_PATH: &str = "/v1/messages/read";

/// The caller's read mark and how much is unread.
async fn standing(user: &User, gateway: usize, path: &str) -> (Value, Value) {
    let response = user.get(gateway, path).await.ok(200);
    let conversation = &response["conversation"];
    (
        conversation["lastReadSeq"].clone(),
        conversation["unreadCount"].clone(),
    )
}

fn up_to(path: &str, seq: u64) -> Value {
    json!({"conversationId": id_of(path), "upToSeq": seq})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_mark_only_advances_up_to_head() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "group", &["bob"]).await;
    let id = id_of(&path);
    for words in ["one", "two", "three"] {
        alice.says(0, &path, words).await;
    }
    bob.says(1, &path, "mine").await;
    // It begins with the membership.
    assert_eq!(standing(&bob, 0, &path).await, (json!(1), json!(3)));

    let read = bob.post(0, READ_MARKS_PATH, up_to(&path, 3)).await.ok(200);
    assert_eq!(read.body, json!({"read": {id: 3}}));
    assert_eq!(standing(&bob, 1, &path).await, (json!(3), json!(1)));
    // Backwards changes nothing, and the answer says where it stands.
    let read = bob.post(1, READ_MARKS_PATH, up_to(&path, 1)).await.ok(200);
    assert_eq!(read.body, json!({"read": {id: 3}}));
    for beyond in [6, u64::MAX] {
        let read = bob
            .post(0, READ_MARKS_PATH, up_to(&path, beyond))
            .await
            .ok(200);
        assert_eq!(read.body, json!({"read": {id: 5}}), "{beyond}");
    }
    assert_eq!(standing(&bob, 1, &path).await, (json!(5), json!(0)));
    let people = alice.get(1, &format!("{path}/participants")).await;
    assert_eq!(people.each("participants", "lastReadSeq"), [1, 5]);
    // Reading is no event.
    assert_eq!(alice.get(0, &path).await["conversation"]["lastSeq"], 5);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_several_conversations_are_marked_at_once() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let first = alice.begins(0, "group", &["bob"]).await;
    let second = alice.begins(1, "group", &["bob"]).await;
    let mut messages = Vec::new();
    for path in [&first, &second, &first, &second] {
        messages.push(alice.says(0, path, "word").await["id"].clone());
    }
    let ids = json!({"messageIds": [messages[2], messages[0], messages[1], messages[2]]});
    let read = bob.post(1, READ_MARKS_PATH, ids.clone()).await.ok(200);
    assert_eq!(
        read.body,
        json!({"read": {id_of(&first): 3, id_of(&second): 2}})
    );
    assert_eq!(standing(&bob, 0, &first).await, (json!(3), json!(0)));
    assert_eq!(standing(&bob, 0, &second).await, (json!(2), json!(1)));
    assert_eq!(
        bob.post(0, READ_MARKS_PATH, ids).await.ok(200).body,
        read.body
    );
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_conversation_is_404_and_marks_nothing() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob, eve) = (
        cluster.user("alice"),
        cluster.user("bob"),
        cluster.user("eve"),
    );
    let path = alice.begins(0, "group", &["bob"]).await;
    let other = alice.begins(1, "group", &["eve"]).await;
    let mine = alice.says(0, &path, "for bob").await["id"].clone();
    let foreign = alice.says(1, &other, "for eve").await["id"].clone();
    let unknown = json!("01890a5d-ac96-774b-bcce-b302099a8057");
    eve.post(0, READ_MARKS_PATH, up_to(&path, 2))
        .await
        .refused(404, "CONVERSATION_NOT_FOUND");
    eve.post(1, READ_MARKS_PATH, json!({"messageIds": [mine]}))
        .await
        .refused(404, "MESSAGE_NOT_FOUND");
    for stranger in [&foreign, &unknown] {
        let ids = json!({"messageIds": [mine, stranger]});
        bob.post(1, READ_MARKS_PATH, ids)
            .await
            .refused(404, "MESSAGE_NOT_FOUND");
    }
    assert_eq!(standing(&bob, 0, &path).await, (json!(1), json!(1)));
    // A conversation is no message.
    let ids = json!({"messageIds": [id_of(&path)]});
    bob.post(1, READ_MARKS_PATH, ids)
        .await
        .refused(404, "MESSAGE_NOT_FOUND");
    alice
        .delete(0, &format!("{path}/participants/bob"))
        .await
        .ok(200);
    bob.post(0, READ_MARKS_PATH, up_to(&path, 2))
        .await
        .refused(404, "CONVERSATION_NOT_FOUND");
    bob.post(1, READ_MARKS_PATH, json!({"messageIds": [mine]}))
        .await
        .refused(404, "MESSAGE_NOT_FOUND");
    alice.delete(1, &path).await.ok(200);
    bob.post(0, READ_MARKS_PATH, up_to(&path, 2))
        .await
        .refused(410, "CONVERSATION_DELETED");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_read_mark_is_refused_with_every_field() {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    let id = id_of(&path);
    let both = json!({"conversationId": id, "upToSeq": 1, "messageIds": [id]});
    for (body, pointers) in [
        (json!({}), vec!["/conversationId", "/upToSeq"]),
        (
            json!({"conversationId": "x", "upToSeq": -1, "at": 1}),
            vec!["/at", "/conversationId", "/upToSeq"],
        ),
        (both, vec!["/conversationId", "/upToSeq"]),
        (json!({"messageIds": []}), vec!["/messageIds"]),
        (json!({"messageIds": ["x"]}), vec!["/messageIds"]),
        (json!({"messageIds": vec![id; 101]}), vec!["/messageIds"]),
    ] {
        alice
            .post(0, READ_MARKS_PATH, body)
            .await
            .invalid(&pointers);
    }
    cluster.end().await;
}
