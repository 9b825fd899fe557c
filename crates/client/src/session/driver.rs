//! The two tasks of a session: one writes, one reads, so that neither waits for the other's side of the socket.

use std::collections::HashMap;
use std::sync::Arc;

use confab_protocol::frame::{ClientFrame, Heard, ServerFrame};
use confab_protocol::ids::{ConversationId, Seq};
use tokio::sync::{mpsc, watch};

use super::Notice;
use super::sends::UnackedSends;
use crate::ws::{Closed, WsError, WsReceiver, WsSender};

/// Writes what is queued, together where several wait. A broken connection is the reader's to report.
pub(crate) async fn write(mut sender: WsSender, mut frames: mpsc::Receiver<ClientFrame>) {
    while let Some(frame) = frames.recv().await {
        if write_waiting(&mut sender, frame, &mut frames)
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn write_waiting(
    sender: &mut WsSender,
    first: ClientFrame,
    frames: &mut mpsc::Receiver<ClientFrame>,
) -> Result<(), WsError> {
    sender.feed_frame(&first).await?;
    while let Ok(frame) = frames.try_recv() {
        sender.feed_frame(&frame).await?;
    }
    sender.flush().await
}

/// Reads to the end, hands answers to their sends and the rest to the program.
pub(super) async fn read(
    mut receiver: WsReceiver,
    sends: Arc<UnackedSends>,
    notices: mpsc::Sender<Notice>,
    ended: watch::Sender<Option<Closed>>,
) {
    let mut heard = Cursors::default();
    let closed = loop {
        let notice = match receiver.next().await {
            Ok(Heard::Event(event)) if !heard.advance(event.conversation_id, event.seq) => {
                sends.ignore();
                None
            }
            Ok(Heard::Event(event)) => Some(Notice::Event(event)),
            Ok(Heard::Frame(frame)) => answer(&sends, frame),
            Err(closed) => break closed,
        };
        if let Some(notice) = notice {
            // An error means that the program has dropped its events: answers still reach their sends.
            let _unheard = notices.send(notice).await.is_err();
        }
    };
    sends.close(&closed);
    ended.send_replace(Some(closed.clone()));
    let _unheard = notices.send(Notice::Closed(closed)).await.is_err();
}

fn answer(sends: &UnackedSends, frame: ServerFrame) -> Option<Notice> {
    match frame {
        ServerFrame::Ack(ack) => {
            sends.acknowledge(ack);
            None
        }
        ServerFrame::Error(error) => sends.refuse(error).map(Notice::Error),
        ServerFrame::Goaway(goaway) => Some(Notice::Goaway(goaway)),
        ServerFrame::Typing(typing) => Some(Notice::Typing(typing)),
        ServerFrame::Receipt(receipt) => Some(Notice::Receipt(receipt)),
        ServerFrame::Presence(presence) => Some(Notice::Presence(presence)),
        ServerFrame::PresenceSnapshot(snapshot) => Some(Notice::PresenceSnapshot(snapshot)),
        ServerFrame::TokenExpiring(expiring) => Some(Notice::TokenExpiring(expiring)),
        ServerFrame::Welcome(_)
        | ServerFrame::Truncated(_)
        | ServerFrame::ResumeToken(_)
        | ServerFrame::Pong { .. } => None,
    }
}

/// The last seq heard of each conversation.
#[derive(Debug, Default)]
struct Cursors(HashMap<ConversationId, Seq>);

impl Cursors {
    /// Returns true if `seq` is above the last one, which it then is.
    fn advance(&mut self, conversation: ConversationId, seq: Seq) -> bool {
        let last = self.0.entry(conversation).or_default();
        let news = seq > *last;
        *last = seq.max(*last);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_not_above_last_seq_is_ignored() {
        let (a, b) = (
            ConversationId(uuid::Uuid::now_v7()),
            ConversationId(uuid::Uuid::now_v7()),
        );
        let mut cursors = Cursors::default();
        let news = [(a, 5), (a, 5), (a, 4), (b, 1), (a, 6)].map(|(c, seq)| cursors.advance(c, seq));
        assert_eq!(news, [true, false, false, true, true]);
    }
}
