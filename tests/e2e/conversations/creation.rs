//! A creation is executed once, at any gateway and for any number of repeats.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Cluster, Setup, User, claims, soak};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_creates_one_conversation_at_any_gateway() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let group = json!({"type": "group", "participants": ["bob", "bob", "alice"], "metadata": {"name": "one"}});
    let create = async |gateway: usize, key: &str, body: &Value| {
        let key = [("idempotency-key", key)];
        let body = Some(body.clone());
        alice
            .call(gateway, "POST", "/v1/conversations", &key, body)
            .await
    };
    let (one, other) = tokio::join!(create(0, "k-1", &group), create(1, "\"k-1\"", &group));
    assert_eq!((one.status, other.status), (201, 201));
    assert_eq!(one.response.body, other.response.body);
    assert_eq!(one.header("etag"), other.header("etag"));
    assert_eq!(one.header("location"), other.header("location"));
    let replays = [&one, &other].map(|r| r.header("idempotent-replayed") == Some("true"));
    assert_ne!(replays[0], replays[1]);
    assert_eq!(one.each("participants", "userId"), ["alice", "bob"]);

    let other = json!({"type": "group", "participants": ["carol"]});
    create(1, "k-1", &other)
        .await
        .refused(422, "IDEMPOTENCY_KEY_REUSED");
    create(0, "", &group)
        .await
        .refused(400, "INVALID_IDEMPOTENCY_KEY");
    // A refusal that was decided in the transaction is kept as well.
    alice.begins(0, "direct", &["alice", "bob"]).await;
    let direct = json!({"type": "direct", "participants": ["alice", "bob"]});
    let first = create(0, "k-2", &direct)
        .await
        .refused(409, "DIRECT_CONVERSATION_EXISTS");
    let kept = first["conversationId"].as_str().unwrap();
    alice
        .delete(1, &format!("/v1/conversations/{kept}"))
        .await
        .ok(200);
    create(1, "k-2", &direct)
        .await
        .refused(409, "DIRECT_CONVERSATION_EXISTS");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_conversation_is_refused_with_every_field() {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let alice = cluster.user("alice");
    let path = "/v1/conversations";
    let bad = json!({"type": "crowd", "participants": [], "metadata": {"name": 1, "avatar": "x"}, "sender": "eve"});
    let pointers = [
        "/metadata/avatar",
        "/metadata/name",
        "/participants",
        "/sender",
        "/type",
    ];
    alice.post(0, path, bad).await.invalid(&pointers);
    alice.post(0, path, json!([])).await.invalid(&[""]);
    alice
        .get(0, "/v1/conversations?limit=0&order=x&typo=1")
        .await
        .invalid(&["limit", "order", "typo"]);
    alice
        .get(0, "/v1/conversations?limit=101&type=crowd")
        .await
        .invalid(&["limit", "type"]);
    alice
        .get(0, "/v1/conversations?cursor=x")
        .await
        .refused(400, "INVALID_CURSOR");
    alice
        .get(0, "/v1/conversations/1")
        .await
        .refused(404, "CONVERSATION_NOT_FOUND");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeat_of_running_creation_is_told_so() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let mut running = cluster.store.begin().await.unwrap();
    let sql = "insert into creation_keys (tenant, user_id, key, expires_at) \
        values ('default', 'alice', 'k', now() + interval '1 day')";
    sqlx::query(sql).execute(&mut *running).await.unwrap();
    let create = async || {
        let group = json!({"type": "group", "participants": ["bob"]});
        let key = [("idempotency-key", "k")];
        alice
            .call(1, "POST", "/v1/conversations", &key, Some(group))
            .await
    };
    create().await.refused(409, "IDEMPOTENCY_IN_PROGRESS");
    running.rollback().await.unwrap();
    let created = create().await.ok(201);
    assert_eq!(created.header("idempotent-replayed"), None);
    cluster.end().await;
}

/// Their answers say each name in JSON, twice as long: together they fit no message of NATS unless that was counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creations_with_escaped_names_are_all_answered() {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        gateway_env: vec![
            // What fails by its size fails all the same; what is only slow here must not.
            ("CONFAB_REQUEST_BUDGET", Some("40000".to_owned())),
        ],
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let alice = cluster.user("alice");
    let mut worker_retry = claims("bob");
    worker_retry["tenant"] = "elsewhere".into();
    let bob = cluster.user_of(&worker_retry);
    let escaped = |n: usize| format!("{n:0>3}{}", "\"\\".repeat(125 / 2));
    let names: Vec<_> = (0..100).map(escaped).collect();
    let large = json!({"type": "group", "participants": names});
    let small = json!({"type": "group", "participants": ["carol"]});
    let begin = |user: &User, body: &Value| {
        let (user, body) = (user.clone(), body.clone());
        async move { user.post(0, "/v1/conversations", body).await.status }
    };
    let count = soak(120, 48);
    let large = (0..count).map(|_| begin(&alice, &large));
    let small = (0..4).map(|_| begin(&bob, &small));
    let (large, small) = tokio::join!(join_all(large), join_all(small));
    assert_eq!(large, vec![201; count]);
    assert_eq!(small, [201; 4]);
    cluster.end().await;
}
