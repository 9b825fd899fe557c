//! Conversations' logs, read over HTTP from whichever gateway answers.

use std::time::Duration;

use confab_client::{ClientError, Http};
use confab_protocol::event::Event;
use confab_protocol::ids::{ConversationId, Seq};

/// Events in a page at most.
const MAX_PAGE_EVENTS: u32 = 1000;
/// How often a page is asked for.
const MAX_PAGE_ATTEMPTS: u32 = 10;
/// How long to wait before the next try, where nobody named a time.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The longest such time that is waited for.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(10);

pub(super) struct LogReader {
    gateways: Vec<Http>,
}

/// What became of a page.
pub(super) enum Read {
    /// What is above, some of it.
    Events(Vec<Event>),
    /// Nobody may read it any more, or nothing is there.
    Never(String),
    /// No gateway answered it.
    NotNow(String),
}

impl LogReader {
    pub(super) fn new(urls: &[String], token: &str) -> Result<Self, ClientError> {
        let gateways = urls.iter().map(|url| Http::new(url, token));
        Ok(Self {
            gateways: gateways.collect::<Result<_, _>>()?,
        })
    }

    pub(super) async fn after(&self, conversation: ConversationId, after: Seq) -> Read {
        let mut why = "no gateway is named".to_owned();
        let gateways = self.gateways.iter().cycle().zip(0..MAX_PAGE_ATTEMPTS);
        for (gateway, tried) in gateways {
            if tried > 0 {
                tokio::time::sleep(RETRY_DELAY).await;
            }
            match gateway
                .events_page(conversation, after, MAX_PAGE_EVENTS)
                .await
            {
                Ok(page) if page.events.is_empty() => {
                    return Read::Never("the log ends before".to_owned());
                }
                Ok(page) => return Read::Events(page.events),
                Err(ClientError::Problem(problem)) if !problem.code.retryable() => {
                    return Read::Never(problem.to_string());
                }
                Err(ClientError::Problem(problem)) => {
                    let wait = problem.retry_after.unwrap_or_default().min(MAX_RETRY_DELAY);
                    why = problem.to_string();
                    tokio::time::sleep(wait).await;
                }
                Err(error) => why = error.to_string(),
            }
        }
        Read::NotNow(why)
    }
}
