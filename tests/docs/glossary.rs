//! The glossary against the code.

use std::path::Path;

use crate::markdown::{files, page, root};
use crate::tables::rows;

#[test]
fn every_term_occurs_in_the_code() {
    let code = words_of_code();
    let page = page("glossary.md");
    let terms = rows(&page, "term");
    assert!(terms.len() > 30, "{}", terms.len());
    for term in terms {
        let words = words(term[0]);
        let found = ["", "s"].map(|end| code.contains(&format!(" {words}{end} ")));
        assert!(found.contains(&true), "{:?} is not in the code", term[0]);
    }
}

/// The words of all crates, each with a space before and behind it.
fn words_of_code() -> String {
    let mut code = " ".to_owned();
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        for path in files(&entry.unwrap().path().join("src")) {
            if is_rust(&path) {
                code.push_str(&words(&std::fs::read_to_string(path).unwrap()));
                code.push(' ');
            }
        }
    }
    code
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "rs")
}

/// A text in lower case with a space between its words, in whichever case names are written in it.
fn words(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    let mut is_small = false;
    for letter in text.chars() {
        if !letter.is_ascii_alphanumeric() {
            words.push(' ');
        } else {
            if is_small && letter.is_ascii_uppercase() {
                words.push(' ');
            }
            words.push(letter.to_ascii_lowercase());
        }
        is_small = letter.is_ascii_lowercase() || letter.is_ascii_digit();
    }
    let words: Vec<_> = words.split_ascii_whitespace().collect();
    words.join(" ")
}
