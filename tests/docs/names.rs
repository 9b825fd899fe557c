//! Checks that settings and metrics named in the guide and the protocol exist.

use std::collections::BTreeSet;
use std::process::Command;

use crate::markdown::{files, folder, page};

/// Takes the words of a text that begin so.
fn take_words(words: &mut BTreeSet<String>, text: &str, beginning: &str) {
    let all = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = all.filter(|word| word.starts_with(beginning));
    words.extend(ours.map(str::to_owned));
}

/// Words that begin like a setting or a metric, and are none: a stream, crates, a variable of nginx.
const OTHERS: [&str; 5] = [
    "CONFAB_EVENTS",
    "confab_client",
    "confab_gateway",
    "confab_protocol",
    "confab_path",
];

/// The words of all pages for users and operators that begin so. One that ends in an underscore stands for several.
fn named(beginning: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    take_words(&mut words, &page("protocol.md"), beginning);
    for name in ["guide", "operations", "protocol"] {
        for path in files(&folder().join(name)) {
            let page = std::fs::read_to_string(path).unwrap();
            take_words(&mut words, &page, beginning);
        }
    }
    words.retain(|word| !word.ends_with('_') && !OTHERS.contains(&word.as_str()));
    words
}

#[test]
fn every_setting_named_is_one() {
    let help = ["gateway", "worker", "migrate"].map(|role| {
        let confab = Command::new(env!("CARGO_BIN_EXE_confab"))
            .args([role, "--help"])
            .output();
        String::from_utf8(confab.unwrap().stdout).unwrap()
    });
    let mut known = BTreeSet::new();
    take_words(&mut known, &help.concat(), "CONFAB_");
    let settings = named("CONFAB_");
    assert!(settings.len() > 40, "{settings:?}");
    for setting in settings {
        assert!(known.contains(&setting), "{setting}");
    }
}

#[test]
fn every_metric_named_is_one() {
    let known = page("metrics.md");
    let metrics = named("confab_");
    assert!(metrics.len() > 40, "{metrics:?}");
    for metric in metrics {
        assert!(known.contains(&format!("`{metric}`")), "{metric}");
    }
}
