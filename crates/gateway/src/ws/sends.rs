//! What one connection sends, edits and deletes: at most one request per conversation is on its way, so that none overtakes
//! another; what comes meanwhile goes together in the next one.

use confab_protocol::command::Request;
use confab_protocol::ids::ConversationId;
use rustc_hash::FxHashMap;

/// A command with the id of the frame that asked for it.
#[derive(Debug)]
pub(crate) struct Submitted {
    pub(crate) id: Option<String>,
    pub(crate) request: Request,
}

/// The commands of one connection, by conversation. A conversation that is a key has a request on its way.
#[derive(Debug, Default)]
pub(crate) struct Sends {
    conversations: FxHashMap<ConversationId, Sending>,
    bytes: usize,
}

#[derive(Debug)]
struct Sending {
    /// Bytes of what is on its way.
    on_the_way: usize,
    waiting: Vec<Submitted>,
}

impl Sends {
    /// Takes a command; gives what must go on its way now.
    pub(crate) fn submit(
        &mut self,
        conversation: ConversationId,
        submitted: Submitted,
    ) -> Option<Vec<Submitted>> {
        let bytes = submitted.request.weight();
        self.bytes += bytes;
        if let Some(sending) = self.conversations.get_mut(&conversation) {
            sending.waiting.push(submitted);
            return None;
        }
        let sending = Sending {
            on_the_way: bytes,
            waiting: Vec::new(),
        };
        self.conversations.insert(conversation, sending);
        Some(vec![submitted])
    }

    /// The conversation's request was answered; gives what goes next.
    pub(crate) fn answered(&mut self, conversation: ConversationId) -> Option<Vec<Submitted>> {
        let sending = self.conversations.get_mut(&conversation)?;
        self.bytes -= sending.on_the_way;
        if sending.waiting.is_empty() {
            self.conversations.remove(&conversation);
            return None;
        }
        let next = std::mem::take(&mut sending.waiting);
        sending.on_the_way = next
            .iter()
            .map(|submitted| submitted.request.weight())
            .sum();
        Some(next)
    }

    /// Bytes that have no answer yet, on their way or waiting: past a bound the gateway stops reading the socket.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use confab_protocol::command::{Caller, Command, SendAnswer, SendMessage};
    use confab_protocol::ids::ClientId;
    use confab_protocol::json::JsonText;
    use uuid::Uuid;

    use super::*;

    fn submitted(conversation: ConversationId, n: u128) -> Submitted {
        let request = Request {
            request_id: n.to_string(),
            traceparent: None,
            event: None,
            caller: Caller {
                tenant: "t".parse().unwrap(),
                user: "u".parse().unwrap(),
                admin: false,
            },
            command: Command::SendMessage(SendMessage {
                conversation,
                message: confab_protocol::ids::EventId(Uuid::nil()),
                client_id: ClientId(Uuid::from_u128(n)),
                payload: JsonText::empty_object(),
                reply_to: None,
                answer: SendAnswer::Ack,
            }),
        };
        Submitted { id: None, request }
    }

    #[test]
    fn sends_of_conversation_go_in_order() {
        let (a, b) = (
            ConversationId(Uuid::from_u128(1)),
            ConversationId(Uuid::from_u128(2)),
        );
        let mut sends = Sends::default();
        assert_eq!(sends.submit(a, submitted(a, 1)).unwrap().len(), 1);
        assert_eq!(sends.submit(b, submitted(b, 2)).unwrap().len(), 1);
        assert!(sends.submit(a, submitted(a, 3)).is_none());
        assert!(sends.submit(a, submitted(a, 4)).is_none());
        assert!(sends.bytes() > 0);
        let next = sends.answered(a).unwrap();
        assert_eq!(
            next.iter()
                .map(|next| next.request.request_id.as_str())
                .collect::<Vec<_>>(),
            ["3", "4"]
        );
        assert!(sends.answered(a).is_none());
        assert!(sends.submit(a, submitted(a, 5)).is_some());
    }

    #[test]
    fn unanswered_sends_count_across_conversations() {
        let conversation = |n| ConversationId(Uuid::from_u128(n));
        let mut sends = Sends::default();
        let weight = |from, to| -> usize {
            let all = (from..to).map(|n| submitted(conversation(n % 50), n));
            all.map(|one| one.request.weight()).sum()
        };
        for n in 0..100 {
            let id = conversation(n % 50);
            sends.submit(id, submitted(id, n));
        }
        assert_eq!(sends.bytes(), weight(0, 100));
        for n in 0..50 {
            assert_eq!(sends.answered(conversation(n)).unwrap().len(), 1);
        }
        assert_eq!(sends.bytes(), weight(50, 100));
        for n in 0..50 {
            assert!(sends.answered(conversation(n)).is_none());
        }
        assert_eq!(sends.bytes(), 0);
    }
}
