//! At most one signal a second per user, conversation and kind; the newest wins. No IO.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use confab_protocol::fair::{Owner, Slots};
use confab_protocol::ids::{ConversationId, TenantId, UserId};
use confab_protocol::signal::{Signal, SignalKind};
use rustc_hash::FxHashMap;
use uuid::Uuid;

/// How long after a signal the next one of its user, conversation and kind goes.
const MIN_SIGNAL_INTERVAL: Duration = Duration::from_secs(1);
/// Users, conversations and kinds that sent within the last second, half of them of one tenant, and so many of one user; more are dropped.
const MAX_THROTTLED_KEYS: usize = 64 * 1024;
pub(super) const MOST_OF_USER: usize = 8 * 1024;

/// What counts as the same signal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ThrottleKey {
    pub(super) tenant: TenantId,
    pub(super) conversation: ConversationId,
    pub(super) user: UserId,
    pub(super) is_typing: bool,
}

#[derive(Debug)]
struct ThrottleSlot {
    sent: SignalKind,
    waiting: Option<SignalKind>,
    gateway: Option<Uuid>,
}

/// What was sent within the last second, and what waits for its end.
#[derive(Debug)]
pub(super) struct Throttle {
    slots: FxHashMap<ThrottleKey, ThrottleSlot>,
    shares: Slots,
    /// When each slot's second ends. All last as long, so the first to begin is the first to end.
    ends: VecDeque<(Instant, ThrottleKey)>,
}

/// What becomes of a signal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ThrottleOutcome {
    /// It goes now.
    Go(Signal),
    /// It waits, or what was sent says the same.
    Waits,
    /// There is no room.
    Dropped,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            slots: FxHashMap::default(),
            shares: Slots::new(MAX_THROTTLED_KEYS, MAX_THROTTLED_KEYS / 2, MOST_OF_USER),
            ends: VecDeque::new(),
        }
    }
}

impl Throttle {
    /// Takes a signal.
    pub(super) fn offer(&mut self, signal: Signal, now: Instant) -> ThrottleOutcome {
        let key = ThrottleKey::of(&signal);
        if let Some(slot) = self.slots.get_mut(&key) {
            let newest = newest(slot.waiting.unwrap_or(slot.sent), signal.kind);
            slot.waiting = (newest != slot.sent).then_some(newest);
            return ThrottleOutcome::Waits;
        }
        if !self.shares.allows(&signal.tenant, &signal.user) {
            return ThrottleOutcome::Dropped;
        }
        self.shares.take(&key.owner());
        self.begin(key, (signal.kind, signal.gateway), now);
        ThrottleOutcome::Go(signal)
    }

    /// A receipt of another gateway was heard: what waits below it would go back.
    pub(super) fn overtaken(&mut self, heard: &Signal) {
        if let SignalKind::Receipt(up_to) = heard.kind
            && let Some(slot) = self.slots.get_mut(&ThrottleKey::of(heard))
            && let Some(SignalKind::Receipt(waiting)) = slot.waiting
            && waiting <= up_to
        {
            slot.waiting = None;
        }
    }

    /// What has waited until now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Signal> {
        let mut due = Vec::new();
        while let Some((_, key)) = self.ends.pop_front_if(|(end, _)| *end <= now) {
            let Some(slot) = self.slots.remove(&key) else {
                continue;
            };
            if let Some(kind) = slot.waiting {
                due.push(key.signal(kind, slot.gateway));
                self.begin(key, (kind, slot.gateway), now);
            } else {
                self.shares.give_back(&key.owner());
            }
        }
        due
    }

    /// When [`Self::due`] must be asked again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.ends.front().map(|(end, _)| *end)
    }

    fn begin(
        &mut self,
        key: ThrottleKey,
        (sent, gateway): (SignalKind, Option<Uuid>),
        now: Instant,
    ) {
        self.ends
            .push_back((now + MIN_SIGNAL_INTERVAL, key.clone()));
        let slot = ThrottleSlot {
            sent,
            waiting: None,
            gateway,
        };
        self.slots.insert(key, slot);
    }
}

/// A read mark only moves forward, whatever order its answers came in.
const fn newest(before: SignalKind, kind: SignalKind) -> SignalKind {
    match (before, kind) {
        (SignalKind::Receipt(before), SignalKind::Receipt(now)) => {
            SignalKind::Receipt(if now > before { now } else { before })
        }
        _ => kind,
    }
}

impl ThrottleKey {
    pub(super) fn of(signal: &Signal) -> Self {
        Self {
            tenant: signal.tenant.clone(),
            conversation: signal.conversation,
            user: signal.user.clone(),
            is_typing: matches!(signal.kind, SignalKind::Typing(_)),
        }
    }

    pub(super) fn owner(&self) -> Owner {
        Owner {
            tenant: self.tenant.clone(),
            user: self.user.clone(),
        }
    }

