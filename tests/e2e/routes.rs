//! The main job over HTTP, at any gateway: begin a conversation once, find it, change its members, read its history.

use confab_client::Response;
use confab_protocol::ids::ConversationId;
use serde_json::{Value, json};

use crate::support::{Cluster, Setup, User};

/// A call with the user's token.
async fn call(
    user: &User,
    gateway: usize,
    method: &str,
    path: &str,
    more: &[(&str, &str)],
    body: Option<Value>,
) -> Response {
    let bearer = format!("Bearer {}", user.token);
    let mut headers = vec![
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    headers.extend_from_slice(more);
    let body = body
        .map(|body| body.to_string().into_bytes())
        .unwrap_or_default();
    user.http(gateway)
        .raw(method, path, &headers, body)
        .await
        .unwrap()
}

fn body(response: &Response) -> Value {
    response.json().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_begins_one_conversation_whatever_gateway_hears_it_and_however_often() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let group = json!({"type": "group", "participants": ["bob", "bob", "alice"], "metadata": {"name": "one"}});
    let create = async |gateway: usize, key: &str, body: &Value| {
        call(
            &alice,
            gateway,
            "POST",
            "/v1/conversations",
            &[("idempotency-key", key)],
            Some(body.clone()),
        )
        .await
    };
    let (one, other) = tokio::join!(create(0, "k-1", &group), create(1, "\"k-1\"", &group));
    assert_eq!((one.status, other.status), (201, 201));
    assert_eq!(one.body, other.body);
    assert_eq!(one.header("etag"), other.header("etag"));
    assert_eq!(one.header("location"), other.header("location"));
    let replays = [&one, &other]
        .iter()
        .filter(|r| r.header("idempotent-replayed") == Some("true"))
        .count();
    assert_eq!(replays, 1);
    let members: Vec<_> = body(&one)["participants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["userId"].clone())
        .collect();
    assert_eq!(members, ["alice", "bob"]);

    let changed = create(
        1,
        "k-1",
        &json!({"type": "group", "participants": ["carol"]}),
    )
    .await;
    assert_eq!(
        (changed.status, &body(&changed)["code"]),
        (422, &json!("IDEMPOTENCY_KEY_REUSED"))
    );
    let unknown = call(
        &alice,
        1,
        "POST",
        "/v1/messages?typo=1",
        &[],
        Some(json!({})),
    )
    .await;
    assert_eq!(
        (unknown.status, &body(&unknown)["errors"][0]["pointer"]),
        (400, &json!("typo"))
    );
    let bad = create(0, "", &group).await;
    assert_eq!(
        (bad.status, &body(&bad)["code"]),
        (400, &json!("INVALID_IDEMPOTENCY_KEY"))
    );
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_conversation_is_one_a_pair_and_its_members_are_fixed() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let direct = json!({"type": "direct", "participants": ["alice", "bob"]});
    let first = call(
        &alice,
        0,
        "POST",
        "/v1/conversations",
        &[],
        Some(direct.clone()),
    )
    .await;
    assert_eq!(first.status, 201);
    let id = body(&first)["conversation"]["id"].clone();
    let second = call(&bob, 1, "POST", "/v1/conversations", &[], Some(direct)).await;
    assert_eq!(second.status, 409);
    assert_eq!(body(&second)["code"], "DIRECT_CONVERSATION_EXISTS");
    assert_eq!(body(&second)["conversationId"], id);
    assert_eq!(second.header("location"), first.header("location"));
    let alone = json!({"type": "direct", "participants": ["bob", "carol"]});
    let invalid = call(&alice, 0, "POST", "/v1/conversations", &[], Some(alone)).await;
    assert_eq!(
        (invalid.status, &body(&invalid)["code"]),
        (400, &json!("INVALID_DIRECT_CONVERSATION"))
    );
    let path = format!("/v1/conversations/{}/participants", id.as_str().unwrap());
    let added = call(
        &alice,
        1,
        "POST",
        &path,
        &[],
        Some(json!({"userId": "carol"})),
    )
    .await;
    assert_eq!(
        (added.status, &body(&added)["code"]),
        (409, &json!("DIRECT_CONVERSATION_FIXED"))
    );
    let left = call(&bob, 0, "DELETE", &format!("{path}/bob"), &[], None).await;
    assert_eq!(
        (left.status, &body(&left)["code"]),
        (409, &json!("DIRECT_CONVERSATION_FIXED"))
    );
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_is_read_and_listed_by_its_members_only() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob, eve) = (
        cluster.user("alice"),
        cluster.user("bob"),
        cluster.user("eve"),
    );
    let group = json!({"type": "group", "participants": ["bob"], "metadata": {"name": "trio"}});
    let created = call(&alice, 0, "POST", "/v1/conversations", &[], Some(group)).await;
    let id: ConversationId = body(&created)["conversation"]["id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let path = format!("/v1/conversations/{id}");

    let shown = call(&bob, 1, "GET", &path, &[], None).await;
    let etag = shown.header("etag").unwrap().to_owned();
    assert_eq!(
        call(&bob, 0, "GET", &path, &[("if-none-match", &etag)], None)
            .await
            .status,
        304
    );
    let message = json!({"conversationId": id, "kind": "text", "content": {"text": "hi"}});
    assert_eq!(
        call(&alice, 1, "POST", "/v1/messages", &[], Some(message))
            .await
            .status,
        201
    );
    let again = call(&bob, 0, "GET", &path, &[("if-none-match", &etag)], None).await;
    assert_eq!(
        (again.status, &body(&again)["conversation"]["unreadCount"]),
        (200, &json!(1))
    );

    let listed = body(
        &call(
            &bob,
            1,
            "GET",
            "/v1/conversations?order=created&limit=10",
            &[],
            None,
        )
        .await,
    );
    assert_eq!(
        listed["conversations"][0]["lastMessage"]["content"]["text"],
        "hi"
    );
    assert_eq!(listed["nextCursor"], Value::Null);
    let typo = call(
        &bob,
        1,
        "GET",
        "/v1/conversations?limit=0&typo=1",
        &[],
        None,
    )
    .await;
    assert_eq!(
        (typo.status, body(&typo)["errors"].as_array().unwrap().len()),
        (400, 2)
    );

    for (method, route) in [
        ("GET", path.clone()),
        ("GET", format!("{path}/messages")),
        ("DELETE", format!("{path}/participants/bob")),
    ] {
        let refused = call(&eve, 0, method, &route, &[], None).await;
        assert_eq!(
            (refused.status, &body(&refused)["code"]),
            (404, &json!("CONVERSATION_NOT_FOUND")),
            "{route}"
        );
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_added_all_or_none_and_leave_or_are_removed_by_admins() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let group = json!({"type": "group", "participants": ["bob"]});
    let created = call(&alice, 0, "POST", "/v1/conversations", &[], Some(group)).await;
    let id = body(&created)["conversation"]["id"].clone();
    let path = format!("/v1/conversations/{}", id.as_str().unwrap());
    let people = format!("{path}/participants");
    let many = json!({"participants": [{"userId": "carol"}, {"userId": "dave", "role": "admin"}]});
    let added = call(&alice, 1, "POST", &people, &[], Some(many.clone())).await;
    assert_eq!(
        (added.status, &body(&added)["participants"][1]["role"]),
        (201, &json!("admin"))
    );
    let twice = call(&alice, 0, "POST", &people, &[], Some(many)).await;
    assert_eq!(
        (twice.status, &body(&twice)["userIds"]),
        (409, &json!(["carol", "dave"]))
    );
    let forbidden = call(&bob, 0, "DELETE", &format!("{people}/carol"), &[], None).await;
    assert_eq!(
        (forbidden.status, &body(&forbidden)["code"]),
        (403, &json!("INSUFFICIENT_PERMISSIONS"))
    );
    let left = call(&bob, 0, "DELETE", &format!("{people}/bob"), &[], None).await;
    assert!(left.status == 200 && body(&left)["participant"]["leftAt"].is_string());
    assert_eq!(call(&bob, 1, "GET", &path, &[], None).await.status, 404);
    let repeated = call(&alice, 1, "DELETE", &format!("{people}/bob"), &[], None).await;
    assert_eq!(
        (repeated.status, &body(&repeated)["code"]),
        (404, &json!("PARTICIPANT_NOT_FOUND"))
    );
    cluster.end().await;
}
