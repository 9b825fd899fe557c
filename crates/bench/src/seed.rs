//! A database as an installation leaves it: conversations that took turns, each with its members, its log without gaps, and what is
//! projected from that.
//!
//! The events lie on the disk in the order of their times, so that those of one conversation are as far from one another as there are
//! conversations: the worst case for whoever reads a page of them.

use confab_protocol::ids::{ConversationId, UserId};
use serde::{Deserialize, Serialize};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::Error;

mod copy;

pub(crate) use copy::{fill, message};

/// When the first conversation began.
const FIRST_CREATED_AT: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);
/// Conversations of each user.
pub(crate) const OF_EACH: u64 = 20;
/// Behind the beginnings, every so many-th event is in the first conversation, whose log is long.
const LONG_LOG_STEP: u64 = 10;

/// How large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Seed {
    pub(crate) events: u64,
    pub(crate) conversations: u64,
    /// Members of each conversation.
    pub(crate) members: u64,
    /// Characters of each message's text.
    pub(crate) text: usize,
}

impl Seed {
    /// Refuses what has no place for everything.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let fits = self.conversations >= 2
            && (1..=100).contains(&self.members)
            && self.events >= self.conversations;
        let why = "a filling needs two conversations, 1 to 100 members of each, and an event for each conversation";
        fits.then_some(())
            .ok_or_else(|| Error::Failed(why.to_owned()))
    }

    /// Where the `n`-th event belongs: its conversation, and its seq there. Conversations begin one after the other.
    pub(crate) const fn place(&self, n: u64) -> (u64, u64) {
        let begun = self.conversations;
        if n < begun {
            return (n, 1);
        }
        let long = self.long_up_to(n);
        if n.is_multiple_of(LONG_LOG_STEP) {
            return (0, 1 + long);
        }
        let other = n - begun - long;
        (1 + other % (begun - 1), 2 + other / (begun - 1))
    }

    /// How many of the events up to the `n`-th are in the long conversation, its beginning left out.
    const fn long_up_to(&self, n: u64) -> u64 {
        n / LONG_LOG_STEP - (self.conversations - 1) / LONG_LOG_STEP
    }

    /// The last seq of a conversation.
    pub(crate) const fn head(&self, conversation: u64) -> u64 {
        let long = self.long_up_to(self.events - 1);
        if conversation == 0 {
            return 1 + long;
        }
        let others = self.events - self.conversations - long;
        let turns = self.conversations - 1;
        let one_more = (conversation - 1 < others % turns) as u64;
        1 + others / turns + one_more
    }

    /// How many users there are.
    pub(crate) fn users(&self) -> u64 {
        (self.conversations * self.members / OF_EACH).max(self.members)
    }

    /// The number of the user that is the `place`-th member of a conversation.
    pub(crate) fn member(&self, conversation: u64, place: u64) -> u64 {
        let users = self.users();
        (conversation + place % self.members * (users / self.members)) % users
    }

    /// The `n`-th conversation of a user.
    pub(crate) fn conversation_of(&self, user: u64, n: u64) -> u64 {
        let users = self.users();
        let (place, round) = (n % self.members, n / self.members);
        let first = (user + users - place * (users / self.members)) % users;
        (first + round * users) % self.conversations
    }

    /// When the `n`-th event was stored.
    fn at(n: u64) -> OffsetDateTime {
        FIRST_CREATED_AT + Duration::seconds(n.cast_signed())
    }
}

/// The id of a conversation.
pub(crate) fn conversation_id(number: u64) -> ConversationId {
    ConversationId(id(number, 0))
}

/// The id of a user.
pub(crate) fn user_id(number: u64) -> Result<UserId, Error> {
    let name = user_name(number);
    name.parse()
        .map_err(|_invalid| Error::Failed(format!("{name:?} is no user id")))
}

/// The same, unparsed.
pub(crate) fn user_name(number: u64) -> String {
    format!("user-{number}")
}

/// A UUIDv7 of the time of the `n`-th event, whose other bits are `kind` and a number.
fn id(n: u64, kind: u8) -> Uuid {
    let millis = (Seed::at(n) - OffsetDateTime::UNIX_EPOCH).whole_milliseconds();
    let mut rest = [kind; 10];
    if let Some(end) = rest.last_chunk_mut::<8>() {
        *end = scattered(n).to_be_bytes();
    }
    uuid::Builder::from_unix_timestamp_millis(u64::try_from(millis).unwrap_or_default(), &rest)
        .into_uuid()
}

/// Bits that look random (the finalizer of `SplitMix64`, which never gives two numbers the same).
const fn scattered(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn seeded_logs_have_no_gaps_up_to_head() {
        for (conversations, events) in [(2, 2), (2, 100), (7, 100), (100, 10_000), (33, 34)] {
            let seed = Seed {
                events,
                conversations,
                members: 4,
                text: 10,
            };
            seed.check().unwrap();
            let mut heads = vec![0; usize::try_from(conversations).unwrap()];
            for n in 0..events {
                let (conversation, seq) = seed.place(n);
                let head = &mut heads[usize::try_from(conversation).unwrap()];
                assert_eq!(seq, *head + 1, "event {n} of {seed:?}");
                *head = seq;
            }
            for (conversation, head) in (0..).zip(heads) {
                assert_eq!(seed.head(conversation), head, "{conversation} of {seed:?}");
            }
        }
    }

    #[test]
    fn seeded_users_have_equally_many_conversations() {
        let seed = Seed {
            events: 1000,
            conversations: 1000,
            members: 4,
            text: 10,
        };
        let mut all = vec![0; usize::try_from(seed.users()).unwrap()];
        for conversation in 0..1000 {
            let members: HashSet<u64> = (0..4)
                .map(|place| seed.member(conversation, place))
                .collect();
            assert_eq!(members.len(), 4);
            for member in members {
                all[usize::try_from(member).unwrap()] += 1;
            }
        }
        assert!(all.iter().all(|count| *count == OF_EACH));
    }

    #[test]
    fn a_user_is_a_member_of_its_conversations() {
        let seed = Seed {
            events: 1000,
            conversations: 1000,
            members: 4,
            text: 10,
        };
        for user in 0..seed.users() {
            let own: HashSet<u64> = (0..OF_EACH)
                .map(|n| seed.conversation_of(user, n))
                .collect();
            assert_eq!(own.len(), 20);
            for conversation in own {
                assert!((0..4).any(|place| seed.member(conversation, place) == user));
            }
        }
    }

    #[test]
    fn seeded_ids_are_version_7_ordered_by_time() {
        let ids: Vec<Uuid> = (0..1000).map(|n| id(n, 1)).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
        assert_ne!(id(7, 0), id(7, 1));
    }
}