    fn signal(&self, kind: SignalKind, gateway: Option<Uuid>) -> Signal {
        Signal {
            tenant: self.tenant.clone(),
            conversation: self.conversation,
            user: self.user.clone(),
            kind,
            gateway,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn signal(user: u8, kind: SignalKind) -> Signal {
        Signal {
            tenant: "t".parse().unwrap(),
            conversation: ConversationId(Uuid::from_u128(1)),
            user: format!("u{user}").parse().unwrap(),
            kind,
            gateway: None,
        }
    }

    #[test]
    fn first_goes_at_once_newest_after_second() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut throttle = Throttle::default();
        let typing = |on| signal(1, SignalKind::Typing(on));
        assert_eq!(
            throttle.offer(typing(true), at(0)),
            ThrottleOutcome::Go(typing(true))
        );
        assert_eq!(
            throttle.offer(typing(false), at(100)),
            ThrottleOutcome::Waits
        );
        assert_eq!(
            throttle.offer(typing(true), at(200)),
            ThrottleOutcome::Waits
        );
        assert_eq!(throttle.due(at(1000)), [], "it says what was sent");
        assert_eq!(
            throttle.offer(typing(true), at(1000)),
            ThrottleOutcome::Go(typing(true))
        );
        assert_eq!(
            throttle.offer(typing(false), at(1001)),
            ThrottleOutcome::Waits
        );
        assert_eq!(throttle.due(at(1999)), []);
        assert_eq!(throttle.next(), Some(at(2000)));
        assert_eq!(throttle.due(at(2000)), [typing(false)]);
        let receipt = |seq| signal(1, SignalKind::Receipt(seq));
        assert_eq!(
            throttle.offer(receipt(5), at(2001)),
            ThrottleOutcome::Go(receipt(5))
        );
        assert_eq!(throttle.offer(receipt(9), at(2002)), ThrottleOutcome::Waits);
        assert_eq!(throttle.offer(receipt(7), at(2003)), ThrottleOutcome::Waits);
        assert_eq!(throttle.due(at(3001)), [receipt(9)]);
        assert_eq!(throttle.offer(receipt(8), at(3002)), ThrottleOutcome::Waits);
        assert_eq!(throttle.due(at(4001)), [], "it was sent before");
    }

    #[test]
    fn waiting_receipt_goes_no_more_once_overtaken() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut throttle = Throttle::default();
        let receipt = |seq| signal(1, SignalKind::Receipt(seq));
        assert_eq!(
            throttle.offer(receipt(3), at(0)),
            ThrottleOutcome::Go(receipt(3))
        );
        assert_eq!(throttle.offer(receipt(5), at(100)), ThrottleOutcome::Waits);
        throttle.overtaken(&receipt(4));
        throttle.overtaken(&signal(2, SignalKind::Receipt(9)));
        assert_eq!(
            throttle.slots.values().next().unwrap().waiting,
            Some(receipt(5).kind)
        );
        throttle.overtaken(&receipt(9));
        assert_eq!(throttle.due(at(1000)), []);
    }

    #[test]
    fn flood_of_signals_takes_its_share() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        let mut offers = |tenant: &str, user: &str| {
            let mut offer = |n: usize| {
                let signal = Signal {
                    tenant: tenant.parse().unwrap(),
                    user: user.parse().unwrap(),
                    conversation: ConversationId(Uuid::from_u128(n as u128)),
                    ..signal(1, SignalKind::Typing(true))
                };
                throttle.offer(signal, now) != ThrottleOutcome::Dropped
            };
            (0..MOST_OF_USER + 10).filter(|n| offer(*n)).count()
        };
        for loud in 0..4 {
            assert_eq!(offers("one", &format!("u{loud}")), MOST_OF_USER);
        }
        assert_eq!(offers("one", "quiet"), 0, "its tenant has its half");
        assert_eq!(offers("two", "quiet"), MOST_OF_USER);
        assert_eq!(throttle.due(now + MIN_SIGNAL_INTERVAL), []);
        assert_eq!((throttle.slots.len(), throttle.ends.len()), (0, 0));
        assert_eq!(throttle.shares.used(), 0);
    }

    proptest! {
        #[test]
        fn one_per_second_and_last_is_sent(steps in prop::collection::vec((0..3_u8, any::<bool>(), 0..700_u64), 1..80)) {
            let mut now = Instant::now();
            let mut throttle = Throttle::default();
            let mut sent: FxHashMap<UserId, Vec<(Instant, SignalKind)>> = FxHashMap::default();
            let mut last: FxHashMap<UserId, SignalKind> = FxHashMap::default();
            let mut note = |signals: Vec<Signal>, now| {
                for signal in signals {
                    sent.entry(signal.user).or_default().push((now, signal.kind));
                }
            };
            for (user, on, wait) in steps {
                now += Duration::from_millis(wait);
                note(throttle.due(now), now);
                let signal = signal(user, SignalKind::Typing(on));
                last.insert(signal.user.clone(), signal.kind);
                if let ThrottleOutcome::Go(signal) = throttle.offer(signal, now) {
                    note(vec![signal], now);
                }
            }
            for _ in 0..2 {
                now += MIN_SIGNAL_INTERVAL;
                note(throttle.due(now), now);
            }
            for (user, sent) in &sent {
                prop_assert!(sent.windows(2).all(|two| two[1].0 - two[0].0 >= MIN_SIGNAL_INTERVAL));
                prop_assert_eq!(sent.last().map(|(_, kind)| kind), last.get(user));
            }
            prop_assert!(throttle.slots.is_empty());
        }
    }
}
