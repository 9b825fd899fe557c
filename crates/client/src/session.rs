use std::sync::Arc;
use std::time::Duration;

use confab_protocol::event::Event;
use confab_protocol::frame::{
    Ack, Auth, ClientFrame, Delete, Edit, ErrorFrame, Goaway, Plain, PresenceSignal,
    PresenceSnapshot, Read, ReceiptSignal, Send, SetPresence, TokenExpiring, Typing, TypingSignal,
    Welcome,
};
use confab_protocol::ids::{ClientId, ConversationId, EventId, Seq};
use confab_protocol::resource::{MessageBody, MessageContent};
use confab_protocol::signal::PresenceStatus;
use confab_protocol::timestamp::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

pub(crate) mod driver;
mod sends;
#[cfg(test)]
mod tests;

use crate::ws::{Closed, Options, Ws, WsError};
use sends::UnackedSends;

/// Notices that wait for the program before the socket is read no further.
const NOTICE_QUEUE_CAPACITY: usize = 1024;
/// Frames that wait for the socket before a send waits.
const FRAME_QUEUE_CAPACITY: usize = 1024;
/// Time that an acknowledgement may take.
const ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// Time that the gateway may take to answer a bye.
const BYE_TIMEOUT: Duration = Duration::from_secs(5);

/// An event of a session, in the order received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// An event, each once and in order (docs/protocol/delivery.md, "Order and acknowledgements").
    Event(Event),
    /// The gateway asks to connect elsewhere.
    Goaway(Goaway),
    /// A member types, or stopped to.
    Typing(TypingSignal),
    /// A member has read.
    Receipt(ReceiptSignal),
    /// A user came, went away or left.
    Presence(PresenceSignal),
    /// Who is there, where the hello asked for it.
    PresenceSnapshot(PresenceSnapshot),
    /// The token ends soon: [`Session::renew`] takes a fresh one.
    TokenExpiring(TokenExpiring),
    /// A refusal that answers no send.
    Error(ErrorFrame),
    /// The end: nothing follows.
    Closed(Closed),
}

/// Why a send is not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The service refused. The outcome is known, but for the code `TIMEOUT`.
    #[error("refused: {}: {}", .0.code, .0.detail)]
    Refused(Box<ErrorFrame>),
    /// The connection ended first. The outcome is unknown.
    #[error("the connection ended before the answer")]
    Closed(#[source] Closed),
    /// No answer in time. The outcome is unknown.
    #[error("no answer in time")]
    Timeout,
    /// An acknowledgement came that lacks what the contract names.
    #[error("an acknowledgement without its seq")]
    Foreign,
}

/// A stored message, edit or deletion.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// The message's id.
    pub message_id: EventId,
    /// The event's number.
    pub seq: Seq,
    /// When it was stored.
    pub created_at: Timestamp,
    /// True if it was stored before.
    pub duplicate: bool,
}

impl Stored {
    fn of(ack: &Ack) -> Result<Self, SendError> {
        let (Some(message_id), Some(seq), Some(created_at)) =
            (ack.message_id, ack.seq, ack.created_at)
        else {
            return Err(SendError::Foreign);
        };
        Ok(Self {
            message_id,
            seq,
            created_at,
            duplicate: ack.duplicate,
        })
    }
}

/// The sending side of an open session. The connection ends when it is dropped, and may be resumed; [`Self::bye`] ends
/// the session for good.
#[derive(Debug)]
pub struct Session {
    welcome: Welcome,
    frames: mpsc::Sender<ClientFrame>,
    sends: Arc<UnackedSends>,
    closed: watch::Receiver<Option<Closed>>,
    _tasks: JoinSet<()>,
}

/// The hearing side of an open session. Who takes its notices too slowly stops the reading of the socket, and with it
/// the acknowledgements; who drops it hears no more, and sends on.
#[derive(Debug)]
pub struct Events {
    notices: mpsc::Receiver<Notice>,
}

impl Events {
    /// Waits for what happens next; nothing comes after [`Notice::Closed`].
    pub async fn next(&mut self) -> Option<Notice> {
        self.notices.recv().await
    }
}

/// A send on its way.
#[derive(Debug)]
pub struct Pending {
    answer: oneshot::Receiver<Result<Ack, SendError>>,
    patience: Duration,
}

/// The channel that an answer goes to.
pub(crate) type Answer = oneshot::Sender<Result<Ack, SendError>>;

impl Pending {
    /// Returns what waits so long for what is answered.
    pub(crate) fn within(patience: Duration) -> (Answer, Self) {
        let (answered, answer) = oneshot::channel();
        (answered, Self { answer, patience })
    }

