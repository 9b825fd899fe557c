//! JSON objects from strangers: a member that comes twice is refused, since two readers could take different ones
//! (RFC 8725 section 2.4, RFC 7519 section 4).

use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// An object whose members (its own, not those further inside) are distinct.
#[derive(Debug)]
pub(crate) struct Object(pub(crate) Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Distinct)
    }
}

/// The visitor behind [`Object`].
struct Distinct;

impl<'de> Visitor<'de> for Distinct {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Object, A::Error> {
        let mut members = Map::new();
        while let Some((name, value)) = access.next_entry::<String, Value>()? {
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a member comes twice"));
            }
        }
        Ok(Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_objects_with_distinct_members_are_read() {
        assert!(serde_json::from_str::<Object>(r#"{"a":1,"b":{}}"#).is_ok());
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            "[]",
            "null",
            "1",
            "",
            "{} {}",
        ] {
            assert!(serde_json::from_str::<Object>(bad).is_err(), "{bad}");
        }
    }
}
