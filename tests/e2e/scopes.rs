//! A token with scopes may do only what they grant.

use serde_json::{Value, json};

use crate::support::{Cluster, Setup, claims, id_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_and_write_scopes_grant_only_themselves() {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let alice = cluster.user("alice");
    let scoped = |scope: &str| {
        let mut claims = claims("alice");
        claims["scope"] = scope.into();
        cluster.user_of(&claims)
    };
    let path = alice.begins(0, "group", &["bob"]).await;
    let id = id_of(&path);
    let said = alice.says(0, &path, "hi").await;
    let message = format!("/v1/messages/{}", said["id"].as_str().unwrap());
    let people = format!("{path}/participants");
    let reads = [
        "/v1/conversations",
        &path,
        &people,
        &format!("{path}/messages"),
        &format!("{path}/events"),
        &message,
        &format!("/v1/messages/conversation/{id}"),
    ];
    let writes: Vec<(&str, String, Value)> = vec![
        (
            "POST",
            "/v1/conversations".into(),
            json!({"type": "group", "participants": ["bob"]}),
        ),
        ("PATCH", path.clone(), json!({"metadata": {}})),
        ("POST", people.clone(), json!({"userId": "carol"})),
        ("PATCH", format!("{people}/bob"), json!({"role": "admin"})),
        (
            "POST",
            "/v1/messages".into(),
            json!({"conversationId": id, "kind": "text", "content": 1}),
        ),
        (
            "POST",
            "/v1/messages/read".into(),
            json!({"conversationId": id, "upToSeq": 1}),
        ),
        ("PATCH", message.clone(), json!({"content": 1})),
        ("DELETE", message.clone(), Value::Null),
        ("DELETE", format!("{people}/bob"), Value::Null),
        ("DELETE", path.clone(), Value::Null),
    ];
    let (reader, writer) = (scoped("openid confab:read"), scoped("confab:write"));
    for route in reads {
        reader.get(0, route).await.ok(200);
        writer
            .get(0, route)
            .await
            .refused(403, "INSUFFICIENT_SCOPE");
        scoped("confab:nothing")
            .get(0, route)
            .await
            .refused(403, "INSUFFICIENT_SCOPE");
        scoped("openid email").get(0, route).await.ok(200);
    }
    for (method, route, body) in writes {
        let refused = reader
            .call(0, method, &route, &[], Some(body.clone()))
            .await;
        refused.refused(403, "INSUFFICIENT_SCOPE");
        let done = writer.call(0, method, &route, &[], Some(body)).await;
        assert!(
            matches!(done.status, 200 | 201),
            "{method} {route}: {done:?}"
        );
    }
    cluster.end().await;
}
