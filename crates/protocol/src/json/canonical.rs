//! JSON texts compared by what they say (RFC 8785), not by how that is written.
//!
//! Libraries that write this form take values of serde, whose numbers are doubles or 64 bits wide by then: of a longer integer or a decimal they
//! see a neighbour. Here numbers are read from the text. Two integers are the same by their digits. Other numbers are also the same when both
//! are correctly rounded writings of one double, as `0.10`, `1e-1` and a double of MessagePack are.

use std::borrow::Cow;

mod number;

pub(super) use number::is_beyond_64_bits;

/// Depth to which a text may be nested: what is kept stands one object deeper than what [`super::check()`] lets in.
const MAX_DEPTH: usize = 128;

/// A JSON value, to be compared with another, at once or by a hash of its one form.
#[derive(Debug, Clone)]
pub enum Canonical<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it is written.
    Number(&'a str),
    /// A string, without escapes.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Self>),
    /// An object, its members sorted by their names. One that is there twice stays so.
    Object(Vec<(Cow<'a, str>, Self)>),
}

impl<'a> Canonical<'a> {
    /// Reads a text that is known to be JSON; none where it is not, or is nested too deep.
    #[must_use]
    pub fn read(text: &'a str) -> Option<Self> {
        let mut reader = CanonicalReader { rest: text };
        let value = reader.value(MAX_DEPTH)?;
        reader.skip_space();
        reader.rest.is_empty().then_some(value)
    }

    /// Returns true if both say the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(one), Self::Bool(other)) => one == other,
            (Self::Number(one), Self::Number(other)) => number::is_same(one, other),
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::List(one), Self::List(other)) => {
                let mut pairs = one.iter().zip(other);
                one.len() == other.len() && pairs.all(|(one, other)| one.is_same(other))
            }
            (Self::Object(one), Self::Object(other)) => {
                let mut pairs = one.iter().zip(other);
                one.len() == other.len()
                    && pairs.all(|((name, one), (other_name, other))| {
                        name == other_name && one.is_same(other)
                    })
            }
            _ => false,
        }
    }

    /// The one form of all texts that say the same, to be hashed. Members are in the order of their names' bytes, which is not that of RFC 8785.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        let string = |text: &str| serde_json::Value::from(text).to_string();
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(text) => number::write(text, out),
            Self::Text(text) => out.push_str(&string(text)),
            Self::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (at, (name, member)) in members.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    out.push_str(&string(name));
                    out.push(':');
                    member.write(out);
                }
                out.push('}');
            }
        }
    }
}

struct CanonicalReader<'a> {
    rest: &'a str,
}

