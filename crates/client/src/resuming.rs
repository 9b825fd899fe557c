//! A session that goes on by itself: it resumes at another gateway when its connection ends, tells each event once and in
//! order across connections, and keeps what is sent until it is acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use confab_protocol::error::{Code, Failure};
use confab_protocol::frame::{
    ClientFrame, Delete, Edit, ErrorFrame, Read, Send, SetPresence, Typing,
};
use confab_protocol::ids::{ClientId, ConversationId, EventId, Seq, SessionId};
use confab_protocol::limits;
use confab_protocol::resource::{MessageBody, MessageContent};
use confab_protocol::signal::PresenceStatus;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

mod backoff;
mod change;
mod connect;
mod driver;
mod handshake;
mod options;
mod positions;
mod sends;

use crate::session::{Pending, SendError, Stored};
use crate::ws::Closed;
pub use change::{Change, Changes, ResumeError};
use driver::{Driver, DriverCommand};
pub use options::{ResumeOptions, TokenSource};
use sends::{PendingSend, Room};

/// Changes that wait for the program before the socket is read no further.
const CHANGE_QUEUE_CAPACITY: usize = 1024;
/// Commands that wait for the driver; sends are bounded before.
const COMMAND_QUEUE_CAPACITY: usize = 256;
/// Sends that are kept, over all conversations, before a further one waits.
const MAX_KEPT_SENDS: usize = 4096;
/// Bytes of sends that are kept before a further one waits.
const MAX_KEPT_SEND_BYTES: usize = 32 * 1024 * 1024;
/// How much later than the driver who waits for an answer gives it up.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);
/// Time that the gateway may take to answer a bye.
const BYE_TIMEOUT: Duration = Duration::from_secs(5);

/// The counts that the program may read while a session runs.
#[derive(Debug, Default)]
struct EventCounts {
    reconnects: AtomicU64,
    ignored: AtomicU64,
}

/// The current id of a session, and its end.
#[derive(Debug, Clone)]
struct CurrentSession {
    session_id: SessionId,
    closed: Option<Closed>,
}

/// The sending side of a session that goes on by itself. The connection ends when it is dropped; [`Self::bye`] ends the
/// session for good.
#[derive(Debug)]
pub struct Resuming {
    commands: mpsc::Sender<DriverCommand>,
    standing: watch::Receiver<CurrentSession>,
    counts: Arc<EventCounts>,
    room: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    patience: Duration,
    _tasks: JoinSet<()>,
}

