use std::io;
use std::sync::{Arc, Mutex};

use confab_protocol::chain::chain;
use serde_json::Value;
use tracing::subscriber::with_default;
use tracing::{debug, error, error_span, info, info_span, trace};

use super::*;

#[derive(Debug, Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(filter: &str, shape: LineFormat, log: impl FnOnce()) -> String {
    let written = Written::default();
    let writer = written.clone();
    let subscriber = subscriber(filter, shape, move || writer.clone()).unwrap();
    with_default(subscriber, log);
    let bytes = written.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn libraries_log_no_bodies_whatever_the_filter() {
    for filter in [
        "trace",
        "async_nats=trace",
        "info,async_nats=debug,hyper=trace",
    ] {
        for shape in [LineFormat::Json, LineFormat::Text { colours: false }] {
            let text = logged(filter, shape, || {
                trace!(target: "async_nats::connection", "read operation: BODY");
                debug!(target: "async_nats::jetstream", "JetStream request sent: BODY");
                trace!(target: "hyper::proto", "headers: BODY");
                info!(target: "async_nats", "connected");
            });
            assert!(!text.contains("BODY"), "{filter}: {text}");
        }
    }
    let text = logged("trace", LineFormat::Json, || {
        info!(target: "async_nats", "connected");
        trace!(target: "confab_gateway::hub", "own");
    });
    assert!(text.contains("connected") && text.contains("own"), "{text}");
}

#[test]
fn event_is_one_line_whatever_its_fields() {
    let name = "x\n2026-11-29T00:00:00Z ERROR confab: forged\r\u{1b}[31m\u{85}";
    let text = logged("debug", LineFormat::Text { colours: false }, || {
        debug!(failure = %name, other = 7, text = name, "a request was {name}");
    });
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(text.matches(char::is_control).count(), 1, "{text:?}");
    assert!(text.contains(r"failure=x\n2026"), "{text}");
    assert!(text.contains(" other=7 "), "{text}");
}

#[derive(Debug)]
struct Failure(&'static str, Option<Box<Self>>);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let cause = self.1.as_deref();
        cause.map(|cause| cause as &(dyn std::error::Error + 'static))
    }
}

/// An error with two causes, one behind the other.
fn three_links() -> Failure {
    let innermost = Failure("connection refused", None);
    let middle = Failure("cannot connect", Some(Box::new(innermost)));
    Failure("no answer", Some(Box::new(middle)))
}

const ERROR_CHAIN: &str = "no answer: cannot connect: connection refused";

#[test]
fn error_is_logged_with_all_its_causes() {
    let log = || error!(error = %chain(&three_links()), "it failed");
    let text = logged("info", LineFormat::Text { colours: false }, log);
    assert!(
        text.contains(&format!("it failed error={ERROR_CHAIN}")),
        "{text}"
    );
    let json: Value = serde_json::from_str(&logged("info", LineFormat::Json, log)).unwrap();
    assert_eq!(json["error"], ERROR_CHAIN);
}

#[test]
fn error_value_is_logged_with_all_its_causes() {
    let json = logged("info", LineFormat::Json, || {
        let failure = three_links();
        let error: &(dyn std::error::Error + 'static) = &failure;
        error!(error, "it failed");
    });
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["error"], ERROR_CHAIN);
}

#[test]
fn line_has_the_fields_of_its_spans() {
    let log = || {
        let outer = error_span!("request", request.id = %"r-1", trace_id = "t-1");
        let _in_outer = outer.enter();
        let inner = info_span!("socket", connection.id = 7, request.id = "r-2");
        let _in_inner = inner.enter();
        error!(flag = true, trace_id = "t-2", "it failed");
    };
    let json = logged("info", LineFormat::Json, log);
    assert_eq!(json.lines().count(), 1);
    let line: Value = serde_json::from_str(&json).unwrap();
    let of = |name: &str| line[name].clone();
    assert_eq!(
        [
            of("request.id"),
            of("connection.id"),
            of("trace_id"),
            of("flag")
        ],
        [
            Value::from("r-2"),
            Value::from(7),
            Value::from("t-2"),
            Value::from(true)
        ]
    );
    assert_eq!(
        [of("level"), of("message"), of("span")],
        ["ERROR", "it failed", "socket"].map(Value::from)
    );
    assert!(of("timestamp").as_str().unwrap().ends_with('Z'));
    assert_eq!(json.matches("\"request.id\"").count(), 1, "{json}");
    // Spans of errors are there at every level.
    assert!(logged("error", LineFormat::Json, log).contains("r-1"));
    let text = logged("error", LineFormat::Text { colours: false }, log);
    assert!(text.contains("request.id=r-1"), "{text}");
}
