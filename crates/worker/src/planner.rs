//! Which commands are carried out next, and which of them together. Pure: it does no IO and takes the time.
//!
//! Each conversation has a queue, first in, first out. Sends are taken in batches, whole runs of conversations that are not
//! busy, up to caps. Any other command runs alone, keeps its place in its conversation's queue, and has slots of its own.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use confab_protocol::ids::{ClientId, ConversationId, UserId};
use rustc_hash::{FxHashMap, FxHashSet};

mod pace;

use pace::Pace;

/// The planner's bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caps {
    /// Events in a batch.
    pub(crate) batch_events: usize,
    /// Bytes in a batch; one event is always taken.
    pub(crate) batch_bytes: usize,
    /// Batches at a time.
    pub(crate) lanes: usize,
    /// Commands that run alone, at a time.
    pub(crate) slots: usize,
    /// Commands that may wait.
    pub(crate) queue_events: usize,
    /// Bytes that may wait.
    pub(crate) queue_bytes: usize,
}

/// How a command wants to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A send, in a batch; the key must not be twice in one batch.
    Send(UserId, ClientId),
    /// In a transaction of its own.
    Alone,
}

/// A command that waits.
#[derive(Debug)]
pub(crate) struct Item<J> {
    /// Whose log it appends to; none where the command does not say: then it has no place in any queue.
    pub(crate) conversation: Option<ConversationId>,
    /// How it runs.
    pub(crate) kind: Kind,
    /// About how many bytes it takes.
    pub(crate) bytes: usize,
    /// From when on nobody waits for it any more.
    pub(crate) deadline: Instant,
    /// What it is.
    pub(crate) job: J,
}

/// What is to be carried out now.
#[derive(Debug)]
pub(crate) enum Work<J> {
    /// Sends, together.
    Batch(Vec<Item<J>>),
    /// One command.
    Alone(Item<J>),
    /// Their deadline has passed: they are refused.
    Expired(Vec<Item<J>>),
}

/// What was carried out, told back.
#[derive(Debug)]
pub(crate) enum Done {
    /// A batch of this many events over these conversations.
    Batch(Vec<ConversationId>, usize, Duration),
    /// A command that ran alone.
    Alone(Option<ConversationId>),
}

#[derive(Debug)]
enum Single<J> {
    Of(ConversationId),
    Unplaced(Item<J>),
}

#[derive(Debug)]
struct Queue<J> {
    items: VecDeque<Item<J>>,
    busy: bool,
}

/// Who waits, who runs.
#[derive(Debug)]
pub(crate) struct Planner<J> {
    caps: Caps,
    conversations: FxHashMap<ConversationId, Queue<J>>,
    /// Conversations that are not busy and begin with a send, each once.
    ready: VecDeque<ConversationId>,
    /// The same for those that begin with another command, and the commands without a place.
    singles: VecDeque<Single<J>>,
    /// Found while a batch was taken, and told next.
    expired: Vec<Item<J>>,
    waiting: usize,
    bytes: usize,
    batches: usize,
    alone: usize,
    pace: Pace,
}

impl<J> Planner<J> {
    pub(crate) fn new(caps: Caps) -> Self {
        Self {
            caps,
            conversations: FxHashMap::default(),
            ready: VecDeque::new(),
            singles: VecDeque::new(),
            expired: Vec::new(),
            waiting: 0,
            bytes: 0,
            batches: 0,
            alone: 0,
            pace: Pace::default(),
        }
    }

    /// Commands that wait.
    pub(crate) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether nothing waits and nothing runs.
    #[cfg(test)]
    pub(crate) const fn is_idle(&self) -> bool {
        self.waiting == 0 && self.batches == 0 && self.alone == 0
    }

    /// Whether `events` more commands of `bytes` together can be served within `budget`.
    ///
    /// # Errors
    /// After how long trying again makes sense.
    pub(crate) fn admit(
        &self,
        events: usize,
        bytes: usize,
        budget: Duration,
    ) -> Result<(), Duration> {
        let wait = self.pace.expect(self.waiting);
        let full = self.waiting > 0
            && (self.waiting + events > self.caps.queue_events
                || self.bytes + bytes > self.caps.queue_bytes);
        if full || wait > budget {
            return Err(wait.clamp(Duration::from_millis(100), Duration::from_secs(5)));
        }
        Ok(())
    }

    /// Takes a command in.
    pub(crate) fn push(&mut self, item: Item<J>) {
        self.waiting += 1;
        self.bytes += item.bytes;
        let Some(id) = item.conversation else {
            self.singles.push_back(Single::Unplaced(item));
            return;
        };
        let queue = self.conversations.entry(id).or_insert_with(Queue::empty);
        queue.items.push_back(item);
        if !queue.busy && queue.items.len() == 1 {
            self.make_ready(id);
        }
    }

