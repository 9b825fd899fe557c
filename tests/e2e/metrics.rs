//! Exported metrics match docs/metrics.md, and clients cannot create label values.

use std::collections::BTreeSet;

use crate::support::{Cluster, Setup};

async fn scrape(cluster: &Cluster, url: &str) -> String {
    let user = cluster.user("prometheus");
    let http = user.http(0).with(url, &user.token).unwrap();
    let answer = http.raw("GET", "/metrics", &[], Vec::new()).await.unwrap();
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.body).unwrap()
}

/// The value of a sample whose labels are among those given, in any order.
fn value(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let line = text.lines().find(|line| {
        let sample = line.split([' ', '{']).next();
        sample == Some(name) && labels.iter().all(|label| line.contains(label))
    });
    line?.rsplit_once(' ')?.1.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_family_that_is_scraped_is_documented() {
    let cluster = Cluster::start(Setup {
        gateways: 1,
        workers: 1,
        gateway_env: vec![("CONFAB_RATE_LIMIT", Some("user=1/12".to_owned()))],
        ..Setup::default()
    })
    .await;
    let alice = cluster.user("alice").on(0).await;
    let conversation = alice.create_group(std::slice::from_ref(&alice.id)).await;
    let seq = alice.say(conversation, "hello").await;
    alice.post(conversation, "hello").await;
    alice
        .hears(conversation, seq, std::time::Duration::from_secs(10))
        .await;
    for number in 0..8 {
        let path = format!("/nowhere/{number}");
        let unknown = alice.http.raw("BREW", &path, &[], Vec::new()).await;
        assert_eq!(unknown.unwrap().status, 404);
        let token = cluster.user("alice").token;
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let listed = alice
            .http
            .raw("GET", "/v1/conversations", &headers, Vec::new());
        listed.await.unwrap();
    }

    let text = scrape(&cluster, &cluster.gateways[0].url()).await;
    let of_worker = scrape(&cluster, &cluster.workers[0].url()).await;

    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let documented: BTreeSet<_> = docs
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.trim_end_matches("_total"))
        .collect();
    let scraped = text.lines().chain(of_worker.lines());
    let families = scraped.filter_map(|line| line.strip_prefix("# TYPE "));
    for family in families.filter_map(|line| line.split(' ').next()) {
        let info = format!("{family}_info");
        let known = documented.contains(family) || documented.contains(info.as_str());
        assert!(known, "{family} is not in docs/metrics.md");
    }
    assert_counts(&text);
    let created = "confab_conversations_created_total";
    assert_eq!(value(&of_worker, created, &[r#"type="group""#]), Some(1.0));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_documented_family_is_there_from_the_start() {
    let cluster = Cluster::start(Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    })
    .await;
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    for (role, service) in [
        ("gateway", &cluster.gateways[0]),
        ("worker", &cluster.workers[0]),
    ] {
        let text = scrape(&cluster, &service.url()).await;
        let is_there = |name: &str| {
            let sample = |line: &str| line.split([' ', '{']).next().map(str::to_owned);
            let mut samples = text.lines().filter_map(sample);
            let of_histogram = format!("{name}_bucket");
            samples.any(|sample| sample == name || sample == of_histogram)
        };
        let rows = docs.lines().filter_map(|line| line.strip_prefix("| `"));
        let of_role =
            |row: &&str| row.ends_with(&format!("| {role} |")) || row.ends_with("| any |");
        let names = rows.filter(of_role).filter_map(|row| row.split_once('`'));
        let missing: Vec<_> = names
            .map(|(name, _)| name)
            .filter(|name| !is_there(name))
            .collect();
        assert!(missing.is_empty(), "{role}: {missing:?}");
    }
    cluster.end().await;
}

fn assert_counts(text: &str) {
    let least = |name: &str, labels: &[&str], least: f64| {
        let found = value(text, name, labels);
        assert!(
            found.is_some_and(|value| value >= least),
            "{name}{labels:?}: {found:?}"
        );
    };
    let (posts, lists) = (r#"route="/v1/messages""#, r#"route="/v1/conversations""#);
    least(
        "confab_http_requests_total",
        &[posts, r#"status="201""#],
        1.0,
    );
    least(
        "confab_http_requests_total",
        &[lists, r#"status="429""#],
        1.0,
    );
    let unknown = [r#"route="unmatched""#, r#"method="other""#];
    least("confab_http_requests_total", &unknown, 8.0);
    least("confab_http_request_payload_bytes_sum", &[posts], 50.0);
    least("confab_http_answer_payload_bytes_sum", &[posts], 100.0);
    least(
        "confab_gateway_command_payload_bytes_count",
        &[r#"command="send_message""#],
        2.0,
    );
    for transport in ["http", "websocket"] {
        let labels = [&format!("transport=\"{transport}\""), r#"result="OK""#];
        least("confab_auth_requests_total", &labels, 1.0);
    }
    least(
        "confab_rate_limit_refusals_total",
        &[r#"scope="user""#],
        1.0,
    );
    for (direction, kind) in [
        ("in", "hello"),
        ("in", "send"),
        ("out", "welcome"),
        ("out", "ack"),
        ("out", "event"),
    ] {
        let labels = [
            &format!("direction=\"{direction}\""),
            &format!("type=\"{kind}\""),
        ];
        let labels = labels.map(String::as_str);
        least("confab_socket_frames_total", &labels, 1.0);
        least("confab_socket_frame_payload_bytes_total", &labels, 10.0);
    }
    assert!(!text.contains("/nowhere"), "paths are no labels");
}
