//! The length of pages and of their sentences.

use std::path::Path;

use crate::markdown::{files, folder, pages, root};

const MAX_PAGE_LINES: usize = 150;
/// Words of a sentence: nine of ten on a page have at most so many, and none has more than the second.
const USUAL_SENTENCE_WORDS: usize = 30;
const MAX_SENTENCE_WORDS: usize = 60;

/// Pages that may be longer, and why.
const LONG_PAGES: [(&str, &str); 2] = [
    ("performance.md", "`confab bench report` writes its tables"),
    (
        "operations/identity-providers.md",
        "a block for each provider",
    ),
];

#[test]
fn pages_have_few_lines() {
    let long = LONG_PAGES.map(|(name, _)| folder().join(name));
    for path in files(&folder()).into_iter().filter(|path| is_page(path)) {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        let is_short = lines <= MAX_PAGE_LINES;
        assert_eq!(
            is_short,
            !long.contains(&path),
            "{}: {lines}",
            path.display()
        );
    }
}

fn is_page(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "md")
}

#[test]
fn sentences_have_few_words() {
    let mut count = 0;
    for path in pages() {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lengths = Vec::new();
        for sentence in sentences(&text) {
            let words = word_count(&sentence);
            let at = path.strip_prefix(root()).unwrap().display();
            assert!(words <= MAX_SENTENCE_WORDS, "{at}: {words}: {sentence}");
            lengths.push(words);
        }
        lengths.sort_unstable();
        count += lengths.len();
        let usual = lengths.get(lengths.len() * 9 / 10);
        let is_plain = usual.is_none_or(|usual| *usual <= USUAL_SENTENCE_WORDS);
        assert!(is_plain, "{}: {usual:?}", path.display());
    }
    assert!(count > 1000, "{count}");
}

#[test]
fn sentences_are_found_in_prose_alone() {
    let page = "# A heading. It has none\n\nOne `a. B` two. Three\nfour ([five](x#six. Y)).\n\n    code. Code\n\n\
                | a. B | c |\n\n- Item one\n  goes on. Item two.\n- Three\n\n```sh\nCode. More\n```\n1. Numbered, e.g. here.\n";
    let wanted = [
        "One `a. B` two.",
        "Three four ([five]).",
        "Item one goes on.",
        "Item two.",
        "Three",
        "Numbered, e.g. here.",
    ];
    assert_eq!(sentences(page), wanted);
    assert_eq!(word_count("Two – `words`, or (three)."), 4);
}

/// The sentences of a page: of its paragraphs and list items, not of headings, tables and code.
fn sentences(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for paragraph in paragraphs(page) {
        let mut sentence = String::new();
        let mut is_code = false;
        let words: Vec<_> = paragraph.split(' ').collect();
        for (place, word) in words.iter().enumerate() {
            sentence.push_str(word);
            is_code ^= word.matches('`').count() % 2 == 1;
            let next = words.get(place + 1);
            if !is_code && next.is_none_or(|next| ends_between(word, next)) {
                found.push(std::mem::take(&mut sentence));
            } else {
                sentence.push(' ');
            }
        }
        assert!(sentence.is_empty(), "code is not closed: {sentence}");
    }
    found
}

/// Whether a sentence ends between two words.
fn ends_between(word: &str, next: &str) -> bool {
    let word = word.trim_end_matches([')', '*', '"']);
    let begins = |c: char| c.is_uppercase() || c.is_ascii_digit() || "`*([".contains(c);
    word.ends_with(['.', '!', '?']) && next.starts_with(begins)
}

/// The paragraphs and list items of a page, each in a line of words, without the targets of links.
fn paragraphs(page: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let (mut is_fenced, mut is_list) = (false, false);
    for line in page.lines() {
        if line.starts_with("```") {
            is_fenced = !is_fenced;
            found.push(String::new());
            continue;
        }
        let text = line.trim_start();
        let item = item(text);
        is_list = item.is_some() || (is_list && (text.is_empty() || line.starts_with(' ')));
        let is_code = is_fenced || (line.starts_with("    ") && !is_list);
        if is_code || text.is_empty() || text.starts_with(['#', '|', '<']) {
            found.push(String::new());
        } else if let Some(item) = item {
            found.push(item.to_owned());
        } else if let Some(last) = found.last_mut() {
            last.push(' ');
            last.push_str(text);
        }
    }
    let plain = found.iter().map(|paragraph| without_targets(paragraph));
    let plain = plain.map(|paragraph| paragraph.trim().to_owned());
    plain.filter(|paragraph| !paragraph.is_empty()).collect()
}

/// The text of a line with which a list's item begins.
fn item(line: &str) -> Option<&str> {
    let numbered = line.trim_start_matches(|c: char| c.is_ascii_digit());
    line.strip_prefix("- ").or_else(|| {
        let is_numbered = numbered.len() < line.len();
        is_numbered.then(|| numbered.strip_prefix(". ")).flatten()
    })
}

fn without_targets(text: &str) -> String {
    let mut parts = text.split("](");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push(']');
        plain.push_str(part.split_once(')').map_or("", |(_target, behind)| behind));
    }
    plain
}

fn word_count(sentence: &str) -> usize {
    let words = sentence.split_whitespace();
    let has_letters = |word: &&str| word.contains(char::is_alphanumeric);
    words.filter(has_letters).count()
}
