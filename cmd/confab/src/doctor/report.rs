//! What the doctor prints: a list for people, the worst first, and JSON for programs.

use std::io::{Result, Write};

use confab_protocol::check::{Check, CheckStatus};
use serde::Serialize;

use crate::telemetry;
use crate::terminal::on_one_line;

/// The checks of one role, the worst first.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    role: &'static str,
    checks: Vec<Check>,
}

impl Report {
    pub(super) fn new(role: &'static str, mut checks: Vec<Check>) -> Self {
        checks.sort_by_key(|check| check.status);
        Self { role, checks }
    }

    pub(super) fn checks(&self) -> &[Check] {
        &self.checks
    }
}

/// What programs read.
#[derive(Serialize)]
struct Document<'a> {
    version: &'static str,
    /// Whether no check failed.
    ok: bool,
    roles: &'a [Report],
}

/// Prints one JSON document.
pub(super) fn json(out: &mut impl Write, reports: &[Report]) -> Result<()> {
    let mut checks = reports.iter().flat_map(Report::checks);
    let document = Document {
        version: telemetry::BUILD_VERSION,
        ok: checks.all(|check| check.status != CheckStatus::Fail),
        roles: reports,
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

/// Prints a list for people.
pub(super) fn text(out: &mut impl Write, reports: &[Report]) -> Result<()> {
    for Report { role, checks } in reports {
        writeln!(out, "{role}")?;
        for check in checks {
            let status = match check.status {
                CheckStatus::Fail => "FAIL",
                CheckStatus::Warn => "warn",
                CheckStatus::Ok => "ok",
            };
            let (name, address) = (check.name, on_one_line(&check.address));
            writeln!(out, "  {status:<5} {name:<20} {address}")?;
            writeln!(out, "        {}", on_one_line(&check.found))?;
            if !check.causes.is_empty() {
                writeln!(out, "        cause: {}", on_one_line(&check.cause()))?;
            }
            if let Some(remedy) = &check.remedy {
                writeln!(out, "        do: {}", on_one_line(remedy))?;
            }
        }
    }
    Ok(())
}

/// A check in one line, for the end of a command.
pub(crate) fn line(check: &Check) -> String {
    let mut line = format!("{} ({})", check.found, check.address);
    for part in [Some(check.cause()), check.remedy.clone()]
        .into_iter()
        .flatten()
        .filter(|part| !part.is_empty())
    {
        line.push_str(": ");
        line.push_str(&part);
    }
    on_one_line(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_checks_come_first_with_remedies() {
        let checks = vec![
            Check::ok("nats", "127.0.0.1:4222", "connected"),
            Check::warn("postgres.clock", "db:5432/c", "the clock is late", "NTP"),
            Check::fail("keys", "https://id\u{1b}[2J", "no set", "look").caused_by("answered 404"),
        ];
        let reports = [Report::new("worker", checks)];
        let mut out = Vec::new();
        text(&mut out, &reports).unwrap();
        let text = String::from_utf8(out).unwrap();
        let wanted = "worker\n  FAIL  keys                 https://id\\u{1b}[2J\n        no set\n        cause: answered 404\n        \
                      do: look\n  warn  postgres.clock       db:5432/c\n";
        assert!(text.starts_with(wanted), "{text}");
        assert!(
            text.ends_with("nats                 127.0.0.1:4222\n        connected\n"),
            "{text}"
        );
        let mut out = Vec::new();
        json(&mut out, &reports).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["roles"][0]["checks"][0]["causes"][0], "answered 404");
        assert_eq!(
            json["roles"][0]["checks"][2]["remedy"],
            serde_json::Value::Null
        );
    }

    #[test]
    fn one_line_has_address_cause_and_remedy() {
        let check = Check::fail("postgres", "db:5432/c", "not reached", "start it");
        let line = line(&check.caused_by("refused"));
        assert_eq!(line, "not reached (db:5432/c): refused: start it");
    }
}
