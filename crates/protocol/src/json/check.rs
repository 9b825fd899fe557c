//! What a JSON text from outside may not hold, found in one pass that keeps the names of the objects it is in and nothing else.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

use super::canonical::{Canonical, is_beyond_64_bits};

/// Depth to which a JSON text from outside may be nested. Readers give up at 128, and the text stands some objects deep in events,
/// answers and frames.
pub(super) const MAX_DEPTH: usize = 100;
/// Members up to which a new name is compared with each one before it; those of a larger object are sorted at its end.
const MAX_COMPARED: usize = 16;
/// From here on a number may be an integer of more than 64 bits: 2^63.
const MIN_HUGE_NUMBER: f64 = 9_223_372_036_854_775_808.0;
/// What is said of one.
const TOO_LONG: &str =
    "is an integer of more than 64 bits, which not every reader has: give it as a string";

/// A defect of a JSON text, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The JSON pointer (RFC 6901) from the text's beginning; empty for the whole.
    pub pointer: String,
    /// What is wrong there, in words for the caller.
    pub message: String,
}

/// Refuses what Postgres, MessagePack or a strict reader could not hold, or readers would understand differently.
///
/// That is U+0000 and lone surrogates in any string or member name, a member given twice, numbers beyond an IEEE 754 double, integers beyond 64 bits that no double is written as,
/// nesting beyond 100.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(text: &str) -> Result<(), Fault> {
    let mut place = CheckPlace::default();
    match pass(text, &mut place) {
        Ok(()) if place.has_huge => {
            // Few texts have one: only then are their digits looked at.
            Canonical::read(text).map_or(Ok(()), |value| no_long_integer(&value, &mut place))
        }
        Ok(()) => Ok(()),
        // Only a text that is refused pays for saying where.
        Err(_) => fault(text),
    }
}

fn pass<'de>(text: &'de str, place: &mut CheckPlace<'de>) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = CheckedValue {
        place,
        depth: MAX_DEPTH,
    };
    value.deserialize(&mut reader).and_then(|()| reader.end())
}

fn fault(text: &str) -> Result<(), Fault> {
    let mut place = CheckPlace {
        is_traced: true,
        ..CheckPlace::default()
    };
    pass(text, &mut place).map_err(|error| {
        let text = error.to_string();
        let message = text.split(" at line ").next().unwrap_or_default();
        Fault {
            pointer: place.pointer(),
            message: message.to_owned(),
        }
    })
}

/// The place in the text that the pass has reached.
#[derive(Debug, Default)]
struct CheckPlace<'de> {
    /// The names of the objects that are not at their end, an object's behind those of the one it stands in.
    names: Vec<Cow<'de, str>>,
    /// True if the way to it is kept.
    is_traced: bool,
    steps: Vec<PathStep>,
    /// True if there was a number that may be an integer of more than 64 bits.
    has_huge: bool,
}

/// One step of a pointer.
#[derive(Debug, Clone, Copy)]
enum PathStep {
    /// Into the member with this name.
    MemberName(usize),
    /// Into this item.
    Item(usize),
}

impl<'de> CheckPlace<'de> {
    /// A member's name was read, of an object whose names begin at `first`.
    fn enter<E: Error>(&mut self, name: Cow<'de, str>, first: usize) -> Result<(), E> {
        let has_nul = name.contains('\0');
        let before = self.names.get(first..).unwrap_or_default();
        let is_twice = before.len() < MAX_COMPARED && before.contains(&name);
        self.step(PathStep::MemberName(self.names.len()));
        self.names.push(name);
        match (has_nul, is_twice) {
            (true, _) => Err(E::custom(NUL_REFUSED)),
            (_, true) => Err(E::custom(DUPLICATE_REFUSED)),
            _ => Ok(()),
        }
    }

