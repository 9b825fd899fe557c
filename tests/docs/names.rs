//! Settings and metrics that the guide and the contract name.

use std::collections::BTreeSet;
use std::process::Command;

use crate::markdown::{folder, page};

/// Takes the words of a text that begin so.
fn take_words(words: &mut BTreeSet<String>, text: &str, beginning: &str) {
    let all = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = all.filter(|word| word.starts_with(beginning));
    words.extend(ours.map(str::to_owned));
}

/// The words of all pages of the guide and the contract that begin so.
fn named(beginning: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    take_words(&mut words, &page("protocol.md"), beginning);
    for name in ["guide", "protocol"] {
        for entry in std::fs::read_dir(folder().join(name)).unwrap() {
            let page = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            take_words(&mut words, &page, beginning);
        }
    }
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
    let mut settings = named("CONFAB_");
    // The beginning that all of them have.
    settings.remove("CONFAB_");
    assert!(settings.len() > 8, "{settings:?}");
    for setting in settings {
        assert!(known.contains(&setting), "{setting}");
    }
}

#[test]
fn every_metric_named_is_one() {
    let known = page("metrics.md");
    let mut metrics = named("confab_");
    // The crate.
    metrics.remove("confab_client");
    assert!(metrics.len() > 5, "{metrics:?}");
    for metric in metrics {
        assert!(known.contains(&format!("`{metric}`")), "{metric}");
    }
}
