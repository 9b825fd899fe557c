//! A deleted conversation is 410 to former members and 404 to strangers on every route.

use serde_json::{Value, json};

use crate::support::{Cluster, Setup, User, id_of};

/// Every route that names a conversation, or a message of it, with a good body.
fn routes(path: &str, message: &str) -> Vec<(&'static str, String, Option<Value>)> {
    let id = id_of(path);
    vec![
        ("GET", path.to_owned(), None),
        (
            "PATCH",
            path.to_owned(),
            Some(json!({"metadata": {"name": "x"}})),
        ),
        ("GET", format!("{path}/participants"), None),
        (
            "POST",
            format!("{path}/participants"),
            Some(json!({"userId": "dave"})),
        ),
        (
            "PATCH",
            format!("{path}/participants/bob"),
            Some(json!({"role": "admin"})),
        ),
        ("DELETE", format!("{path}/participants/bob"), None),
        ("GET", format!("{path}/messages"), None),
        ("GET", format!("/v1/messages/conversation/{id}"), None),
        ("GET", format!("{path}/events"), None),
        (
            "POST",
            "/v1/messages".to_owned(),
            Some(json!({"conversationId": id, "kind": "text", "content": 1})),
        ),
        (
            "POST",
            "/v1/messages/read".to_owned(),
            Some(json!({"conversationId": id, "upToSeq": 1})),
        ),
        ("GET", format!("/v1/messages/{message}"), None),
        (
            "PATCH",
            format!("/v1/messages/{message}"),
            Some(json!({"content": 2})),
        ),
        ("DELETE", format!("/v1/messages/{message}"), None),
    ]
}

/// Asserts that every route refuses the user so; a route that names a message alone has a code of its own.
async fn assert_refused(user: &User, path: &str, message: &str, status: u16, codes: [&str; 2]) {
    for (number, (method, route, body)) in routes(path, message).into_iter().enumerate() {
        let answer = user.call(number % 2, method, &route, &[], body).await;
        let by_message = route.ends_with(message);
        println!("{method} {route} as {}", user.id);
        answer.refused(status, codes[usize::from(by_message)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_former_members_get_404_everywhere() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob, eve) = (
        cluster.user("alice"),
        cluster.user("bob"),
        cluster.user("eve"),
    );
    let path = alice.begins(0, "group", &["bob", "carol"]).await;
    let message = bob.says(1, &path, "hi").await;
    let message = message["id"].as_str().unwrap();
    bob.delete(0, &format!("{path}/participants/bob"))
        .await
        .ok(200);
    let codes = ["CONVERSATION_NOT_FOUND", "MESSAGE_NOT_FOUND"];
    for user in [&eve, &bob] {
        assert_refused(user, &path, message, 404, codes).await;
        user.delete(1, &path)
            .await
            .refused(404, "CONVERSATION_NOT_FOUND");
    }
    alice.get(1, &path).await.ok(200);
    // One that never was is like one of others.
    let unknown = format!("/v1/conversations/{message}");
    alice
        .get(0, &unknown)
        .await
        .refused(404, "CONVERSATION_NOT_FOUND");
    alice
        .delete(0, &unknown)
        .await
        .refused(404, "CONVERSATION_NOT_FOUND");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_conversation_is_410_only_to_former_members() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob, eve) = (
        cluster.user("alice"),
        cluster.user("bob"),
        cluster.user("eve"),
    );
    let path = alice.begins(0, "group", &["bob", "carol"]).await;
    let client_id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let send = json!({"conversationId": id_of(&path), "clientId": client_id, "kind": "text", "content": 1});
    let sent = bob.post(1, "/v1/messages", send.clone()).await.ok(201);
    let message = sent.text("/message/id");
    // One who left before it was deleted was a member as well.
    let carol = cluster.user("carol");
    carol
        .delete(1, &format!("{path}/participants/carol"))
        .await
        .ok(200);

    bob.delete(0, &path)
        .await
        .refused(403, "INSUFFICIENT_PERMISSIONS");
    let deleted = alice.delete(0, &path).await.ok(200);
    assert_eq!(deleted["deleted"], true);
    assert!(deleted["deletedAt"].is_string(), "{deleted:?}");
    for user in [&alice, &bob, &carol] {
        assert_refused(user, &path, &message, 410, ["CONVERSATION_DELETED"; 2]).await;
        for gateway in 0..2 {
            assert_eq!(user.delete(gateway, &path).await.ok(200).body, deleted.body);
        }
        assert_eq!(
            user.get(1, "/v1/conversations").await["conversations"],
            json!([])
        );
    }
    assert_refused(
        &eve,
        &path,
        &message,
        404,
        ["CONVERSATION_NOT_FOUND", "MESSAGE_NOT_FOUND"],
    )
    .await;
    eve.delete(0, &path)
        .await
        .refused(404, "CONVERSATION_NOT_FOUND");

    // The exact repeat of a stored send is acknowledged as ever.
    let repeated = bob.post(0, "/v1/messages", send).await.ok(201);
    assert_eq!(repeated["message"]["seq"], sent["message"]["seq"]);
    assert_eq!(repeated.header("idempotent-replayed"), Some("true"));
    let types: Vec<String> =
        sqlx::query_scalar("select type from events where conversation_id = $1::uuid order by seq")
            .bind(id_of(&path))
            .fetch_all(&cluster.store)
            .await
            .unwrap();
    assert_eq!(
        types,
        [
            "conversation.created",
            "message.created",
            "participant.removed",
            "conversation.deleted"
        ]
    );
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_deletions_store_one_event() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "direct", &["alice", "bob"]).await;
    let users = [&alice, &bob];
    let deletions = (0..6).map(|n| users[n / 3].delete(n % 2, &path));
    let answers = futures_util::future::join_all(deletions).await;
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (200, &answers[0].body));
    }
    let last_seq =
        sqlx::query_scalar::<_, i64>("select last_seq from conversations where id = $1::uuid")
            .bind(id_of(&path))
            .fetch_one(&cluster.store)
            .await
            .unwrap();
    assert_eq!(last_seq, 2);
    cluster.end().await;
}
