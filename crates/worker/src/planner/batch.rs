//! A batch in the making.

use std::time::Instant;

use confab_protocol::ids::{ClientId, UserId};
use rustc_hash::FxHashSet;

use super::item::{Caps, Item, Kind};
use super::queues::{Amount, LogKey};

/// Why no more is taken of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunEnd {
    /// It has had its turn, or the batch is full: more could be taken.
    Turn,
    /// Nothing more of it can go into this batch.
    Blocked,
}

/// A batch in the making.
pub(super) struct Taken<J> {
    pub(super) items: Vec<Item<J>>,
    pub(super) bytes: usize,
    keys: FxHashSet<(LogKey, UserId, ClientId)>,
    /// The next item does not fit.
    pub(super) is_closed: bool,
}

impl<J> Default for Taken<J> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            bytes: 0,
            keys: FxHashSet::default(),
            is_closed: false,
        }
    }
}

impl<J> Taken<J> {
    pub(super) const fn amount(&self) -> Amount {
        Amount {
            events: self.items.len(),
            bytes: self.bytes,
        }
    }

    pub(super) const fn is_full(&self, caps: Caps) -> bool {
        self.is_closed || self.items.len() >= caps.batch_events || self.bytes >= caps.batch_bytes
    }

    /// Whether the item is to be taken out of its queue: into the batch, or because it has expired.
    pub(super) fn takes(&mut self, log: LogKey, item: &Item<J>, caps: Caps, now: Instant) -> bool {
        let Kind::Send(user, client) = &item.kind else {
            return false;
        };
        if item.deadline <= now {
            return true;
        }
        self.is_closed = !self.items.is_empty() && self.bytes + item.bytes > caps.batch_bytes;
        !self.is_closed && self.keys.insert((log, user.clone(), *client))
    }
}
