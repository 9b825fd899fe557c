//! What sessions, the coordinator and presence ask of a shard: in turn by tenant and user, so much of each kind between two runs of the feed.

use std::collections::VecDeque;

use confab_protocol::fair::{FairQueue, Owner};

use super::queries::QUERY_STEP;
use super::{Input, ShardLoop, Todo};
use crate::account::SessionKey;

/// What a conversation that is looked at counts in a user's share, in bytes of the queue.
const COST_BYTES: usize = 64;
/// Ids of one `seen` that are looked at in one step.
pub(super) const SEEN_STEP: usize = 256;
/// Sessions and conversations that are looked at in one step for a change of presence, about.
pub(super) const TELL_STEP: usize = 256;
/// Signals of others that wait for a turn, about: more are dropped.
const MAX_SIGNALS: usize = 1024;
/// What reading or ending a session's membership costs beside its conversations.
const STANDING_COST: usize = 4;

/// Kinds of work, each with its own queue and budget: a flood of one leaves the others theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Sessions that open, end, or are put on record.
    Session,
    /// Sockets that have room again.
    Room,
    /// Typing and receipts, and who may send them.
    Signal,
    /// Presence.
    Presence,
    /// What clients say that they have.
    Seen,
}

impl Kind {
    const ALL_KINDS: [Self; 5] = [
        Self::Session,
        Self::Room,
        Self::Signal,
        Self::Presence,
        Self::Seen,
    ];

    /// Conversations that may be looked at in one turn. An item is never cut for it, so that a turn takes one at least.
    const fn budget(self) -> usize {
        match self {
            Self::Session | Self::Room | Self::Presence => 1024,
            Self::Signal | Self::Seen => 256,
        }
    }

    const fn of(input: &Input) -> Self {
        match input {
            Input::Todo(_) | Input::Positions(..) => Self::Session,
            Input::Drained(_) => Self::Room,
            Input::MembershipLookup(..)
            | Input::Answered(..)
            | Input::Signal(_)
            | Input::Announced(_) => Self::Signal,
            Input::CarryingOf(_)
            | Input::Hosting(_)
            | Input::MembersHere(_)
            | Input::Hosted(..)
            | Input::Tell(..) => Self::Presence,
            Input::Seen(..) => Self::Seen,
        }
    }
}

/// What was asked and the shard has not done yet. A session waits for the hub after each `seen` and `presence`, and asks of few
/// conversations at once: so many sessions as there are bound it.
#[derive(Default)]
pub(super) struct ClientWork {
    /// What the coordinator has done for users of all kinds, in its order.
    of_coordinator: VecDeque<Input>,
    /// What presence asks for the whole gateway: few things at once.
    of_presence: VecDeque<Input>,
    queues: [FairQueue<Input>; Kind::ALL_KINDS.len()],
}

impl ClientWork {
    const fn queue(&mut self, kind: Kind) -> &mut FairQueue<Input> {
        let [session, room, signal, presence, seen] = &mut self.queues;
        match kind {
            Kind::Session => session,
            Kind::Room => room,
            Kind::Signal => signal,
            Kind::Presence => presence,
            Kind::Seen => seen,
        }
    }

    /// What is nobody's own, of a kind.
    const fn common(&mut self, kind: Kind) -> Option<&mut VecDeque<Input>> {
        match kind {
            Kind::Session => Some(&mut self.of_coordinator),
            Kind::Presence => Some(&mut self.of_presence),
            Kind::Room | Kind::Signal | Kind::Seen => None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.of_coordinator.is_empty()
            && self.of_presence.is_empty()
            && self.queues.iter().all(FairQueue::is_empty)
    }
}

impl ShardLoop {
    /// Takes in what is asked, for one of the turns to come.
    pub(super) fn take_in(&mut self, first: Option<Input>) {
        let mut next = first.or_else(|| self.next_input());
        while let Some(input) = next {
            if let Input::Signal(signal) = &input
                && self.work.queue(Kind::Signal).len() >= MAX_SIGNALS
            {
                self.signals.dropped(signal);
                next = self.next_input();
                continue;
            }
            match self.owner(&input) {
                Some(owner) => self.work.queue(Kind::of(&input)).push(&owner, input),
                None if matches!(input, Input::Todo(_)) => {
                    self.work.of_coordinator.push_back(input);
                }
                None if Kind::of(&input) == Kind::Presence => {
                    self.work.of_presence.push_back(input);
                }
                // The session is gone: there is little to look at, and nothing is left of it.
                None => drop(self.input(input)),
            }
            next = self.next_input();
        }
    }

    fn next_input(&mut self) -> Option<Input> {
        let todo = self.todos.try_recv().ok().map(Input::Todo);
        todo.or_else(|| self.inputs.try_recv().ok())
    }

    /// Whose share it counts in. What the coordinator has done of a session comes in order: it all counts in its user's.
    fn owner(&self, input: &Input) -> Option<Owner> {
        let key = match input {
            Input::Todo(Todo::Step(step, _)) => return step.account().map(|of| of.owner()),
            Input::Todo(Todo::Close(_, account, _)) => return Some(account.owner()),
            Input::CarryingOf(query) => return Some(query.owner()),
            Input::MembersHere(query) => return query.owner(),
            Input::Signal(signal) => {
                return Some(Owner {
                    tenant: signal.tenant.clone(),
                    user: signal.user.clone(),
                });
            }
            Input::Tell(telling, _) => return Some(telling.account().owner()),
            Input::Hosting(_) | Input::Hosted(..) | Input::Announced(_) => return None,
            Input::Positions(key, _)
            | Input::Seen(key, ..)
            | Input::Drained(key)
            | Input::MembershipLookup(key, ..)
            | Input::Answered(key, ..) => key,
        };
        self.shard.account(*key).map(|account| account.owner())
    }

    /// Does what the budgets of one turn allow of what is asked.
    pub(super) fn client_turn(&mut self) {
        for kind in Kind::ALL_KINDS {
            let mut budget = self.common_turn(kind);
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

    /// Does some of what is nobody's own, piece by piece and in order; gives what is left for the others: half of the budget at least.
    fn common_turn(&mut self, kind: Kind) -> usize {
        let mut budget = kind.budget();
        while budget > kind.budget() / 2
            && let Some(input) = self.work.common(kind).and_then(VecDeque::pop_front)
        {
            budget = budget.saturating_sub(self.cost(&input));
            if let Some(rest) = self.input(input)
                && let Some(common) = self.work.common(kind)
            {
                common.push_front(rest);
            }
        }
        budget.max(kind.budget() / 2)
    }

    /// About how many conversations are looked at for it.
    fn cost(&self, input: &Input) -> usize {
        let held_by = |key: &SessionKey| 1 + self.shard.conversations_of(*key);
        match input {
            Input::Todo(Todo::Step(step, _)) => self.shard.cost(step),
            Input::Todo(Todo::Close(key, ..)) | Input::Positions(key, _) => held_by(key),
            Input::Drained(key) => 1 + self.shard.behind_of(*key),
            Input::CarryingOf(query) => query.cost(&self.shard),
            Input::Hosting(query) => query.cost(),
            Input::MembersHere(query) => query.cost(&self.shard),
            Input::Hosted(..) => QUERY_STEP,
            Input::Tell(..) => TELL_STEP,
            Input::MembershipLookup(..) | Input::Answered(..) | Input::Signal(_) => STANDING_COST,
            Input::Announced(announced) => announced.iter().map(|of| of.heads.len()).sum(),
            Input::Seen(_, seen, _) => 1 + seen.len().min(SEEN_STEP),
        }
    }
}
