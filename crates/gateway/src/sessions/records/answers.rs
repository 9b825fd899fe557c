//! What other gateways tell and ask about sessions, answered from memory.

use std::time::{Duration, Instant};

use confab_bus::BusError;
use confab_bus::records::{RecordQueries, RecordRequest};
use confab_protocol::chain::chain;
use tracing::{debug, info, warn};

use super::Records;

/// How soon a subscription that was refused is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

impl Records {
    /// Answers for ever.
    pub(super) async fn answer(&self) {
        let own = self.0.gateways.id();
        loop {
            match self.0.bus.record_queries(own).await {
                Ok(mut questions) => {
                    while let Some(asked) = questions.next().await {
                        if let Err(error) = self.answer_one(&questions, asked).await {
                            debug!(error = %chain(&error), "a question about a session was not answered");
                        }
                    }
                }
                Err(error) => {
                    debug!(error = %chain(&error), "questions about sessions cannot be heard yet");
                }
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn answer_one(
        &self,
        questions: &RecordQueries,
        asked: RecordRequest,
    ) -> Result<(), BusError> {
        match asked {
            RecordRequest::Fence(fence) => {
                let replaced = self.change(|table| table.fence(fence));
                self.fenced(replaced);
                Ok(())
            }
            RecordRequest::TakeOver(asked, reply) => {
                let now = Instant::now();
                let (answer, replaced) =
                    self.change(|table| table.let_go(asked.session, &asked.hash, now));
                info!(session.id = %asked.session, ?answer, "another gateway asks for a session");
                self.fenced(replaced);
                questions.answer(reply, answer).await
            }
            RecordRequest::Record(session, reply) => {
                let held = self.lock().entry(session);
                questions.tell(reply, held).await
            }
            RecordRequest::Malformed => {
                if self.0.metrics.malformed() {
                    warn!(
                        "a message is no question about records of ours; such are skipped and counted"
                    );
                }
                Ok(())
            }
        }
    }
}
