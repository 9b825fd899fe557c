//! Which sessions of this gateway say that their user types: to the others they say it together. No IO; the time is a value.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use confab_protocol::fair::Slots;
use rustc_hash::FxHashMap;

use super::throttle::ThrottleKey;
use crate::account::SessionKey;

/// How long typing lasts without being said again.
const TYPING_LASTS: Duration = Duration::from_secs(6);
/// Users and conversations that are known, half of them of one tenant, and so many of one user; of more each session speaks for itself.
const MAX_KNOWN: usize = 64 * 1024;
const MAX_OF_USER: usize = 8 * 1024;

/// The sessions that type.
#[derive(Debug)]
pub(super) struct Typists {
    sessions: FxHashMap<ThrottleKey, Vec<(SessionKey, Instant)>>,
    shares: Slots,
    /// When each user and conversation is to be looked at again, about in that order.
    ends: VecDeque<(Instant, ThrottleKey)>,
}

impl Default for Typists {
    fn default() -> Self {
        Self {
            sessions: FxHashMap::default(),
            shares: Slots::new(MAX_KNOWN, MAX_KNOWN / 2, MAX_OF_USER),
            ends: VecDeque::new(),
        }
    }
}

impl Typists {
    /// A session says whether its user types; gives what is to be said of the user, if anything.
    pub(super) fn say(
        &mut self,
        of: &ThrottleKey,
        session: SessionKey,
        on: bool,
        now: Instant,
    ) -> Option<bool> {
        self.forget(now);
        let is_known = self.sessions.contains_key(of);
        if on {
            if is_known || self.shares.allows(&of.tenant, &of.user) {
                let sessions = self.sessions.entry(of.clone()).or_default();
                sessions.retain(|(other, until)| *other != session && *until > now);
                sessions.push((session, now + TYPING_LASTS));
            }
            if !is_known && self.sessions.contains_key(of) {
                self.shares.take(&of.owner());
                self.ends.push_back((now + TYPING_LASTS, of.clone()));
            }
            return Some(true);
        }
        let Some(sessions) = self.sessions.get_mut(of) else {
            return Some(false);
        };
        sessions.retain(|(other, until)| *other != session && *until > now);
        sessions.is_empty().then_some(false)
    }

    fn forget(&mut self, now: Instant) {
        while let Some((_, of)) = self.ends.pop_front_if(|(end, _)| *end <= now) {
            let Some(sessions) = self.sessions.get_mut(&of) else {
                continue;
            };
            sessions.retain(|(_, until)| *until > now);
            if sessions.is_empty() {
                self.sessions.remove(&of);
                self.shares.give_back(&of.owner());
            } else {
                self.ends.push_back((now + TYPING_LASTS, of));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use confab_protocol::ids::ConversationId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn user_types_until_its_last_session_stops() {
        let (mut typists, start) = (Typists::default(), Instant::now());
        let key = |n| ThrottleKey {
            tenant: "t".parse().unwrap(),
            conversation: ConversationId(Uuid::from_u128(n)),
            user: "ann".parse().unwrap(),
            is_typing: true,
        };
        let (phone, laptop) = (SessionKey(1), SessionKey(2));
        let mut say = |room, session, on, ms| {
            let now = start + Duration::from_millis(ms);
            typists.say(&key(room), session, on, now)
        };
        assert_eq!(say(1, phone, true, 0), Some(true));
        assert_eq!(say(1, laptop, true, 100), Some(true));
        assert_eq!(say(1, phone, false, 200), None, "the laptop goes on");
        assert_eq!(say(2, phone, false, 200), Some(false), "another room");
        assert_eq!(say(1, laptop, false, 300), Some(false));
        assert_eq!(say(1, phone, true, 1000), Some(true));
        assert_eq!(say(1, laptop, true, 2000), Some(true));
        assert_eq!(
            say(1, laptop, false, 7001),
            Some(false),
            "the phone is silent"
        );
        assert_eq!(say(2, phone, false, 60_000), Some(false));
        assert!(typists.sessions.is_empty() && typists.ends.is_empty());
        assert_eq!(typists.shares.used(), 0);
    }
}
