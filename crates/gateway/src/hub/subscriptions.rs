//! The subscriptions of a conversation, in order of session and joining.
//!
//! They stand side by side in pieces of a bounded length. Sessions come in the order of their keys, which leaves the nodes of a
//! B-tree half empty; here each subscription takes little more than itself, and none is looked for among those of thousands of others.

use confab_protocol::ids::Seq;

use super::subscription::Subscription;
use crate::account::SessionKey;

/// Entries in one piece, unless they are of one session: its subscriptions always stand in one.
const CHUNK_ENTRIES: usize = if cfg!(test) { 4 } else { 64 };

/// By session and joining.
pub(super) type SubscriptionKey = (SessionKey, Seq);

/// Every membership of every session.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// None of them is empty.
    pieces: Vec<Vec<Subscription>>,
    count: usize,
}

impl Subscriptions {
    pub(super) const fn new() -> Self {
        Self {
            pieces: Vec::new(),
            count: 0,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.pieces.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Subscription> {
        self.pieces.iter_mut().flatten()
    }

    /// The subscriptions of a session.
    pub(super) fn of(&self, session: SessionKey) -> &[Subscription] {
        let piece = self.pieces.get(self.piece_of(session));
        let Some(piece) = piece else { return &[] };
        let (from, to) = places(piece, session);
        piece.get(from..to).unwrap_or_default()
    }

    /// The subscriptions of a session.
    pub(super) fn of_mut(&mut self, session: SessionKey) -> &mut [Subscription] {
        let at = self.piece_of(session);
        let Some(piece) = self.pieces.get_mut(at) else {
            return &mut [];
        };
        let (from, to) = places(piece, session);
        piece.get_mut(from..to).unwrap_or_default()
    }

    /// Adds a subscription, of whose session none has that joining.
    pub(super) fn insert(&mut self, subscription: Subscription) {
        self.count += 1;
        let mut at = self.piece_of(subscription.session());
        if self
            .pieces
            .get(at)
            .is_some_and(|it| it.len() >= CHUNK_ENTRIES)
        {
            if self.is_last(&subscription) {
                // The piece stays full.
                at = self.pieces.len();
            } else {
                self.split(at);
                at = self.piece_of(subscription.session());
            }
        }
        let Some(piece) = self.pieces.get_mut(at) else {
            self.begin_piece(at, vec![subscription]);
            return;
        };
        let place = piece.partition_point(|other| other.turn() < subscription.turn());
        if piece.len() == piece.capacity() {
            // Few places stay free: most conversations have about as many sessions as they had before.
            piece.reserve_exact(1 + piece.len() / 4);
        }
        piece.insert(place, subscription);
    }

    /// Removes a subscription.
    pub(super) fn remove(&mut self, (session, joined): SubscriptionKey) {
        let at = self.piece_of(session);
        let Some(piece) = self.pieces.get_mut(at) else {
            return;
        };
        let Ok(place) = piece.binary_search_by_key(&(session, joined), Subscription::turn) else {
            return;
        };
        piece.remove(place);
        self.count -= 1;
        if piece.len() < piece.capacity() / 2 {
            piece.shrink_to_fit();
        }
        self.join(at);
        if at > 0 {
            self.join(at - 1);
        }
    }

    /// Shows at most so many subscriptions, from `from` on, and removes those of which `goes_on` says no; gives whose turn is next.
    pub(super) fn take_turns(
        &mut self,
        from: Option<SubscriptionKey>,
        most: usize,
        mut goes_on: impl FnMut(&mut Subscription) -> bool,
    ) -> Option<SubscriptionKey> {
        let (first, place) = from.map_or((0, 0), |from| self.place_of(from));
        let pieces = self.pieces.get_mut(first..).unwrap_or_default();
        let mut turns = pieces.iter_mut().flatten().skip(place);
        let mut over = Vec::new();
        for subscription in turns.by_ref().take(most) {
            if !goes_on(subscription) {
                over.push(subscription.turn());
            }
        }
        let next = turns.next().map(|subscription| subscription.turn());
        for turn in over {
            self.remove(turn);
        }
        next
    }

    /// The piece that has the session's subscriptions, or would.
    fn piece_of(&self, session: SessionKey) -> usize {
        let begins =
            |piece: &Vec<Subscription>| piece.first().is_some_and(|it| it.session() <= session);
        self.pieces.partition_point(begins).saturating_sub(1)
    }

    fn place_of(&self, turn: SubscriptionKey) -> (usize, usize) {
        let at = self.piece_of(turn.0);
        let piece = self.pieces.get(at);
        let place = piece.map_or(0, |piece| piece.partition_point(|it| it.turn() < turn));
        (at, place)
    }

    /// Whether its session stands behind all others.
    fn is_last(&self, subscription: &Subscription) -> bool {
        let last = self.pieces.last().and_then(|piece| piece.last());
        last.is_some_and(|last| last.session() < subscription.session())
    }

    /// Makes two pieces of a full one, where subscriptions of more than one session stand there.
    fn split(&mut self, at: usize) {
        let Some(piece) = self.pieces.get_mut(at) else {
            return;
        };
        let middle = piece.get(piece.len() / 2).map(Subscription::session);
        let (from, to) = middle.map_or((0, 0), |middle| places(piece, middle));
        let later = piece.split_off(if from == 0 { to } else { from });
        piece.shrink_to_fit();
        if !later.is_empty() {
            self.begin_piece(at + 1, later);
        }
    }

    fn begin_piece(&mut self, at: usize, mut piece: Vec<Subscription>) {
        piece.shrink_to_fit();
        if self.pieces.len() == self.pieces.capacity() {
            self.pieces.reserve_exact(1 + self.pieces.len() / 4);
        }
        self.pieces.insert(at, piece);
    }

    /// Makes one piece of two that became short; none is left empty.
    fn join(&mut self, at: usize) {
        let of = |at| self.pieces.get(at).map(Vec::len);
        let (Some(first), next) = (of(at), of(at + 1)) else {
            return;
        };
        if first == 0 {
            self.pieces.remove(at);
        } else if next.is_some_and(|next| first + next <= CHUNK_ENTRIES / 2) {
            let later = self.pieces.remove(at + 1);
            if let Some(piece) = self.pieces.get_mut(at) {
                piece.reserve_exact(later.len());
                piece.extend(later);
            }
        }
        if self.pieces.len() < self.pieces.capacity() / 2 {
            self.pieces.shrink_to_fit();
        }
    }
}

/// Where a session's subscriptions stand in a piece.
fn places(piece: &[Subscription], session: SessionKey) -> (usize, usize) {
    let from = piece.partition_point(|subscription| subscription.session() < session);
    let own = piece.get(from..).unwrap_or_default().iter();
    (
        from,
        from + own
            .take_while(|subscription| subscription.session() == session)
            .count(),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::subscription::StartPosition;
    use super::*;
    use crate::delivery::encoding::Encoding;
    use crate::delivery::send_queue::SendQueue;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Insert(u64, Seq),
        Remove(u64, Seq),
        /// Shows so many from the one with that session on, and removes every one of those that is the n-th.
        Turns(Option<u64>, usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..30_u64, 1..7_u64).prop_map(|(session, joined)| Step::Insert(session, joined)),
            2 => (0..30_u64, 1..7_u64).prop_map(|(session, joined)| Step::Remove(session, joined)),
            1 => (prop::option::of(0..30_u64), 0..20_usize, 1..5_usize)
                .prop_map(|(from, most, nth)| Step::Turns(from, most, nth)),
        ]
    }

    fn take(
        subscriptions: &mut Subscriptions,
        model: &mut BTreeMap<SubscriptionKey, Seq>,
        step: Step,
    ) {
        let send_queue = Arc::new(SendQueue::new(Encoding::Json, 1));
        match step {
            Step::Insert(session, joined) => {
                let session = SessionKey(session);
                if model.insert((session, joined), joined).is_none() {
                    subscriptions.insert(Subscription::new(
                        session,
                        send_queue,
                        joined,
                        None,
                        StartPosition::at(joined),
                    ));
                }
            }
            Step::Remove(session, joined) => {
                subscriptions.remove((SessionKey(session), joined));
                model.remove(&(SessionKey(session), joined));
            }
            Step::Turns(from, most, nth) => {
                let from = from.map(|from| (SessionKey(from), Seq::MIN));
                let mut shown = Vec::new();
                let next = subscriptions.take_turns(from, most, |subscription| {
                    shown.push(subscription.turn());
                    shown.len() % nth != 0
                });
                let all = model.range(from.unwrap_or((SessionKey(0), 0))..);
                let mut due: Vec<_> = all.map(|(turn, _)| *turn).take(most + 1).collect();
                assert_eq!(next, (due.len() > most).then(|| due.pop().unwrap()));
                assert_eq!(shown, due);
                for gone in due.iter().skip(nth - 1).step_by(nth) {
                    model.remove(gone);
                }
            }
        }
    }

    fn check(subscriptions: &mut Subscriptions, model: &BTreeMap<SubscriptionKey, Seq>) {
        let there: Vec<_> = subscriptions.iter().map(Subscription::turn).collect();
        assert_eq!(there, model.keys().copied().collect::<Vec<_>>());
        assert_eq!(subscriptions.len(), model.len());
        assert!(subscriptions.pieces.iter().all(|piece| !piece.is_empty()));
        for session in (0..30).map(SessionKey) {
            let own = model.range((session, Seq::MIN)..=(session, Seq::MAX));
            let own: Vec<_> = own.map(|(turn, _)| *turn).collect();
            let of: Vec<_> = subscriptions
                .of(session)
                .iter()
                .map(Subscription::turn)
                .collect();
            assert_eq!(of, own);
            let of: Vec<_> = subscriptions
                .of_mut(session)
                .iter()
                .map(|it| it.turn())
                .collect();
            assert_eq!(of, own);
        }
    }

    proptest! {
        #[test]
        fn they_are_what_a_tree_would_hold(steps in prop::collection::vec(step(), 1..150)) {
            let (mut subscriptions, mut model) = (Subscriptions::new(), BTreeMap::new());
            for step in steps {
                take(&mut subscriptions, &mut model, step);
                check(&mut subscriptions, &model);
            }
        }
    }

    #[test]
    fn sequential_sessions_leave_chunks_nearly_full() {
        let (mut subscriptions, mut model) = (Subscriptions::new(), BTreeMap::new());
        for session in 0..1000 {
            take(&mut subscriptions, &mut model, Step::Insert(session, 1));
        }
        let places: usize = subscriptions.pieces.iter().map(Vec::capacity).sum();
        assert!(places <= 1000 + CHUNK_ENTRIES, "{places}");
        assert_eq!(size_of::<Subscription>(), 40);
    }
}
