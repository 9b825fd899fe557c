//! MessagePack from a client as JSON text, so that both subprotocols are read by one decoder. What JSON has not is named where it stands.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rmpv::ValueRef;
use rmpv::decode::read_value_ref_with_max_depth;

use super::WireError;
use crate::error::{FieldError, FieldErrors};

/// How much deeper values may be nested than MessagePack's reader counts: it takes two steps for each array or map.
const MAX_DEPTH: usize = 2 * 128;

/// A MessagePack value that was read and not yet looked at.
#[derive(Debug)]
pub struct Packed<'a>(ValueRef<'a>);

impl<'a> Packed<'a> {
    /// Reads one value.
    ///
    /// # Errors
    /// When the bytes are not MessagePack, are nested deeper than JSON's readers go, or hold something behind their value.
    pub fn read(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut rest = bytes;
        let value = read_value_ref_with_max_depth(&mut rest, MAX_DEPTH)?;
        if rest.is_empty() {
            Ok(Self(value))
        } else {
            Err(rmp_serde::decode::Error::LengthMismatch(1).into())
        }
    }

    /// The member `name` of an object, where it is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        let ValueRef::Map(members) = &self.0 else {
            return None;
        };
        let is_named =
            |key: &ValueRef<'_>| matches!(key, ValueRef::String(key) if key.as_str() == Some(name));
        members.iter().find_map(|(key, value)| match value {
            ValueRef::String(text) if is_named(key) => text.as_str(),
            _ => None,
        })
    }

    /// The value as JSON text: numbers and members as they were given, one given twice stays two. Bytes become base64 (RFC 4648 section 4) where they are
    /// a member of the outermost object that is base64 in JSON.
    ///
    /// # Errors
    /// All that JSON has not, each by its place: bytes elsewhere, extensions (timestamps among them), NaN and infinities, names that are not text,
    /// text that is not UTF-8.
    pub fn to_json(&self, base64: &[&str]) -> Result<Vec<u8>, FieldErrors> {
        let mut writer = Writer {
            base64,
            out: Vec::new(),
            path: Vec::new(),
            errors: FieldErrors::default(),
        };
        writer.value(&self.0);
        if writer.errors.is_empty() {
            Ok(writer.out)
        } else {
            Err(writer.errors)
        }
    }
}

struct Writer<'a> {
    base64: &'a [&'a str],
    out: Vec<u8>,
    /// The names and places on the way to what is written.
    path: Vec<String>,
    errors: FieldErrors,
}

impl Writer<'_> {
    fn value(&mut self, value: &ValueRef<'_>) {
        match value {
            ValueRef::Nil => self.out.extend_from_slice(b"null"),
            ValueRef::Boolean(true) => self.out.extend_from_slice(b"true"),
            ValueRef::Boolean(false) => self.out.extend_from_slice(b"false"),
            ValueRef::Integer(number) => self.out.extend_from_slice(number.to_string().as_bytes()),
            ValueRef::F32(number) => self.float(f64::from(*number)),
            ValueRef::F64(number) => self.float(*number),
            ValueRef::String(text) => match text.as_str() {
                Some(text) => self.text(text),
                None => self.reject("is text that is not UTF-8"),
            },
            ValueRef::Binary(bytes) => self.bytes(bytes),
            ValueRef::Array(items) => self.array(items),
            ValueRef::Map(members) => self.map(members),
            ValueRef::Ext(-1, _) => {
                self.reject("is a timestamp, which JSON has not: give it as a string");
            }
            ValueRef::Ext(..) => self.reject("is an extension of MessagePack, which JSON has not"),
        }
    }

    fn float(&mut self, number: f64) {
        if number.is_finite() {
            self.json(&number);
        } else {
            self.reject("is not a finite number, and JSON has no other");
        }
    }

    fn text(&mut self, text: &str) {
        self.json(text);
    }

    fn json<T: serde::Serialize + ?Sized>(&mut self, value: &T) {
        if serde_json::to_writer(&mut self.out, value).is_err() {
            self.reject("has no JSON form");
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        match self.path.as_slice() {
            [name] if self.base64.contains(&name.as_str()) => {
                let text = STANDARD.encode(bytes);
                self.text(&text);
            }
            _ => self.reject("is bytes, which JSON has not: give them as base64 in a string"),
        }
    }

    fn array(&mut self, items: &[ValueRef<'_>]) {
        self.out.push(b'[');
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            self.path.push(at.to_string());
            self.value(item);
            self.path.pop();
        }
        self.out.push(b']');
    }

    fn map(&mut self, members: &[(ValueRef<'_>, ValueRef<'_>)]) {
        self.out.push(b'{');
        for (at, (key, member)) in members.iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            if let ValueRef::String(text) = key
                && let Some(name) = text.as_str()
            {
                self.text(name);
                self.out.push(b':');
                self.path.push(name.to_owned());
                self.value(member);
            } else {
                self.path.push(shown(key));
                self.reject("has a name that is not text");
            }
            self.path.pop();
        }
        self.out.push(b'}');
    }

    fn reject(&mut self, message: &str) {
        let mut pointer = String::new();
        for step in &self.path {
            pointer.push('/');
            pointer.push_str(&crate::json::escaped(step));
        }
        self.errors.push(FieldError::new(pointer, message));
    }
}

