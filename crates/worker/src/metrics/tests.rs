use confab_bus::Outgoing;
use confab_protocol::ids::{ConversationId, EventId};
use confab_protocol::metric::MetricKind;
use prometheus_client::encoding::text::encode;
use uuid::Uuid;

use super::*;

fn end() -> Outgoing {
    Outgoing {
        tenant: "default".parse().unwrap(),
        conversation: ConversationId(Uuid::nil()),
        seq: 2,
        id: EventId(Uuid::nil()),
        r#type: EventType::ConversationDeleted,
        target_seq: None,
        json: "{}".into(),
    }
}

/// What is scraped once everything was counted once.
fn scraped() -> String {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let took = Duration::from_millis(3);
    metrics.command("send_message", None, took, 300);
    metrics.query("history", Some(Code::Timeout));
    metrics.query_read("history", took);
    metrics.query_answer("history", 300);
    metrics.query_slots(QueryKind::Page, 1, 1);
    metrics.batch(5, took);
    metrics.waiting(1, 1);
    metrics.locked(Locking::Wait, 1, took);
    metrics.created(ConversationType::Direct);
    metrics.deleted(&[end()]);
    metrics.malformed();
    metrics.late(1);
    metrics.unsent();
    metrics.relayed(1);
    metrics.found_break();
    metrics.lingering(1, 1);
    metrics.oldest_unpublished(took);
    metrics.unpublishable();
    metrics.left_to_relay();
    metrics.queued(1);
    metrics.swept("outbox", 1);
    metrics.sweep_behind("outbox", 1.0);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}

/// The declarations as they are scraped: name with unit, type, unit, help.
fn declared() -> Vec<[String; 4]> {
    let shown = |metric: &Metric| {
        let name = match metric.unit {
            "" => metric.name.to_owned(),
            unit => format!("{}_{unit}", metric.name),
        };
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        [
            name,
            kind.to_owned(),
            metric.unit.to_owned(),
            format!("{}.", metric.help),
        ]
    };
    METRICS.iter().map(shown).collect()
}

#[test]
fn what_is_registered_is_what_is_declared() {
    let text = scraped();
    let mut found: Vec<[String; 4]> = Vec::new();
    for line in text.lines() {
        let Some((what, rest)) = line
            .strip_prefix("# ")
            .and_then(|line| line.split_once(' '))
        else {
            continue;
        };
        let (name, value) = rest.split_once(' ').unwrap();
        if what == "HELP" {
            let [kind, unit] = [String::new(), String::new()];
            found.push([name.to_owned(), kind, unit, value.to_owned()]);
            continue;
        }
        let family = found.last_mut().unwrap();
        assert_eq!(family[0], name);
        match what {
            "TYPE" => family[1] = value.to_owned(),
            "UNIT" => family[2] = value.to_owned(),
            other => panic!("{other}"),
        }
    }
    let mut declared = declared();
    found.sort();
    declared.sort();
    assert_eq!(found, declared);
}

#[test]
fn every_family_has_the_labels_that_are_declared() {
    let text = scraped();
    for (metric, [name, ..]) in METRICS.iter().zip(declared()) {
        let sample = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .find_map(|line| line.strip_prefix(&name))
            .unwrap_or_else(|| panic!("{name} was not counted"));
        let labels = sample
            .split_once('{')
            .and_then(|(_, rest)| rest.rsplit_once('}'));
        let names: Vec<&str> = labels
            .map_or("", |(labels, _)| labels)
            .split(',')
            .filter_map(|label| label.split_once('='))
            .map(|(name, _)| name)
            .filter(|name| *name != "le")
            .collect();
        assert_eq!(names, metric.labels, "{name}");
    }
}

#[test]
fn every_family_is_there_from_the_start() {
    let mut registry = Registry::default();
    drop(Metrics::new(&mut registry));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    for [name, ..] in declared() {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
    }
}

#[test]
fn nothing_counts_as_an_end_but_an_end() {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let removal = Outgoing {
        r#type: EventType::ParticipantRemoved,
        ..end()
    };
    metrics.deleted(std::slice::from_ref(&removal));
    metrics.deleted(&[removal, end()]);
    assert_eq!(metrics.deleted.get(), 1);
}
