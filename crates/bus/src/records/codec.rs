//! The bytes of a record: its version, then MessagePack without names. A record of version 1 has all its positions itself; one of
//! version 2 may name a base, of which they are the difference. What says that a session ended is of version 2.

use bytes::Bytes;
use confab_protocol::ids::ConversationId;
use confab_protocol::wire;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::bases::Difference;
use super::{Entry, Record, TokenHash};
use crate::error::BusError;

/// The first byte of a record with all its positions itself.
const FULL_RECORD_VERSION: u8 = 1;
/// The first byte of one that may name a base. Another is not read.
const BASED_RECORD_VERSION: u8 = 2;

/// The stored form of a session's record.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredRecord {
    /// Its positions are those that differ from the base, where it names one.
    pub(super) entry: Entry,
    pub(super) base: Option<Uuid>,
    gone: Vec<ConversationId>,
}

/// A record's bytes: it has all its positions itself.
///
/// # Errors
/// When a value has no form.
pub(super) fn encode(entry: &Entry) -> Result<Bytes, BusError> {
    match entry {
        Entry::Live(_) => encode_as(FULL_RECORD_VERSION, entry),
        Entry::Ended { .. } => {
            let gone = Vec::<ConversationId>::new();
            encode_as(BASED_RECORD_VERSION, &(entry, None::<Uuid>, gone))
        }
    }
}

/// A record's bytes, where it differs so from a base.
///
/// # Errors
/// When a value has no form.
pub(super) fn encode_with(
    record: &Record,
    base: Uuid,
    difference: Difference,
) -> Result<Bytes, BusError> {
    let Difference { differs, gone } = difference;
    let record = Record {
        positions: differs,
        ..record.without_positions()
    };
    let entry = Entry::Live(Box::new(record));
    encode_as(BASED_RECORD_VERSION, &(entry, Some(base), gone))
}

fn encode_as<T: Serialize>(version: u8, stored: &T) -> Result<Bytes, BusError> {
    let mut bytes = vec![version];
    bytes.extend(wire::encode_compact(stored)?);
    Ok(bytes.into())
}

/// None when the bytes are no record of these versions.
pub(super) fn decode(bytes: &[u8]) -> Option<StoredRecord> {
    match bytes.split_first() {
        Some((&BASED_RECORD_VERSION, stored)) => wire::decode_compact(stored).ok(),
        Some((&FULL_RECORD_VERSION, entry)) => Some(StoredRecord {
            entry: wire::decode_compact(entry).ok()?,
            base: None,
            gone: Vec::new(),
        }),
        _ => None,
    }
}

impl StoredRecord {
    /// The record without its positions, and how they differ from the base.
    pub(super) fn apart(self) -> (Entry, Difference) {
        let mut entry = self.entry;
        let differs = match &mut entry {
            Entry::Live(record) => std::mem::take(&mut record.positions),
            Entry::Ended { .. } => Vec::new(),
        };
        let gone = self.gone;
        (entry, Difference { differs, gone })
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

    /// A record as version 1 wrote it, behind its first byte.
    const LIVE_RECORD_HEX: &str = concat!(
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

    #[test]
    fn a_record_is_written_as_ever() {
        let live = encode(&Entry::Live(Box::new(record(1)))).unwrap();
        assert_eq!(hex(&live), format!("01{LIVE_RECORD_HEX}"));
        let difference = Difference {
            differs: record(1).positions,
            gone: vec![ConversationId(Uuid::from_u128(6))],
        };
        let base = Uuid::from_u128(8);
        let with_base = encode_with(&record(1), base, difference).unwrap();
        let base = "c41000000000000000000000000000000008";
        let gone = "91c41000000000000000000000000000000006";
        assert_eq!(
            hex(&with_base),
            format!("0293{LIVE_RECORD_HEX}{base}{gone}")
        );
        let ended = Entry::Ended {
            generation: 7,
            tokens: Vec::new(),
        };
        let ended = encode(&ended).unwrap();
        assert_eq!(hex(&ended), "029381a5456e646564920790c090");
    }

    /// What said that a session ended named no tokens.
    #[test]
    fn an_end_of_version_1_is_read() {
        let bytes = [&[1, 0x81, 0xa5][..], b"Ended", &[0x91, 7]].concat();
        let ended = decode(&bytes).unwrap().entry;
        assert!(
            matches!(ended, Entry::Ended { generation: 7, .. }),
            "{ended:?}"
        );
    }

    #[test]
    fn record_of_other_version_is_refused() {
        let good = encode(&Entry::Live(Box::new(record(1)))).unwrap();
        let other_version = [&[3], &good[1..]].concat();
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
            let written = Record {
                device,
                token: TokenHash(hash),
                former: former.map(TokenHash),
                owner: Ownership { generation, take_over: Uuid::from_u128(take_over) },
                presence: PresenceStatus::Away,
                positions,
                ..record(1)
            };
            let bytes = encode(&Entry::Live(Box::new(written.clone()))).unwrap();
            let Some(StoredRecord { entry: Entry::Live(read), base: None, .. }) = decode(&bytes) else {
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
            let _versioned = decode(&[&[BASED_RECORD_VERSION], &junk[..]].concat());
        }
    }
}
