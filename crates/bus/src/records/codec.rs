//! The bytes of a record: its version, then MessagePack without names.

use bytes::Bytes;
use confab_protocol::wire;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Entry, TokenHash};
use crate::error::BusError;

/// The first byte of a record; another is not read.
const VERSION: u8 = 1;

/// A record's bytes.
///
/// # Errors
/// When a value has no form.
pub(super) fn encode(entry: &Entry) -> Result<Bytes, BusError> {
    let mut bytes = vec![VERSION];
    bytes.extend(wire::encode_compact(entry)?);
    Ok(bytes.into())
}

/// None when the bytes are no record of this version.
pub(super) fn decode(bytes: &[u8]) -> Option<Entry> {
    match bytes.split_first() {
        Some((&VERSION, entry)) => wire::decode_compact(entry).ok(),
        _ => None,
    }
}

// As bytes: an array would be written number by number, in half as much space again.
impl Serialize for TokenHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(HashBytes)
    }
}

struct HashBytes;

impl Visitor<'_> for HashBytes {
    type Value = TokenHash;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("32 bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<TokenHash, E> {
        match bytes.try_into() {
            Ok(hash) => Ok(TokenHash(hash)),
            Err(_other_length) => Err(E::invalid_length(bytes.len(), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use confab_protocol::signal::PresenceStatus;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::testing::record;
    use super::super::{Ownership, Position};
    use super::*;
    use confab_protocol::ids::ConversationId;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_record_is_written_as_ever() {
        let live = encode(&Entry::Live(record(1))).unwrap();
        let expected = concat!(
            "01",
            "81a44c697665",
            "9a",
            "a461636d65",
            "a5616c696365",
            "a570686f6e65",
            "a56c6f67696e",
            "c420",
            "0101010101010101010101010101010101010101010101010101010101010101",
            "c0",
            "9201c41000000000000000000000000000000001",
            "c41000000000000000000000000000000009",
            "a66f6e6c696e65",
            "9193c410000000000000000000000000000000050307",
        );
        assert_eq!(hex(&live), expected);
        let ended = encode(&Entry::Ended { generation: 7 }).unwrap();
        assert_eq!(hex(&ended), "0181a5456e6465649107");
    }

    #[test]
    fn what_is_no_record_of_this_version_is_refused() {
        let good = encode(&Entry::Live(record(1))).unwrap();
        let other_version = [&[2], &good[1..]].concat();
        let longer = [&good[..], &[0]].concat();
        let shorter = &good[..good.len() - 1];
        for junk in [&b""[..], b"\x01", b"{}", &other_version, &longer, shorter] {
            assert!(decode(junk).is_none(), "{}", hex(junk));
        }
    }

    fn position() -> impl Strategy<Value = Position> {
        (any::<u128>(), any::<u64>(), any::<u64>()).prop_map(|(id, joined, seq)| Position {
            conversation: ConversationId(Uuid::from_u128(id)),
            joined,
            seq,
        })
    }

    proptest! {
        #[test]
        fn every_record_survives(
            device in ".{0,40}",
            hash in any::<[u8; 32]>(),
            former in any::<Option<[u8; 32]>>(),
            (generation, take_over) in any::<(u64, u128)>(),
            positions in prop::collection::vec(position(), 0..40),
        ) {
            let written = super::super::Record {
                device,
                token: TokenHash(hash),
                former: former.map(TokenHash),
                owner: Ownership { generation, take_over: Uuid::from_u128(take_over) },
                presence: PresenceStatus::Away,
                positions,
                ..record(1)
            };
            let bytes = encode(&Entry::Live(written.clone())).unwrap();
            let Some(Entry::Live(read)) = decode(&bytes) else {
                return Err(TestCaseError::fail("not read"));
            };
            prop_assert_eq!(encode(&Entry::Live(read.clone())).unwrap(), bytes);
            prop_assert_eq!(read.token.0, hash);
            prop_assert_eq!(read.former.map(|hash| hash.0), former);
            prop_assert_eq!(read.owner, written.owner);
            prop_assert_eq!(read.positions, written.positions);
        }

        #[test]
        fn garbage_never_panics(junk in prop::collection::vec(any::<u8>(), 0..200)) {
            let _read = decode(&junk);
            let _versioned = decode(&[&[VERSION], &junk[..]].concat());
        }
    }
}
