//! An edit or deletion applies only to the version that the client saw.

use serde_json::{Value, json};

use super::frames::Frames;
use crate::support::{Cluster, Setup};

const CHANGE_KEYS: [&str; 2] = [
    "01890a5d-ac96-774b-bcce-b302099a8061",
    "01890a5d-ac96-774b-bcce-b302099a8062",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frame_changes_only_the_version_it_names() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    let message = alice.says(0, &path, "one").await;
    let mut frames = Frames::open(&cluster, &alice, 1, &path, &message).await;
    let edit = |version: Value, content: u64| json!({"type": "edit", "id": CHANGE_KEYS[0], "ifVersion": version, "content": content});
    let delete = |id: &str, version: u64| json!({"type": "delete", "id": id, "ifVersion": version});

    assert_eq!(frames.stale(edit(2.into(), 2)).await, 1);
    for (version, content) in [(json!("1"), 2), (json!(-1), 2), (json!(1.5), 2)] {
        let told = frames.told(edit(version, content)).await;
        assert_eq!(told["errors"][0]["pointer"], "/ifVersion", "{told}");
    }
    let first = frames.done(edit(1.into(), 2)).await;
    assert_eq!(first, (json!(3), json!(false)));
    // A repeat is told that it was done, though the version is another by now.
    let again = frames.done(edit(1.into(), 2)).await;
    assert_eq!(again, (json!(3), json!(true)));

    assert_eq!(frames.stale(delete(CHANGE_KEYS[1], 1)).await, 2);
    let deleted = frames.done(delete(CHANGE_KEYS[1], 2)).await;
    assert_eq!(deleted, (json!(4), json!(false)));
    // What is deleted may be deleted again whatever its version.
    for id in [CHANGE_KEYS[1], CHANGE_KEYS[0], "any"] {
        let (seq, _) = frames.done(delete(id, 1)).await;
        assert_eq!(seq, 4);
    }
    let log = alice.get(0, &format!("{path}/events")).await.ok(200);
    assert_eq!(log["headSeq"], 4);
    drop(frames);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_over_http_needs_its_version() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    let message = alice.says(0, &path, "one").await;
    let route = format!("/v1/messages/{}", message["id"].as_str().unwrap());
    let delete = async |gateway: usize, headers: &[(&str, &str)]| {
        alice.call(gateway, "DELETE", &route, headers, None).await
    };
    alice.patch(0, &route, json!({"content": 2})).await.ok(200);
    for version in ["1", "\"1\"", "\"3\""] {
        let stale = delete(1, &[("if-match", version)]).await;
        let stale = stale.refused(412, "PRECONDITION_FAILED");
        assert_eq!(stale["currentVersion"], 2);
    }
    for bad in ["W/\"2\"", "2,2", "x", ""] {
        let refused = delete(0, &[("if-match", bad)]).await;
        refused.refused(400, "INVALID_IF_MATCH");
    }
    let response = alice.get(1, &route).await.ok(200);
    assert_eq!(response["message"]["content"], 2);

    let keyed = [("if-match", "\"2\""), ("idempotency-key", CHANGE_KEYS[0])];
    let deleted = delete(0, &keyed).await.ok(200);
    assert_eq!(deleted.header("etag"), Some("\"3\""));
    assert_eq!(deleted.header("idempotent-replayed"), None);
    let again = delete(1, &keyed).await.ok(200);
    assert_eq!(again.body, deleted.body);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    for any in ["1", "*"] {
        let again = delete(1, &[("if-match", any)]).await.ok(200);
        assert_eq!(again.body, deleted.body);
    }
    let log = alice.get(0, &format!("{path}/events")).await.ok(200);
    assert_eq!(log["headSeq"], 4);
    cluster.end().await;
}
