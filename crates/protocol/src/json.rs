//! JSON from outside: text that is kept byte for byte, and objects whose bad fields are all named at once.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::error::{Failure, FieldError, FieldErrors};

mod canonical;
mod check;
mod compact;
mod merge;

pub use canonical::Canonical;
pub(crate) use check::escaped;
pub use check::{Fault, check};
pub use compact::compact;
pub use merge::merge_patch;

/// Members of an object that are looked at one by one. No object of ours has as many: what is beyond is counted as unknown.
const MAX_MEMBERS: usize = 256;
/// Up to here every whole number is an IEEE 754 double.
const MAX_EXACT_NUMBER: f64 = 9_007_199_254_740_992.0;

/// JSON text, kept byte for byte: raw in JSON, a string in MessagePack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonText(Box<str>);

impl JsonText {
    /// The text of `value`.
    ///
    /// # Errors
    /// When the value has no JSON form.
    pub fn of<T: Serialize>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_string(value).map(Self::trusted)
    }

    /// Text that is known to be JSON: written by us, or checked before it was stored.
    #[must_use]
    pub fn trusted(text: String) -> Self {
        Self(text.into_boxed_str())
    }

    /// The empty object.
    #[must_use]
    pub fn empty_object() -> Self {
        Self("{}".into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, taken out.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0.into_string()
    }
}

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_str(&self.0);
        }
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return Box::<RawValue>::deserialize(deserializer).map(|raw| Self(raw.into()));
        }
        String::deserialize(deserializer).map(Self::trusted)
    }
}

/// The members of one JSON object, taken out one by one; every bad one is noted, and none is left over in silence.
#[derive(Debug)]
pub struct Fields<'a> {
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// Members that nobody looks at.
    beyond: u64,
    prefix: &'static str,
    errors: FieldErrors,
}

/// The first members, and how many are beyond them.
struct ObjectMembers<'a, const MAX: usize>(Vec<(Cow<'a, str>, &'a RawValue)>, u64);

/// The members of an object, however many.
type AllMembers<'a> = ObjectMembers<'a, { usize::MAX }>;

impl<'de, const MAX: usize> Deserialize<'de> for ObjectMembers<'de, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MemberName<'a>(Cow<'a, str>);
        impl<'de> Deserialize<'de> for MemberName<'de> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct NameVisitor;
                impl<'de> Visitor<'de> for NameVisitor {
                    type Value = MemberName<'de>;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a member name")
                    }
                    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<MemberName<'de>, E> {
                        Ok(MemberName(Cow::Borrowed(name)))
                    }
                    fn visit_str<E>(self, name: &str) -> Result<MemberName<'de>, E> {
                        Ok(MemberName(Cow::Owned(name.to_owned())))
                    }
                }
                deserializer.deserialize_str(NameVisitor)
            }
        }
        struct MembersVisitor<const MAX: usize>;
        impl<'de, const MAX: usize> Visitor<'de> for MembersVisitor<MAX> {
            type Value = ObjectMembers<'de, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                let mut beyond = 0;
                while let Some((MemberName(name), value)) =
                    map.next_entry::<MemberName<'de>, &'de RawValue>()?
                {
                    if members.len() < MAX {
                        members.push((name, value));
                    } else {
                        beyond += 1;
                    }
                }
                Ok(ObjectMembers(members, beyond))
            }
        }
        deserializer.deserialize_map(MembersVisitor::<MAX>)
    }
}

