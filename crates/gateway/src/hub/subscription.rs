//! One membership of one session: from where it hears, how far it heard, and what is pushed to it.
//!
//! There is one for each pair of a session and a conversation, so it holds what nearly all need, and the rest apart.

use std::sync::Arc;

use confab_protocol::ids::{ConversationId, Seq, UserId};

use super::subscriptions::SubscriptionKey;
use crate::account::SessionKey;
use crate::delivery::broadcast::Broadcast;
use crate::delivery::send_queue::{Place, SendQueue};
use crate::delivery::sequencer::LogEvent;

/// From where a subscription begins to hear.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StartPosition {
    /// The last seq that is not owed.
    pub(super) cursor: Seq,
    /// Up to here the client has it, whatever the cursor says: nothing of that is queued.
    pub(super) skip: Seq,
    /// Up to here it replays what was missed while the session was away.
    pub(super) replay_to: Seq,
    /// Whether the session's record says so, and no worker did yet: what was over by its joining the client has.
    pub(super) by_record: bool,
    /// Up to where the record proves it; else it is known up to the head of the answer that told it.
    pub(super) acked: Option<Seq>,
}

impl StartPosition {
    pub(super) const fn at(cursor: Seq) -> Self {
        Self {
            cursor,
            skip: 0,
            replay_to: 0,
            by_record: false,
            acked: None,
        }
    }
}

/// What became of an event at a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PushOutcome {
    /// It is not the next one there, or may not come yet.
    NotNext,
    /// It is the next one, and the client is behind: it comes again when there is room.
    NoRoom,
    Queued,
    /// It is queued, and the membership ended with it.
    Ended,
}

/// One membership of one session.
#[derive(Debug)]
pub(super) struct Subscription {
    session: SessionKey,
    send_queue: Arc<SendQueue>,
    joined: Seq,
    /// The last seq pushed, or not owed.
    pub(super) cursor: Seq,
    /// None where nothing of it is so.
    rest: Option<Box<RareState>>,
}

/// What is so of few memberships, or for a while.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct RareState {
    /// Where it ends at the latest.
    left: Option<Seq>,
    /// Up to here the client has it, whatever the cursor says: nothing of that is queued.
    skip: Seq,
    /// Up to here it replays what was missed while the session was away.
    replay_to: Seq,
    /// Whether it began when the session was open already.
    came_later: bool,
    /// Whether what it lacks is on its way.
    reading: bool,
    /// Whether an earlier membership of the session here has not ended yet: nothing may come before its end.
    waiting: bool,
    /// Until it has read up to here it may have ended unheard.
    unacked: Seq,
}

impl Subscription {
    pub(super) fn new(
        session: SessionKey,
        send_queue: Arc<SendQueue>,
        joined: Seq,
        left: Option<Seq>,
        begin: StartPosition,
    ) -> Self {
        let StartPosition {
            cursor,
            skip,
            replay_to,
            by_record,
            acked: _,
        } = begin;
        let mut subscription = Self {
            session,
            send_queue,
            joined,
            cursor,
            rest: None,
        };
        subscription.change(|rest| {
            (rest.left, rest.skip, rest.replay_to) = (left, skip, replay_to);
            // Every membership that the session did not open with is entered from just before its joining.
            rest.came_later = cursor < joined && !by_record;
        });
        subscription
    }

    fn rest(&self) -> RareState {
        self.rest.as_deref().copied().unwrap_or_default()
    }

    fn change(&mut self, change: impl FnOnce(&mut RareState)) {
        let mut changed = self.rest();
        change(&mut changed);
        if changed == RareState::default() {
            self.rest = None;
        } else if let Some(rest) = &mut self.rest {
            **rest = changed;
        } else {
            self.rest = Some(Box::new(changed));
        }
    }

    pub(super) const fn session(&self) -> SessionKey {
        self.session
    }

    pub(super) const fn send_queue(&self) -> &Arc<SendQueue> {
        &self.send_queue
    }

    pub(super) const fn joined(&self) -> Seq {
        self.joined
    }

    /// Where it stands among others.
    pub(super) const fn turn(&self) -> SubscriptionKey {
        (self.session, self.joined)
    }

