//! Files that code, tests and pages cite.

use std::path::{Path, PathBuf};

use crate::markdown::{files, pages, root};
use crate::tables::quoted;

/// Where citations of pages are looked for.
const FOLDERS: [&str; 7] = [
    "crates",
    "cmd",
    "tests",
    "migrations",
    "deploy",
    "scripts",
    "docs",
];
const FILES: [&str; 5] = [
    "README.md",
    "CONTRIBUTING.md",
    "Makefile",
    "Cargo.toml",
    ".ci/run",
];

/// How paths of the repository begin, and short ones of the sources of a crate.
const BEGINNINGS: [&str; 8] = [
    "crates",
    "cmd",
    "tests",
    "migrations",
    "deploy",
    "scripts",
    "docs",
    ".ci",
];
const CRATES: [&str; 8] = [
    "protocol", "auth", "bus", "gateway", "worker", "client", "stack", "bench",
];

#[test]
fn every_page_cited_exists() {
    let sources = sources();
    let pages: Vec<_> = sources.iter().filter(|path| is_page(path)).collect();
    let mut cited = 0;
    for source in &sources {
        let Ok(text) = std::fs::read_to_string(source) else {
            continue;
        };
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"_./-{}".contains(c));
        let words = words.map(|word| word.trim_end_matches('.'));
        for word in words.filter(|word| is_citation(word)) {
            let name = word.trim_start_matches(['.', '/']);
            let found = pages.iter().any(|page| page.ends_with(name));
            assert!(found, "{} cites {word}", source.display());
            cited += 1;
        }
    }
    assert!(cited > 100, "{cited}");
}

/// Whether a word names a page; what is put together at run time is none, nor is the end of a name alone.
fn is_citation(word: &str) -> bool {
    let name = word.strip_suffix(".md").unwrap_or_default();
    name.ends_with(|c: char| c.is_ascii_alphanumeric()) && !name.contains('{')
}

fn is_page(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "md")
}

fn sources() -> Vec<PathBuf> {
    let mut sources = Vec::new();
    for name in FOLDERS {
        sources.extend(files(&root().join(name)));
    }
    sources.extend(FILES.map(|name| root().join(name)));
    sources
}

#[test]
fn every_path_that_pages_name_exists() {
    let mut named = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for line in text.lines() {
            for path in quoted(line).into_iter().filter_map(path_of) {
                let is_module = path.with_extension("rs").exists();
                let at = (page.display(), path.display());
                assert!(path.exists() || is_module, "{} names {}", at.0, at.1);
                named += 1;
            }
        }
    }
    assert!(named > 50, "{named}");
}

/// The path that a quoted text is, where it is one of the repository: in full, or from its crate on.
fn path_of(quoted: &str) -> Option<PathBuf> {
    let (first, rest) = quoted.split_once('/')?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
    if !quoted.chars().all(is_plain) {
        None
    } else if BEGINNINGS.contains(&first) {
        Some(root().join(quoted))
    } else if CRATES.contains(&first) {
        Some(root().join("crates").join(first).join("src").join(rest))
    } else {
        None
    }
}