impl<'a> Fields<'a> {
    /// The members of the object that `bytes` hold.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` when they hold no JSON object, or one that names a member twice.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Failure> {
        Self::parse_at(bytes, "")
    }

    /// The same for an object that stands at the JSON pointer `prefix` of the body.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_at(bytes: &'a [u8], prefix: &'static str) -> Result<Self, Failure> {
        let ObjectMembers::<MAX_MEMBERS>(members, beyond) =
            serde_json::from_slice(bytes).map_err(|error| {
                let what = if error.is_data() {
                    "must be a JSON object"
                } else {
                    "is not valid JSON"
                };
                Failure::field(prefix, what)
            })?;
        let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_ref()).collect();
        names.sort_unstable();
        if let Some([twice, _]) = names.array_windows().find(|[a, b]| a == b) {
            return Err(Failure::field(pointer(prefix, twice), "is there twice"));
        }
        Ok(Self {
            members,
            beyond,
            prefix,
            errors: FieldErrors::default(),
        })
    }

    /// Returns true if the member is there; null counts as absent.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let mut members = self.members.iter();
        members.any(|(member, value)| member == name && value.get() != "null")
    }

    /// The member as it stands, left where it is: null is one too.
    #[must_use]
    pub fn peek(&self, name: &str) -> Option<&'a RawValue> {
        let mut members = self.members.iter();
        let (_, value) = members.find(|(member, _)| member == name)?;
        Some(value)
    }

    /// Takes the member out as it stands; null counts as absent.
    pub fn raw(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.members.iter().position(|(member, _)| member == name)?;
        let (_, value) = self.members.swap_remove(at);
        (value.get() != "null").then_some(value)
    }

    /// Takes an optional member out. One of another type is noted, and so is one that [`check()`] refuses for U+0000.
    pub fn take<T: Deserialize<'a>>(&mut self, name: &str) -> Option<T> {
        let raw = self.raw(name)?;
        // A backslash may itself be escaped: the quick look only says whether a slow one is needed.
        if raw.get().contains("\\u0000")
            && let Err(fault) = check(raw.get())
        {
            self.reject_inside(name, fault);
            return None;
        }
        match serde_json::from_str(raw.get()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.reject(name, without_value(&error.to_string()));
                None
            }
        }
    }

    /// Takes a member out that must be there.
    pub fn require<T: Deserialize<'a>>(&mut self, name: &str) -> Option<T> {
        let before = self.errors.total();
        let value = self.take(name);
        if value.is_none() && self.errors.total() == before {
            self.reject(name, "must be given");
        }
        value
    }

    /// Takes an optional whole number out, however it is written: `75.0` and `7.5e1` are 75 (JSON Schema, `integer`).
    pub fn integer(&mut self, name: &str) -> Option<u64> {
        let raw = self.raw(name)?;
        let number = serde_json::from_str(raw.get()).ok().or_else(|| {
            let number: f64 = serde_json::from_str(raw.get()).ok()?;
            let is_exact = number.fract() == 0.0 && (0.0..=MAX_EXACT_NUMBER).contains(&number);
            is_exact.then(|| format!("{number:.0}").parse().ok())?
        });
        if number.is_none() {
            self.reject(name, "must be a whole number, not below 0");
        }
        number
    }

    /// Takes a whole number out that must be there.
    pub fn require_integer(&mut self, name: &str) -> Option<u64> {
        if self.has(name) {
            return self.integer(name);
        }
        // Taken out where it is null, so that it is not unknown as well.
        self.raw(name);
        self.reject(name, "must be given");
        None
    }

    /// Takes an optional member out whose JSON text is kept: checked as by [`check()`], at most `limit` bytes in its shortest form
    /// ([`compact()`]). It is kept as it stands, or in that form where it would be longer than `limit` otherwise.
    pub fn text(&mut self, name: &str, limit: usize) -> Option<JsonText> {
        let raw = self.raw(name)?.get();
        if let Err(fault) = check(raw) {
            self.reject_inside(name, fault);
            return None;
        }
        if raw.len() <= limit {
            return Some(JsonText(raw.into()));
        }
        let short = compact(raw).filter(|short| short.len() <= limit);
        if short.is_none() {
            self.reject(name, format!("must be at most {limit} bytes of JSON"));
        }
        short.map(JsonText::trusted)
    }

    /// As [`Self::text`], of a member that must be an object.
    pub fn object(&mut self, name: &str, limit: usize) -> Option<JsonText> {
        let text = self.text(name, limit)?;
        if text.as_str().starts_with('{') {
            return Some(text);
        }
        self.reject(name, "must be an object");
        None
    }

    /// Notes that a member is bad.
    pub fn reject(&mut self, name: &str, message: impl Into<String>) {
        self.errors
            .push(FieldError::new(pointer(self.prefix, name), message));
    }

    /// Notes what is wrong somewhere inside a member.
    fn reject_inside(&mut self, name: &str, fault: Fault) {
        let pointer = pointer(self.prefix, name) + &fault.pointer;
        self.errors.push(FieldError::new(pointer, fault.message));
    }

    /// Takes over what was found wrong further inside.
    pub fn absorb(&mut self, failure: Failure) {
        let extension = *failure.extension;
        self.errors.absorb(extension.errors, extension.more_errors);
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` that names bad and unknown members.
    pub fn finish(mut self) -> Result<(), Failure> {
        for (name, _) in &self.members {
            self.errors.push(FieldError::new(
                pointer(self.prefix, name),
                "is not a known field",
            ));
        }
        self.errors.count(self.beyond);
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(Failure::validation(self.errors))
        }
    }
}

/// Returns what serde says of a value, without the value and where it stands: it may be anything, and of any length.
fn without_value(text: &str) -> String {
    let text = text
        .rsplit_once(" at line ")
        .map_or(text, |(before, _)| before);
    match text.rsplit_once(", expected ") {
        Some((found, expected)) => {
            let kind = found.split(['"', '`']).next().unwrap_or_default();
            format!("{}, expected {expected}", kind.trim_end())
        }
        None => text.to_owned(),
    }
}

