//! Take-overs on their way: known here before they stand in the bucket, so that a question about one finds it.

use confab_bus::records::{Ownership, TokenHash};
use confab_protocol::ids::SessionId;
use rustc_hash::FxHashMap;

use super::super::token::is_same;
use super::LeaseHold;

/// The take-overs on their way.
#[derive(Debug, Default)]
pub(super) struct Takings(FxHashMap<SessionId, Vec<Taking>>);

/// A take-over on its way.
#[derive(Debug)]
pub(super) struct Taking {
    pub(super) owner: Ownership,
    /// The tokens by which it may be taken over in turn: its own, and the one it was begun with.
    good: [TokenHash; 2],
    /// Another has taken the session over meanwhile.
    is_lost: bool,
}

impl Taking {
    pub(super) fn is_good(&self, hash: &TokenHash) -> bool {
        // Both are looked at, whichever it is.
        let [newest, former] = self.good.each_ref().map(|good| is_same(good, hash));
        newest | former
    }
}

impl Takings {
    pub(super) fn begin(&mut self, session: SessionId, owner: Ownership, good: [TokenHash; 2]) {
        let taking = Taking {
            owner,
            good,
            is_lost: false,
        };
        self.0.entry(session).or_default().push(taking);
    }

    /// Forgets one; says whether it was there and is not lost.
    pub(super) fn end(&mut self, hold: LeaseHold) -> bool {
        let Some(takings) = self.0.get_mut(&hold.session) else {
            return false;
        };
        let is_it = |taking: &Taking| taking.owner.take_over == hold.take_over;
        let stands = takings.iter().any(|one| is_it(one) && !one.is_lost);
        takings.retain(|taking| !is_it(taking));
        if takings.is_empty() {
            self.0.remove(&hold.session);
        }
        stands
    }

    /// The session is another's than those which `are` names; says whether there was one.
    pub(super) fn lose(&mut self, session: SessionId, are: impl Fn(&Taking) -> bool) -> bool {
        let mut any = false;
        for taking in self.0.get_mut(&session).into_iter().flatten() {
            if are(taking) {
                taking.is_lost = true;
                any = true;
            }
        }
        any
    }
}