    pub(super) fn left(&self) -> Option<Seq> {
        self.rest.as_ref().and_then(|rest| rest.left)
    }

    /// Whether the session opened with it.
    pub(super) fn is_opened(&self) -> bool {
        !self.rest().came_later
    }

    /// Up to where it replays what was missed while the session was away.
    pub(super) fn replay_to(&self) -> Seq {
        self.rest().replay_to
    }

    /// Whether what it lacks is on its way.
    pub(super) fn is_reading(&self) -> bool {
        self.rest().reading
    }

    pub(super) fn set_reading(&mut self, reading: bool) {
        self.change(|rest| rest.reading = reading);
    }

    /// Whether an earlier membership of the session here has not ended yet: nothing may come before its end.
    pub(super) fn is_waiting(&self) -> bool {
        self.rest().waiting
    }

    pub(super) fn set_waiting(&mut self, waiting: bool) {
        self.change(|rest| rest.waiting = waiting);
    }

    /// Whether its user is a member, as far as that is delivered or on its way.
    pub(super) fn listens(&self) -> bool {
        self.left().is_none() && self.unacked().is_none()
    }

    /// Up to where it must have read before it is known that it did not end before anyone here listened.
    pub(super) fn unacked(&self) -> Option<Seq> {
        let unacked = self.rest.as_ref().map_or(0, |rest| rest.unacked);
        (self.cursor < unacked).then_some(unacked)
    }

    /// Until it has read up to `seq` it may have ended unheard.
    pub(super) fn set_unproven(&mut self, seq: Seq) {
        self.change(|rest| rest.unacked = seq);
    }

    /// It ends there at the latest: of several ends the first is its own, the others are those of later memberships.
    pub(super) fn ends(&mut self, left: Option<Seq>) {
        self.change(|rest| {
            let known = rest.left;
            rest.left = left.map_or(known, |left| {
                Some(known.map_or(left, |known| known.min(left)))
            });
        });
    }

    /// An event with this seq ends it, where it began before and did not end in what it has not read yet.
    pub(super) fn ends_by(&mut self, seq: Seq) {
        if self.joined < seq {
            self.ends(Some(seq));
        }
    }

    /// What it has to replay is left out; it goes on behind `cursor`.
    pub(super) fn replays_no_more(&mut self, cursor: Seq) {
        self.cursor = cursor;
        self.change(|rest| rest.replay_to = 0);
    }

    /// What the client claims to have is void; it goes on behind `cursor`.
    pub(super) fn skips_none(&mut self, cursor: Seq) {
        self.cursor = cursor;
        self.change(|rest| rest.skip = 0);
    }

    /// Up to where it may be pushed now, where the order here stands at `position`.
    pub(super) fn goal(&self, position: Seq) -> Seq {
        self.left().map_or(position, |left| left.min(position))
    }

    /// Pushes an event when it is the very next one.
    pub(super) fn push(&mut self, id: ConversationId, seq: Seq, event: &Broadcast) -> PushOutcome {
        let rest = self.rest();
        if self.cursor + 1 != seq || rest.waiting || rest.left.is_some_and(|left| seq > left) {
            return PushOutcome::NotNext;
        }
        let place = Place {
            conversation: id,
            joined: self.joined,
            seq,
        };
        if seq > rest.skip && !self.send_queue.push_event(place, event) {
            return PushOutcome::NoRoom;
        }
        self.cursor = seq;
        if rest.left == Some(seq) {
            return PushOutcome::Ended;
        }
        if self.rest.is_some() && seq >= rest.skip.max(rest.replay_to).max(rest.unacked) {
            self.change(|rest| (rest.skip, rest.replay_to, rest.unacked) = (0, 0, 0));
        }
        PushOutcome::Queued
    }

    /// Pushes an event that was read to catch up to `user`'s session. An ending that stands there is heeded: it may have
    /// committed before anyone here listened.
    pub(super) fn replay(
        &mut self,
        id: ConversationId,
        event: &LogEvent,
        user: &UserId,
    ) -> PushOutcome {
        if event.seq > self.joined && self.left().is_none_or(|left| event.seq < left) {
            let ends = event.ends_membership_of(user);
            self.ends(ends.then_some(event.seq));
        }
        self.push(id, event.seq, &event.body)
    }
}
