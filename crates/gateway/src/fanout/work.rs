//! What sessions ask of the hub: in turn by tenant and user, so much of each kind between two runs of the feed.

use confab_protocol::fair::{FairQueue, Owner};

use super::{FanoutLoop, Input};
use crate::hub::SessionKey;

/// What a conversation that is looked at counts in a user's share, in bytes of the queue.
const COST_BYTES: usize = 64;
/// Ids of one `seen` that are looked at in one step.
pub(super) const SEEN_STEP: usize = 256;
/// What reading or ending a session's membership costs beside its conversations.
const STANDING_COST: usize = 4;

/// Kinds of work, each with its own queue and budget: a flood of one leaves the others theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Sessions that open, end, or are put on record.
    Session,
    /// Sockets that have room again.
    Room,
    /// Presence and typing.
    Signal,
    /// What clients say that they have.
    Seen,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Session, Self::Room, Self::Signal, Self::Seen];

    /// Conversations that may be looked at in one turn. An item is never cut for it, so that a turn takes one at least.
    const fn budget(self) -> usize {
        match self {
            Self::Session | Self::Room => 1024,
            Self::Signal | Self::Seen => 256,
        }
    }

    const fn of(input: &Input) -> Self {
        match input {
            Input::Open(..) | Input::Close(..) | Input::Positions(..) => Self::Session,
            Input::Drained(_) => Self::Room,
            Input::Presence(..) | Input::Standing(..) | Input::Answered(..) => Self::Signal,
            Input::Seen(..) => Self::Seen,
        }
    }
}

/// What sessions asked and the hub has not done yet. A session waits for the hub after each `seen` and `presence`, and asks of few
/// conversations at once: so many sessions as there are bound it.
#[derive(Default)]
pub(super) struct ClientWork {
    queues: [FairQueue<Input>; Kind::ALL.len()],
}

impl ClientWork {
    const fn queue(&mut self, kind: Kind) -> &mut FairQueue<Input> {
        let [session, room, signal, seen] = &mut self.queues;
        match kind {
            Kind::Session => session,
            Kind::Room => room,
            Kind::Signal => signal,
            Kind::Seen => seen,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(FairQueue::is_empty)
    }
}

impl FanoutLoop {
    /// Takes in what sessions ask, for one of the turns to come.
    pub(super) fn take_in(&mut self, first: Option<Input>) {
        let mut next = first.or_else(|| self.inputs.try_recv().ok());
        while let Some(input) = next {
            match self.owner(&input) {
                Some(owner) => self.work.queue(Kind::of(&input)).push(&owner, input),
                // The session is gone: there is nothing to look at.
                None => drop(self.input(input)),
            }
            next = self.inputs.try_recv().ok();
        }
    }

    fn owner(&self, input: &Input) -> Option<Owner> {
        let key = match input {
            Input::Open(opening, _) => return Some(opening.account.owner()),
            Input::Close(key, _)
            | Input::Positions(key, _)
            | Input::Seen(key, ..)
            | Input::Drained(key)
            | Input::Presence(key, ..)
            | Input::Standing(key, ..)
            | Input::Answered(key, ..) => key,
        };
        self.hub.account(*key).map(|account| account.owner())
    }

    /// Does what the budgets of one turn allow of what sessions asked.
    pub(super) fn client_turn(&mut self) {
        for kind in Kind::ALL {
            let mut budget = kind.budget();
            while budget > 0
                && let Some((owner, input)) = self.work.queue(kind).pop()
            {
                let cost = self.cost(&input);
                if let Some(rest) = self.input(input) {
                    self.work.queue(kind).push_front(&owner, rest);
                }
                self.work.queue(kind).charge(&owner, 1, cost * COST_BYTES);
                budget = budget.saturating_sub(cost);
            }
        }
    }

    /// About how many conversations are looked at for it.
    fn cost(&self, input: &Input) -> usize {
        let held_by = |key: &SessionKey| 1 + self.hub.conversations_of(*key);
        match input {
            Input::Open(opening, _) => 1 + opening.start.positions.len() + opening.start.seen.len(),
            Input::Close(key, _) | Input::Positions(key, _) => held_by(key),
            Input::Drained(key) => 1 + self.hub.behind_of(*key),
            Input::Presence(key, status, _) if self.presences.is_change(*key, *status) => {
                1 + self.hub.conversations_of_user(*key)
            }
            Input::Presence(..) => 1,
            Input::Standing(..) | Input::Answered(..) => STANDING_COST,
            Input::Seen(_, seen, _) => 1 + seen.len().min(SEEN_STEP),
        }
    }
}