/// The JSON pointer (RFC 6901) of the member `name` below `prefix`.
fn pointer(prefix: &str, name: &str) -> String {
    format!("{prefix}/{}", escaped(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_size_is_that_of_shortest_form() {
        let text = |value: &str, limit| {
            let body = format!(r#"{{"a":{value}}}"#);
            let mut fields = Fields::parse(body.as_bytes()).unwrap();
            let text = fields.text("a", limit).map(JsonText::into_string);
            fields.finish().ok().and(text)
        };
        assert_eq!(
            text(r#"[ "\u65e5" ]"#, 12).unwrap(),
            r#"[ "\u65e5" ]"#,
            "it fits"
        );
        assert_eq!(text(r#"[ "\u65e5" ]"#, 11).unwrap(), r#"["日"]"#);
        assert_eq!(text(r#"[ "\u65e5" ]"#, 7).unwrap(), r#"["日"]"#);
        assert_eq!(text(r#"[ "\u65e5" ]"#, 6), None);
    }

    #[test]
    fn duplicate_member_is_named_by_pointer() {
        let mut fields = Fields::parse(br#"{"a":{"b":[{"c":1,"c":2}]}}"#).unwrap();
        assert_eq!(fields.text("a", 100), None);
        let failure = fields.finish().unwrap_err();
        assert_eq!(failure.detail, "/a/b/0/c: is there twice");
    }

    #[test]
    fn answer_to_many_bad_fields_is_small() {
        let members: Vec<_> = (0..40_000).map(|n| format!("\"f{n}\":1")).collect();
        let body = format!("{{{}}}", members.join(","));
        let failure = Fields::parse(body.as_bytes())
            .unwrap()
            .finish()
            .unwrap_err();
        let json = serde_json::to_string(&failure).unwrap();
        assert!(json.len() < 4096, "{}", json.len());
        assert_eq!(failure.detail, "40000 fields are not valid");
        let named = failure.extension.errors.len() as u64;
        assert_eq!(named + failure.extension.more_errors, 40_000);
    }

    #[test]
    fn bad_field_is_told_without_its_value() {
        let body = r#"{"a":"SECRET, expected ","b":[1],"c":"SECRET"}"#;
        let mut fields = Fields::parse(body.as_bytes()).unwrap();
        assert_eq!(fields.take::<u32>("a"), None);
        assert_eq!(fields.take::<String>("b"), None);
        assert_eq!(fields.take::<crate::signal::PresenceStatus>("c"), None);
        let failure = fields.finish().unwrap_err();
        let errors = &failure.extension.errors;
        assert_eq!(errors[0].message, "invalid type: string, expected u32");
        assert_eq!(
            errors[1].message,
            "invalid type: sequence, expected a string"
        );
        assert!(
            errors[2]
                .message
                .starts_with("unknown variant, expected one of"),
            "{errors:?}"
        );
        assert!(!format!("{failure:?}").contains("SECRET"));
    }

    #[test]
    fn every_bad_field_is_named_at_once() {
        let mut fields = Fields::parse(br#"{"a":1,"b":"x","typo":2,"c":null}"#).unwrap();
        assert_eq!(fields.take::<u32>("a"), Some(1));
        assert_eq!(fields.take::<u32>("b"), None);
        assert_eq!(fields.require::<u32>("c"), None);
        let failure = fields.finish().unwrap_err();
        let pointers: Vec<_> = failure
            .extension
            .errors
            .iter()
            .map(|e| e.pointer.as_str())
            .collect();
        assert_eq!(pointers, ["/b", "/c", "/typo"]);
    }

    #[test]
    fn whole_number_is_accepted_in_any_form() {
        let read = |text: &str| {
            let body = format!("{{\"n\":{text}}}");
            let mut fields = Fields::parse(body.as_bytes()).unwrap();
            let number = fields.require_integer("n");
            fields.finish().ok().and(number)
        };
        assert_eq!(read("75"), Some(75));
        assert_eq!(read("75.0"), Some(75));
        assert_eq!(read("7.5e1"), Some(75));
        assert_eq!(read("18446744073709551615"), Some(u64::MAX));
        for bad in [
            "-1",
            "0.5",
            "1e300",
            "18446744073709551616",
            "\"1\"",
            "null",
            "true",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_member_twice_is_no_object_of_ours() {
        assert!(Fields::parse(br#"{"a":1,"\u0061":2}"#).is_err());
        assert!(Fields::parse(b"[]").is_err());
        assert!(Fields::parse(b"{} x").is_err());
    }

    #[test]
    fn text_survives_both_wires_byte_for_byte() {
        let text = JsonText::trusted(r#"{"b": 1.0, "a":"\u00e9"}"#.into());
        let json = serde_json::to_string(&text).unwrap();
        assert_eq!(json, text.as_str());
        assert_eq!(serde_json::from_str::<JsonText>(&json).unwrap(), text);
        let packed = crate::wire::encode(&text).unwrap();
        assert_eq!(crate::wire::decode::<JsonText>(&packed).unwrap(), text);
    }
}
