//! Many members that send concurrently over both transports and retry.

use std::sync::Arc;
use std::time::Duration;

use confab_client::{ClientError, NewMessage, SendError};
use confab_protocol::ids::{ClientId, ConversationId, Seq, UserId};
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Member, text};

/// Sends of one member over one transport that are on their way at the same time.
const IN_FLIGHT: usize = 8;
/// How long a send is tried again before the test fails.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// How long is waited between two tries.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// An acknowledged message.
#[derive(Debug, Clone)]
pub(crate) struct AckedMessage {
    pub(crate) conversation: ConversationId,
    pub(crate) sender: UserId,
    pub(crate) client_id: ClientId,
    pub(crate) words: String,
    pub(crate) seq: Seq,
}

/// Over which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    WebSocket,
    Http,
}

/// Messages to be sent, by sender and transport.
#[derive(Default)]
pub(crate) struct Traffic {
    queues: Vec<(Arc<Member>, Transport, Vec<Parcel>)>,
}

struct Parcel {
    conversation: ConversationId,
    client_id: ClientId,
    words: String,
}

impl Traffic {
    /// `count` messages, dealt in turn to the conversations, to their members, and to both transports.
    pub(crate) fn deal(count: usize, groups: &[(ConversationId, Vec<Arc<Member>>)]) -> Self {
        let mut traffic = Self::default();
        for number in 0..count {
            let (round, group) = (number / groups.len(), number % groups.len());
            let (conversation, members) = &groups[group];
            let member = &members[round % members.len()];
            let transport = match (round / members.len()) % 2 {
                0 => Transport::WebSocket,
                _ => Transport::Http,
            };
            let parcel = Parcel {
                conversation: *conversation,
                client_id: ClientId(Uuid::now_v7()),
                words: format!("message {number}"),
            };
            traffic.queue(member, transport).push(parcel);
        }
        traffic
    }

    fn queue(&mut self, member: &Arc<Member>, transport: Transport) -> &mut Vec<Parcel> {
        let same = |(queued, over, _): &(Arc<Member>, _, _)| {
            Arc::ptr_eq(queued, member) && *over == transport
        };
        let place = self.queues.iter().position(same).unwrap_or_else(|| {
            let queue = (Arc::clone(member), transport, Vec::new());
            self.queues.push(queue);
            self.queues.len() - 1
        });
        &mut self.queues[place].2
    }

    /// Sends everything, all senders at once, and gives what was acknowledged: everything.
    pub(crate) async fn run(self) -> Vec<AckedMessage> {
        let mut senders = JoinSet::new();
        for (member, transport, parcels) in self.queues {
            senders.spawn(async move {
                let sends = parcels
                    .into_iter()
                    .map(|parcel| deliver(&member, transport, parcel));
                stream::iter(sends)
                    .buffered(IN_FLIGHT)
                    .collect::<Vec<_>>()
                    .await
            });
        }
        senders.join_all().await.concat()
    }
}

/// Tries until it is acknowledged: the client id makes that safe.
async fn deliver(member: &Member, transport: Transport, parcel: Parcel) -> AckedMessage {
    let until = Instant::now() + SEND_TIMEOUT;
    loop {
        match attempt(member, transport, &parcel).await {
            Ok(seq) => {
                return AckedMessage {
                    conversation: parcel.conversation,
                    sender: member.id.clone(),
                    client_id: parcel.client_id,
                    words: parcel.words,
                    seq,
                };
            }
            Err(refusal) => assert!(
                Instant::now() < until,
                "{} over {transport:?}: {refusal}",
                member.id
            ),
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

/// The seq, or why it is worth another try.
async fn attempt(member: &Member, transport: Transport, parcel: &Parcel) -> Result<Seq, String> {
    match transport {
        Transport::WebSocket => over_websocket(member, parcel).await,
        Transport::Http => over_http(member, parcel).await,
    }
}

async fn over_websocket(member: &Member, parcel: &Parcel) -> Result<Seq, String> {
    let body = text(&parcel.words);
    let submitted = member
        .session
        .submit(parcel.client_id, parcel.conversation, body);
    let answer = match submitted.await {
        Ok(pending) => pending.ack().await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(ack) => Ok(ack.seq),
        Err(SendError::Refused(error)) if error.code.retryable() => Err(error.code.to_string()),
        Err(error) => panic!("{}: {error}", member.id),
    }
}

async fn over_http(member: &Member, parcel: &Parcel) -> Result<Seq, String> {
    let message = NewMessage {
        conversation_id: parcel.conversation,
        client_id: Some(parcel.client_id),
        body: text(&parcel.words),
    };
    match member.http.send_message(&message).await {
        Ok(sent) => Ok(sent.answer.seq),
        Err(ClientError::Problem(problem)) if problem.code.retryable() => {
            Err(problem.code.to_string())
        }
        Err(error) => panic!("{}: {error:?}", member.id),
    }
}