    /// An object whose names begin at `first` is at its end.
    fn leave<E: Error>(&mut self, first: usize) -> Result<(), E> {
        let own = self.names.get_mut(first..).unwrap_or_default();
        if own.len() > MAX_COMPARED {
            own.sort_unstable();
            if let Some(at) = own.array_windows().position(|[a, b]| a == b) {
                self.step(PathStep::MemberName(first + at));
                return Err(E::custom(DUPLICATE_REFUSED));
            }
        }
        self.names.truncate(first);
        Ok(())
    }

    fn step(&mut self, step: PathStep) {
        if self.is_traced {
            self.steps.push(step);
        }
    }

    fn pointer(&self) -> String {
        let mut pointer = String::new();
        for step in &self.steps {
            pointer.push('/');
            match step {
                PathStep::Item(at) => pointer.push_str(&at.to_string()),
                PathStep::MemberName(at) => {
                    pointer.push_str(&escaped(self.names.get(*at).map_or("", Cow::as_ref)));
                }
            }
        }
        pointer
    }
}

const NUL_REFUSED: &str = "must not contain U+0000";
const DUPLICATE_REFUSED: &str = "is there twice";

/// A member's name in a JSON pointer, cut where it is long.
pub(crate) fn escaped(name: &str) -> String {
    let name: String = name.chars().take(64).collect();
    name.replace('~', "~0").replace('/', "~1")
}

/// The seed and visitor of a value: it visits everything.
struct CheckedValue<'p, 'de> {
    place: &'p mut CheckPlace<'de>,
    /// How much deeper it may go.
    depth: usize,
}

impl CheckedValue<'_, '_> {
    fn inside<E: Error>(&self) -> Result<usize, E> {
        let too_deep = || E::custom(format!("must not be nested deeper than {MAX_DEPTH}"));
        self.depth.checked_sub(1).ok_or_else(too_deep)
    }
}

impl<'de> DeserializeSeed<'de> for CheckedValue<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CheckedValue<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.place.has_huge |= number.abs() >= MIN_HUGE_NUMBER;
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if text.contains('\0') {
            Err(E::custom(NUL_REFUSED))
        } else {
            Ok(())
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let depth = self.inside()?;
        let place = self.place;
        let own = place.steps.len();
        place.step(PathStep::Item(0));
        let mut at = 0;
        while items
            .next_element_seed(CheckedValue { place, depth })?
            .is_some()
        {
            at += 1;
            if let Some(step) = place.steps.get_mut(own) {
                *step = PathStep::Item(at);
            }
        }
        place.steps.truncate(own);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let depth = self.inside()?;
        let place = self.place;
        let (first, own) = (place.names.len(), place.steps.len());
        while members
            .next_key_seed(MemberName { place, first })?
            .is_some()
        {
            members.next_value_seed(CheckedValue { place, depth })?;
            place.steps.truncate(own);
        }
        place.leave(first)
    }
}

/// The seed and visitor of a member's name.
struct MemberName<'p, 'de> {
    place: &'p mut CheckPlace<'de>,
    /// Where the names of its object begin.
    first: usize,
}

impl<'de> DeserializeSeed<'de> for MemberName<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for MemberName<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<(), E> {
        self.place.enter(Cow::Borrowed(name), self.first)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<(), E> {
        self.place.enter(Cow::Owned(name.to_owned()), self.first)
    }
}

