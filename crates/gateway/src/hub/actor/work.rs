//! What sessions, the coordinator and presence ask of a shard: in turn by tenant and user, so much of each kind between two runs of the feed.

use std::collections::VecDeque;

use confab_protocol::fair::{FairQueue, Owner};

use super::queries::QUERY_STEP;
use super::{ShardInput, ShardLoop, ShardTask};
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

    const fn of(input: &ShardInput) -> Self {
        match input {
            ShardInput::ShardTask(_) | ShardInput::Positions(..) => Self::Session,
            ShardInput::Drained(_) => Self::Room,
            ShardInput::MembershipLookup(..)
            | ShardInput::Answered(..)
            | ShardInput::Signal(_)
            | ShardInput::Announced(_) => Self::Signal,
            ShardInput::CarryingOf(_)
            | ShardInput::Hosting(_)
            | ShardInput::MembersHere(_)
            | ShardInput::Hosted(..)
            | ShardInput::Tell(..) => Self::Presence,
            ShardInput::Seen(..) => Self::Seen,
        }
    }
}

/// What was asked and the shard has not done yet. A session waits for the hub after each `seen` and `presence`, and asks of few
/// conversations at once: so many sessions as there are bound it.
#[derive(Default)]
pub(super) struct ClientWork {
    /// What the coordinator has done for users of all kinds, in its order.
    of_coordinator: VecDeque<ShardInput>,
    /// What presence asks for the whole gateway: few things at once.
    of_presence: VecDeque<ShardInput>,
    queues: [FairQueue<ShardInput>; Kind::ALL_KINDS.len()],
}

impl ClientWork {
    const fn queue(&mut self, kind: Kind) -> &mut FairQueue<ShardInput> {
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
    const fn common(&mut self, kind: Kind) -> Option<&mut VecDeque<ShardInput>> {
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
    pub(super) fn take_in(&mut self, first: Option<ShardInput>) {
        let mut next = first.or_else(|| self.next_input());
        while let Some(input) = next {
            if let ShardInput::Signal(signal) = &input
                && self.work.queue(Kind::Signal).len() >= MAX_SIGNALS
            {
                self.signals.dropped(signal);
                next = self.next_input();
                continue;
            }
            match self.owner(&input) {
                Some(owner) => self.work.queue(Kind::of(&input)).push(&owner, input),
                None if matches!(input, ShardInput::ShardTask(_)) => {
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

    fn next_input(&mut self) -> Option<ShardInput> {
        let todo = self.todos.try_recv().ok().map(ShardInput::ShardTask);
        todo.or_else(|| self.inputs.try_recv().ok())
    }

    /// Whose share it counts in. What the coordinator has done of a session comes in order: it all counts in its user's.
    fn owner(&self, input: &ShardInput) -> Option<Owner> {
        let key = match input {
            ShardInput::ShardTask(ShardTask::Step(step, _)) => {
                return step.account().map(|of| of.owner());
            }
            ShardInput::ShardTask(ShardTask::Close(_, account, _)) => return Some(account.owner()),
            ShardInput::CarryingOf(query) => return Some(query.owner()),
            ShardInput::MembersHere(query) => return query.owner(),
            ShardInput::Signal(signal) => {
                return Some(Owner {
                    tenant: signal.tenant.clone(),
                    user: signal.user.clone(),
                });
            }
            ShardInput::Tell(telling, _) => return Some(telling.account().owner()),
            ShardInput::Hosting(_) | ShardInput::Hosted(..) | ShardInput::Announced(_) => {
                return None;
            }
            ShardInput::Positions(key, _)
            | ShardInput::Seen(key, ..)
            | ShardInput::Drained(key)
            | ShardInput::MembershipLookup(key, ..)
            | ShardInput::Answered(key, ..) => key,
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
    fn cost(&self, input: &ShardInput) -> usize {
        let held_by = |key: &SessionKey| 1 + self.shard.conversations_of(*key);
        match input {
            ShardInput::ShardTask(ShardTask::Step(step, _)) => self.shard.cost(step),
            ShardInput::ShardTask(ShardTask::Close(key, ..)) | ShardInput::Positions(key, _) => {
                held_by(key)
            }
            ShardInput::Drained(key) => 1 + self.shard.behind_of(*key),
            ShardInput::CarryingOf(query) => query.cost(&self.shard),
            ShardInput::Hosting(query) => query.cost(),
            ShardInput::MembersHere(query) => query.cost(&self.shard),
            ShardInput::Hosted(..) => QUERY_STEP,
            ShardInput::Tell(..) => TELL_STEP,
            ShardInput::MembershipLookup(..) | ShardInput::Answered(..) | ShardInput::Signal(_) => {
                STANDING_COST
            }
            ShardInput::Announced(announced) => announced.iter().map(|of| of.heads.len()).sum(),
            ShardInput::Seen(_, seen, _) => 1 + seen.len().min(SEEN_STEP),
        }
    }
}
