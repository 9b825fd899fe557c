//! Which ratios there are, of which parts each is formed, and what it is to reach.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Error;

/// What was measured, by name: rates a second, times in milliseconds or microseconds as the name says, memory in KiB.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parts(BTreeMap<&'static str, f64>);

impl Parts {
    pub(crate) fn put(&mut self, part: &'static str, value: f64) {
        self.0.insert(part, value);
    }

    fn get(&self, part: &str) -> Result<f64, Error> {
        let value = self.0.get(part).copied();
        match value.filter(|value| value.is_finite() && *value > 0.0) {
            Some(value) => Ok(value),
            None => Err(Error::Failed(format!("{part} was not measured"))),
        }
    }
}

/// What a value is to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {least}"),
            Self::AtMost(most) => format!("≤ {most}"),
        }
    }
}

/// A ratio, as measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) goal: Goal,
    /// Whether the goal is reached, and with it what else is asked of the parts.
    pub(crate) met: bool,
    /// What it was formed from, and what stands beside that.
    pub(crate) parts: BTreeMap<String, f64>,
}

/// So many times a part.
type Term = (f64, &'static str);

/// How a ratio is formed: a sum of parts over a sum of parts.
#[derive(Debug)]
pub(crate) struct RatioRow {
    pub(crate) name: &'static str,
    /// The ratio in words.
    pub(crate) what: &'static str,
    above: &'static [Term],
    below: &'static [Term],
    goal: Goal,
    /// What a part has to be in absolute terms.
    also: &'static [(&'static str, Goal)],
    /// Parts that are told with it, where they were measured.
    beside: &'static [&'static str],
}

impl RatioRow {
    /// The ratio of these parts.
    ///
    /// # Errors
    /// When a part was not measured, or came out as nothing: a ratio without it would say what nobody saw.
    pub(crate) fn form(&self, parts: &Parts) -> Result<Ratio, Error> {
        let sum = |terms: &[Term]| {
            let each = terms.iter();
            each.map(|(times, part)| Ok(times * parts.get(part)?))
                .sum::<Result<f64, Error>>()
        };
        let value = sum(self.above)? / sum(self.below)?;
        let mut met = self.goal.is_met(value);
        for (part, goal) in self.also {
            met &= goal.is_met(parts.get(part)?);
        }
        let used = self.above.iter().chain(self.below).map(|(_, part)| *part);
        let told = used
            .chain(self.also.iter().map(|(part, _)| *part))
            .chain(self.beside.iter().copied());
        let told = told.filter_map(|part| Some((part.to_owned(), parts.get(part).ok()?)));
        Ok(Ratio {
            name: self.name.to_owned(),
            value,
            goal: self.goal,
            met,
            parts: told.collect(),
        })
    }

    /// What is asked, in words.
    pub(crate) fn goal_text(&self) -> String {
        let also = self.also.iter();
        also.fold(self.goal.text(), |text, (part, goal)| {
            format!("{text}, {part} {}", goal.text())
        })
    }

    /// The row of this name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        RATIO_ROWS.iter().find(|row| row.name == name)
    }
}

