//! Reads sections and tables of a page.

use std::collections::BTreeSet;

/// A page from its heading of the second level to the next one.
pub(crate) fn section<'a>(page: &'a str, title: &str) -> &'a str {
    let heading = format!("\n## {title}\n");
    let (_, behind) = page
        .split_once(&heading)
        .unwrap_or_else(|| panic!("no section {title}"));
    behind.split("\n## ").next().unwrap()
}

/// The rows of the tables whose first column has this head.
pub(crate) fn rows<'a>(page: &'a str, head: &str) -> Vec<Vec<&'a str>> {
    let head = format!("| {head} |");
    let mut rows = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line.starts_with(&head) {
            let table = lines.by_ref().take_while(|line| line.starts_with('|'));
            rows.extend(table.skip(1).map(cells));
        }
    }
    assert!(!rows.is_empty(), "no table with {head}");
    rows
}

fn cells(row: &str) -> Vec<&str> {
    let inside = row.trim_start_matches('|').trim_end_matches('|');
    inside.split('|').map(str::trim).collect()
}

/// What stands between backticks.
pub(crate) fn quoted(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}
