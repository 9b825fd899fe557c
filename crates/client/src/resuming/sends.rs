//! What is kept until it has its answer: in order, one at a time in each conversation, over as many connections as it takes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use confab_protocol::error::Code;
use confab_protocol::frame::{Ack, ClientFrame, ErrorFrame, key_of};
use confab_protocol::ids::ConversationId;
use tokio::time::Instant;

mod pending;
#[cfg(test)]
mod tests;

use super::handshake::wait_of;
use crate::session::SendError;
use crate::ws::Closed;
pub(super) use pending::{PendingSend, Room};

/// Delay before what was refused for now is tried again, where the refusal names no time.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// What keeps an order of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum SendOrder {
    /// What appends to a conversation's log.
    Log(ConversationId),
    /// Its read mark.
    Mark(ConversationId),
    /// The session's own.
    Session,
}

impl SendOrder {
    const fn of(frame: &ClientFrame) -> Self {
        match frame {
            ClientFrame::Send(send) => Self::Log(send.conversation_id),
            ClientFrame::Edit(edit) => Self::Log(edit.conversation_id),
            ClientFrame::Delete(delete) => Self::Log(delete.conversation_id),
            ClientFrame::Read(read) => Self::Mark(read.conversation_id),
            ClientFrame::Hello(_)
            | ClientFrame::Seen(_)
            | ClientFrame::Bye(_)
            | ClientFrame::Typing(_)
            | ClientFrame::Presence(_)
            | ClientFrame::Auth(_)
            | ClientFrame::Ping(_) => Self::Session,
        }
    }
}

/// What waits in a lane, and where its first stands.
#[derive(Debug)]
struct OrderedSends {
    entries: VecDeque<QueuedSend>,
    state: QueueState,
}

