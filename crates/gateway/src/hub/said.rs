//! What signals said lately, so that read marks never go back and nobody stops to type who still does elsewhere. No IO; the time is a value.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use confab_protocol::fair::{Owner, Slots};
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::signal::{Signal, SignalKind};
use rustc_hash::FxHashMap;
use uuid::Uuid;

/// For how long a receipt is remembered: far longer than an older one is on its way.
const RECEIPT_MEMORY: Duration = Duration::from_secs(300);
/// How long typing lasts without being said again, and the second that a signal may be held back.
const TYPING_LASTS: Duration = Duration::from_secs(7);
/// Users and conversations that are remembered, for each kind; half of them of one tenant, and so many of one user: what more it says is not.
const MAX_REMEMBERED: usize = 64 * 1024;
const MAX_OF_USER: usize = 8 * 1024;

/// What is remembered of whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct MemoryKey {
    conversation: ConversationId,
    owner: Owner,
}

/// What was said lately in a shard's conversations.
#[derive(Debug)]
pub(super) struct SignalMemory {
    /// How far the user has read.
    receipts: ExpiringMap<Seq>,
    /// At which gateways the user types, and until when.
    typing: ExpiringMap<Vec<(Option<Uuid>, Instant)>>,
}

impl Default for SignalMemory {
    fn default() -> Self {
        Self {
            receipts: ExpiringMap::of(RECEIPT_MEMORY),
            typing: ExpiringMap::of(TYPING_LASTS),
        }
    }
}

impl SignalMemory {
    /// Takes note of a signal; says whether it is to be told.
    pub(super) fn hear(&mut self, signal: &Signal, now: Instant) -> bool {
        let of = MemoryKey {
            conversation: signal.conversation,
            owner: Owner {
                tenant: signal.tenant.clone(),
                user: signal.user.clone(),
            },
        };
        match signal.kind {
            SignalKind::Receipt(up_to) => self.receipt(of, up_to, now),
            SignalKind::Typing(true) => {
                self.types(of, signal.gateway, now);
                true
            }
            SignalKind::Typing(false) => self.stops(&of, signal.gateway, now),
        }
    }

    /// A receipt below one that was told is dropped.
    fn receipt(&mut self, of: MemoryKey, up_to: Seq, now: Instant) -> bool {
        let told = self.receipts.get_mut(&of, now);
        if told.is_some_and(|told| *told >= up_to) {
            return false;
        }
        self.receipts.put(of, up_to, now);
        true
    }

    fn types(&mut self, of: MemoryKey, gateway: Option<Uuid>, now: Instant) {
        let at = self.typing.get_mut(&of, now).map(std::mem::take);
        let mut at = at.unwrap_or_default();
        at.retain(|(other, until)| *other != gateway && *until > now);
        at.push((gateway, now + TYPING_LASTS));
        self.typing.put(of, at, now);
    }

    /// Whether the user types at no other gateway.
    fn stops(&mut self, of: &MemoryKey, gateway: Option<Uuid>, now: Instant) -> bool {
        let Some(at) = self.typing.get_mut(of, now) else {
            return true;
        };
        at.retain(|(other, until)| *other != gateway && *until > now);
        at.is_empty()
    }
}

/// Values that are forgotten when they were not put for a while.
#[derive(Debug)]
struct ExpiringMap<V> {
    lasts: Duration,
    values: FxHashMap<MemoryKey, (V, Instant)>,
    shares: Slots,
    /// Each key once, about in the order in which they are to be forgotten.
    ends: VecDeque<(Instant, MemoryKey)>,
}

impl<V> ExpiringMap<V> {
    fn of(lasts: Duration) -> Self {
        Self {
            lasts,
            values: FxHashMap::default(),
            shares: Slots::new(MAX_REMEMBERED, MAX_REMEMBERED / 2, MAX_OF_USER),
            ends: VecDeque::new(),
        }
    }

    fn get_mut(&mut self, of: &MemoryKey, now: Instant) -> Option<&mut V> {
        self.forget(now);
        self.values.get_mut(of).map(|(value, _)| value)
    }

    fn put(&mut self, of: MemoryKey, value: V, now: Instant) {
        let end = now + self.lasts;
        if let Some(known) = self.values.get_mut(&of) {
            *known = (value, end);
        } else if self.shares.allows(&of.owner.tenant, &of.owner.user) {
            self.shares.take(&of.owner);
            self.values.insert(of.clone(), (value, end));
            self.ends.push_back((end, of));
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((_, of)) = self.ends.pop_front_if(|(end, _)| *end <= now) {
            // One that was put again since has its turn later.
            match self.values.get(&of) {
                Some((_, end)) if *end > now => self.ends.push_back((*end, of)),
                _ => {
                    self.values.remove(&of);
                    self.shares.give_back(&of.owner);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM_ID: ConversationId = ConversationId(Uuid::from_u128(1));

    fn signal(user: &str, gateway: u128, kind: SignalKind) -> Signal {
        Signal {
            tenant: "t".parse().unwrap(),
            conversation: ROOM_ID,
            user: user.parse().unwrap(),
            kind,
            gateway: Some(Uuid::from_u128(gateway)),
        }
    }

    #[test]
    fn receipt_below_one_heard_is_dropped() {
        let (mut said, now) = (SignalMemory::default(), Instant::now());
        let mut hear = |user, seq| said.hear(&signal(user, 1, SignalKind::Receipt(seq)), now);
        let told: Vec<_> = [3, 9, 5, 9, 10].map(|seq| hear("ann", seq)).into();
        assert_eq!(told, [true, true, false, false, true]);
        assert!(hear("bob", 5), "another's");
    }

    #[test]
    fn user_stops_to_type_at_the_last_gateway() {
        let (mut said, start) = (SignalMemory::default(), Instant::now());
        let mut hear = |gateway, on, ms| {
            let now = start + Duration::from_millis(ms);
            said.hear(&signal("ann", gateway, SignalKind::Typing(on)), now)
        };
        assert!(hear(1, true, 0));
        assert!(hear(2, true, 100));
        assert!(!hear(1, false, 200), "the other goes on");
        assert!(hear(2, false, 300));
        assert!(hear(2, false, 400), "nothing is known");
        assert!(hear(1, true, 1000));
        assert!(hear(2, true, 5000));
        assert!(hear(2, false, 8001), "the first is over by itself");
    }

    #[test]
    fn what_was_said_is_forgotten_and_bounded() {
        let (mut said, start) = (SignalMemory::default(), Instant::now());
        let in_room = |n: usize, user: &str| Signal {
            conversation: ConversationId(Uuid::from_u128(n as u128)),
            ..signal(user, 1, SignalKind::Receipt(1))
        };
        assert!(said.hear(&in_room(0, "quiet"), start));
        for user in ["loud", "louder"] {
            for n in 0..2 * MAX_OF_USER {
                assert!(said.hear(&in_room(n, user), start));
            }
        }
        assert_eq!(said.receipts.values.len(), 2 * MAX_OF_USER + 1);
        assert!(!said.hear(&in_room(0, "quiet"), start), "it is remembered");
        let later = start + RECEIPT_MEMORY;
        assert!(said.hear(&signal("ann", 1, SignalKind::Receipt(1)), later));
        assert_eq!(said.receipts.values.len(), 1);
        assert_eq!(said.receipts.ends.len(), 1);
        assert_eq!(said.receipts.shares.used(), 1);
    }
}
