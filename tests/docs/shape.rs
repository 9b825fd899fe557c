//! Compares an answer with the page's example; ids, times and tokens may differ, but consistently.

use std::collections::BTreeMap;

use confab_protocol::timestamp::Timestamp;
use serde_json::Value;
use uuid::Uuid;

/// What a page leaves out.
const REST_MARK: &str = "…";
/// Numbers and answers that are others in each run: by jitter, or because a busy gateway is late.
const VARYING_FIELDS: [&str; 3] = ["/reconnectAfterMs", "/retryAfterMs", "/complete"];

/// What the texts of the pages stand for in this run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meanings(BTreeMap<String, String>);

impl Meanings {
    pub(crate) fn set(&mut self, shown: &str, actual: &str) {
        self.0.insert(shown.to_owned(), actual.to_owned());
    }

    /// A text of a page as it is said in this run.
    pub(crate) fn apply(&self, text: &str) -> String {
        let all = self.0.iter();
        all.fold(text.to_owned(), |text, (shown, actual)| {
            text.replace(shown, actual)
        })
    }

    /// Learns from a value that is like the one shown.
    ///
    /// # Errors
    /// Where it is not; then nothing is learned.
    pub(crate) fn learn(&mut self, shown: &Value, actual: &Value) -> Result<(), String> {
        let mut learned = self.clone();
        learned.value("", shown, actual)?;
        *self = learned;
        Ok(())
    }

    fn value(&mut self, at: &str, shown: &Value, actual: &Value) -> Result<(), String> {
        let is_like = match (shown, actual) {
            (Value::Object(shown), Value::Object(actual)) => {
                let names = || shown.keys().filter(|name| *name != REST_MARK);
                let known: Vec<_> = names().map(|name| self.apply(name)).collect();
                if !shown.contains_key(REST_MARK)
                    && let Some(more) = actual.keys().find(|name| !known.contains(name))
                {
                    return Err(format!("{at}/{more} is not shown"));
                }
                for (name, known) in names().zip(&known) {
                    let at = format!("{at}/{name}");
                    let actual = actual
                        .get(known)
                        .ok_or_else(|| format!("{at} is not there"))?;
                    self.value(&at, &shown[name], actual)?;
                }
                true
            }
            (Value::Array(shown), Value::Array(actual)) => {
                let is_open = shown.last().is_some_and(|last| last == REST_MARK);
                let count = shown.len() - usize::from(is_open);
                if actual.len() < count || (actual.len() > count && !is_open) {
                    return Err(format!("{at} has {} elements", actual.len()));
                }
                for (number, (shown, actual)) in shown.iter().zip(actual).take(count).enumerate() {
                    self.value(&format!("{at}/{number}"), shown, actual)?;
                }
                true
            }
            (Value::String(shown), Value::String(actual)) => self.text(shown, actual),
            (Value::Number(_), Value::Number(_)) | (Value::Bool(_), Value::Bool(_)) => {
                shown == actual || VARYING_FIELDS.iter().any(|name| at.ends_with(name))
            }
            _ => shown == actual || shown == REST_MARK,
        };
        if is_like {
            Ok(())
        } else {
            Err(format!("{at} is {actual}"))
        }
    }

    /// Whether a text is that shown, or of the same kind; then it is what the shown one stands for from now on.
    fn text(&mut self, shown: &str, actual: &str) -> bool {
        if shown == REST_MARK || (is_time(shown) && is_time(actual)) {
            return true;
        }
        if let Some(known) = self.0.get(shown) {
            return known == actual;
        }
        let is_name = shown.ends_with(REST_MARK) || (is_uuid(shown) && is_uuid(actual));
        if is_name && shown != actual {
            self.set(shown, actual);
        }
        is_name || self.apply(shown) == actual
    }

