//! What the system knows of this process, under the names that Prometheus clients use for it.

use std::fs;

use confab_protocol::metric::{Metric, MetricKind};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// The ticks of /proc/self/stat: `USER_HZ`, which Linux keeps at 100 for its programs whatever the kernel uses itself.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory in RAM.
pub(super) const MEMORY_METRIC: Metric = Metric {
    name: "process_resident_memory",
    unit: "bytes",
    kind: MetricKind::Gauge,
    labels: &[],
    help: "Memory that the process holds in RAM",
};
/// Open files and sockets.
pub(super) const DESCRIPTORS_METRIC: Metric = Metric {
    name: "process_open_fds",
    unit: "",
    kind: MetricKind::Gauge,
    labels: &[],
    help: "File descriptors that are open",
};
/// Time on processors.
pub(super) const CPU_METRIC: Metric = Metric {
    name: "process_cpu",
    unit: "seconds",
    kind: MetricKind::Counter,
    labels: &[],
    help: "Processor time used, of the kernel for the process included",
};

/// Reads /proc at every scrape; what cannot be read is left out.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |declared: Metric, unit: Option<&Unit>, value: Option<u64>| {
            let Some(value) = value.and_then(|value| i64::try_from(value).ok()) else {
                return Ok(());
            };
            let gauge = ConstGauge::new(value);
            let kind = gauge.metric_type();
            let metric = encoder.encode_descriptor(declared.name, declared.help, unit, kind)?;
            gauge.encode(metric)
        };
        let status = fs::read_to_string("/proc/self/status").ok();
        let memory = status.as_deref().and_then(resident_bytes);
        gauge(MEMORY_METRIC, Some(&Unit::Bytes), memory)?;
        let descriptors = fs::read_dir("/proc/self/fd").ok();
        let descriptors = descriptors.map(|descriptors| descriptors.count() as u64);
        gauge(DESCRIPTORS_METRIC, None, descriptors)?;
        let stat = fs::read_to_string("/proc/self/stat").ok();
        if let Some(seconds) = stat.as_deref().and_then(cpu_seconds) {
            let counter = ConstCounter::new(seconds);
            let (name, help) = (CPU_METRIC.name, CPU_METRIC.help);
            let kind = counter.metric_type();
            let metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), kind)?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}

/// `VmRSS` of /proc/self/status, which is in KiB.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// utime and stime of /proc/self/stat: fields 14 and 15, counted behind the name, which may hold blanks itself.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11);
    let mut ticks = || times.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_in_bytes() {
        let status = "Name:\tconfab\nVmPeak:\t  999 kB\nVmRSS:\t    12 kB\n";
        assert_eq!(resident_bytes(status), Some(12 * 1024));
        assert_eq!(resident_bytes("Name:\tconfab\n"), None);
    }

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("7 (a"), None);
    }
}