    /// Waits for the acknowledgement of something stored.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ack(self) -> Result<Stored, SendError> {
        Stored::of(&self.done().await?)
    }

    pub(crate) async fn done(self) -> Result<Ack, SendError> {
        match tokio::time::timeout(self.patience, self.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(SendError::Timeout),
        }
    }
}

impl Session {
    /// Connects to the gateway at `url` and opens a session there.
    ///
    /// # Errors
    /// As [`Ws::connect`].
    pub async fn open(url: &str, options: Options) -> Result<(Self, Events), WsError> {
        let (welcome, ws) = Ws::connect(url, options).await?;
        let (sender, receiver) = ws.split();
        let (frames, queued) = mpsc::channel(FRAME_QUEUE_CAPACITY);
        let (notify, notices) = mpsc::channel(NOTICE_QUEUE_CAPACITY);
        let (ended, closed) = watch::channel(None);
        let sends = Arc::new(UnackedSends::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(driver::write(sender, queued));
        tasks.spawn(driver::read(receiver, Arc::clone(&sends), notify, ended));
        let session = Self {
            welcome,
            frames,
            sends,
            closed,
            _tasks: tasks,
        };
        Ok((session, Events { notices }))
    }

    /// Returns what the gateway said at the opening.
    #[must_use]
    pub const fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Sends a message and waits for its acknowledgement.
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

    /// Hands a message to the connection without waiting for its acknowledgement. What is submitted to one conversation
    /// is stored in the order submitted. Of two sends with one `id` at the same time only the later hears the answer.
    ///
    /// # Errors
    /// [`SendError::Closed`] when the connection has ended.
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
        self.expect(id.to_string(), frame).await
    }

    /// Replaces a message's content and waits for the acknowledgement.
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
        self.expect(id, frame).await?.ack().await
    }

    /// Deletes a message and waits for the acknowledgement.
    ///
    /// # Errors
    /// Why there is none.
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
        self.expect(id, frame).await?.ack().await
    }

    /// Moves the read mark of a conversation forward; gives where it stands.
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
        let ack = self.expect(id, frame).await?.done().await?;
        ack.seq.ok_or(SendError::Foreign)
    }

    /// Renews the session's token with one for the same user and device.
    ///
    /// # Errors
    /// Why there is no acknowledgement.
    pub async fn renew(&self, token: &str) -> Result<(), SendError> {
        let id = Uuid::now_v7().to_string();
        let frame = ClientFrame::Auth(Auth {
            id: Some(id.clone()),
            token: token.to_owned(),
        });
        self.expect(id, frame).await?.done().await.map(|_| ())
    }

    /// Says that the user types, or stopped to; a refusal comes as [`Notice::Error`].
    pub async fn typing(&self, conversation: ConversationId, on: bool) {
        let frame = ClientFrame::Typing(Typing {
            id: None,
            conversation_id: conversation,
            on,
        });
        let _gone = self.frames.send(frame).await.is_err();
    }

    /// Says whether the user is there; a refusal comes as [`Notice::Error`].
    pub async fn presence(&self, status: PresenceStatus) {
        let frame = ClientFrame::Presence(SetPresence { id: None, status });
        let _gone = self.frames.send(frame).await.is_err();
    }

    async fn expect(&self, id: String, frame: ClientFrame) -> Result<Pending, SendError> {
        let (answer, pending) = Pending::within(ACK_TIMEOUT);
        self.sends.expect(id, answer)?;
        // An error means that the connection is gone, which the answer says as soon as the reader has noticed.
        let _gone = self.frames.send(frame).await.is_err();
        Ok(pending)
    }

    /// Returns how many events were ignored because their seq was not above the last one of their conversation.
    #[must_use]
    pub fn ignored(&self) -> u64 {
        self.sends.ignored()
    }

    /// Returns how the connection ended, once it has.
    #[must_use]
    pub fn is_closed(&self) -> Option<Closed> {
        self.closed.borrow().clone()
    }

    /// Ends the session for good and waits for the gateway's close, for five seconds at most.
    ///
    /// # Errors
    /// When no close came in that time.
    pub async fn bye(mut self) -> Result<Closed, SendError> {
        let bye = ClientFrame::Bye(Plain::default());
        let _gone = self.frames.send(bye).await.is_err();
        let closed = self.closed.wait_for(Option::is_some);
        match tokio::time::timeout(BYE_TIMEOUT, closed).await {
            Ok(Ok(closed)) => closed.clone().ok_or(SendError::Timeout),
            Ok(Err(_)) | Err(_) => Err(SendError::Timeout),
        }
    }
}
