//! JSON merge patch (RFC 7396) on texts: values that a patch does not name stay byte for byte.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{AllMembers, JsonText, ObjectMembers};

/// Returns what `patch` makes of `target`: members that it gives are set, objects are merged into, and null removes.
///
/// # Errors
/// When one of them is not JSON.
pub fn merge_patch(target: &JsonText, patch: &JsonText) -> Result<JsonText, serde_json::Error> {
    merge(target.as_str(), patch.as_str()).map(JsonText::trusted)
}

fn merge(target: &str, patch: &str) -> Result<String, serde_json::Error> {
    if !is_object(patch) {
        return Ok(patch.to_owned());
    }
    let mut merged = Merged::default();
    if is_object(target) {
        let ObjectMembers(members, _): AllMembers<'_> = serde_json::from_str(target)?;
        for (name, value) in members {
            merged.set(name, Cow::Borrowed(value.get()));
        }
    }
    let ObjectMembers(changes, _): AllMembers<'_> = serde_json::from_str(patch)?;
    for (name, change) in changes {
        if change.get() == "null" {
            merged.remove(&name);
        } else {
            // Merged also where nothing was: nulls inside of a change are never kept.
            let value = merge(merged.get(&name).unwrap_or("null"), change.get())?;
            merged.set(name, Cow::Owned(value));
        }
    }
    merged.write()
}

fn is_object(json: &str) -> bool {
    json.trim_ascii_start().starts_with('{')
}

/// An object in the making: its members in the order in which they came.
#[derive(Default)]
struct Merged<'a> {
    members: Vec<Option<(Cow<'a, str>, Cow<'a, str>)>>,
    places: HashMap<Cow<'a, str>, usize>,
}

impl<'a> Merged<'a> {
    fn get(&self, name: &str) -> Option<&str> {
        let member = self.members.get(*self.places.get(name)?)?.as_ref();
        member.map(|(_, value)| value.as_ref())
    }

    fn set(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) {
        let next = self.members.len();
        let place = *self.places.entry(name.clone()).or_insert(next);
        match self.members.get_mut(place) {
            Some(member) => *member = Some((name, value)),
            None => self.members.push(Some((name, value))),
        }
    }

    fn remove(&mut self, name: &str) {
        let place = self.places.remove(name);
        if let Some(member) = place.and_then(|place| self.members.get_mut(place)) {
            *member = None;
        }
    }

    fn write(self) -> Result<String, serde_json::Error> {
        let mut out = String::from("{");
        for (name, value) in self.members.into_iter().flatten() {
            if out.len() > 1 {
                out.push(',');
            }
            out.push_str(&serde_json::to_string(&name)?);
            out.push(':');
            out.push_str(&value);
        }
        out.push('}');
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7396, appendix A: the target, the patch, the result.
        let examples = [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (
                r#"{"a":{"b":"c"}}"#,
                r#"{"a":{"b":"d","c":null}}"#,
                r#"{"a":{"b":"d"}}"#,
            ),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ];
        for (target, patch, result) in examples {
            assert_eq!(merge(target, patch).unwrap(), result, "{target} {patch}");
        }
    }

    #[test]
    fn unpatched_members_stay_byte_for_byte() {
        let target = r#"{"z":  1.0,"big":123456789012345678901234567890,"a":{"y": 1e2, "x":"\u00e9"},"gone":1}"#;
        let patch = r#"{"gone":null,"a":{"w":[1, 2]},"new": 1.50}"#;
        assert_eq!(
            merge(target, patch).unwrap(),
            r#"{"z":1.0,"big":123456789012345678901234567890,"a":{"y":1e2,"x":"\u00e9","w":[1, 2]},"new":1.50}"#
        );
        let inside = r#"{"custom":{"keep": {"a" : 1.0 }}}"#;
        assert_eq!(
            merge(inside, r#"{"custom":{"b":2}}"#).unwrap(),
            r#"{"custom":{"keep":{"a" : 1.0 },"b":2}}"#
        );
    }

    /// The algorithm as the RFC writes it down.
    fn by_the_book(target: Value, patch: &Value) -> Value {
        let Value::Object(patch) = patch else {
            return patch.clone();
        };
        let mut target = match target {
            Value::Object(target) => target,
            _ => Map::new(),
        };
        for (name, value) in patch {
            if value.is_null() {
                target.remove(name);
            } else {
                let before = target.remove(name).unwrap_or(Value::Null);
                target.insert(name.clone(), by_the_book(before, value));
            }
        }
        Value::Object(target)
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c\"\\\\é ]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d\"]", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_patch_does_what_the_rfc_says(target in json(), patch in json()) {
            let merged = merge(&target.to_string(), &patch.to_string()).unwrap();
            let read: Value = serde_json::from_str(&merged).unwrap();
            prop_assert_eq!(read, by_the_book(target, &patch));
        }
    }
}
