//! A worker logs a failed command with the client's request id and trace.

use serde_json::{Value, json};

use super::{WAIT_TIMEOUT, lines};
use crate::support::{Cluster, Raw, Setup, eventually, id_of};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN_ID: &str = "00f067aa0ba902b7";

/// A request that fails at the worker: its id, and whether it was traced.
type Failed = (String, bool);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_lines_have_request_and_trace() {
    let cluster = Cluster::start(logging("json")).await;
    for (id, is_traced) in fail(&cluster).await {
        for (role, level) in [
            (&cluster.workers[0], "ERROR"),
            (&cluster.gateways[0], "WARN"),
        ] {
            let what = format!("{id} in {}", role.process().name());
            let line = eventually(&what, WAIT_TIMEOUT, async || {
                let of_it = |line: &Value| line["request.id"] == *id && line["level"] == level;
                lines(role).into_iter().find(of_it)
            })
            .await;
            let trace = [&line["trace_id"], &line["span_id"]];
            if is_traced {
                assert_eq!(trace, [TRACE_ID, SPAN_ID], "{line}");
            } else {
                assert_eq!(trace, [&Value::Null, &Value::Null], "{line}");
            }
        }
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_lines_have_request_and_trace() {
    let cluster = Cluster::start(logging("text")).await;
    for (id, is_traced) in fail(&cluster).await {
        for (role, level) in [
            (&cluster.workers[0], "ERROR"),
            (&cluster.gateways[0], "WARN"),
        ] {
            let what = format!("{id} in {}", role.process().name());
            let line = eventually(&what, WAIT_TIMEOUT, async || {
                let log = std::fs::read_to_string(role.process().log()).unwrap();
                let id = format!("request.id={id}");
                let mut lines = log.lines();
                let found = lines.find(|line| line.contains(&id) && line.contains(level));
                found.map(str::to_owned)
            })
            .await;
            let trace = format!("trace_id={TRACE_ID} span_id={SPAN_ID}");
            assert_eq!(line.contains(&trace), is_traced, "{line}");
        }
    }
    cluster.end().await;
}

fn logging(format: &str) -> Setup {
    let format = ("CONFAB_LOG_FORMAT", Some(format.to_owned()));
    Setup {
        gateways: 1,
        workers: 1,
        gateway_env: vec![format.clone()],
        worker_env: vec![format],
        ..Setup::default()
    }
}

/// Has a send, a change and a read fail at the worker over HTTP, traced, and a send over a socket whose upgrade was traced; then a send with
/// a trace that is none.
async fn fail(cluster: &Cluster) -> Vec<Failed> {
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    let conversation = id_of(&path);
    let mut raw = socket(cluster, &alice.token).await;
    let broken = "alter table events rename column payload to payload_gone";
    sqlx::query(broken).execute(&cluster.store).await.unwrap();

    let traceparent = format!("00-{TRACE_ID}-{SPAN_ID}-01");
    let message =
        json!({"conversationId": conversation, "kind": "text", "content": {"text": "hello"}});
    let messages = format!("/v1/conversations/{conversation}/messages");
    let patch = json!({"metadata": {"name": "x"}});
    let calls = [
        (
            "send",
            "POST",
            "/v1/messages",
            Some(&message),
            &*traceparent,
        ),
        ("change", "PATCH", &*path, Some(&patch), &*traceparent),
        ("read", "GET", &*messages, None, &*traceparent),
        (
            "untraced",
            "POST",
            "/v1/messages",
            Some(&message),
            "00-0-0-01",
        ),
    ];
    let mut failed = Vec::new();
    for (id, method, path, body, traceparent) in calls {
        let headers = [("x-request-id", id), ("traceparent", traceparent)];
        let answer = alice.call(0, method, path, &headers, body.cloned()).await;
        let answer = answer.refused(500, "INTERNAL");
        assert_eq!(answer.text("/requestId"), id);
        failed.push((id.to_owned(), id != "untraced"));
    }
    let mut send = message;
    send["type"] = "send".into();
    send["id"] = "0192f0c1-2b3c-7d4e-8f50-112233445566".into();
    raw.text(&send.to_string()).await;
    let error = raw.json().await;
    assert_eq!(
        [&error["type"], &error["code"]],
        ["error", "INTERNAL"],
        "{error}"
    );
    failed.push((error["requestId"].as_str().unwrap().to_owned(), true));
    failed
}

/// A socket whose upgrade was traced, behind its welcome.
async fn socket(cluster: &Cluster, token: &str) -> Raw {
    let headers = [
        format!("Authorization: Bearer {token}"),
        format!("traceparent: 00-{TRACE_ID}-{SPAN_ID}-01"),
    ];
    let port = cluster.gateways[0].port();
    let mut raw = Raw::upgraded(port, "confab.v1.json", &headers).await;
    raw.text(r#"{"type":"hello"}"#).await;
    raw.welcome().await;
    raw
}
