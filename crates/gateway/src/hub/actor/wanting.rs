//! What this gateway wants to hear of others, and its own news, on their way to the other gateways.

use confab_protocol::ids::ConversationId;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::ShardInput;
use super::news::news;
use super::presence::{PresenceLoop, SHARD_TIMEOUT};
use crate::cluster::presence::PresenceUpdates;

/// Conversations whose members' presence the others are asked for at once, about.
const WANTED_STEP: usize = 1024;
/// Those that wait for that: beyond, all are asked for.
const MAX_WANTED: usize = 64 * 1024;

impl PresenceLoop {
    /// This gateway may have missed what the others said of anyone: they are asked for all that it hosts, by and by.
    pub(super) fn want_all(&mut self) {
        self.wanted = Vec::new();
        let shards = 0..self.shards.shards.count();
        self.unwanted = shards.map(|at| (at, None)).collect();
    }

    /// Whether there may be more conversations to find for which the others are to be asked.
    pub(super) fn wants_more(&self) -> bool {
        !self.unwanted.is_empty()
    }

    /// Whether so many wait that the others are asked at once.
    pub(super) const fn wants_many(&self) -> bool {
        self.wanted.len() >= WANTED_STEP
    }

    /// Whether more wait than may.
    pub(super) const fn wants_too_many(&self) -> bool {
        self.wanted.len() > MAX_WANTED
    }

    /// Finds some more. A shard that is late has its turn behind the others.
    pub(super) async fn want_more(&mut self) {
        if self.wants_many() {
            return;
        }
        let Some((at, after)) = self.unwanted.pop_front() else {
            return;
        };
        let Some(shard) = self.shards.at(at) else {
            return;
        };
        let (answer, answered) = oneshot::channel();
        let ask = async {
            shard.send(ShardInput::Hosted(after, answer)).await.ok()?;
            answered.await.ok()
        };
        match timeout(SHARD_TIMEOUT, ask).await {
            Ok(Some((page, last))) => {
                self.wanted.extend(page);
                if last.is_some() {
                    self.unwanted.push_front((at, last));
                }
            }
            // It ended.
            Ok(None) => {}
            Err(_late) => self.unwanted.push_back((at, after)),
        }
    }

    /// Tells the others what is said, and for whom of theirs it is asked.
    pub(super) async fn publish(&mut self, said: PresenceUpdates) {
        let rest = self.wanted.len().saturating_sub(WANTED_STEP);
        let wanted = self.wanted.split_off(rest);
        let mut here: FxHashMap<ConversationId, bool> = FxHashMap::default();
        if !wanted.is_empty() {
            (here, _) = self.hosting(wanted.iter().map(|(_, id)| *id)).await;
        }
        let wanted = wanted.into_iter();
        let wanted = wanted.filter(|(_, id)| here.get(id) == Some(&true));
        self.unsent.extend(news(self.own, said, wanted));
        self.send();
    }

    /// Hands news over as far as there is room. Each has the number of then: none has a lower one than an answer that went before it.
    pub(super) fn send(&mut self) {
        while let Some((tenant, mut news)) = self.unsent.pop_front() {
            news.number = self.number + 1;
            if let Err(unsent) = self.signals.presence(tenant, news) {
                self.unsent.push_front(*unsent);
                return;
            }
            self.number += 1;
        }
    }
}
