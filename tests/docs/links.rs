//! Checks links between pages.

use std::path::Path;

use crate::markdown::pages;

#[test]
fn every_link_leads_to_a_page_and_heading() {
    let mut links = 0;
    for path in pages() {
        let text = std::fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            if !link.contains("://") {
                assert_link(&path, link);
                links += 1;
            }
        }
    }
    assert!(links > 80, "{links}");
}

fn assert_link(from: &Path, link: &str) {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match file {
        "" => from.to_owned(),
        file => from.parent().unwrap().join(file),
    };
    let from = from.display();
    assert!(target.exists(), "{from}: {link}");
    if !anchor.is_empty() {
        let text = std::fs::read_to_string(&target).unwrap();
        let headings = text.lines().filter(|line| line.starts_with('#'));
        let found = headings.map(anchor_of).any(|one| one == anchor);
        assert!(found, "{from}: {link}");
    }
}

/// The anchor of a heading, as GitHub makes it.
fn anchor_of(heading: &str) -> String {
    let title = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = title
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
