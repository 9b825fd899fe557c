use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use confab_auth::AuthError;
use confab_bus::feed::StreamDiscontinuity;
use confab_protocol::error::Code;
use confab_protocol::frame::ServerFrame;
use confab_protocol::metric::{Metric, MetricKind};
use prometheus_client::encoding::text::encode;

use super::*;

/// Everything, with at least one value in each family.
fn encoded() -> String {
    let mut registry = Registry::default();
    let took = Duration::from_millis(1);
    let auth = AuthMetrics::new(&mut registry);
    auth.observe("http", None, took);
    auth.refused(&AuthError::Expired);
    let commands = CommandMetrics::new(&mut registry);
    commands.command("send_message", Some(Code::Timeout), took);
    commands.payload("send_message", 300);
    commands.batch(1);
    commands.part();
    commands.waiting(1);
    let feed = FeedMetrics::new(&mut registry, 1);
    feed.show_hub_lag();
    feed.event("delivered");
    feed.pending(0);
    feed.question("memberships");
    feed.waiting("questions", 1);
    feed.broke(StreamDiscontinuity::Recreated);
    assert!(feed.malformed(1));
    feed.past(1);
    ArrivalMetrics::new(&mut registry).admitted("fresh", took);
    let sockets = SocketMetrics::new(&mut registry);
    sockets.ended(1000);
    let connections = sockets.connections.of("http");
    connections.opened();
    connections.evicted();
    sockets.frames.heard(None, 2);
    sockets.frames.told(&ServerFrame::Pong { id: None }, 17);
    let http = HttpMetrics::new(&mut registry);
    http.read("/v1/messages", 300);
    http.answered(&Answered {
        route: "/v1/messages",
        method: "POST",
        status: 201,
        bytes: Some(500),
        took,
    });
    let limits = LimitMetrics::new(&mut registry);
    limits.refused("user");
    limits.buckets("user", 1);
    let signals = SignalMetrics::new(&mut registry);
    signals.count("typing", "sent");
    assert!(signals.malformed());
    CacheMetrics::new(&mut registry).hits.inc();
    let records = RecordMetrics::new(&mut registry);
    records.resume("resumed");
    records.written("stored");
    records.held(1, 0);
    records.fenced(1);
    records.bytes(1);
    records.baseless();
    records.deleted(true);
    assert!(records.bad_record());
    assert!(records.malformed());
    let revocations = RevocationMetrics::new(&mut registry);
    revocations.known(1);
    assert!(revocations.malformed());
    let replays = Replays {
        window: 1,
        worker: 1,
        truncated: 1,
    };
    let window = WindowMetrics::new(&mut registry);
    window.observe(&mut Default::default(), (0, 0));
    window.replayed(replays);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}

fn scraped(metric: &Metric) -> String {
    if metric.unit.is_empty() {
        metric.name.to_owned()
    } else {
        format!("{}_{}", metric.name, metric.unit)
    }
}

const fn kind(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    }
}

#[test]
fn every_family_is_there_from_the_start() {
    let mut registry = Registry::default();
    drop(AuthMetrics::new(&mut registry));
    drop(CommandMetrics::new(&mut registry));
    drop(FeedMetrics::new(&mut registry, 1));
    drop(ArrivalMetrics::new(&mut registry));
    drop(SocketMetrics::new(&mut registry));
    drop(HttpMetrics::new(&mut registry));
    drop(LimitMetrics::new(&mut registry));
    drop(SignalMetrics::new(&mut registry));
    drop(CacheMetrics::new(&mut registry));
    drop(RecordMetrics::new(&mut registry));
    drop(RevocationMetrics::new(&mut registry));
    drop(WindowMetrics::new(&mut registry));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    for metric in METRICS {
        let name = scraped(metric);
        assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
    }
}

#[test]
fn what_is_registered_is_the_table() {
    let text = encoded();
    let mut families = BTreeMap::new();
    let (mut kinds, mut helps, mut labels) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
            kinds.insert(name.to_owned(), kind.to_owned());
            families.insert(name.to_owned(), ());
        } else if let Some((name, help)) =
            line.strip_prefix("# HELP ").and_then(|l| l.split_once(' '))
        {
            helps.insert(name.to_owned(), help.to_owned());
        } else if let Some((sample, rest)) = line.split_once('{') {
            let (pairs, _) = rest.split_once('}').unwrap();
            let names: BTreeSet<_> = pairs
                .split("\",")
                .map(|pair| pair.split_once('=').unwrap().0.to_owned())
                .filter(|label| label != "le")
                .collect();
            labels.insert(sample.to_owned(), names);
        }
    }
    for metric in METRICS {
        let name = scraped(metric);
        assert!(families.remove(&name).is_some(), "{name} is not registered");
        assert_eq!(kinds[&name], kind(metric.kind), "{name}");
        assert_eq!(helps[&name], format!("{}.", metric.help), "{name}");
        let sample = match metric.kind {
            MetricKind::Counter => format!("{name}_total"),
            MetricKind::Gauge => name.clone(),
            MetricKind::Histogram => format!("{name}_bucket"),
        };
        let declared: BTreeSet<_> = metric.labels.iter().map(|l| (*l).to_owned()).collect();
        assert_eq!(
            labels.get(&sample).cloned().unwrap_or_default(),
            declared,
            "{name}"
        );
    }
    assert!(families.is_empty(), "not in the table: {families:?}");
    let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), METRICS.len(), "a name is declared twice");
}
