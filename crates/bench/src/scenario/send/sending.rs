//! Those who send: at their times, or as fast as they are answered, by WebSocket or HTTP.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use confab_client::{Http, NewMessage};
use confab_protocol::ids::{ClientId, ConversationId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::MessageBody;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::prebuilt::HeardTotals;
use crate::Error;
use crate::load::{Connection, Pace, SendTimes, Timer, send_frame};

/// HTTP calls of one sender that may be open at once, at a pace as well: what is sent behind them counts from its intended time.
const MAX_OPEN_CALLS: usize = 4096;

/// Who sends where.
#[derive(Debug, Clone)]
pub(super) struct SenderPlace {
    /// Which connection it has.
    pub(super) place: usize,
    pub(super) conversations: Vec<ConversationId>,
}

/// When it sends.
#[derive(Debug)]
pub(super) enum Timing {
    /// At these times, whatever became of what was sent before.
    AtPace(Pace, Timer),
    /// As soon as there is room, which answers make.
    AsTaken(Arc<Semaphore>),
}

impl Timing {
    /// Waits for the time of the next message, and tells it; `None` at the end.
    async fn next(&self, number: u32, until: Instant) -> Result<Option<Instant>, Error> {
        let intended = match self {
            Self::AtPace(pace, timer) => {
                let intended = pace.at(number);
                if intended < until {
                    timer.until(intended).await?;
                }
                intended
            }
            Self::AsTaken(room) => {
                let Ok(permit) = room.acquire().await else {
                    return Ok(None);
                };
                // Given back when its answer comes.
                permit.forget();
                Instant::now()
            }
        };
        Ok((intended < until).then_some(intended))
    }

    fn room(&self) -> Option<Arc<Semaphore>> {
        match self {
            Self::AtPace(..) => None,
            Self::AsTaken(room) => Some(Arc::clone(room)),
        }
    }
}

/// How it sends.
#[derive(Debug)]
pub(super) enum SendTransport {
    Socket(Arc<Connection>),
    Http(Http),
}

/// One that sends.
#[derive(Debug)]
pub(super) struct SenderTask {
    pub(super) way: SendTransport,
    pub(super) sent: Arc<SendTimes>,
    pub(super) heard: Arc<HeardTotals>,
    pub(super) text: String,
    /// Messages meant for then or later are not sent.
    pub(super) until: Instant,
}

impl SenderTask {
    /// Sends to the conversations in turn, until the end or that of its connection.
    pub(super) async fn run(
        self,
        conversations: Vec<ConversationId>,
        timing: Timing,
    ) -> Result<(), Error> {
        let mut calls = JoinSet::new();
        for (number, conversation) in (0..).zip(conversations.iter().cycle()) {
            let Some(intended) = timing.next(number, self.until).await? else {
                break;
            };
            let id = self.sent.next(intended);
            match &self.way {
                SendTransport::Socket(connection) => {
                    let frame = send_frame(id, *conversation, &self.text);
                    connection.send(frame).await?;
                }
                SendTransport::Http(http) => {
                    if calls.len() >= MAX_OPEN_CALLS {
                        calls.join_next().await;
                    }
                    let message = self.message(id, *conversation);
                    calls.spawn(self.call(http.clone(), message, id, timing.room()));
                    while calls.try_join_next().is_some() {}
                }
            }
            if let Some(late) = self.sent.took(id) {
                self.heard.late.record(late);
            }
        }
        while calls.join_next().await.is_some() {}
        Ok(())
    }

    fn call(
        &self,
        http: Http,
        message: NewMessage,
        id: Uuid,
        room: Option<Arc<Semaphore>>,
    ) -> impl Future<Output = ()> + use<> {
        let (heard, sent) = (Arc::clone(&self.heard), Arc::clone(&self.sent));
        async move {
            let answer = http.send_message(&message).await;
            let took = sent.took(id);
            if answer.is_ok() {
                heard.answers.fetch_add(1, Ordering::Relaxed);
                took.into_iter()
                    .for_each(|took| heard.acknowledged.record(took));
            } else if took.is_some() {
                heard.failed.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(room) = room {
                room.add_permits(1);
            }
        }
    }

    fn message(&self, id: Uuid, conversation: ConversationId) -> NewMessage {
        NewMessage {
            conversation_id: conversation,
            client_id: Some(ClientId(id)),
            body: MessageBody {
                kind: "text".to_owned(),
                content: Some(JsonText::trusted(format!(r#"{{"text":"{}"}}"#, self.text))),
                encrypted_content: None,
                payload_size_bytes: None,
                reply_to: None,
                metadata: JsonText::empty_object(),
            },
        }
    }
}
