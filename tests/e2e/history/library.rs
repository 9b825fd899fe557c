//! A client on the resuming library; what the library reports must be without error.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use confab_client::{Change, Changes, Http, Pending, ResumeOptions, Resuming, SendError, Stored};
use confab_protocol::frame::{ClientFrame, Truncated};
use confab_protocol::ids::ConversationId;
use tokio::time::sleep;

use super::client::{FrameAnswer, Profile};
use super::driver::read;
use super::record::{
    ClientAccount, Generation, Positions, Presence, ReceivedEvent, ReceivedItem, now,
};
use crate::support::User;

/// What stands between two tries to open the session.
const RECONNECT_DELAY: Duration = Duration::from_millis(200);

/// The longest wait before a try: what is owed after a fault is there within ten seconds.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// How long a gateway may take until its welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the library for what a frame says, and gives its answer.
pub(super) async fn ask(resuming: &Resuming, frame: ClientFrame) -> FrameAnswer {
    let stored: Result<Stored, SendError> = match frame {
        ClientFrame::Send(send) => {
            let submitted = resuming.submit(send.id.key(), send.conversation_id, send.body);
            match submitted.await {
                Ok(pending) => Pending::ack(pending).await,
                Err(error) => Err(error),
            }
        }
        ClientFrame::Edit(edit) => {
            let content = edit.content.unwrap_or_default();
            let edited = resuming.edit(edit.conversation_id, edit.message_id, content);
            edited.await
        }
        ClientFrame::Delete(delete) => {
            let deleted = resuming.delete(delete.conversation_id, delete.message_id);
            deleted.await
        }
        other => panic!("nobody asks for {other:?}"),
    };
    match stored {
        Ok(stored) => FrameAnswer::Done(stored.message_id, stored.seq),
        Err(SendError::Refused(error)) => FrameAnswer::Refused(error),
        Err(SendError::Closed(_) | SendError::Timeout | SendError::Foreign) => FrameAnswer::Broken,
    }
}

/// Opens a session, from the `first` gateway on.
pub(super) async fn open(user: &User, profile: &Profile, first: usize) -> (Resuming, Changes) {
    let mut urls = profile.urls.clone();
    let first = first % urls.len();
    urls.rotate_left(first);
    loop {
        let options = ResumeOptions {
            says_seen: profile.says_seen,
            asks_presence: true,
            min_backoff: RECONNECT_DELAY,
            max_backoff: MAX_RECONNECT_DELAY,
            timeout: WELCOME_TIMEOUT,
            ..ResumeOptions::new(urls.clone(), user.token.as_str())
        };
        if let Ok(opened) = Resuming::open(options).await {
            return opened;
        }
        sleep(RECONNECT_DELAY).await;
    }
}

/// Writes down what the library tells, and reads what was truncated.
pub(super) async fn keep(
    resuming: Arc<Resuming>,
    mut changes: Changes,
    readers: Vec<Http>,
    account: Arc<Mutex<ClientAccount>>,
) {
    let mut keeper = Keeper {
        account,
        last: Positions::new(),
        truncated: Positions::new(),
    };
    while let Some(change) = changes.next().await {
        if let Some(truncated) = keeper.note(change) {
            let (conversation, head) = (truncated.conversation_id, truncated.head_seq);
            let range = read(readers.clone(), conversation, truncated.from_seq, head).await;
            keeper.has_read(range);
            resuming.seen([(conversation, head)].into()).await;
        }
    }
}

struct Keeper {
    account: Arc<Mutex<ClientAccount>>,
    last: Positions,
    /// Up to where ranges were named on this connection: what of them comes after all is ignored.
    truncated: Positions,
}

impl Keeper {
    /// Notes a change, and gives the range that is to be read.
    fn note(&mut self, change: Change) -> Option<Truncated> {
        let mut account = self.account.lock().unwrap();
        let generation = account.generations.last_mut();
        match change {
            Change::Connected {
                resumed, reason, ..
            } => {
                self.truncated.clear();
                account.generations.push(Generation {
                    resumed,
                    reason,
                    said: Some(self.last.clone()),
                    welcomed_at: now(),
                    ..Generation::default()
                });
            }
            Change::Disconnected(closed) => {
                generation
                    .into_iter()
                    .for_each(|generation| generation.ended = Some(closed.to_string()));
            }
            Change::Event(event) => {
                let told = ReceivedEvent::from(&event);
                let named = self.truncated.get(&told.conversation);
                if named.is_none_or(|head| told.seq > *head) {
                    self.last.insert(told.conversation, told.seq);
                    generation.unwrap().heard.push(ReceivedItem::Event(told));
                }
            }
            Change::Truncated(truncated) => {
                let (conversation, head) = (truncated.conversation_id, truncated.head_seq);
                raise(&mut self.truncated, conversation, head);
                raise(&mut self.last, conversation, head);
                generation.unwrap().heard.push(ReceivedItem::Truncated {
                    conversation,
                    from: truncated.from_seq,
                    head,
                    reset: truncated.reset.unwrap_or_default(),
                });
                return Some(truncated);
            }
            Change::Closed(closed) => account.trouble = Some(closed.to_string()),
            Change::Receipt(receipt) => generation.unwrap().heard.push(ReceivedItem::Receipt {
                conversation: receipt.conversation_id,
                user: receipt.user_id,
                up_to: receipt.up_to_seq,
            }),
            Change::Presence(presence) => {
                let heard = ReceivedItem::Presence(Presence::told(&presence));
                generation.unwrap().heard.push(heard);
            }
            Change::PresenceSnapshot(snapshot) => {
                generation
                    .unwrap()
                    .heard
                    .push(ReceivedItem::snapshot(&snapshot));
            }
            Change::Typing(_) | Change::Goaway(_) | Change::Error(_) => {}
        }
        None
    }

    fn has_read(&self, (conversation, head, events): super::driver::Range) {
        let mut account = self.account.lock().unwrap();
        let generation = account.generations.last_mut().unwrap();
        generation.heard.push(ReceivedItem::Read {
            conversation,
            head,
            events,
        });
    }
}

fn raise(positions: &mut Positions, conversation: ConversationId, seq: u64) {
    let position = positions.entry(conversation).or_default();
    *position = seq.max(*position);
}