/// All ratios.
pub(crate) const RATIO_ROWS: &[RatioRow] = &[
    RatioRow {
        name: "efficiency",
        what: "processors' time of the parts, each alone, for a durable send, acknowledged and delivered to its sender and one \
               other member : of the whole system at saturation, the load left out",
        above: &[
            (1.0, "batchEventMicros"),
            (1.0, "requestReplyMicros"),
            (1.0, "publishMicros"),
            (2.0, "feedDeliveryMicros"),
            (1.0, "frameInMicros"),
            (3.0, "frameOutMicros"),
        ],
        below: &[(1.0, "sendMicros")],
        goal: Goal::AtLeast(0.6),
        also: &[],
        beside: &[
            "sendGatewaysMicros",
            "sendWorkersMicros",
            "sendNatsMicros",
            "sendPostgresMicros",
        ],
    },
    RatioRow {
        name: "groupCommit",
        what: "durable sends a second at saturation : with a batch cap of 1",
        above: &[(1.0, "saturationSends")],
        below: &[(1.0, "batchOfOneSends")],
        goal: Goal::AtLeast(5.0),
        also: &[],
        beside: &["saturationP50Millis", "saturationP99Millis"],
    },
    RatioRow {
        name: "latencyMedian",
        what: "p50 of a send at 1,000 a second : p50 of a single commit and of two round trips of NATS",
        above: &[(1.0, "sendP50Millis")],
        below: &[(1.0, "commitP50Millis"), (2.0, "roundTripP50Millis")],
        goal: Goal::AtMost(2.0),
        also: &[],
        beside: &["loadLateP50Millis"],
    },
    RatioRow {
        name: "latencyTail",
        what: "p99 of a send at 1,000 a second : p50, the median of five runs",
        above: &[(1.0, "medianRunP99Millis")],
        below: &[(1.0, "medianRunP50Millis")],
        goal: Goal::AtMost(6.0),
        also: &[],
        beside: &["bestRunTail", "worstRunTail"],
    },
    RatioRow {
        name: "fanOut",
        what: "frames a second to 5,000 sockets : a bare server's, that writes what waits for a socket in one write too",
        above: &[(1.0, "fanOutFrames")],
        below: &[(1.0, "bareFanOutFrames")],
        goal: Goal::AtLeast(0.85),
        also: &[],
        beside: &[],
    },
    RatioRow {
        name: "idleMemory",
        what: "memory of each further idle connection with 20 conversations, behind the first 1,000 of 5,000 : the bare server's",
        above: &[(1.0, "idleKib")],
        below: &[(1.0, "bareIdleKib")],
        goal: Goal::AtMost(1.5),
        also: &[("idleKib", Goal::AtMost(12.0))],
        beside: &["idleResidentKib", "idleOverAllKib"],
    },
    RatioRow {
        name: "workers",
        what: "sends a second with 2 workers : with 1, where the worker is the limit",
        above: &[(1.0, "twoWorkersSends")],
        below: &[(1.0, "oneWorkerSends")],
        goal: Goal::AtLeast(1.0),
        also: &[],
        beside: &["twoWorkersAsShippedSends", "saturationSends"],
    },
    RatioRow {
        name: "hotConversation",
        what: "sends a second into one conversation by many connections : spread over 1,000, with as many members",
        above: &[(1.0, "hotSends")],
        below: &[(1.0, "spreadSends")],
        goal: Goal::AtLeast(0.6),
        also: &[],
        beside: &[],
    },
    RatioRow {
        name: "oneConnection",
        what: "sends a second by one connection with 16 in flight to one conversation : by 16 connections, one each",
        above: &[(1.0, "oneConnectionSends")],
        below: &[(1.0, "sixteenConnectionsSends")],
        goal: Goal::AtLeast(0.5),
        also: &[("oneConnectionSends", Goal::AtLeast(5000.0))],
        beside: &[],
    },
    RatioRow {
        name: "pageTime",
        what: "time of a page at 1 million events : at 10,000",
        above: &[(1.0, "millionPageMillis")],
        below: &[(1.0, "tenThousandPageMillis")],
        goal: Goal::AtMost(1.3),
        also: &[],
        beside: &["millionPagePostgresMicros", "tenThousandPagePostgresMicros"],
    },
    RatioRow {
        name: "resumeCost",
        what: "Postgres' time of a resume without the window : with it",
        above: &[(1.0, "windowlessResumePostgresMicros")],
        below: &[(1.0, "resumePostgresMicros")],
        goal: Goal::AtLeast(5.0),
        also: &[],
        beside: &["resumeMicros", "windowlessResumeMicros"],
    },
    RatioRow {
        name: "resumeRate",
        what: "resumes a second with the window : without",
        above: &[(1.0, "resumes")],
        below: &[(1.0, "windowlessResumes")],
        goal: Goal::AtLeast(1.3),
        also: &[],
        beside: &[],
    },
    RatioRow {
        name: "latencyBesideFanOut",
        what: "p99 of a send while a fan-out to 5,000 runs : without",
        above: &[(1.0, "besideFanOutP99Millis")],
        below: &[(1.0, "withoutFanOutP99Millis")],
        goal: Goal::AtMost(3.0),
        also: &[],
        beside: &[
            "besideFanOutP50Millis",
            "withoutFanOutP50Millis",
            "besideFanOutFrames",
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(of: &[(&'static str, f64)]) -> Parts {
        let mut parts = Parts::default();
        for (part, value) in of {
            parts.put(part, *value);
        }
        parts
    }

    /// All that any ratio is formed from, each 2.
    fn all() -> Parts {
        let used = RATIO_ROWS
            .iter()
            .flat_map(|row| row.above.iter().chain(row.below));
        let also = RATIO_ROWS.iter().flat_map(|row| row.also);
        let used = used
            .map(|(_, part)| *part)
            .chain(also.map(|(part, _)| *part));
        parts(&used.map(|part| (part, 2.0)).collect::<Vec<_>>())
    }

    #[test]
    fn thirteen_ratios_are_formed_with_unique_names() {
        let formed: BTreeMap<String, Ratio> = RATIO_ROWS
            .iter()
            .map(|row| row.form(&all()).unwrap())
            .map(|ratio| (ratio.name.clone(), ratio))
            .collect();
        assert_eq!(formed.len(), 13);
        assert_eq!(formed["efficiency"].value, 9.0);
        assert_eq!(formed["latencyMedian"].value, 1.0 / 3.0);
        assert_eq!(formed["workers"].value, 1.0);
    }

    #[test]
    fn missing_or_zero_part_is_error() {
        for row in RATIO_ROWS {
            for (_, part) in row.above.iter().chain(row.below) {
                for nothing in [None, Some(0.0), Some(f64::NAN), Some(f64::INFINITY)] {
                    let mut parts = all();
                    match nothing {
                        Some(nothing) => parts.put(part, nothing),
                        None => drop(parts.0.remove(part)),
                    }
                    let error = row.form(&parts).unwrap_err().to_string();
                    assert_eq!(error, format!("{part} was not measured"));
                }
            }
        }
    }

    #[test]
    fn a_goal_is_the_least_or_the_most() {
        let row = |name| RatioRow::named(name).unwrap();
        let form = |name, of: &[_]| row(name).form(&parts(of)).unwrap();
        let workers = |two| {
            form(
                "workers",
                &[("twoWorkersSends", two), ("oneWorkerSends", 100.0)],
            )
        };
        assert!(workers(100.0).met && !workers(99.0).met);
        let tail = |p99| {
            let of = [("medianRunP99Millis", p99), ("medianRunP50Millis", 1.0)];
            form("latencyTail", &of)
        };
        assert!(tail(6.0).met && !tail(6.1).met);
        let one = |sends| {
            let of = [
                ("oneConnectionSends", sends),
                ("sixteenConnectionsSends", 5000.0),
            ];
            form("oneConnection", &of)
        };
        assert!(one(5000.0).met && !one(4999.0).met, "a bound of its own");
        assert_eq!(row("idleMemory").goal_text(), "≤ 1.5, idleKib ≤ 12");
    }

    #[test]
    fn ratio_carries_measured_side_values() {
        let of = [
            ("saturationSends", 10.0),
            ("batchOfOneSends", 2.0),
            ("saturationP50Millis", 3.5),
        ];
        let ratio = RatioRow::named("groupCommit")
            .unwrap()
            .form(&parts(&of))
            .unwrap();
        let json = serde_json::to_string(&ratio).unwrap();
        assert_eq!(
            json,
            r#"{"name":"groupCommit","value":5.0,"goal":{"atLeast":5.0},"met":true,"parts":{"batchOfOneSends":2.0,"saturationP50Millis":3.5,"saturationSends":10.0}}"#
        );
    }
}
