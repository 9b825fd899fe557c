//! A failing condition is logged once with its cause and once on recovery; request lines carry the request id.

use std::time::Duration;

use confab_stack::Service;
use serde_json::Value;

use crate::support::eventually;

mod conditions;
mod requests;

/// How long a line may take to be written.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// The lines that a process has written, without those that are no JSON.
fn lines(service: &Service) -> Vec<Value> {
    let log = std::fs::read_to_string(service.process().log()).unwrap();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines.collect()
}

/// The lines about conditions behind the first so many.
fn told(service: &Service, before: usize) -> Vec<Value> {
    let lines = lines(service).into_iter().skip(before);
    lines.filter(|line| !line["condition"].is_null()).collect()
}

/// Waits for a line of a level about a condition, behind the first so many lines, and gives it.
async fn line(service: &Service, before: usize, (level, condition): (&str, &str)) -> Value {
    let what = format!("{level} of {condition} in {}", service.process().name());
    eventually(&what, WAIT_TIMEOUT, async || {
        let lines = told(service, before).into_iter();
        let mut lines = lines.filter(|line| line["condition"] == condition);
        lines.find(|line| line["level"] == level)
    })
    .await
}

/// Each condition that was told of behind the first so many lines has one warning with a cause and a remedy, and one line that it holds again.
fn assert_told_once(service: &Service, before: usize) {
    let told = told(service, before);
    for line in &told {
        let about = |one: &&Value| {
            one["condition"] == line["condition"] && one["subject"] == line["subject"]
        };
        let levels: Vec<_> = told.iter().filter(about).map(|one| &one["level"]).collect();
        assert_eq!(levels, ["WARN", "INFO"], "{told:#?}");
        if line["level"] == "WARN" {
            for field in ["error", "remedy"] {
                assert!(!line[field].as_str().unwrap().is_empty(), "{line}");
            }
        } else {
            assert!(line["duration_ms"].as_u64().unwrap() > 0, "{line}");
        }
    }
}
