//! Sessions that wait until their memberships are asked for: those that name little apart from those that name much, so that none waits
//! behind the large ones of others; each in turn by tenant and user.

use confab_protocol::fair::{FairQueue, Owner};

use super::session::PendingQuery;
use crate::account::SessionKey;

/// Positions that a session may name and still be small.
const MAX_SMALL_POSITIONS: usize = 500;
/// Questions on their way at once, for small sessions and for large ones.
const MAX_SMALL_ASKS: usize = 4;
const MAX_LARGE_ASKS: usize = 2;
/// So many more small sessions wait before another question goes beside each that has no answer: in a storm many share one, which costs a
/// gateway, a worker and Postgres as much as one session's.
const SHARED_ASK: usize = 16;
/// About what a position costs that is named.
const POSITION_BYTES: usize = 24;

/// With which others a session's memberships are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpeningSize {
    /// It names little.
    Small,
    /// It names much, or has more memberships than fit one page.
    Large,
}

/// Whether sessions that wait may wait for others to share a question with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    /// As long as others of their size have no answer.
    Together,
    /// They have waited for long enough.
    Now,
}

impl OpeningSize {
    pub(super) const ALL_SIZES: [Self; 2] = [Self::Small, Self::Large];

    /// The size of a session that waits for its memberships.
    pub(super) fn of(asking: &PendingQuery) -> Self {
        if asking.after.is_some() || named(asking) > MAX_SMALL_POSITIONS {
            Self::Large
        } else {
            Self::Small
        }
    }
}

/// The sessions that wait, by size.
#[derive(Debug, Default)]
pub(super) struct Openings {
    small: OpeningQueue,
    large: OpeningQueue,
}

#[derive(Debug, Default)]
struct OpeningQueue {
    waiting: FairQueue<SessionKey>,
    /// Questions without an answer.
    asks: usize,
}

impl Openings {
    /// A session waits.
    pub(super) fn push(&mut self, owner: &Owner, key: SessionKey, asking: &PendingQuery) {
        self.line(OpeningSize::of(asking)).waiting.push(owner, key);
    }

    /// A session that had a page waits for the next one, before its user's others.
    pub(super) fn push_next_page(&mut self, owner: &Owner, key: SessionKey, bytes: usize) {
        let line = self.line(OpeningSize::Large);
        line.waiting.charge(owner, 0, bytes);
        line.waiting.push_front(owner, key);
    }

    /// The next session of a size.
    pub(super) fn pop(&mut self, size: OpeningSize) -> Option<(Owner, SessionKey)> {
        self.line(size).waiting.pop()
    }

    /// Counts a session against its owner's share.
    pub(super) fn charge(&mut self, size: OpeningSize, owner: &Owner, positions: usize) {
        let bytes = positions.saturating_mul(POSITION_BYTES);
        self.line(size).waiting.charge(owner, 1, bytes);
    }

    /// Whether one more question of a size may go: now for those that wait, or with more that are likely to come.
    pub(super) const fn may_ask(&self, size: OpeningSize, haste: Haste) -> bool {
        match size {
            OpeningSize::Small => {
                let is_worth = match haste {
                    Haste::Now => true,
                    Haste::Together => self.small.waiting.len() >= self.small.asks * SHARED_ASK,
                };
                is_worth && self.small.asks < MAX_SMALL_ASKS
            }
            OpeningSize::Large => self.large.asks < MAX_LARGE_ASKS,
        }
    }

    /// A question goes.
    pub(super) const fn asked(&mut self, size: OpeningSize) {
        self.line(size).asks += 1;
    }

    /// A question has its answer, or has none.
    pub(super) const fn answered(&mut self, size: OpeningSize) {
        self.line(size).asks -= 1;
    }

    /// Sessions that wait, of a size.
    pub(super) const fn waiting(&self, size: OpeningSize) -> usize {
        match size {
            OpeningSize::Small => self.small.waiting.len(),
            OpeningSize::Large => self.large.waiting.len(),
        }
    }

    const fn line(&mut self, size: OpeningSize) -> &mut OpeningQueue {
        match size {
            OpeningSize::Small => &mut self.small,
            OpeningSize::Large => &mut self.large,
        }
    }
}

/// How many positions a session names.
fn named(asking: &PendingQuery) -> usize {
    asking.start.positions.len() + asking.start.seen.len()
}