impl Resuming {
    /// Opens a session and waits for its first welcome; its [`Change::Connected`] is the first change.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn open(options: ResumeOptions) -> Result<(Self, Changes), ResumeError> {
        let patience = options.patience;
        let (commands, asked) = mpsc::channel(COMMAND_QUEUE_CAPACITY);
        let (tell, changes) = mpsc::channel(CHANGE_QUEUE_CAPACITY);
        let counts = Arc::new(EventCounts::default());
        let (driver, standing) =
            Box::pin(Driver::open(options, asked, tell, Arc::clone(&counts))).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(driver.run());
        let resuming = Self {
            commands,
            standing,
            counts,
            room: Arc::new(Semaphore::new(MAX_KEPT_SENDS)),
            bytes: Arc::new(Semaphore::new(MAX_KEPT_SEND_BYTES)),
            patience,
            _tasks: tasks,
        };
        Ok((resuming, Changes::of(changes)))
    }

    /// Sends a message and waits for its acknowledgement, over as many connections as it takes.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn send(
        &self,
        conversation: ConversationId,
        body: MessageBody,
    ) -> Result<Stored, SendError> {
        let id = ClientId(Uuid::now_v7());
        self.submit(id, conversation, body).await?.ack().await
    }

    /// Hands a message over without waiting for its acknowledgement. What is submitted to one conversation is stored in
    /// the order submitted, each when the one before has its answer; [`crate::Session`] does not wait for that.
    ///
    /// # Errors
    /// When the session has ended, or the message is too large for a frame.
    pub async fn submit(
        &self,
        id: ClientId,
        conversation: ConversationId,
        body: MessageBody,
    ) -> Result<Pending, SendError> {
        let frame = ClientFrame::Send(Send {
            id: id.into(),
            conversation_id: conversation,
            body,
        });
        self.keep(id.to_string(), frame).await
    }

    /// Replaces a message's content and waits for the acknowledgement, over as many connections as it takes, in one order
    /// with the sends to the conversation. The id of its frame is its key: a repeat changes nothing, whatever became of
    /// the message meanwhile.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn edit(
        &self,
        conversation: ConversationId,
        message: EventId,
        content: MessageContent,
    ) -> Result<Stored, SendError> {
        let id = Uuid::now_v7().to_string();
        let frame = ClientFrame::Edit(Edit {
            id: Some(id.clone()),
            conversation_id: conversation,
            message_id: message,
            if_version: None,
            content: Some(content),
            metadata: None,
        });
        self.keep(id, frame).await?.ack().await
    }

    /// Deletes a message and waits for the acknowledgement, as [`Self::edit`] does.
    ///
    /// # Errors
    /// As [`Self::edit`].
    pub async fn delete(
        &self,
        conversation: ConversationId,
        message: EventId,
    ) -> Result<Stored, SendError> {
        let id = Uuid::now_v7().to_string();
        let frame = ClientFrame::Delete(Delete {
            id: Some(id.clone()),
            conversation_id: conversation,
            message_id: message,
            if_version: None,
        });
        self.keep(id, frame).await?.ack().await
    }

    /// Moves the read mark of a conversation forward, over as many connections as it takes; gives where it stands.
    ///
    /// # Errors
    /// Why there is no acknowledgement.
    pub async fn read(
        &self,
        conversation: ConversationId,
        up_to_seq: Seq,
    ) -> Result<Seq, SendError> {
        let id = Uuid::now_v7().to_string();
        let frame = ClientFrame::Read(Read {
            id: Some(id.clone()),
            conversation_id: conversation,
            up_to_seq,
        });
        let ack = self.keep(id, frame).await?.done().await?;
        ack.seq.ok_or(SendError::Foreign)
    }

    /// Uses another token for the same user and device from now on, on the connection that is and on those to come.
    ///
    /// # Errors
    /// Why it is not acknowledged.
    pub async fn renew(&self, token: &str) -> Result<(), SendError> {
        let (answer, pending) = Pending::within(self.patience);
        let token = token.to_owned();
        self.command(DriverCommand::Renew { token, answer }).await?;
        pending.done().await.map(|_| ())
    }

    /// Says that the user types, or stopped to; without a connection nobody is told. A refusal comes as [`Change::Error`].
    pub async fn typing(&self, conversation: ConversationId, on: bool) {
        let frame = ClientFrame::Typing(Typing {
            id: None,
            conversation_id: conversation,
            on,
        });
        let _gone = self.command(DriverCommand::Say(frame)).await.is_err();
    }

    /// Says whether the user is there, now and on every connection to come.
    pub async fn presence(&self, status: PresenceStatus) {
        let frame = ClientFrame::Presence(SetPresence { id: None, status });
        let _gone = self.command(DriverCommand::Say(frame)).await.is_err();
    }

    /// Says up to where the program holds conversations' logs without a gap, which it must after it has read a
    /// [`Change::Truncated`] range. What is not above is not told any more.
    pub async fn seen(&self, positions: BTreeMap<ConversationId, Seq>) {
        let _gone = self.command(DriverCommand::Seen(positions)).await.is_err();
    }

    /// The session, which stays the same while it is resumed.
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        self.standing.borrow().session_id
    }

    /// Returns how many welcomes came after the first.
    #[must_use]
    pub fn reconnects(&self) -> u64 {
        self.counts.reconnects.load(Ordering::Relaxed)
    }

    /// Returns how many events were ignored because their seq was not above the last one of their conversation.
    #[must_use]
    pub fn ignored(&self) -> u64 {
        self.counts.ignored.load(Ordering::Relaxed)
    }

    /// Returns how the session ended, once it has.
    #[must_use]
    pub fn is_closed(&self) -> Option<Closed> {
        self.standing.borrow().closed.clone()
    }

    /// Ends the session for good and waits for the gateway's close, for five seconds at most. What is not acknowledged
    /// is given up.
    ///
    /// # Errors
    /// When no close came in that time.
    pub async fn bye(mut self) -> Result<Closed, SendError> {
        let _gone = self.command(DriverCommand::Bye).await.is_err();
        let ended = self.standing.wait_for(|standing| standing.closed.is_some());
        match tokio::time::timeout(BYE_TIMEOUT, ended).await {
            Ok(Ok(standing)) => standing.closed.clone().ok_or(SendError::Timeout),
            Ok(Err(_)) | Err(_) => Err(SendError::Timeout),
        }
    }

    /// Waits for room, and hands over what is kept until it has its answer.
    async fn keep(&self, id: String, frame: ClientFrame) -> Result<Pending, SendError> {
        let bytes = frame.encode().map_or(0, |json| json.len());
        if bytes > limits::MAX_FRAME_BYTES {
            let failure = Failure::of(Code::PayloadTooLarge);
            let error = ErrorFrame::new(Some(id), failure, String::new());
            return Err(SendError::Refused(Box::new(error)));
        }
        let room = Room::of(&self.room, &self.bytes, bytes).await;
        let (answer, pending) = Pending::within(self.patience + ANSWER_MARGIN);
        let kept = PendingSend::new(id, frame, Some(answer), room);
        self.command(DriverCommand::Keep(kept)).await?;
        Ok(pending)
    }

    async fn command(&self, command: DriverCommand) -> Result<(), SendError> {
        let handed = self.commands.send(command).await;
        handed.map_err(|_gone| {
            let closed = self.is_closed().unwrap_or_else(|| Closed {
                code: None,
                reason: "the session has ended".to_owned(),
            });
            SendError::Closed(closed)
        })
    }
}

#[cfg(test)]
mod tests;
