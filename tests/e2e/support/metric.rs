//! Reads a process's `GET /metrics`.

use std::time::Duration;

/// How long the page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(2);

/// The sum of a metric's samples at the process that listens on `port`; 0 where it has none.
pub(crate) async fn sample(port: u16, name: &str) -> f64 {
    let page = confab_stack::get(port, "/metrics", PAGE_TIMEOUT).await;
    let (_, page) = page.unwrap();
    let samples = page.lines().filter(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with([' ', '{']))
    });
    let values = samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum()
}
