use std::sync::Arc;

use confab_protocol::frame::{Hello, Welcome};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{ChangeQueue, Driver, DriverCommand};
use crate::resuming::connect::{ConnectAttempt, ConnectError, Connector};
use crate::resuming::handshake::HandshakeResult;
use crate::resuming::positions::Positions;
use crate::resuming::sends::Sends;
use crate::resuming::{Change, CurrentSession, EventCounts, ResumeError, ResumeOptions};
use crate::ws::Ws;

impl Driver {
    /// Tries gateways until the first welcome.
    pub(in crate::resuming) async fn open(
        options: ResumeOptions,
        commands: mpsc::Receiver<DriverCommand>,
        changes: mpsc::Sender<Change>,
        counts: Arc<EventCounts>,
    ) -> Result<(Self, watch::Receiver<CurrentSession>), ResumeError> {
        if options.urls.is_empty() {
            return Err(ResumeError::NoGateway);
        }
        let options = Arc::new(options);
        let positions = Positions::from_before(&options.seen);
        let hello = Hello {
            seen: options.says_seen.then(|| positions.all()),
            heads: options.says_seen.then_some(true),
            presence: options.asks_presence.then_some(true),
            ..Hello::default()
        };
        let mut dialer = Connector::new(Arc::clone(&options));
        let (url, welcomed) = Box::pin(first(&options, &mut dialer, &hello)).await?;
        let (welcome, ws) = *welcomed;
        let (standing, stands) = watch::channel(CurrentSession {
            session_id: welcome.session_id,
            closed: None,
        });
        let mut driver = Self {
            commands,
            told: ChangeQueue::new(changes),
            counts,
            standing,
            link: None,
            dialer,
            sends: Sends::new(options.patience),
            positions,
            resume_token: None,
            presence: None,
            say_at: None,
            asked: JoinSet::new(),
            ask_at: None,
            leaving: None,
            options,
        };
        driver.welcomed(url, welcome, ws, Instant::now());
        Ok((driver, stands))
    }
}

/// The first welcome, over as many tries as its time allows.
async fn first(
    options: &ResumeOptions,
    dialer: &mut Connector,
    hello: &Hello,
) -> Result<(String, Box<(Welcome, Ws)>), ResumeError> {
    let end = Instant::now() + options.opening;
    let mut last = ResumeError::Timeout(options.opening);
    loop {
        dialer.start(hello.clone());
        let Ok(ConnectAttempt {
            url,
            token,
            outcome,
        }) = tokio::time::timeout_at(end, dialer.next()).await
        else {
            return Err(last);
        };
        let error = match outcome {
            Ok(welcomed) => {
                dialer.welcomed(token);
                return Ok((url, welcomed));
            }
            Err(error) => error,
        };
        let due = dialer.again(HandshakeResult::of_failure(&error), token, Instant::now());
        last = match error {
            // The refusal says more.
            ConnectError::NoOther => return Err(last),
            ConnectError::Token(source) => ResumeError::Token(source),
            ConnectError::Ws(error) => ResumeError::Ws(error),
        };
        match due {
            Some(due) if due < end => tokio::time::sleep_until(due).await,
            Some(_) | None => return Err(last),
        }
    }
}
