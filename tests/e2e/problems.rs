//! Refusals by the HTTP framework are problem documents on every route.

use serde_json::json;

use crate::support::{Cluster, Raw, Setup, User, id_of};

async fn one_of_each() -> (Cluster, User) {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let alice = cluster.user("alice");
    (cluster, alice)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_route_is_404_and_wrong_method_405() {
    let (cluster, alice) = one_of_each().await;
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    for path in [
        "/nowhere",
        "/try",
        "/v1",
        "/v2/messages",
        "/v1/conversations/",
        "/v1/messages/x/y",
        "/v1/Messages",
    ] {
        for method in ["GET", "POST", "DELETE"] {
            alice
                .call(0, method, path, &[], None)
                .await
                .refused(404, "NOT_FOUND");
        }
    }
    for (path, allowed) in [
        ("/v1/conversations", "GET,HEAD,POST"),
        (&format!("/v1/conversations/{id}"), "DELETE,GET,HEAD,PATCH"),
        (
            &format!("/v1/conversations/{id}/participants"),
            "GET,HEAD,POST",
        ),
        (
            &format!("/v1/conversations/{id}/participants/bob"),
            "DELETE,PATCH",
        ),
        (&format!("/v1/conversations/{id}/messages"), "GET,HEAD"),
        (&format!("/v1/conversations/{id}/events"), "GET,HEAD"),
        ("/v1/messages", "POST"),
        ("/v1/messages/read", "POST"),
        (&format!("/v1/messages/{id}"), "DELETE,GET,HEAD,PATCH"),
        (&format!("/v1/messages/conversation/{id}"), "GET,HEAD"),
        ("/v1/ws", "GET,HEAD"),
        ("/", "GET,HEAD"),
    ] {
        for method in ["PUT", "TRACE", "X-OWN"] {
            let refused = alice
                .call(0, method, path, &[], None)
                .await
                .refused(405, "METHOD_NOT_ALLOWED");
            let allow = refused
                .header("allow")
                .unwrap_or_else(|| panic!("{method} {path}"));
            let mut methods: Vec<_> = allow.split(',').map(str::trim).collect();
            methods.sort_unstable();
            assert_eq!(methods.join(","), allowed, "{method} {path}");
        }
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_bodies_are_refused_on_every_route() {
    let (cluster, alice) = one_of_each().await;
    let path = alice.begins(0, "group", &["bob"]).await;
    let message = alice.says(0, &path, "hi").await;
    let bearer = format!("Bearer {}", alice.token);
    let merge = format!("/v1/messages/{}", message["id"].as_str().unwrap());
    for (method, route) in [
        ("POST", "/v1/conversations"),
        ("PATCH", &path),
        ("POST", &format!("{path}/participants")),
        ("PATCH", &format!("{path}/participants/bob")),
        ("POST", "/v1/messages"),
        ("POST", "/v1/messages/read"),
        ("PATCH", &merge),
    ] {
        for media_type in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonx",
            "",
        ] {
            let header = [("content-type", media_type)];
            let refused = alice.call(0, method, route, &header, Some(json!({}))).await;
            refused.refused(415, "UNSUPPORTED_MEDIA_TYPE");
        }
        let large = json!({"a": "x".repeat(641 * 1024)});
        alice
            .call(0, method, route, &[], Some(large))
            .await
            .refused(413, "PAYLOAD_TOO_LARGE");
        for broken in ["", "{", "[1]", "null", "{\"a\":1,\"a\":2}", "\u{feff}{}"] {
            let headers = [
                ("authorization", bearer.as_str()),
                ("content-type", "application/json"),
            ];
            let answer = alice
                .http(0)
                .raw(method, route, &headers, broken)
                .await
                .unwrap();
            let problem: serde_json::Value = answer.json().unwrap();
            assert_eq!(
                (answer.status, &problem["code"]),
                (400, &json!("VALIDATION_ERROR")),
                "{broken}"
            );
        }
    }
    let merge_patch = [("content-type", "application/merge-patch+json")];
    let body = Some(json!({"content": 1}));
    alice
        .call(0, "PATCH", &merge, &merge_patch, body)
        .await
        .refused(415, "UNSUPPORTED_MEDIA_TYPE");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn non_json_accept_is_406_problem_becomes_json() {
    let (cluster, alice) = one_of_each().await;
    let path = alice.begins(0, "group", &["bob"]).await;
    for accepted in [
        "text/html",
        "application/json;q=0",
        "application/problem+json",
    ] {
        let header = [("accept", accepted)];
        alice
            .call(0, "GET", &path, &header, None)
            .await
            .refused(406, "NOT_ACCEPTABLE");
        let body = Some(json!({"metadata": {}}));
        alice
            .call(0, "PATCH", &path, &header, body)
            .await
            .refused(406, "NOT_ACCEPTABLE");
    }
    let header = [
        ("accept", "application/json"),
        ("x-request-id", "mine-1.2_3"),
    ];
    let refused = alice.call(0, "GET", "/v1/messages/x", &header, None).await;
    assert_eq!(
        (refused.status, &refused["code"]),
        (404, &json!("MESSAGE_NOT_FOUND"))
    );
    assert_eq!(refused.header("content-type"), Some("application/json"));
    assert_eq!(
        (refused.header("x-request-id"), &refused["requestId"]),
        (Some("mine-1.2_3"), &json!("mine-1.2_3"))
    );
    for bad in ["a b", &"x".repeat(129), ""] {
        let answer = alice
            .call(0, "GET", &path, &[("x-request-id", bad)], None)
            .await
            .ok(200);
        assert_ne!(answer.header("x-request-id"), Some(bad));
        assert!(answer.header("x-request-id").is_some());
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_answers_as_get_without_a_body() {
    let (cluster, alice) = one_of_each().await;
    let path = alice.begins(0, "group", &["bob"]).await;
    let message = alice.says(0, &path, "hi").await;
    for route in [
        "/v1/conversations".to_owned(),
        path.clone(),
        format!("{path}/participants"),
        format!("{path}/messages"),
        format!("{path}/events"),
        format!("/v1/messages/{}", message["id"].as_str().unwrap()),
        format!("/v1/messages/conversation/{}", id_of(&path)),
        "/v1/messages/nothing".to_owned(),
    ] {
        let got = alice.get(0, &route).await;
        let head = alice.call(0, "HEAD", &route, &[], None).await;
        assert_eq!(
            (head.status, head.response.body.len()),
            (got.status, 0),
            "{route}"
        );
        for name in ["content-type", "etag"] {
            assert_eq!(head.header(name), got.header(name), "{route}");
        }
        assert!(head.header("x-request-id").is_some());
    }
    let etag = alice.get(0, &path).await.header("etag").unwrap().to_owned();
    let unchanged = alice
        .call(0, "HEAD", &path, &[("if-none-match", &etag)], None)
        .await;
    assert_eq!(unchanged.status, 304);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrade_of_wrong_version_or_origin_is_refused() {
    let (cluster, alice) = one_of_each().await;
    let port = cluster.gateways[0].port();
    let bearer = format!("Authorization: Bearer {}", alice.token);
    let refused = async |version: &str, origin: Option<&str>| {
        let mut headers = vec![
            "Connection: Upgrade".to_owned(),
            "Upgrade: websocket".to_owned(),
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==".to_owned(),
            "Sec-WebSocket-Protocol: confab.v1.json".to_owned(),
            format!("Sec-WebSocket-Version: {version}"),
        ];
        // Beside a bearer token in the header no origin is looked at.
        headers.push(origin.map_or(bearer.clone(), |origin| format!("Origin: {origin}")));
        let mut raw = Raw::connect(port).await;
        let (status, body) = raw.request("GET", "/v1/ws", &headers, "").await;
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        (status, problem["code"].as_str().unwrap().to_owned())
    };
    let code = |status, code: &str| (status, code.to_owned());
    assert_eq!(refused("12", None).await, code(426, "UPGRADE_REQUIRED"));
    let foreign = refused("13", Some("https://evil.example")).await;
    assert_eq!(foreign, code(403, "ORIGIN_FORBIDDEN"));
    cluster.end().await;
}
