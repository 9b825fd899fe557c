//! What only tests do with the whole hub.

use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::query::EncodedEvent;
use confab_protocol::signal::Signal;

use super::{Heard, Hub};
use crate::hub::{Ask, Conversation, Read, Replays, Retry, SessionKey, Shard, Standing};

impl Hub {
    fn shard(&mut self, id: ConversationId) -> Option<&mut Shard> {
        let part = self.parts.get_mut(self.shards.shard_of(id));
        part.map(|part| &mut part.shard)
    }

    /// What is on its way between the coordinator, the shards and the feed's reader waits for [`Self::advance`].
    pub(crate) const fn waits(&mut self) {
        self.waits = true;
    }

    /// The feed broke for all shards, or for one of them.
    pub(crate) fn breaks(&mut self, only: Option<usize>) {
        self.epoch += 1;
        for (at, part) in self.parts.iter_mut().enumerate() {
            if only.is_none_or(|only| only == at) {
                part.feed.push_back(Heard::Began(self.epoch));
            }
        }
        self.is_new = true;
        self.go_on();
    }

    pub(crate) fn shard_of(&self, id: ConversationId) -> usize {
        self.shards.shard_of(id)
    }

    pub(in crate::hub) fn conversation(&self, id: ConversationId) -> Option<&Conversation> {
        let part = self.parts.get(self.shards.shard_of(id))?;
        part.shard.conversations.get(&id)
    }

    pub(crate) fn conversation_count(&self) -> usize {
        self.all().map(Shard::conversation_count).sum()
    }

    pub(crate) fn waiting_openings(&self) -> [usize; 2] {
        self.coordinator.waiting_openings()
    }

    pub(crate) fn may_hear(&self) -> bool {
        self.all().all(Shard::may_hear)
    }

    pub(crate) fn may_rest(&self) -> bool {
        self.all().all(Shard::may_rest)
    }

    pub(crate) fn take_replays(&mut self) -> Replays {
        let mut sum = Replays {
            truncated: self.coordinator.take_truncated(),
            ..Replays::default()
        };
        for replays in self.all_mut().map(Shard::take_replays) {
            sum.window += replays.window;
            sum.worker += replays.worker;
            sum.truncated += replays.truncated;
        }
        sum
    }

    pub(crate) fn drained(&mut self, key: SessionKey) {
        self.all_mut().for_each(|shard| shard.drained(key));
    }

    pub(crate) fn seen(&mut self, key: SessionKey, seen: Vec<(ConversationId, Seq)>) {
        let parts: Vec<Vec<_>> = self.shards.split(seen, |(id, _)| *id);
        for (shard, seen) in self.all_mut().zip(parts) {
            shard.seen(key, seen);
        }
    }

    pub(crate) fn events_read(&mut self, read: &Read, events: Vec<EncodedEvent>) {
        if let Some(shard) = self.shard(read.conversation) {
            shard.events_read(read, events);
        }
    }

    pub(crate) fn read_failed(&mut self, read: &Read) {
        if let Some(shard) = self.shard(read.conversation) {
            shard.read_failed(read);
        }
    }

    pub(crate) fn ask_failed(&mut self, ask: Ask) {
        match self.asker(&ask) {
            Some(at) => self.parts[at].shard.ask_failed(ask),
            None => self.coordinator.ask_failed(ask),
        }
    }

    pub(crate) fn retry(&mut self, retry: Retry) {
        let at = match &retry {
            Retry::Gap(id) | Retry::CatchUp(id, ..) => Some(self.shards.shard_of(*id)),
            Retry::Ask(ask) => self.asker(ask),
            Retry::Open(_) | Retry::OpenWithout(_) => None,
        };
        match at {
            Some(at) => self.parts[at].shard.retry(retry),
            None => self.coordinator.retry(retry),
        }
    }

    pub(crate) fn signal(&mut self, signal: &Signal) {
        if let Some(shard) = self.shard(signal.conversation) {
            shard.signal(signal);
        }
    }

    pub(crate) fn standing(&mut self, key: SessionKey, id: ConversationId) -> Option<Standing> {
        self.shard(id)?.standing(key, id)
    }
}