/// A name that is not text, in a pointer.
fn shown(key: &ValueRef<'_>) -> String {
    match key {
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Boolean(value) => value.to_string(),
        ValueRef::Nil => "null".to_owned(),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use rmpv::Value;

    use super::*;

    fn packed(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).unwrap();
        bytes
    }

    fn map(members: Vec<(Value, Value)>) -> Value {
        Value::Map(members)
    }

    fn errors(bytes: &[u8]) -> Vec<(String, String)> {
        let errors = Packed::read(bytes).unwrap().to_json(&["b"]).unwrap_err();
        let (named, _) = errors.into_parts();
        let named = named.into_iter();
        named.map(|error| (error.pointer, error.message)).collect()
    }

    #[test]
    fn non_json_value_is_named_by_place() {
        let value = map(vec![
            ("id".into(), "x".into()),
            ("at".into(), Value::Ext(-1, vec![0; 4])),
            (
                "in".into(),
                map(vec![
                    ("own".into(), Value::Ext(7, vec![0; 4])),
                    (7.into(), 1.into()),
                    ("list".into(), Value::Array(vec![1.into(), f64::NAN.into()])),
                    ("b".into(), Value::Binary(vec![1])),
                    ("f".into(), f32::INFINITY.into()),
                ]),
            ),
        ]);
        let bytes = packed(&value);
        let named = errors(&bytes);
        let pointers: Vec<_> = named.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(
            pointers,
            ["/at", "/in/own", "/in/7", "/in/list/1", "/in/b", "/in/f"]
        );
        assert!(named[0].1.contains("timestamp"), "{named:?}");
        assert_eq!(Packed::read(&bytes).unwrap().text("id"), Some("x"));
        // A map with a text whose bytes are no UTF-8.
        let named = errors(&[0x81, 0xa1, b'a', 0xa1, 0xff]);
        assert_eq!(named[0].0, "/a");
        assert_eq!(errors(&[0xc4, 1, 7])[0].0, "");
    }

    #[test]
    fn bytes_are_base64_where_that_stands_in_json() {
        let value = map(vec![("b".into(), Value::Binary(vec![0, 1, 2]))]);
        let bytes = packed(&value);
        let json = Packed::read(&bytes).unwrap().to_json(&["b"]).unwrap();
        assert_eq!(json, br#"{"b":"AAEC"}"#);
    }

    #[test]
    fn what_is_not_messagepack_is_refused() {
        for bad in [
            &[0xc0, 0xc0][..],
            &[],
            &[0x92, 1],
            &[0xdd, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert!(Packed::read(bad).is_err(), "{bad:?}");
        }
        assert!(Packed::read(&vec![0x91; 100_000]).is_err());
    }
}
