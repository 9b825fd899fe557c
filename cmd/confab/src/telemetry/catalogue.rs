//! docs/metrics.md, made of the declarations that the metrics are registered from.

use std::fmt::Write as _;
use std::path::Path;

use confab_protocol::metric::{Metric, MetricKind};

use super::{BUILD_METRIC, process};

/// What every process tells.
const PROCESS_METRICS: &[Metric] = &[
    BUILD_METRIC,
    process::MEMORY_METRIC,
    process::DESCRIPTORS_METRIC,
    process::CPU_METRIC,
];

/// Whose metrics are listed.
const ROLE_METRICS: [(&str, &[Metric]); 3] = [
    ("gateway", confab_gateway::METRICS),
    ("worker", confab_worker::METRICS),
    ("any", PROCESS_METRICS),
];

const PAGE_HEAD: &str = "\
# Metrics

Every process answers `GET /metrics` in the OpenMetrics text format. This page is made from the declarations that the metrics
are registered from; a test keeps it so (`CONFAB_UPDATE_DOCS=1 cargo test -p confab --bin confab metrics_md` writes it).

A histogram is scraped as its name with `_bucket`, `_sum` and `_count`. Every family is there from the start, at zero. Labels take few
values: routes are those declared (`unmatched` for all others), never paths; users, conversations and addresses are in none.

| name | kind | unit | labels | meaning | role |
|---|---|---|---|---|---|
";

fn rendered() -> String {
    let mut page = PAGE_HEAD.to_owned();
    for (role, metrics) in ROLE_METRICS {
        for metric in metrics {
            page.push_str(&row(metric, role));
        }
    }
    page
}

fn row(metric: &Metric, role: &str) -> String {
    let mut name = metric.name.to_owned();
    if !metric.unit.is_empty() {
        write!(name, "_{}", metric.unit).unwrap();
    }
    let kind = match metric.kind {
        MetricKind::Counter => {
            name.push_str("_total");
            "counter"
        }
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    };
    let unit = match metric.unit {
        "" | "info" => "–",
        unit => unit,
    };
    let labels: Vec<_> = metric
        .labels
        .iter()
        .map(|label| format!("`{label}`"))
        .collect();
    let labels = if labels.is_empty() {
        "–".to_owned()
    } else {
        labels.join(", ")
    };
    let help = metric.help;
    format!("| `{name}` | {kind} | {unit} | {labels} | {help} | {role} |\n")
}

#[test]
fn metrics_md_lists_what_is_declared() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    if std::env::var_os("CONFAB_UPDATE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(&path, rendered()).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == rendered(),
        "docs/metrics.md is old: CONFAB_UPDATE_DOCS=1 makes it anew"
    );
}
