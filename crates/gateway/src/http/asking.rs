//! Turns for requests that every gateway is asked for: each takes as long as the slowest of them, and costs all of them something.

use std::sync::Arc;
use std::time::Duration;

use confab_protocol::error::{Code, Failure};
use confab_protocol::fair::Owner;
use tokio::time::timeout;

use crate::limits::permits::{FairPermit, FairPermits};

/// Such questions at once.
const MAX_ASKING: usize = 16;
/// How long one waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// When one that had none may come again, in milliseconds.
const RETRY_DELAY_MS: u64 = 1000;

/// The turns. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct AskingAll(Arc<FairPermits>);

impl AskingAll {
    pub(crate) fn new() -> Self {
        Self(FairPermits::new(MAX_ASKING))
    }

    /// Waits for the turn of an owner, which lasts until what is given is dropped.
    ///
    /// # Errors
    /// `OVERLOADED` when it does not come in time.
    pub(super) async fn turn(&self, owner: &Owner) -> Result<FairPermit, Failure> {
        match timeout(TURN_TIMEOUT, self.0.acquire(owner)).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => {
                let many = "too many requests wait for the other gateways";
                Err(Failure::new(Code::Overloaded, many).retry_after(RETRY_DELAY_MS))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn flood_of_one_user_leaves_others_their_turn() {
        let owner = |user: &str| Owner {
            tenant: "t".parse().unwrap(),
            user: user.parse().unwrap(),
        };
        let asking = AskingAll::new();
        let loud = owner("loud");
        let flood = join_all((0..1000).map(|_| asking.turn(&loud)));
        let (turns, quiet) = tokio::join!(flood, async {
            let quiet = owner("quiet");
            timeout(Duration::from_secs(1), asking.turn(&quiet)).await
        });
        assert!(quiet.is_ok_and(|turn| turn.is_ok()));
        let refused = turns.iter().filter_map(|turn| turn.as_ref().err());
        let refused: Vec<_> = refused.map(|failure| failure.code).collect();
        assert!(refused.len() >= 1000 - MAX_ASKING, "{}", refused.len());
        assert!(refused.iter().all(|code| *code == Code::Overloaded));
    }
}
