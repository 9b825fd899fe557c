//! What a session asked of workers and of the hub, until it is answered.

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::commands::CommandDone;

/// What is on its way. A session that asks nothing holds nothing for it.
#[derive(Default)]
pub(super) struct PendingCommands<'a>(Option<FuturesUnordered<BoxFuture<'a, CommandDone>>>);

impl<'a> PendingCommands<'a> {
    pub(super) fn push(&mut self, asked: BoxFuture<'a, CommandDone>) {
        self.0.get_or_insert_default().push(asked);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(FuturesUnordered::is_empty)
    }

    /// The next answer; none where nothing is on its way. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<CommandDone> {
        self.0.as_mut()?.next().await
    }

    /// Gives back what is held for nothing.
    pub(super) fn give_back(&mut self) {
        self.0.take_if(|asked| asked.is_empty());
    }
}
