//! What a session says of its user's typing: only where it is a member, which the hub knows or a worker says.

use std::sync::Arc;

use confab_protocol::error::Failure;
use confab_protocol::frame::Typing;
use confab_protocol::ids::ConversationId;
use confab_protocol::limits;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::Semaphore;

use super::commands::CommandDone;
use super::connection::Connection;
use super::session::Session;
use crate::account::Account;

/// Conversations in which one session may say that its user types, until it says otherwise.
const AT_ONCE: usize = 64;

/// Where a session's user types.
#[derive(Debug, Default)]
pub(super) struct Typist {
    types_in: FxHashSet<ConversationId>,
    /// Of each conversation whose membership is being looked at, what was said last: of several, the newest counts.
    asked: FxHashMap<ConversationId, Typing>,
    /// One membership at a time is asked of a worker; none where none was looked at.
    turns: Option<Arc<Semaphore>>,
}

impl Typist {
    /// Takes note of what is said; says whether the membership must be looked at now.
    fn ask(&mut self, typing: Typing) -> bool {
        self.asked.insert(typing.conversation_id, typing).is_none()
    }

    fn turns(&mut self) -> Arc<Semaphore> {
        let turns = self
            .turns
            .get_or_insert_with(|| Arc::new(Semaphore::new(1)));
        Arc::clone(turns)
    }

    /// The membership was looked at: what was said last.
    fn answered(&mut self, conversation: ConversationId) -> Option<Typing> {
        self.asked.remove(&conversation)
    }

    fn note(&mut self, conversation: ConversationId, on: bool) {
        if !on {
            self.types_in.remove(&conversation);
        } else if self.types_in.len() < AT_ONCE {
            self.types_in.insert(conversation);
        }
    }
}

impl Session<'_> {
    pub(super) fn typing(&mut self, connection: &Connection, typing: Typing) {
        if !self.may_write(connection, typing.id.as_deref()) {
            return;
        }
        let conversation = typing.conversation_id;
        if !self.typist.ask(typing) {
            return;
        }
        let (hub, key) = (self.sockets.hub.clone(), self.key);
        let turns = self.typist.turns();
        self.pending_frames += 1;
        self.on_the_way.push(Box::pin(async move {
            let members = hub.membership(key, conversation, &turns).await;
            CommandDone::MayType(conversation, members)
        }));
    }

    pub(super) fn may_type(
        &mut self,
        connection: &Connection,
        conversation: ConversationId,
        answer: Result<u64, Failure>,
    ) {
        let Some(typing) = self.typist.answered(conversation) else {
            return;
        };
        match answer {
            Ok(members) if members <= limits::SIGNAL_MEMBERS => {
                self.typist.note(conversation, typing.on);
                self.say_typing(conversation, typing.on);
            }
            Ok(_too_many) => {}
            Err(failure) => connection.answer_error(typing.id, failure),
        }
    }

    /// Who is gone does not type.
    pub(super) fn stop_typing(&mut self) {
        for conversation in std::mem::take(&mut self.typist.types_in) {
            self.say_typing(conversation, false);
        }
    }

    fn say_typing(&self, conversation: ConversationId, on: bool) {
        let account = Account {
            tenant: self.caller.tenant.clone(),
            user: self.caller.user.clone(),
        };
        let signals = &self.sockets.signals;
        signals.typing(self.key, account, conversation, on);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn newest_typing_counts_during_lookup() {
        let conversation = ConversationId(Uuid::from_u128(1));
        let typing = |on| Typing {
            id: None,
            conversation_id: conversation,
            on,
        };
        let mut typist = Typist::default();
        assert!(typist.ask(typing(true)));
        assert!(!typist.ask(typing(false)));
        assert_eq!(typist.answered(conversation), Some(typing(false)));
        assert!(typist.ask(typing(true)));
    }

    #[test]
    fn where_one_types_is_bounded() {
        let mut typist = Typist::default();
        for n in 0..200 {
            typist.note(ConversationId(Uuid::from_u128(n)), true);
        }
        assert_eq!(typist.types_in.len(), AT_ONCE);
        typist.note(ConversationId(Uuid::from_u128(0)), false);
        assert_eq!(typist.types_in.len(), AT_ONCE - 1);
    }
}