impl<'a> CanonicalReader<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Takes the sign if it comes next.
    fn take(&mut self, sign: char) -> bool {
        self.skip_space();
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Takes what comes before `end`.
    fn take_to(&mut self, end: usize) -> Option<&'a str> {
        let (taken, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        Some(taken)
    }

    fn value(&mut self, depth: usize) -> Option<Canonical<'a>> {
        self.skip_space();
        match self.rest.as_bytes().first()? {
            b'{' => self.object(depth.checked_sub(1)?),
            b'[' => self.list(depth.checked_sub(1)?),
            b'"' => self.string().map(Canonical::Text),
            _ => self.token(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Canonical<'a>> {
        let mut members = Vec::new();
        self.take('{');
        while !self.take('}') {
            if !members.is_empty() && !self.take(',') {
                return None;
            }
            self.skip_space();
            let name = self.string()?;
            if !self.take(':') {
                return None;
            }
            members.push((name, self.value(depth)?));
        }
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        Some(Canonical::Object(members))
    }

    fn list(&mut self, depth: usize) -> Option<Canonical<'a>> {
        let mut items = Vec::new();
        self.take('[');
        while !self.take(']') {
            if !items.is_empty() && !self.take(',') {
                return None;
            }
            items.push(self.value(depth)?);
        }
        Some(Canonical::List(items))
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        let mut escaped = false;
        let mut has_escapes = false;
        let inner = self.rest.strip_prefix('"')?;
        let length = inner.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            has_escapes |= escaped;
            ends
        })?;
        let quoted = self.take_to(length + 2)?;
        if has_escapes {
            return serde_json::from_str(quoted).ok().map(Cow::Owned);
        }
        inner.get(..length).map(Cow::Borrowed)
    }

    fn token(&mut self) -> Option<Canonical<'a>> {
        let is_end = |c: char| matches!(c, ',' | ']' | '}' | ' ' | '\t' | '\n' | '\r');
        let end = self.rest.find(is_end).unwrap_or(self.rest.len());
        Some(match self.take_to(end)? {
            "null" => Canonical::Null,
            "true" => Canonical::Bool(true),
            "false" => Canonical::Bool(false),
            number => Canonical::Number(number::is_one(number).then_some(number)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn is_same(one: &str, other: &str) -> bool {
        let read = |text| Canonical::read(text).unwrap_or_else(|| panic!("{text}"));
        let same = read(one).is_same(&read(other));
        assert_eq!(read(other).is_same(&read(one)), same, "{one} {other}");
        let forms = [one, other].map(|text| read(text).to_text());
        assert!(same || forms[0] != forms[1], "{one} {other}");
        for (text, form) in [one, other].into_iter().zip(&forms) {
            assert!(read(text).is_same(&read(form)), "{text} {form}");
        }
        same
    }

    #[test]
    fn texts_that_say_the_same_have_one_form() {
        for (form, texts) in [
            (
                r#"{"a":[1,null],"é\"":{}}"#,
                [
                    r#"{"é\"":{},"a":[1,null]}"#,
                    r#" { "\u0061" : [ 1.0, null ], "\u00e9\u0022":{} } "#,
                ],
            ),
            ("[15e-1,1e2,0]", ["[1.5,100,-0.0]", "[0.15E1,1e2,0e9]"]),
            ("[1e-1]", ["[0.10000000000000001]", "[0.1]"]),
            ("9007199254740993", ["9007199254740993", "9007199254740993"]),
            (
                "1152921504606847e3",
                ["1.15292150460684698E18", "1.152921504606847e18"],
            ),
        ] {
            for text in texts {
                assert_eq!(Canonical::read(text).unwrap().to_text(), form, "{text}");
            }
        }
    }

    #[test]
    fn how_a_text_is_written_makes_no_difference() {
        for (one, other) in [
            (r#"{"a":1,"b":[2,3]}"#, "{ \"b\" : [ 2,\n3 ] ,\t\"a\":1 }"),
            (r#""é\/\"\\""#, r#""\u00e9/\u0022\u005c""#),
            (r#"{"\u0061":{}}"#, r#"{"a": { }}"#),
            ("[1.0,-0.0,0e5,1e2]", "[1,0,0.00,100]"),
            ("[0.10,1E-1]", "[0.1,0.1]"),
            (
                "[1.5e300,123456789012345678901234567890]",
                "[15e299,123456789012345678901234567890]",
            ),
            // A double as other languages write it, and as MessagePack brings it.
            ("1.15292150460684698E18", "1.152921504606847e18"),
            ("1152921504606847000", "1.152921504606847e18"),
            ("1152921504606846976", "1.152921504606847e18"),
            ("9007199254740993", "9007199254740993.0"),
            ("0.10000000000000001", "0.1"),
        ] {
            assert!(is_same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn texts_that_say_something_else_differ() {
        for (one, other) in [
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a":2,"a":1}"#),
            ("[1,2]", "[2,1]"),
            ("1", r#""1""#),
            ("1", "-1"),
            ("null", "false"),
            ("[]", "{}"),
            ("9007199254740993", "9007199254740992"),
            ("9007199254740993.0", "9007199254740992.0"),
            ("1152921504606846976", "1152921504606846977"),
            ("1152921504606846976", "1152921504606847000"),
            (
                "123456789012345678901234567890",
                "123456789012345678901234567891",
            ),
            ("0.12345678901234567890", "0.12345678901234567891"),
            ("1e-400", "1e-401"),
            ("1e-99999999999999999999", "1e-99999999999999999998"),
            (r#""\\u0061""#, r#""a""#),
        ] {
            assert!(!is_same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn text_that_is_no_json_has_no_form() {
        for bad in [
            "",
            "{",
            "[1",
            r#"{"a"}"#,
            r#"{"a":1,}"#,
            "1 2",
            "tru",
            r#""a"#,
            "-",
            "1.2.3",
            "1e",
            ".5",
            "0x1",
        ] {
            assert!(Canonical::read(bad).is_none(), "{bad}");
        }
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Canonical::read(&nested(MAX_DEPTH)).is_some());
        assert!(Canonical::read(&nested(MAX_DEPTH + 1)).is_none());
    }

    #[test]
    fn shortest_form_of_double_is_exact() {
        let number = -645_073_957_445_549.3_f64;
        assert!(is_same(&format!("{number:.16e}"), &format!("{number:e}")));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-c\"\\\\/é\u{1}😀 ]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-d\"é]{0,2}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_encoding_of_a_value_says_the_same(value in json()) {
            let (text, pretty) = (value.to_string(), format!("{value:#}"));
            prop_assert!(is_same(&text, &pretty));
            let packed = rmp_serde::to_vec(&value).unwrap();
            let back = crate::wire::json_of_msgpack(&packed).unwrap();
            prop_assert!(is_same(&text, std::str::from_utf8(&back).unwrap()));
        }

        #[test]
        fn double_is_one_number_at_any_length(number in any::<f64>(), digits in 16_usize..40) {
            prop_assume!(number.is_finite());
            let written = format!("{number:.digits$e}");
            let shortest = format!("{number:e}");
            prop_assert!(is_same(&written, &shortest), "{}", written);
            let form = |text| Canonical::read(text).map(|value| value.to_text());
            prop_assert_eq!(form(&written), form(&shortest));
        }
    }
}
