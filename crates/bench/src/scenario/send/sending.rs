//! Those who send: at their times, or as fast as they are answered, by WebSocket or HTTP.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use confab_client::{Http, NewMessage};
use confab_protocol::ids::{ClientId, ConversationId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::MessageBody;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::Heard;
use crate::load::{Connection, Pace, Sent, send_frame};

/// Who sends where.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    /// Which connection it has.
    pub(super) place: usize,
    pub(super) conversations: Vec<ConversationId>,
}

/// When it sends.
#[derive(Debug)]
pub(super) enum Timing {
    /// At these times, whatever became of what was sent before.
    AtPace(Pace),
    /// As soon as there is room, which answers make.
    AsTaken(Arc<Semaphore>),
}

/// How it sends.
#[derive(Debug)]
pub(super) enum Way {
    Socket(Arc<Connection>),
    /// By HTTP, and where answers are counted.
    Http(Http, Arc<Heard>),
}

/// One that sends.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) way: Way,
    pub(super) sent: Arc<Sent>,
    pub(super) text: String,
}

impl Sending {
    /// Sends to the conversations in turn, until it is ended or its connection is.
    pub(super) async fn run(self, conversations: Vec<ConversationId>, timing: Timing) {
        let mut calls = JoinSet::new();
        for (number, conversation) in (0..).zip(conversations.iter().cycle()) {
            let (intended, room) = match &timing {
                Timing::AtPace(pace) => {
                    let intended = pace.at(number);
                    sleep_until(intended).await;
                    (intended, None)
                }
                Timing::AsTaken(room) => {
                    let Ok(permit) = room.acquire().await else {
                        return;
                    };
                    // Given back when its answer comes.
                    permit.forget();
                    (Instant::now(), Some(Arc::clone(room)))
                }
            };
            let id = self.sent.next(intended);
            match &self.way {
                Way::Socket(connection) => {
                    let frame = send_frame(id, *conversation, &self.text);
                    if connection.send(frame).await.is_err() {
                        return;
                    }
                }
                Way::Http(http, heard) => {
                    let message = self.message(id, *conversation);
                    let (http, heard, sent) =
                        (http.clone(), Arc::clone(heard), Arc::clone(&self.sent));
                    calls.spawn(async move {
                        match http.send_message(&message).await {
                            Ok(_answer) => {
                                heard.acknowledged.record(sent.took(id).unwrap_or_default());
                            }
                            Err(_refused) => {
                                heard.failed.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        if let Some(room) = room {
                            room.add_permits(1);
                        }
                    });
                    while calls.try_join_next().is_some() {}
                }
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
