//! Where a claim stands in a token: under a name, or where a JSON pointer leads (RFC 6901).

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

/// A claim's name, or, with a slash in front, a JSON pointer to it. A claim whose own name begins with a slash is written as a
/// pointer (`/~1name`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPath {
    text: String,
    /// The name of the top-level member.
    first: String,
    /// The reference tokens behind it, unescaped.
    rest: Vec<String>,
}

/// A text that is neither a claim's name nor a JSON pointer to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadClaimPath {
    /// Nothing at all.
    #[error("must be the name of a claim, or a JSON pointer such as /app_metadata/tenant")]
    Empty,
    /// A `~` that escapes nothing.
    #[error("in a JSON pointer ~ is written ~0, and / in a name ~1")]
    Escape,
}

impl ClaimPath {
    /// The claim of this name, whatever characters it has.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            text: name.to_owned(),
            first: name.to_owned(),
            rest: Vec::new(),
        }
    }

    /// The name or pointer as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name of the top-level claim in which it stands.
    pub(crate) fn top(&self) -> &str {
        &self.first
    }

    /// The value there, null among them; none where there is nothing.
    pub(crate) fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        let mut value = claims.get(&self.first)?;
        for token in &self.rest {
            value = match value {
                Value::Object(members) => members.get(token)?,
                Value::Array(list) => list.get(index(token)?)?,
                _ => return None,
            };
        }
        Some(value)
    }
}

impl FromStr for ClaimPath {
    type Err = BadClaimPath;

    fn from_str(text: &str) -> Result<Self, BadClaimPath> {
        let Some(pointer) = text.strip_prefix('/') else {
            return match text {
                "" => Err(BadClaimPath::Empty),
                name => Ok(Self::named(name)),
            };
        };
        let mut tokens = pointer.split('/').map(unescaped);
        let first = tokens.next().ok_or(BadClaimPath::Empty)??;
        if pointer.is_empty() {
            return Err(BadClaimPath::Empty);
        }
        Ok(Self {
            text: text.to_owned(),
            first,
            rest: tokens.collect::<Result<_, _>>()?,
        })
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A reference token in plain text: `~1` stands for `/`, `~0` for `~`, in this order (RFC 6901 section 4).
fn unescaped(token: &str) -> Result<String, BadClaimPath> {
    let is_escape = |rest: &str| rest.starts_with('0') || rest.starts_with('1');
    if !token.split('~').skip(1).all(is_escape) {
        return Err(BadClaimPath::Escape);
    }
    Ok(token.replace("~1", "/").replace("~0", "~"))
}

/// An index into a list: digits without leading zeros (RFC 6901 section 4).
fn index(token: &str) -> Option<usize> {
    let is_canonical = token == "0" || !token.starts_with('0');
    let is_number = is_canonical && token.bytes().all(|byte| byte.is_ascii_digit());
    token.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(path: &str) -> Option<Value> {
        let claims = json!({
            "tid": "t",
            "https://chat.example/tenant": "u",
            "a/b": "slash",
            "m~n": "tilde",
            "~1": "both",
            "": "empty",
            "none": null,
            "list": ["x", {"y": "z"}],
            "nested": {"tid": {"id": 1}, "": 2},
        });
        let path: ClaimPath = path.parse().unwrap();
        path.find(claims.as_object().unwrap()).cloned()
    }

    #[test]
    fn names_and_pointers_lead_to_values() {
        assert_eq!(found("tid"), Some(json!("t")));
        assert_eq!(found("https://chat.example/tenant"), Some(json!("u")));
        assert_eq!(found("a/b"), Some(json!("slash")), "a name is no pointer");
        assert_eq!(found("/tid"), Some(json!("t")));
        assert_eq!(found("/a~1b"), Some(json!("slash")));
        assert_eq!(found("/m~0n"), Some(json!("tilde")));
        assert_eq!(found("/~01"), Some(json!("both")));
        assert_eq!(found("/nested/tid/id"), Some(json!(1)));
        assert_eq!(found("/nested/"), Some(json!(2)));
        assert_eq!(found("/list/1/y"), Some(json!("z")));
        assert_eq!(found("none"), Some(Value::Null));
    }

    #[test]
    fn path_that_leads_nowhere_finds_nothing() {
        for path in [
            "x",
            "/x",
            "/tid/x",
            "/nested/x",
            "/list/2",
            "/list/-",
            "/list/01",
            "/list/+1",
            "/list/x",
            "nested/tid",
        ] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    #[test]
    fn empty_and_wrongly_escaped_paths_are_refused() {
        let bad = |text: &str| text.parse::<ClaimPath>().unwrap_err();
        assert_eq!(bad(""), BadClaimPath::Empty);
        assert_eq!(bad("/"), BadClaimPath::Empty);
        for text in ["/a~", "/a~2", "/~/b", "/a/~x"] {
            assert_eq!(bad(text), BadClaimPath::Escape, "{text}");
        }
    }
}
