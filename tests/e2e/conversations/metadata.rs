//! Metadata patches merge by field and apply only to the version that the client saw.

use serde_json::{Value, json};

use uuid::Uuid;

use crate::support::{Cluster, Setup, User, id_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_patch_merges_and_null_removes() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let metadata =
        json!({"name": "one", "description": "d", "custom": {"a": {"b": 1, "c": 2}, "d": [1]}});
    let group = json!({"type": "group", "participants": ["bob"], "metadata": metadata});
    let created = alice.post(0, "/v1/conversations", group).await.ok(201);
    let path = created.header("location").unwrap();

    let patch = json!({"metadata": {
        "name": "two",
        "description": null,
        "avatar": "https://example.org/a.png",
        "custom": {"a": {"b": null, "e": 3}, "d": null, "absent": null},
    }});
    let changed = alice.patch(1, path, patch.clone()).await.ok(200);
    let expected = json!({
        "name": "two",
        "avatar": "https://example.org/a.png",
        "custom": {"a": {"c": 2, "e": 3}},
    });
    let conversation = &changed["conversation"];
    assert_eq!(conversation["metadata"], expected);
    assert_eq!(
        (&conversation["version"], &conversation["role"]),
        (&json!(2), &json!("admin"))
    );
    assert_eq!(
        (&conversation["lastSeq"], &conversation["lastMessage"]),
        (&json!(2), &Value::Null)
    );
    assert_eq!(changed.header("etag"), None);
    assert_eq!(bob.get(0, path).await["conversation"]["metadata"], expected);
    let log = bob.get(1, &format!("{path}/events?after=1")).await;
    assert_eq!(log["events"][0]["type"], "conversation.updated");
    assert_eq!(
        log["events"][0]["data"],
        json!({"metadata": expected, "version": 2})
    );

    // What changes nothing is no change.
    let media_type = [(
        "content-type",
        "application/merge-patch+json; charset=utf-8",
    )];
    let again = alice
        .call(0, "PATCH", path, &media_type, Some(patch))
        .await
        .ok(200);
    assert_eq!(
        (
            &again["conversation"]["metadata"],
            &again["conversation"]["version"]
        ),
        (&expected, &json!(2))
    );
    let gone = json!({"metadata": {"name": null, "avatar": null, "custom": null}});
    let emptied = alice.patch(0, path, gone).await.ok(200);
    assert_eq!(emptied["conversation"]["metadata"], json!({}));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_patch_is_refused_with_every_field() {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    for bad in [
        json!({}),
        json!({"metadata": null}),
        json!({"metadata": []}),
    ] {
        alice.patch(0, &path, bad).await.invalid(&["/metadata"]);
    }
    let long = json!({"metadata": {"name": "x".repeat(201), "description": "x".repeat(2001), "avatar": "ftp://x",
        "custom": {"a": "x".repeat(16 * 1024)}, "typo": 1}, "version": 2});
    alice.patch(0, &path, long).await.invalid(&[
        "/metadata/avatar",
        "/metadata/custom",
        "/metadata/description",
        "/metadata/name",
        "/metadata/typo",
        "/version",
    ]);
    // Each patch is small enough, but what they make together is not.
    let half = |name: &str| json!({"metadata": {"custom": {name: "x".repeat(10_000)}}});
    alice.patch(0, &path, half("a")).await.ok(200);
    alice
        .patch(0, &path, half("b"))
        .await
        .invalid(&["/metadata/custom"]);
    let text = [("content-type", "text/plain")];
    let body = Some(json!({"metadata": {}}));
    alice
        .call(0, "PATCH", &path, &text, body)
        .await
        .refused(415, "UNSUPPORTED_MEDIA_TYPE");
    assert_eq!(alice.get(0, &path).await["conversation"]["version"], 2);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admins_or_both_direct_members_change_metadata() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob, eve) = (
        cluster.user("alice"),
        cluster.user("bob"),
        cluster.user("eve"),
    );
    let group = alice.begins(0, "group", &["bob"]).await;
    let patch = || json!({"metadata": {"name": "x"}});
    bob.patch(1, &group, patch())
        .await
        .refused(403, "INSUFFICIENT_PERMISSIONS");
    eve.patch(1, &group, patch())
        .await
        .refused(404, "CONVERSATION_NOT_FOUND");
    let direct = alice.begins(1, "direct", &["alice", "bob"]).await;
    bob.patch(0, &direct, patch()).await.ok(200);
    alice.patch(0, &direct, patch()).await.ok(200);
    cluster.end().await;
}

async fn patch_if(
    user: &User,
    gateway: usize,
    path: &str,
    if_match: &[(&str, &str)],
) -> crate::support::Answer {
    // One that changes something.
    let name = Uuid::now_v7().to_string();
    let body = Some(json!({"metadata": {"name": name}}));
    user.call(gateway, "PATCH", path, if_match, body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn if_match_takes_version_or_star_only() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    for (number, good) in ["\"1\"", "2", "*", " \"4\" "].iter().enumerate() {
        let changed = patch_if(&alice, number % 2, &path, &[("if-match", good)])
            .await
            .ok(200);
        assert_eq!(changed["conversation"]["version"], number + 2);
    }
    for other in ["\"4\"", "4", "6", "0", "18446744073709551615"] {
        let conflict = patch_if(&alice, 0, &path, &[("if-match", other)]).await;
        assert_eq!(
            conflict.refused(409, "VERSION_CONFLICT")["currentVersion"],
            5,
            "{other}"
        );
    }
    // Memberships are no versions, and an ETag is none either.
    alice
        .post(
            1,
            &format!("{path}/participants"),
            json!({"userId": "carol"}),
        )
        .await
        .ok(201);
    let response = alice.get(0, &path).await;
    assert_eq!(response["conversation"]["version"], 5);
    let etag = response.header("etag").unwrap();
    for bad in [
        "W/\"5\"",
        "\"5\", \"6\"",
        "5,5",
        "\"5",
        "+5",
        "-1",
        "05",
        "x",
        "",
        "\"*\"",
        etag,
    ] {
        patch_if(&alice, 0, &path, &[("if-match", bad)])
            .await
            .refused(400, "INVALID_IF_MATCH");
    }
    let twice = [("if-match", "5"), ("if-match", "5")];
    patch_if(&alice, 1, &path, &twice)
        .await
        .refused(400, "INVALID_IF_MATCH");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_concurrent_same_version_patches_wins() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    for version in 1..=5_u64 {
        let if_match = format!("\"{version}\"");
        let header = [("if-match", if_match.as_str())];
        let patches = (0..6).map(|number| patch_if(&alice, number % 2, &path, &header));
        let answers = futures_util::future::join_all(patches).await;
        let won = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(won, 1, "{answers:?}");
        for lost in answers.into_iter().filter(|answer| answer.status != 200) {
            assert_eq!(
                lost.refused(409, "VERSION_CONFLICT")["currentVersion"],
                version + 1
            );
        }
    }
    let events = sqlx::query_scalar::<_, i64>(
        "select count(*) from events where conversation_id = $1::uuid",
    )
    .bind(id_of(&path))
    .fetch_one(&cluster.store)
    .await
    .unwrap();
    assert_eq!(events, 6);
    cluster.end().await;
}
