//! All shards and their coordinator in one place, without tasks: for tests, in which what is on its way between them may wait, and for
//! benchmarks.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use confab_bus::feed::FeedEvent;
use confab_bus::records::Position;
use confab_protocol::query::UserMemberships;

use super::{
    Coordinator, Effect, FIRST_EPOCH, MembershipQuery, Opening, Purpose, ReplayLimits, Shard,
    Shards, Step, Stepped, Ticket, gathered,
};
use crate::account::SessionKey;
use crate::delivery::window::Bounds;

#[cfg(test)]
mod driven;

/// What a shard hears of the feed's reader.
#[derive(Debug)]
enum Heard {
    #[cfg(test)]
    Began(u64),
    Event(FeedEvent),
}

/// What a shard is to do for the coordinator.
#[derive(Debug)]
enum Todo {
    Step(u64, Step),
    /// A session ends; its positions are for the gathering of this number.
    Close(SessionKey, u64),
}

/// A shard and what is on its way to it.
#[derive(Debug)]
struct Part {
    shard: Shard,
    feed: VecDeque<Heard>,
    steps: VecDeque<Todo>,
    /// In whatever order it comes: a shard has a queue of its own for each kind.
    #[cfg(test)]
    said: Vec<driven::Said>,
}

/// Positions of a session, until every shard has told its own.
#[derive(Debug)]
struct Gathering {
    key: SessionKey,
    /// Whether the session ends with it.
    is_last: bool,
    parts: Vec<Option<Vec<Position>>>,
}

/// The whole hub.
#[derive(Debug)]
pub(crate) struct Hub {
    shards: Shards,
    parts: Vec<Part>,
    coordinator: Coordinator,
    /// Steps that not all shards have answered, and those that all have.
    open: BTreeMap<u64, (Ticket, Vec<Option<Stepped>>)>,
    done: Vec<(Ticket, Vec<Stepped>)>,
    /// Positions that not all shards have told, and those that all have; with whether the session ended.
    gatherings: BTreeMap<u64, Gathering>,
    gathered: Vec<(SessionKey, bool, Vec<Position>)>,
    steps: u64,
    epoch: u64,
    /// Whether the coordinator is still to hear of the epoch.
    is_new: bool,
    /// Whether what is on its way waits for [`Self::advance`].
    waits: bool,
    effects: Vec<Effect>,
}

