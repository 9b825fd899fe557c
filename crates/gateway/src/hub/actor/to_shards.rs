//! The way to the shards.

use std::sync::Arc;
use std::time::Duration;

use confab_protocol::ids::ConversationId;
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::debug;

use super::ShardInput;
use crate::hub::Shards;

/// The way to the shards. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct ShardSenders {
    pub(super) shards: Shards,
    inboxes: Arc<[mpsc::Sender<ShardInput>]>,
}

impl ShardSenders {
    pub(super) fn new(shards: Shards, inboxes: Vec<mpsc::Sender<ShardInput>>) -> Self {
        Self {
            shards,
            inboxes: inboxes.into(),
        }
    }

    /// The shard of a conversation.
    pub(super) fn of(&self, id: ConversationId) -> Option<&mpsc::Sender<ShardInput>> {
        self.at(self.shards.shard_of(id))
    }

    pub(super) fn at(&self, shard: usize) -> Option<&mpsc::Sender<ShardInput>> {
        self.inboxes.get(shard)
    }

    /// Tells all shards something, from one of them on; none waits for another.
    pub(super) async fn tell_all(&self, first: usize, input: impl Fn() -> ShardInput) {
        let count = self.inboxes.len();
        let in_turn = (0..count).filter_map(|n| self.at((first % count.max(1) + n) % count));
        let told = join_all(in_turn.map(|inbox| inbox.send(input()))).await;
        if told.iter().any(Result::is_err) {
            debug!("a session speaks behind the hub");
        }
    }

    /// Asks all shards, each with its part, and gathers their answers; none when one of them ended.
    pub(super) async fn ask<P, A>(
        &self,
        parts: impl IntoIterator<Item = P>,
        input: impl Fn(P, oneshot::Sender<A>) -> ShardInput,
    ) -> Option<Vec<A>> {
        let mut waiting = Vec::with_capacity(self.inboxes.len());
        for (inbox, part) in self.inboxes.iter().zip(parts) {
            let (answer, answered) = oneshot::channel();
            inbox.send(input(part, answer)).await.ok()?;
            waiting.push(answered);
        }
        let mut answers = Vec::with_capacity(waiting.len());
        for answered in waiting {
            answers.push(answered.await.ok()?);
        }
        Some(answers)
    }

    /// Asks all shards the same.
    pub(super) async fn ask_all<A>(
        &self,
        input: impl Fn(oneshot::Sender<A>) -> ShardInput,
    ) -> Option<Vec<A>> {
        let parts = (0..self.inboxes.len()).map(|_| ());
        self.ask(parts, |(), answer| input(answer)).await
    }

    /// Asks each shard for its part; gives the answers of those that answer in time.
    pub(super) async fn ask_in_time<P, A>(
        &self,
        parts: impl IntoIterator<Item = P>,
        patience: Duration,
        input: impl Fn(P, oneshot::Sender<A>) -> ShardInput,
    ) -> Vec<A> {
        let asked = self.inboxes.iter().zip(parts).map(|(inbox, part)| {
            let (answer, answered) = oneshot::channel();
            let input = input(part, answer);
            timeout(patience, async move {
                inbox.send(input).await.ok()?;
                answered.await.ok()
            })
        });
        let answers = join_all(asked).await.into_iter();
        answers.filter_map(Result::ok).flatten().collect()
    }
}
