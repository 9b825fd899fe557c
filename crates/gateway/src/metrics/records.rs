//! Metrics of sessions' records.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{at_zero, register};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// Metrics of sessions' records.
#[derive(Debug, Clone)]
pub(crate) struct RecordMetrics {
    resumes: Family<ResultLabels, Counter>,
    writes: Family<ResultLabels, Counter>,
    held: Family<StateLabels, Gauge>,
    fenced: Counter,
    bad: Counter,
    malformed: Counter,
    bytes: Counter,
    baseless: Counter,
    deleted: Family<ResultLabels, Counter>,
}

impl RecordMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            resumes: Family::default(),
            writes: Family::default(),
            held: Family::default(),
            fenced: Counter::default(),
            bad: Counter::default(),
            malformed: Counter::default(),
            bytes: Counter::default(),
            baseless: Counter::default(),
            deleted: Family::default(),
        };
        register(registry, "confab_resumes", metrics.resumes.clone());
        register(registry, "confab_record_writes", metrics.writes.clone());
        register(registry, "confab_records", metrics.held.clone());
        register(registry, "confab_sessions_fenced", metrics.fenced.clone());
        register(registry, "confab_records_bad", metrics.bad.clone());
        let malformed = metrics.malformed.clone();
        register(registry, "confab_record_questions_malformed", malformed);
        register(
            registry,
            "confab_record_written_bytes",
            metrics.bytes.clone(),
        );
        register(
            registry,
            "confab_records_baseless",
            metrics.baseless.clone(),
        );
        register(registry, "confab_records_deleted", metrics.deleted.clone());
        let label = |result| ResultLabels { result };
        let resumes = [
            "resumed",
            "malformed",
            "unknown",
            "foreign",
            "used",
            "ended",
            "unavailable",
        ];
        at_zero(&metrics.resumes, resumes.map(label));
        let writes = ["stored", "failed", "fenced", "rationed", "full"];
        at_zero(&metrics.writes, writes.map(label));
        at_zero(&metrics.deleted, ["deleted", "failed"].map(label));
        at_zero(
            &metrics.held,
            ["live", "ended"].map(|state| StateLabels { state }),
        );
        metrics
    }

    /// Counts a client that came with a resume token.
    pub(crate) fn resume(&self, result: &'static str) {
        self.resumes.get_or_create(&ResultLabels { result }).inc();
    }

    /// Counts a write of a record.
    pub(crate) fn written(&self, result: &'static str) {
        self.writes.get_or_create(&ResultLabels { result }).inc();
    }

    /// Counts bytes that were written for records, take-overs among them.
    pub(crate) fn bytes(&self, bytes: usize) {
        self.bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Counts a record that was read, whose base is not there.
    pub(crate) fn baseless(&self) {
        self.baseless.inc();
    }

    /// Counts a record that was given up.
    pub(crate) fn deleted(&self, done: bool) {
        let result = if done { "deleted" } else { "failed" };
        self.deleted.get_or_create(&ResultLabels { result }).inc();
    }

    /// So many records are held.
    pub(crate) fn held(&self, live: usize, ended: usize) {
        for (state, records) in [("live", live), ("ended", ended)] {
            self.held
                .get_or_create(&StateLabels { state })
                .set(i64::try_from(records).unwrap_or(i64::MAX));
        }
    }

    /// Counts connections that lost their sessions.
    pub(crate) fn fenced(&self, connections: usize) {
        self.fenced
            .inc_by(u64::try_from(connections).unwrap_or(u64::MAX));
    }

    /// Counts a bad record; says whether it was the first, which alone is logged.
    pub(crate) fn bad_record(&self) -> bool {
        self.bad.inc() == 0
    }

    /// Counts a malformed question; says whether it was the first, which alone is logged.
    pub(crate) fn malformed(&self) -> bool {
        self.malformed.inc() == 0
    }
}