#[derive(Debug)]
struct QueuedSend {
    number: u64,
    pending: PendingSend,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QueueState {
    /// It may be written.
    Ready,
    /// It was written to this connection.
    Written,
    /// It was refused for now.
    Paused(Instant),
}

/// All that is kept. Its bounds are with who hands it over.
#[derive(Debug)]
pub(super) struct Sends {
    patience: Duration,
    lanes: HashMap<SendOrder, OrderedSends>,
    /// Lanes whose first may be written, and perhaps some that are so no more.
    ready: VecDeque<SendOrder>,
    paused: BTreeSet<(Instant, SendOrder)>,
    written: HashMap<String, SendOrder>,
    /// When each is given up, the oldest first, which are firsts of their lanes.
    ends: BTreeMap<u64, (Instant, SendOrder)>,
    numbers: u64,
}

impl Sends {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            paused: BTreeSet::new(),
            written: HashMap::new(),
            ends: BTreeMap::new(),
            numbers: 0,
        }
    }

    pub(super) fn keep(&mut self, pending: PendingSend, now: Instant) {
        let lane = SendOrder::of(&pending.frame);
        self.numbers += 1;
        let number = self.numbers;
        self.ends.insert(number, (now + self.patience, lane));
        let entry = QueuedSend { number, pending };
        match self.lanes.get_mut(&lane) {
            Some(queue) => queue.entries.push_back(entry),
            None => {
                let queue = OrderedSends {
                    entries: VecDeque::from([entry]),
                    state: QueueState::Ready,
                };
                self.lanes.insert(lane, queue);
                self.ready.push_back(lane);
            }
        }
    }

    /// Takes note of the time: what was paused may be written again, what is too old is given up.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some((due, lane)) = self.paused.first().copied()
            && due <= now
        {
            self.paused.pop_first();
            self.make_ready(lane);
        }
        while let Some((end, lane)) = self.ends.values().next().copied()
            && end <= now
        {
            self.finish(lane, Err(SendError::Timeout));
        }
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let paused = self.paused.first().map(|(due, _)| *due);
        let end = self.ends.values().next().map(|(end, _)| *end);
        paused.into_iter().chain(end).min()
    }

    pub(super) fn is_ready(&mut self) -> bool {
        while let Some(lane) = self.ready.front() {
            if self.lanes.get(lane).is_some_and(OrderedSends::is_ready) {
                return true;
            }
            self.ready.pop_front();
        }
        false
    }

    /// Returns what is to be written next, which counts as written from then on.
    pub(super) fn next(&mut self) -> Option<ClientFrame> {
        while let Some(lane) = self.ready.pop_front() {
            let Some(queue) = self.lanes.get_mut(&lane).filter(|queue| queue.is_ready()) else {
                continue;
            };
            let Some(entry) = queue.entries.front() else {
                continue;
            };
            queue.state = QueueState::Written;
            self.written.insert(entry.pending.id.clone(), lane);
            return Some(entry.pending.frame.clone());
        }
        None
    }

    pub(super) fn acknowledge(&mut self, ack: Ack) {
        let lane = ack.id.as_ref().and_then(|id| self.written.remove(id));
        if let Some(lane) = lane {
            self.finish(lane, Ok(ack));
        }
    }

    /// Takes a refusal, or gives it back where it answers nothing that is kept. What was refused for now waits in its
    /// place, and what stands behind it with it.
    pub(super) fn refuse(&mut self, error: ErrorFrame, now: Instant) -> Option<ErrorFrame> {
        let lane = error.id.as_ref().and_then(|id| self.written.remove(id));
        let Some(lane) = lane else {
            return Some(error);
        };
        let Some(queue) = self.lanes.get_mut(&lane) else {
            return Some(error);
        };
        let repeatable = queue.entries.front().is_some_and(QueuedSend::is_repeatable);
        if is_for_now(error.code, repeatable) {
            let due = now + wait_of(&error).unwrap_or(RETRY_DELAY);
            queue.state = QueueState::Paused(due);
            self.paused.insert((due, lane));
        } else {
            self.finish(lane, Err(SendError::Refused(Box::new(error))));
        }
        None
    }

    /// The connection ended: what was written to it is written again to the next one, in the order of old, where that is
    /// safe. Of the rest nobody knows what became.
    pub(super) fn lost(&mut self, closed: &Closed) {
        let written: Vec<SendOrder> = self.written.drain().map(|(_, lane)| lane).collect();
        for lane in written {
            let Some(queue) = self.lanes.get_mut(&lane) else {
                continue;
            };
            if queue.entries.front().is_some_and(QueuedSend::is_repeatable) {
                queue.state = QueueState::Ready;
            } else {
                self.finish(lane, Err(SendError::Closed(closed.clone())));
            }
        }
        let ready = self.lanes.iter().filter(|(_, queue)| queue.is_ready());
        let mut ready: Vec<(u64, SendOrder)> = ready
            .filter_map(|(lane, queue)| Some((queue.entries.front()?.number, *lane)))
            .collect();
        ready.sort_unstable();
        self.ready = ready.into_iter().map(|(_, lane)| lane).collect();
    }

    /// The session ended: nothing of it will be answered.
    pub(super) fn end(&mut self, closed: &Closed) {
        for (_, queue) in std::mem::take(&mut self.lanes) {
            for entry in queue.entries {
                entry.pending.answer(Err(SendError::Closed(closed.clone())));
            }
        }
        *self = Self::new(self.patience);
    }

    /// Answers the first of a lane, and lets the next one be written.
    fn finish(&mut self, lane: SendOrder, answer: Result<Ack, SendError>) {
        let Some(queue) = self.lanes.get_mut(&lane) else {
            return;
        };
        if let QueueState::Paused(due) = queue.state {
            self.paused.remove(&(due, lane));
        }
        if let Some(entry) = queue.entries.pop_front() {
            self.ends.remove(&entry.number);
            self.written.remove(&entry.pending.id);
            entry.pending.answer(answer);
        }
        if queue.entries.is_empty() {
            self.lanes.remove(&lane);
        } else {
            self.make_ready(lane);
        }
    }

    fn make_ready(&mut self, lane: SendOrder) {
        if let Some(queue) = self.lanes.get_mut(&lane) {
            queue.state = QueueState::Ready;
            self.ready.push_back(lane);
        }
    }
}

impl OrderedSends {
    fn is_ready(&self) -> bool {
        self.state == QueueState::Ready
    }
}

impl QueuedSend {
    /// Returns true if it may be done twice: what has a key is done once for it, and a read mark stands where it stood.
    fn is_repeatable(&self) -> bool {
        match self.pending.frame {
            ClientFrame::Send(_) | ClientFrame::Edit(_) | ClientFrame::Delete(_) => {
                key_of(Some(&self.pending.id)).is_some()
            }
            ClientFrame::Read(_) => true,
            ClientFrame::Hello(_)
            | ClientFrame::Seen(_)
            | ClientFrame::Bye(_)
            | ClientFrame::Typing(_)
            | ClientFrame::Presence(_)
            | ClientFrame::Auth(_)
            | ClientFrame::Ping(_) => false,
        }
    }
}

/// Returns true if the same may be tried again. After a timeout nobody knows whether it was done.
const fn is_for_now(code: Code, repeatable: bool) -> bool {
    match code {
        Code::Overloaded | Code::Unavailable | Code::RateLimited => true,
        Code::Timeout => repeatable,
        _ => false,
    }
}