impl Hub {
    /// Of so many shards, whose windows hold so much together.
    pub(crate) fn new(shards: Shards, bounds: Bounds, limits: ReplayLimits, now: Instant) -> Self {
        let part = || Part {
            shard: Shard::new(bounds, now),
            feed: VecDeque::new(),
            steps: VecDeque::new(),
            #[cfg(test)]
            said: Vec::new(),
        };
        Self {
            shards,
            parts: std::iter::repeat_with(part).take(shards.count()).collect(),
            coordinator: Coordinator::new(shards, limits),
            open: BTreeMap::new(),
            done: Vec::new(),
            gatherings: BTreeMap::new(),
            gathered: Vec::new(),
            steps: 0,
            epoch: FIRST_EPOCH,
            is_new: false,
            waits: false,
            effects: Vec::new(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Shard> {
        self.parts.iter().map(|part| &part.shard)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Shard> {
        self.parts.iter_mut().map(|part| &mut part.shard)
    }

    /// A session opens.
    pub(crate) fn open(&mut self, opening: Opening) {
        self.coordinator.open(opening);
        self.go_on();
    }

    /// A session is gone; what its client has acknowledged is gathered.
    pub(crate) fn close(&mut self, key: SessionKey) {
        self.coordinator.close(key);
        let number = self.gather(key, true);
        for part in &mut self.parts {
            part.steps.push_back(Todo::Close(key, number));
        }
        self.go_on();
    }

    /// Begins to gather what a session's client has acknowledged.
    fn gather(&mut self, key: SessionKey, is_last: bool) -> u64 {
        self.steps += 1;
        let gathering = Gathering {
            key,
            is_last,
            parts: self.parts.iter().map(|_| None).collect(),
        };
        self.gatherings.insert(self.steps, gathering);
        self.steps
    }

    /// A shard told its part.
    fn told(&mut self, number: u64, at: usize, positions: Vec<Position>) {
        let Some(gathering) = self.gatherings.get_mut(&number) else {
            return;
        };
        if let Some(part) = gathering.parts.get_mut(at) {
            *part = Some(positions);
        }
        if gathering.parts.iter().all(Option::is_some)
            && let Some(Gathering {
                key,
                is_last,
                parts,
            }) = self.gatherings.remove(&number)
        {
            let positions = gathered(parts.into_iter().flatten().collect());
            self.gathered.push((key, is_last, positions));
        }
    }

    /// It is `now`.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.all_mut().for_each(|shard| shard.tick(now));
        self.coordinator.ask_waiting_openings();
    }

    /// An event came through the feed.
    pub(crate) fn heard(&mut self, event: &FeedEvent) {
        let at = self.shards.shard_of(event.conversation);
        if let Some(part) = self.parts.get_mut(at) {
            part.feed.push_back(Heard::Event(event.clone()));
        }
        self.go_on();
    }

    /// Events that are on their way through many subscriptions go on.
    pub(crate) fn push_on(&mut self) {
        self.all_mut().for_each(Shard::push_on);
    }

    /// Whether there are such.
    pub(crate) fn is_pushing(&self) -> bool {
        self.all().any(Shard::is_pushing)
    }

    /// The memberships that were asked for have come.
    pub(crate) fn memberships(&mut self, ask: MembershipQuery, answers: Vec<UserMemberships>) {
        match self.asker(&ask) {
            Some(at) => {
                if let Some(part) = self.parts.get_mut(at) {
                    part.shard.memberships(ask, answers);
                }
            }
            None => self.coordinator.memberships(ask, answers),
        }
        self.go_on();
    }

    /// The shard that asked, or the coordinator.
    fn asker(&self, ask: &MembershipQuery) -> Option<usize> {
        match ask.purpose {
            Purpose::Opening(..) | Purpose::Reconcile => None,
            Purpose::Confirm(_) | Purpose::MembershipLookup => {
                let mut ids = ask.of.iter().flat_map(|of| of.only.iter().flatten());
                ids.next().map(|id| self.shards.shard_of(*id))
            }
        }
    }

    /// What must be done since this was last asked.
    pub(crate) fn effects(&mut self) -> Vec<Effect> {
        self.go_on();
        std::mem::take(&mut self.effects)
    }

    /// Lets the coordinator and the shards go on as far as nothing has to wait.
    fn go_on(&mut self) {
        self.collect();
        while !self.waits && self.advance(0) {}
    }

    fn collect(&mut self) {
        for effect in self.coordinator.effects() {
            match effect {
                Effect::Shards(ticket, steps) => self.send(ticket, steps),
                other => self.effects.push(other),
            }
        }
        for part in &mut self.parts {
            self.effects.extend(part.shard.effects());
        }
    }

    fn send(&mut self, ticket: Ticket, steps: Vec<Step>) {
        self.steps += 1;
        let answers = steps.iter().map(|_| None).collect();
        self.open.insert(self.steps, (ticket, answers));
        for (part, step) in self.parts.iter_mut().zip(steps) {
            part.steps.push_back(Todo::Step(self.steps, step));
        }
    }

    /// Lets the `n`th of what is on its way arrive; says whether there was any.
    pub(crate) fn advance(&mut self, n: usize) -> bool {
        let feeds = self.parts.iter().enumerate();
        let feeds = feeds.filter(|(_, part)| !part.feed.is_empty());
        let steps = self.parts.iter().enumerate();
        let steps = steps.filter(|(_, part)| !part.steps.is_empty());
        let mut ways: Vec<Way> = feeds.map(|(at, _)| Way::Feed(at)).collect();
        ways.extend(steps.map(|(at, _)| Way::Step(at)));
        ways.extend((0..self.done.len()).map(Way::Done));
        #[cfg(test)]
        ways.extend(self.said());
        ways.extend(self.is_new.then_some(Way::Epoch));
        let Some(way) = ways.get(n % ways.len().max(1)) else {
            return false;
        };
        match *way {
            Way::Feed(at) => self.hear(at),
            Way::Step(at) => self.step(at),
            #[cfg(test)]
            Way::Said(at, n) => self.hear_said(at, n),
            Way::Done(at) => {
                let (ticket, answers) = self.done.remove(at);
                self.coordinator.stepped(ticket, answers);
            }
            Way::Epoch => {
                self.is_new = false;
                self.coordinator.began(self.epoch);
            }
        }
        self.collect();
        true
    }

    fn hear(&mut self, at: usize) {
        let Some(part) = self.parts.get_mut(at) else {
            return;
        };
        match part.feed.pop_front() {
            #[cfg(test)]
            Some(Heard::Began(epoch)) => part.shard.began(epoch),
            Some(Heard::Event(event)) => {
                part.shard.heard(&event);
            }
            None => {}
        }
    }

    fn step(&mut self, at: usize) {
        let Some(part) = self.parts.get_mut(at) else {
            return;
        };
        match part.steps.pop_front() {
            Some(Todo::Close(key, number)) => {
                let positions = part.shard.close(key);
                self.told(number, at, positions);
            }
            Some(Todo::Step(number, mut step)) => {
                let Some(answer) = part.shard.step(&mut step) else {
                    part.steps.push_front(Todo::Step(number, step));
                    return;
                };
                if let Some((_, answers)) = self.open.get_mut(&number)
                    && let Some(place) = answers.get_mut(at)
                {
                    *place = Some(answer);
                }
                self.finish(number);
            }
            None => {}
        }
    }

    fn finish(&mut self, number: u64) {
        let is_done = |answers: &Vec<Option<Stepped>>| answers.iter().all(Option::is_some);
        if self
            .open
            .get(&number)
            .is_some_and(|(_, answers)| is_done(answers))
            && let Some((ticket, answers)) = self.open.remove(&number)
        {
            self.done
                .push((ticket, answers.into_iter().flatten().collect()));
        }
    }
}

/// Something that is on its way.
enum Way {
    /// To a shard from the feed's reader.
    Feed(usize),
    /// To a shard from the coordinator.
    Step(usize),
    /// To the coordinator from the shards.
    Done(usize),
    /// To a shard from a session: which of them.
    #[cfg(test)]
    Said(usize, usize),
    /// To the coordinator from the feed's reader.
    Epoch,
}
