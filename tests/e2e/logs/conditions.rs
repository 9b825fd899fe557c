//! Conditions fail and recover.

use std::time::Duration;

use confab_protocol::error::Code;

use super::{WAIT_TIMEOUT, assert_told_once, line, lines, told};
use crate::support::{Cluster, Jwks, Key, Setup, claims, eventually, jwks};

fn small(gateway_env: Vec<(&'static str, Option<String>)>) -> Setup {
    Setup {
        gateways: 1,
        workers: 1,
        gateway_env,
        own_postgres: true,
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_outage_is_told_once_by_each_role() {
    let mut cluster = Cluster::start(small(Vec::new())).await;
    let alice = cluster.user("alice").on(0).await;
    let conversation = alice.create_group(std::slice::from_ref(&alice.id)).await;
    alice.say(conversation, "before").await;
    let port = cluster.nats.port();
    let before = [&cluster.gateways[0], &cluster.workers[0]].map(|role| lines(role).len());

    cluster.nats.kill().unwrap();
    for (role, before) in [&cluster.gateways[0], &cluster.workers[0]]
        .into_iter()
        .zip(before)
    {
        let warning = line(role, before, ("WARN", "nats")).await;
        let cause = format!("127.0.0.1:{port}: Connection refused");
        assert!(
            warning["error"].as_str().unwrap().contains(&cause),
            "{warning}"
        );
    }
    // Long enough that everything has tried in vain.
    eventually("the gateway sends clients away", WAIT_TIMEOUT, async || {
        let lines = lines(&cluster.gateways[0]).into_iter().skip(before[0]);
        let mut texts = lines.filter_map(|line| Some(line["message"].as_str()?.to_owned()));
        texts.find(|text| text.contains("clients are told to try elsewhere"))
    })
    .await;
    cluster.nats.up().await.unwrap();
    cluster.ready().await;

    for (role, before) in [&cluster.gateways[0], &cluster.workers[0]]
        .into_iter()
        .zip(before)
    {
        line(role, before, ("INFO", "nats")).await;
        assert_told_once(role, before);
        let told = told(role, before);
        assert_eq!(told.len(), 2, "what follows from it is not told: {told:#?}");
    }
    drop(alice);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_outage_is_told_once() {
    let mut cluster = Cluster::start(small(Vec::new())).await;
    let alice = cluster.user("alice").on(0).await;
    let conversation = alice.create_group(std::slice::from_ref(&alice.id)).await;
    alice.say(conversation, "before").await;
    let before = [&cluster.gateways[0], &cluster.workers[0]].map(|role| lines(role).len());

    cluster.database.server().kill().unwrap();
    let warning = line(&cluster.workers[0], before[1], ("WARN", "postgres")).await;
    let error = warning["error"].as_str().unwrap();
    assert!(
        error.starts_with("127.0.0.1:") && error.contains("Connection refused"),
        "{error}"
    );
    eventually("sends are refused", WAIT_TIMEOUT, async || {
        let message = confab_client::NewMessage {
            conversation_id: conversation,
            client_id: None,
            body: crate::support::text("is anybody there?"),
        };
        let sent = alice.http.send_message(&message);
        let code = sent.await.err().and_then(|error| error.code());
        (code == Some(Code::Unavailable)).then_some(())
    })
    .await;
    cluster.database.server().up().await.unwrap();
    cluster.ready().await;
    line(&cluster.workers[0], before[1], ("INFO", "postgres")).await;
    // A gateway that could not read revocations meanwhile says so, and when it can again.
    let of_gateway = told(&cluster.gateways[0], before[0]);
    if !of_gateway.is_empty() {
        line(&cluster.gateways[0], before[0], ("INFO", "revocations")).await;
    }
    for (role, before) in [&cluster.gateways[0], &cluster.workers[0]]
        .into_iter()
        .zip(before)
    {
        assert_told_once(role, before);
    }
    let told = told(&cluster.workers[0], before[1]);
    assert_eq!(told.len(), 2, "what follows from it is not told: {told:#?}");
    drop(alice);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_key_set_is_told_once() {
    let (known, unknown) = (Key::es256("known"), Key::es256("unknown"));
    let server = Jwks::start(jwks([&known])).await;
    let cluster = Cluster::start(Setup {
        own_postgres: false,
        ..small(vec![
            ("CONFAB_JWT_PUBLIC_KEY", None),
            ("CONFAB_JWT_JWKS_URL", Some(server.url.clone())),
            ("CONFAB_JWT_JWKS_INTERVAL", Some("1".to_owned())),
        ])
    })
    .await;
    let gateway = &cluster.gateways[0];
    let html = "<html>Sign in</html>".to_owned();
    for (status, body, cause) in [
        (500, String::new(), "answered 500"),
        (404, String::new(), "answered 404"),
        (200, html, "the answer is not used: "),
    ] {
        let before = lines(gateway).len();
        server.set(status, body);
        // Whoever comes with an unknown key has the set fetched.
        let stranger = confab_client::Http::new(&gateway.url(), "").unwrap();
        eventually("the key set is fetched in vain", WAIT_TIMEOUT, async || {
            let bearer = format!("Bearer {}", unknown.token(&claims("eve")));
            let headers = [("authorization", bearer.as_str())];
            let refused = stranger.raw("GET", "/v1/conversations", &headers, "").await;
            assert_eq!(refused.unwrap().status, 401);
            (!told(gateway, before).is_empty()).then_some(())
        })
        .await;
        let fetched = server.fetches();
        eventually(
            "it is fetched again in vain",
            Duration::from_secs(20),
            async || (server.fetches() >= fetched + 2).then_some(()),
        )
        .await;
        server.set(200, jwks([&known]));
        line(gateway, before, ("INFO", "key_set")).await;
        assert_told_once(gateway, before);
        let told = told(gateway, before);
        assert_eq!(told.len(), 2, "{told:#?}");
        let error = told[0]["error"].as_str().unwrap();
        assert!(error.contains(cause), "{error}");
        assert!(
            error.ends_with("the keys fetched before stay in use"),
            "{error}"
        );
    }
    cluster.end().await;
}

/// How often the gateway's records were not written.
async fn failed_writes(port: u16) -> f64 {
    let page = confab_stack::get(port, "/metrics", WAIT_TIMEOUT).await;
    let (_, page) = page.unwrap();
    let line = |line: &&str| line.starts_with("confab_record_writes_total{result=\"failed\"}");
    let line = page.lines().find(line).unwrap();
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// The bucket can be seen all the while: that it is there is no sign that it takes records.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_are_not_permitted_are_told_once() {
    let users = |denied: &str| {
        format!(
            "authorization {{ users: [\n\
             {{ user: gateway, password: p, permissions: {{ publish: {{ allow: \">\", deny: [\"{denied}\"] }} }} }}\n\
             {{ user: worker, password: p }} ] }}\n"
        )
    };
    let user = |name: &str| {
        vec![
            ("CONFAB_NATS_USER", Some(name.to_owned())),
            ("CONFAB_NATS_PASSWORD", Some("p".to_owned())),
        ]
    };
    let mut cluster = Cluster::start(Setup {
        nats_config: users("nothing"),
        worker_env: user("worker"),
        own_postgres: false,
        ..small(user("gateway"))
    })
    .await;
    let before = lines(&cluster.gateways[0]).len();
    let port = cluster.gateways[0].port();
    cluster.reconfigure_nats(&users("$KV.confab_sessions.>"));
    let alice = eventually("a session opens", WAIT_TIMEOUT, async || {
        let user = cluster.user("alice");
        let session =
            confab_client::Session::open(user.url(0), confab_client::Options::bearer(&user.token));
        session.await.ok()
    })
    .await;
    let condition = "session_records";
    line(&cluster.gateways[0], before, ("WARN", condition)).await;
    let failed = failed_writes(port).await;
    eventually("it fails for long", WAIT_TIMEOUT, async || {
        (failed_writes(port).await >= failed + 4.0).then_some(())
    })
    .await;
    cluster.reconfigure_nats(&users("nothing"));
    line(&cluster.gateways[0], before, ("INFO", condition)).await;
    let told = told(&cluster.gateways[0], before).into_iter();
    let levels: Vec<_> = told
        .filter(|line| line["condition"] == condition)
        .map(|line| line["level"].clone())
        .collect();
    assert_eq!(levels, ["WARN", "INFO"]);
    drop(alice);
    cluster.end().await;
}
