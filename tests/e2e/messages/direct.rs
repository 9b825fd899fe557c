//! In a direct conversation each user deletes only its own messages.

use serde_json::{Value, json};

use super::frames::Frames;
use crate::support::{Cluster, Setup, User, claims};

fn route(message: &Value) -> String {
    format!("/v1/messages/{}", message["id"].as_str().unwrap())
}

/// Asserts that a user deletes no message of this conversation, by frame or over HTTP.
async fn assert_keeps(cluster: &Cluster, user: &User, path: &str, message: &Value) {
    let refused = "INSUFFICIENT_PERMISSIONS";
    for gateway in 0..2 {
        let told = user.delete(gateway, &route(message)).await;
        told.refused(403, refused);
        let mut frames = Frames::open(cluster, user, gateway, path, message).await;
        let told = frames.told(json!({"type": "delete", "id": "d"})).await;
        assert_eq!(told["code"], refused, "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_deletes_its_own_messages_in_direct_conversations() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "direct", &["alice", "bob"]).await;
    // Where Alice leads, she deletes what Bob says.
    let group = alice.begins(1, "group", &["bob"]).await;
    let there = bob.says(0, &group, "bob's").await;
    alice.delete(1, &route(&there)).await.ok(200);

    let of_alice = alice.says(0, &path, "alice's").await;
    let of_bob = bob.says(1, &path, "bob's").await;
    assert_keeps(&cluster, &alice, &path, &of_bob).await;
    assert_keeps(&cluster, &bob, &path, &of_alice).await;
    // Nor by naming the conversation that she leads.
    let mut frames = Frames::open(&cluster, &alice, 0, &group, &of_bob).await;
    let told = frames.told(json!({"type": "delete", "id": "d"})).await;
    assert_eq!(told["code"], "MESSAGE_NOT_FOUND", "{told}");
    drop(frames);
    let log = bob.get(0, &format!("{path}/events")).await.ok(200);
    assert_eq!(log["headSeq"], 3);

    let mut frames = Frames::open(&cluster, &alice, 1, &path, &of_alice).await;
    let deleted = frames.done(json!({"type": "delete", "id": "d"})).await;
    assert_eq!(deleted, (json!(4), json!(false)));
    drop(frames);
    bob.delete(0, &route(&of_bob)).await.ok(200);
    // The product's own backend moderates there as well.
    let again = bob.says(1, &path, "again").await;
    let mut backend = claims("backend");
    backend["scope"] = "confab:admin".into();
    let backend = cluster.user_of(&backend);
    backend.delete(0, &route(&again)).await.ok(200);
    cluster.end().await;
}