    /// What is to be carried out now, if anything. To be called until there is nothing.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Work<J>> {
        if let Some(work) = self.take_expired() {
            return Some(work);
        }
        if self.alone < self.caps.slots
            && let Some(work) = self.take_single(now)
        {
            return Some(work);
        }
        let lane = self.batches == 0 || (self.batches < self.caps.lanes && self.is_batch_full());
        if lane { self.take_batch(now) } else { None }
    }

    /// What was carried out no longer keeps its conversations.
    pub(crate) fn finish(&mut self, done: Done) {
        match done {
            Done::Batch(conversations, events, took) => {
                if events * 4 >= self.caps.batch_events {
                    self.pace.observe(events, took, self.batches);
                }
                self.batches -= 1;
                for id in conversations {
                    self.release(id);
                }
            }
            Done::Alone(conversation) => {
                self.alone -= 1;
                if let Some(id) = conversation {
                    self.release(id);
                }
            }
        }
    }

    fn release(&mut self, id: ConversationId) {
        let Some(queue) = self.conversations.get_mut(&id) else {
            return;
        };
        queue.busy = false;
        if queue.items.is_empty() {
            self.conversations.remove(&id);
        } else {
            self.make_ready(id);
        }
    }

    fn make_ready(&mut self, id: ConversationId) {
        match self.front(id) {
            Some(Kind::Send(..)) => self.ready.push_back(id),
            Some(Kind::Alone) => self.singles.push_back(Single::Of(id)),
            None => {}
        }
    }

    fn front(&self, id: ConversationId) -> Option<&Kind> {
        self.conversations
            .get(&id)?
            .items
            .front()
            .map(|item| &item.kind)
    }

    /// Whether what is ready fills a batch. Looks at no more items than a batch has.
    fn is_batch_full(&self) -> bool {
        let (mut events, mut bytes) = (0, 0);
        for id in &self.ready {
            let items = self.conversations.get(id).map(|queue| queue.items.iter());
            for item in items
                .into_iter()
                .flatten()
                .take_while(|item| item.kind != Kind::Alone)
            {
                events += 1;
                bytes += item.bytes;
                if events >= self.caps.batch_events || bytes >= self.caps.batch_bytes {
                    return true;
                }
            }
        }
        false
    }

    fn take_single(&mut self, now: Instant) -> Option<Work<J>> {
        let item = match self.singles.pop_front()? {
            Single::Unplaced(item) => item,
            Single::Of(id) => {
                let queue = self.conversations.get_mut(&id)?;
                let item = queue.items.pop_front()?;
                queue.busy = item.deadline > now;
                if !queue.busy {
                    self.release(id);
                }
                item
            }
        };
        self.waiting -= 1;
        self.bytes -= item.bytes;
        if item.deadline <= now {
            return Some(Work::Expired(vec![item]));
        }
        self.alone += 1;
        Some(Work::Alone(item))
    }

    fn take_batch(&mut self, now: Instant) -> Option<Work<J>> {
        let mut taken = Taken::default();
        while !taken.is_full(self.caps)
            && let Some(id) = self.ready.pop_front()
        {
            let before = taken.items.len();
            if let Some(queue) = self.conversations.get_mut(&id) {
                taken.take_run(queue, self.caps, now);
                queue.busy = taken.items.len() > before;
                if !queue.busy {
                    self.release(id);
                }
            }
        }
        for item in taken.items.iter().chain(&taken.expired) {
            self.waiting -= 1;
            self.bytes -= item.bytes;
        }
        self.expired.append(&mut taken.expired);
        if taken.items.is_empty() {
            return self.take_expired();
        }
        self.batches += 1;
        Some(Work::Batch(taken.items))
    }

    fn take_expired(&mut self) -> Option<Work<J>> {
        (!self.expired.is_empty()).then(|| Work::Expired(std::mem::take(&mut self.expired)))
    }
}

impl<J> Queue<J> {
    const fn empty() -> Self {
        Self {
            items: VecDeque::new(),
            busy: false,
        }
    }
}

/// A batch in the making.
struct Taken<J> {
    items: Vec<Item<J>>,
    expired: Vec<Item<J>>,
    bytes: usize,
    /// The next item does not fit.
    closed: bool,
}

impl<J> Default for Taken<J> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            expired: Vec::new(),
            bytes: 0,
            closed: false,
        }
    }
}

impl<J> Taken<J> {
    fn is_full(&self, caps: Caps) -> bool {
        self.closed || self.items.len() >= caps.batch_events || self.bytes >= caps.batch_bytes
    }

    /// Takes the sends at the queue's front, up to the caps, to another command, or to a key that is in the batch already.
    fn take_run(&mut self, queue: &mut Queue<J>, caps: Caps, now: Instant) {
        let mut keys = FxHashSet::default();
        while !self.is_full(caps)
            && let Some(item) = queue.items.pop_front()
        {
            if item.deadline <= now && item.kind != Kind::Alone {
                self.expired.push(item);
                continue;
            }
            self.closed = !self.items.is_empty() && self.bytes + item.bytes > caps.batch_bytes;
            let fresh = match &item.kind {
                Kind::Send(user, client) => keys.insert((user.clone(), *client)),
                Kind::Alone => false,
            };
            if self.closed || !fresh {
                queue.items.push_front(item);
                return;
            }
            self.bytes += item.bytes;
            self.items.push(item);
        }
    }
}

#[cfg(test)]
mod tests;
