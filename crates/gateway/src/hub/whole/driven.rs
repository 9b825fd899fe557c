//! What only tests do with the whole hub.

use std::collections::BTreeSet;
use std::time::Instant;

use confab_bus::records::Position;
use confab_protocol::ids::{ConversationId, Seq, UserId};
use confab_protocol::lingering::Announced;
use confab_protocol::query::EncodedEvent;
use confab_protocol::signal::{Presence, Signal};
use rustc_hash::FxHashMap;

use super::{Heard, Hub, Way};
use crate::account::SessionKey;
use crate::hub::{
    Conversation, MembershipLookup, MembershipQuery, NewMembers, PresenceChange, Read, Retry, Shard,
};
use crate::metrics::Replays;

/// What a session says or asks of a shard.
#[derive(Debug)]
pub(super) enum Said {
    Seen(SessionKey, Vec<(ConversationId, Seq)>),
    Drained(SessionKey),
    /// For the gathering of this number.
    Positions(SessionKey, u64),
}

impl Hub {
    fn shard(&mut self, id: ConversationId) -> Option<&mut Shard> {
        let part = self.parts.get_mut(self.shards.shard_of(id));
        part.map(|part| &mut part.shard)
    }

    /// Who came to the shards since this was last asked.
    pub(crate) fn take_come(&mut self) -> NewMembers {
        let mut all = NewMembers::default();
        for come in self.all_mut().map(Shard::take_come) {
            all.hosted.extend(come.hosted);
            all.joined.extend(come.joined);
            all.counted.extend(come.counted);
            all.left.extend(come.left);
            all.is_cut |= come.is_cut;
        }
        all
    }

    /// Whether every shard knows how large the conversations of a session are.
    pub(crate) fn has_counted(&mut self, key: SessionKey) -> bool {
        self.all_mut()
            .all(|shard| shard.carrying_in(key, &mut FxHashMap::default()))
    }

    /// Whether it is known of every member of a conversation with a session here that it is one.
    pub(in crate::hub) fn is_sure_of(&self, id: ConversationId) -> bool {
        let part = self.parts.get(self.shards.shard_of(id));
        part.is_some_and(|part| part.shard.members_here(id).is_whole)
    }

    /// The shards remember of so few conversations how far they were heard.
    pub(crate) fn remembers(&mut self, most: usize) {
        self.all_mut().for_each(|shard| shard.remembers(most));
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

    /// Tells a change of presence in all shards.
    pub(in crate::hub) fn tell(&self, presence: Presence) {
        let mut telling = PresenceChange::new(presence, self.shards).unwrap();
        while let Some(at) = telling.next_shard() {
            self.parts[at].shard.tell(&mut telling, at, usize::MAX);
        }
    }

    /// Whose memberships of a conversation carry signals, from where on, and up to where its log was heard.
    pub(in crate::hub) fn listeners(&self, id: ConversationId) -> Vec<(UserId, Seq, Seq)> {
        let part = self.parts.get(self.shards.shard_of(id));
        let there = part.and_then(|part| Some((&part.shard, part.shard.conversations.get(&id)?)));
        let Some((shard, there)) = there else {
            return Vec::new();
        };
        let as_of = there.sequencer.position();
        let subscriptions = there
            .subscriptions()
            .filter(|subscription| subscription.listens());
        let told = subscriptions.filter_map(|subscription| {
            let user = shard.account(subscription.session())?.user.clone();
            Some((user, subscription.joined(), as_of))
        });
        told.collect()
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
        for part in &mut self.parts {
            part.said.push(Said::Drained(key));
        }
        self.go_on();
    }

    pub(crate) fn seen(&mut self, key: SessionKey, seen: Vec<(ConversationId, Seq)>) {
        let parts: Vec<Vec<_>> = self.shards.split(seen, |(id, _)| *id);
        for (part, seen) in self.parts.iter_mut().zip(parts) {
            part.said.push(Said::Seen(key, seen));
        }
        self.go_on();
    }

    /// Asks what a session's client has acknowledged: that comes with [`Self::take_gathered`].
    pub(crate) fn ask_positions(&mut self, key: SessionKey) {
        let number = self.gather(key, false);
        for part in &mut self.parts {
            part.said.push(Said::Positions(key, number));
        }
        self.go_on();
    }

    /// What clients have acknowledged, as far as all shards have told it; with whether their sessions ended.
    pub(crate) fn take_gathered(&mut self) -> Vec<(SessionKey, bool, Vec<Position>)> {
        std::mem::take(&mut self.gathered)
    }

    /// What sessions said that is on its way.
    pub(super) fn said(&self) -> impl Iterator<Item = Way> {
        let parts = self.parts.iter().enumerate();
        parts.flat_map(|(at, part)| (0..part.said.len()).map(move |n| Way::Said(at, n)))
    }

    pub(super) fn hear_said(&mut self, at: usize, n: usize) {
        let part = &mut self.parts[at];
        match part.said.remove(n) {
            Said::Seen(key, seen) => part.shard.seen(key, seen),
            Said::Drained(key) => part.shard.drained(key),
            Said::Positions(key, number) => {
                let positions = part.shard.positions(key);
                self.told(number, at, positions);
            }
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

    pub(crate) fn ask_failed(&mut self, ask: MembershipQuery) {
        match self.asker(&ask) {
            Some(at) => self.parts[at].shard.ask_failed(ask),
            None => self.coordinator.ask_failed(ask),
        }
    }

    pub(crate) fn retry(&mut self, retry: Retry) {
        let at = match &retry {
            Retry::Gap(id) | Retry::CatchUp(id, ..) => Some(self.shards.shard_of(*id)),
            Retry::MembershipQuery(ask) => self.asker(ask),
            Retry::Open(_) | Retry::OpenWithout(_) => None,
        };
        match at {
            Some(at) => self.parts[at].shard.retry(retry),
            None => self.coordinator.retry(retry),
        }
    }

    pub(crate) fn announced(&mut self, announced: &Announced) {
        let ids = announced.heads.iter().map(|(id, _)| *id);
        let ids = ids.chain(announced.joined.iter().map(|joined| joined.conversation));
        let shards: BTreeSet<_> = ids.map(|id| self.shards.shard_of(id)).collect();
        for at in shards {
            self.parts[at].shard.announced(announced);
        }
    }

    pub(crate) fn recheck(&mut self, now: Instant) {
        self.coordinator.recheck(now);
        self.coordinator.recheck_on(now);
        self.go_on();
    }

    pub(crate) fn signal(&mut self, signal: &Signal) {
        if let Some(shard) = self.shard(signal.conversation) {
            shard.signal(signal);
        }
    }

    pub(crate) fn standing(
        &mut self,
        key: SessionKey,
        id: ConversationId,
    ) -> Option<MembershipLookup> {
        self.shard(id)?.standing(key, id)
    }
}