/// Refuses integers of more than 64 bits. A double may be written as one (JavaScript does it below 10^21), and is no such integer.
fn no_long_integer<'a>(value: &Canonical<'a>, place: &mut CheckPlace<'a>) -> Result<(), Fault> {
    match value {
        Canonical::Number(text) if is_beyond_64_bits(text) => Err(Fault {
            pointer: place.pointer(),
            message: TOO_LONG.to_owned(),
        }),
        Canonical::List(items) => items.iter().enumerate().try_for_each(|(at, item)| {
            place.steps.push(PathStep::Item(at));
            no_long_integer(item, place)?;
            place.steps.pop();
            Ok(())
        }),
        Canonical::Object(members) => members.iter().try_for_each(|(name, member)| {
            place.steps.push(PathStep::MemberName(place.names.len()));
            place.names.push(name.clone());
            no_long_integer(member, place)?;
            place.names.pop();
            place.steps.pop();
            Ok(())
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (String, String) {
        let fault = check(text).expect_err(text);
        (fault.pointer, fault.message)
    }

    #[test]
    fn unstorable_value_is_refused_at_any_depth() {
        for good in ["{}", "[1,\"a\\u00e9\",1e300]", "\"\\ud83d\\ude00\"", "null"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, pointer) in [
            (r#""\u0000""#, ""),
            (r#"{"\u0000":1}"#, "/\0"),
            (r#"["a",{"b":"x\u0000"}]"#, "/1/b"),
            (r#"{"a":[0,{"b~/c":["\ud800"]}]}"#, "/a/1/b~0~1c/0"),
            ("1e999", ""),
            (r#"[1,{"x":{},"y":[1e999]}]"#, "/1/y/0"),
            ("{", ""),
            ("1 2", ""),
        ] {
            assert_eq!(refused(bad).0, pointer, "{bad}");
        }
        assert!(check(&"[".repeat(200)).is_err());
    }

    #[test]
    fn member_twice_is_refused_at_any_depth() {
        for (bad, pointer) in [
            (r#"{"a":1,"a":1}"#, "/a"),
            (r#"{"a":1,"b":{},"\u0061":2}"#, "/a"),
            (r#"[{"x":[{"k":1,"l":{"k":1},"k":2}]}]"#, "/0/x/0/k"),
        ] {
            assert_eq!(
                refused(bad),
                (pointer.to_owned(), DUPLICATE_REFUSED.to_owned()),
                "{bad}"
            );
        }
        let good = r#"{"a":{"a":{"a":1},"b":1},"b":[{"a":1},{"a":2}]}"#;
        assert_eq!(check(good), Ok(()));
        let many = |last: &str| {
            let members: Vec<_> = (0..2000).map(|n| format!(r#""m{n}":{{"a":1}}"#)).collect();
            format!(r#"{{"in":{{{},"{last}":1}}}}"#, members.join(","))
        };
        assert_eq!(check(&many("m2000")), Ok(()));
        assert_eq!(refused(&many("m7")).0, "/in/m7");
    }

    #[test]
    fn integer_that_readers_would_round_is_refused() {
        for good in [
            "18446744073709551615",
            "-9223372036854775808",
            "[9007199254740993]",
            // 2^64 and 10^20, as JavaScript writes these doubles, and exactly.
            "[18446744073709552000,18446744073709551616,100000000000000000000]",
            "[1e300,1.5e200]",
            r#"{"a":"18446744073709551617"}"#,
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, pointer) in [
            ("18446744073709551617", ""),
            (r#"{"a":[1e300,{"b":18446744073709551617}]}"#, "/a/1/b"),
            ("[-9223372036854775809]", "/0"),
            ("123456789012345678901234567890", ""),
        ] {
            assert_eq!(
                refused(bad),
                (pointer.to_owned(), TOO_LONG.to_owned()),
                "{bad}"
            );
        }
    }

    #[test]
    fn accepted_depth_is_readable_inside_event() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check(&nested(MAX_DEPTH)), Ok(()));
        let problem = refused(&nested(MAX_DEPTH + 1)).1;
        assert_eq!(problem, "must not be nested deeper than 100");
        let objects = format!("{}1{}", r#"{"a":"#.repeat(MAX_DEPTH), "}".repeat(MAX_DEPTH));
        assert_eq!(check(&objects), Ok(()));
        let event =
            format!(r#"{{"data":{{"conversation":{{"metadata":{{"custom":{objects}}}}}}}}}"#);
        let packed = crate::wire::msgpack_of_json(event.as_bytes()).unwrap();
        let back = crate::wire::json_of_msgpack(&packed).unwrap();
        assert!(serde_json::from_slice::<serde_json::Value>(&back).is_ok());
    }
}
