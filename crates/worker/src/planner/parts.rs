//! How much of a batch one user and one tenant may fill: what comes while it is committed waits for it to end.

use std::time::{Duration, Instant};

use confab_protocol::fair::{Owner, Slots};

use super::TURN_EVENTS;
use super::item::Caps;

/// For so long others are reckoned with once something of theirs was in a batch too.
const OTHERS_MEMORY: Duration = Duration::from_secs(1);
/// Of a batch a user may fill this part where others send as well, and a tenant that.
const USER_PART: usize = 3;
const TENANT_PART: usize = 2;

/// When batches last had sends of several users, and of several tenants.
#[derive(Debug, Default)]
pub(super) struct Parts {
    users: Option<Instant>,
    tenants: Option<Instant>,
}

impl Parts {
    /// What may go into a batch that begins now: whoever is alone may fill it.
    pub(super) fn of_batch(&self, caps: Caps, now: Instant) -> Slots {
        let part = |last: Option<Instant>, part: usize, least: usize| {
            let are_others = last.is_some_and(|last| now.duration_since(last) < OTHERS_MEMORY);
            if are_others {
                (caps.batch_events / part).max(least)
            } else {
                caps.batch_events
            }
        };
        Slots::new(
            caps.batch_events,
            part(self.tenants, TENANT_PART, 2 * TURN_EVENTS),
            part(self.users, USER_PART, TURN_EVENTS),
        )
    }

    /// A batch has sends of both.
    pub(super) fn note(&mut self, one: &Owner, other: &Owner, now: Instant) {
        if one != other {
            self.users = Some(now);
        }
        if one.tenant != other.tenant {
            self.tenants = Some(now);
        }
    }
}
