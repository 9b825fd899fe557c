//! How commands and answers travel between gateways and workers: MessagePack with named fields, so that a newer
//! process may add one while an older still runs.

use serde::Serialize;
use serde::de::DeserializeOwned;

mod packed;

pub use packed::Packed;

use crate::error::Failure;

/// A message of the internal wire could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A value has no MessagePack form.
    #[error("cannot encode")]
    Encode(#[from] rmp_serde::encode::Error),
    /// Bytes are not the message that was expected.
    #[error("cannot decode")]
    Decode(#[from] rmp_serde::decode::Error),
    /// Bytes from outside are not MessagePack, or are nested too deep.
    #[error("is not MessagePack")]
    Unpack(#[from] rmpv::decode::Error),
    /// MessagePack from outside has no JSON form.
    #[error("has no JSON form")]
    NoJson(#[source] Failure),
    /// JSON has no MessagePack form.
    #[error("cannot transcode")]
    Transcode(#[from] serde_json::Error),
}

/// Encodes a message of the internal wire.
///
/// # Errors
/// When a value has no MessagePack form.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, WireError> {
    Ok(rmp_serde::to_vec_named(value)?)
}

/// Decodes a message of the internal wire.
///
/// # Errors
/// When the bytes are not such a message.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    Ok(rmp_serde::from_slice(bytes)?)
}

/// Encodes what is kept, without the names of fields: a version beside it says which they are.
///
/// # Errors
/// When a value has no MessagePack form.
pub fn encode_compact<T: Serialize>(value: &T) -> Result<Vec<u8>, WireError> {
    Ok(rmp_serde::to_vec(value)?)
}

/// Decodes what is kept.
///
/// # Errors
/// When the bytes are not such a value, or hold something behind it.
pub fn decode_compact<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let mut rest = bytes;
    let value = rmp_serde::from_read(&mut rest)?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(rmp_serde::decode::Error::LengthMismatch(1).into())
    }
}

/// JSON text as MessagePack: what a client of `confab.v1.msgpack` is sent.
///
/// # Errors
/// When the text is not JSON.
pub fn msgpack_of_json(json: &[u8]) -> Result<Vec<u8>, WireError> {
    let value: serde_json::Value = serde_json::from_slice(json)?;
    Ok(rmp_serde::to_vec(&value)?)
}

/// MessagePack from outside as JSON text, so that both subprotocols are read by one decoder.
///
/// # Errors
/// When the bytes are not MessagePack, hold something behind their value, or hold what JSON has not.
pub fn json_of_msgpack(bytes: &[u8]) -> Result<Vec<u8>, WireError> {
    let json = Packed::read(bytes)?.to_json(&[]);
    json.map_err(|errors| WireError::NoJson(Failure::validation(errors)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_survives_messagepack() {
        let json = br#"{"a":[1,-2,1.5,"x",null,true],"b":{"c":18446744073709551615}}"#;
        let packed = msgpack_of_json(json).unwrap();
        let back: serde_json::Value =
            serde_json::from_slice(&json_of_msgpack(&packed).unwrap()).unwrap();
        assert_eq!(
            back,
            serde_json::from_slice::<serde_json::Value>(json).unwrap()
        );
    }

    #[test]
    fn messagepack_with_a_tail_or_binary_is_refused() {
        assert!(json_of_msgpack(&[0xc0, 0xc0]).is_err());
        assert!(json_of_msgpack(&[0xc4, 1, 7]).is_err());
        assert!(json_of_msgpack(&[]).is_err());
        assert!(json_of_msgpack(&vec![0x91; 100_000]).is_err());
    }

    #[test]
    fn non_json_is_refused_and_duplicate_members_stay() {
        for number in [f64::NAN, f64::INFINITY] {
            assert!(json_of_msgpack(&rmp_serde::to_vec(&[number]).unwrap()).is_err());
        }
        // {"a": 1, "a": 2.5}
        let twice = [
            0x82, 0xa1, b'a', 1, 0xa1, b'a', 0xcb, 0x40, 4, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(json_of_msgpack(&twice).unwrap(), br#"{"a":1,"a":2.5}"#);
    }
}