    /// Whether a line is that shown; its words are compared like texts, and `…` in the last one stands for anything.
    pub(crate) fn line(&mut self, shown: &str, actual: &str) -> bool {
        let mut rest = actual;
        let mut words = shown.split(' ').peekable();
        while let Some(word) = words.next() {
            let is_last = words.peek().is_none();
            let (found, behind) = match rest.split_once(' ') {
                Some(parts) if !is_last => parts,
                _ => (rest, ""),
            };
            let is_like = match word.split_once(REST_MARK) {
                Some((before, after)) => found.starts_with(before) && found.ends_with(after),
                None => self.text(word, found),
            };
            if !is_like {
                return false;
            }
            rest = behind;
        }
        rest.is_empty()
    }
}

fn is_uuid(text: &str) -> bool {
    Uuid::try_parse(text).is_ok()
}

fn is_time(text: &str) -> bool {
    text.parse::<Timestamp>().is_ok()
}

mod tests {
    use serde_json::json;

    use super::*;

    const PAGE_ID: &str = "019a5d20-0010-7000-8000-000000000001";
    const ACTUAL_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
    const OTHER_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8058";

    #[test]
    fn an_id_stands_for_one_id() {
        let mut meanings = Meanings::default();
        let shown = json!({ "id": PAGE_ID, "seq": 2, "…": "…" });
        let actual = json!({ "id": ACTUAL_ID, "seq": 2, "more": 1 });
        assert_eq!(meanings.learn(&shown, &actual), Ok(()));
        assert_eq!(
            meanings.apply(&format!("<{PAGE_ID}>")),
            format!("<{ACTUAL_ID}>")
        );
        let other = json!({ "id": OTHER_ID, "seq": 2 });
        assert!(meanings.learn(&shown, &other).is_err());
        let heads = json!({ "heads": { PAGE_ID: 2 } });
        assert_eq!(
            meanings.learn(&heads, &json!({ "heads": { ACTUAL_ID: 2 } })),
            Ok(())
        );
        assert!(
            meanings
                .learn(&heads, &json!({ "heads": { ACTUAL_ID: 3 } }))
                .is_err()
        );
    }

    #[test]
    fn what_is_not_shown_must_not_be_there() {
        let mut meanings = Meanings::default();
        for (shown, actual, is_like) in [
            (json!({ "a": 1 }), json!({ "a": 1, "b": 2 }), false),
            (json!({ "a": 1, "…": "…" }), json!({ "a": 1, "b": 2 }), true),
            (json!({ "a": 1 }), json!({}), false),
            (json!([1]), json!([1, 2]), false),
            (json!([1, "…"]), json!([1, 2]), true),
            (json!([1, 2]), json!([1]), false),
            (
                json!("2026-11-23T10:20:30.123Z"),
                json!("2027-01-01T00:00:00.000Z"),
                true,
            ),
            (json!("2026-11-23T10:20:30.123Z"), json!("soon"), false),
            (json!("hello"), json!("bye"), false),
            (json!(null), json!("x"), false),
        ] {
            let found = meanings.learn(&shown, &actual).is_ok();
            assert_eq!(found, is_like, "{shown} {actual}");
        }
    }

    #[test]
    fn a_line_is_compared_word_by_word() {
        let mut meanings = Meanings::default();
        meanings.set("http://127.0.0.1:40102", "http://127.0.0.1:5");
        let shown = format!("session {PAGE_ID} is open at http://127.0.0.1:40102; Ctrl-C ends it");
        let actual = format!("session {ACTUAL_ID} is open at http://127.0.0.1:5; Ctrl-C ends it");
        assert!(meanings.line(&shown, &actual));
        assert!(!meanings.line(&shown, &actual.replace(ACTUAL_ID, OTHER_ID)));
        assert!(meanings.line("ratelimit: …", "ratelimit: \"user\"; r=1"));
        assert!(meanings.line("{…}", "{\"a\": 1}"));
        assert!(!meanings.line("a b", "a"));
        assert!(!meanings.line("a", "a b"));
    }
}
