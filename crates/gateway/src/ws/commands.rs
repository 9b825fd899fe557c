//! A session's frames become commands, and what they are answered with.

use std::collections::BTreeMap;

use confab_auth::Caller;
use confab_protocol::chain::chain;
use confab_protocol::command::{
    self, Command, DeleteMessage, EditMessage, MarkRead, Outcome, Request, SendAnswer, SendMessage,
};
use confab_protocol::error::{Code, Failure};
use confab_protocol::frame::{Ack, ClientFrame, Delete, Edit, ErrorFrame, Read, Send, ServerFrame};
use confab_protocol::ids::{ConversationId, EventId, Seq};
use confab_protocol::json::JsonText;
use confab_protocol::signal::PresenceStatus;
use serde::Serialize;
use tracing::warn;
use uuid::Uuid;

use super::codec::Decoded;
use super::connection::{Connection, End};
use super::ending::BYE_END;
use super::sends::Submitted;
use super::session::Session;
use crate::keys;
use crate::workers::CommandOutcome;

/// What comes back to a session of what it asked.
pub(super) enum CommandDone {
    /// The answers to commands of a conversation that went to a worker together.
    Stored(ConversationId, Vec<Answered>),
    /// The answer to a `read`.
    Read(ConversationId, Answered),
    /// Whether the user may say in a conversation that it types, and how many members that has.
    MayType(ConversationId, Result<u64, Failure>),
    /// The hub has heard what the client said.
    Told,
    /// Whether all of the hub has heard that there is room again.
    Drained(bool),
    /// A large frame, and its bytes.
    Parsed(Result<Box<Decoded>, Failure>, usize),
    /// What a fresh token says.
    Verified(Option<String>, Result<Caller, Failure>),
}

/// What a client said that the hub must know. It is told apart from the frame, which is large, and not to be held by a
/// connection that says nothing.
enum ForHub {
    Presence(PresenceStatus),
    Seen(BTreeMap<ConversationId, Seq>),
}

/// The answer to a frame.
pub(super) struct Answered {
    /// The frame's id.
    id: Option<String>,
    request_id: String,
    outcome: CommandOutcome,
}

impl Session<'_> {
    /// Carries out a frame, or sends what it asks for on its way.
    pub(super) fn carry_out(
        &mut self,
        connection: &Connection,
        frame: ClientFrame,
    ) -> Result<(), End> {
        match frame {
            ClientFrame::Send(send) => self.send(connection, send),
            ClientFrame::Edit(edit) => self.edit(connection, edit),
            ClientFrame::Delete(delete) => self.delete(connection, delete),
            ClientFrame::Read(read) => self.read(connection, read),
            ClientFrame::Typing(typing) => self.typing(connection, typing),
            ClientFrame::Presence(presence) => {
                if self.may_write(connection, presence.id.as_deref()) {
                    self.presence(presence.status);
                }
            }
            ClientFrame::Auth(auth) => self.renew(auth),
            ClientFrame::Ping(ping) => connection.answer(&ServerFrame::Pong { id: ping.id }),
            ClientFrame::Bye(_) => return Err(BYE_END),
            ClientFrame::Hello(hello) => {
                return self.refuse(
                    connection,
                    hello.id,
                    Failure::field("/type", "hello was said already"),
                );
            }
            ClientFrame::Seen(seen) => self.tell_hub(ForHub::Seen(seen.positions)),
        }
        Ok(())
    }

    /// The user says whether it is there. What it said before changes nothing.
    fn presence(&mut self, status: PresenceStatus) {
        if self.said_presence.replace(status) != Some(status) {
            self.lease.presence(status);
            self.tell_hub(ForHub::Presence(status));
        }
    }

    /// Tells the hub what the client said; no other frame is read until the hub has looked at it.
    fn tell_hub(&mut self, said: ForHub) {
        let (hub, key) = (self.sockets.hub.clone(), self.key);
        self.telling_hub = true;
        self.on_the_way.push(Box::pin(async move {
            match said {
                ForHub::Presence(status) => hub.presence(key, status).await,
                ForHub::Seen(seen) => hub.seen(key, seen).await,
            }
            CommandDone::Told
        }));
    }

    /// Tells the hub that there is room for what it holds back. What a shard lacks room for meanwhile holds up nothing else.
    pub(super) fn tell_drained(&mut self) {
        let (hub, key) = (self.sockets.hub.clone(), self.key);
        self.telling_drained += 1;
        self.on_the_way.push(Box::pin(async move {
            CommandDone::Drained(hub.drained(key).await)
        }));
    }

    /// Whether the token allows to change or signal anything; the frame is answered where it does not.
    pub(super) fn may_write(&self, connection: &Connection, id: Option<&str>) -> bool {
        let may = self.caller.scope.can_write();
        if !may {
            let id = id.map(str::to_owned);
            connection.answer_error(id, Failure::of(Code::InsufficientScope));
        }
        may
    }

    fn send(&mut self, connection: &Connection, send: Send) {
        let Send {
            id,
            conversation_id,
            body,
        } = send;
        let client_id = id.key();
        let reply_to = body.reply_to;
        self.submit(
            connection,
            conversation_id,
            Some(id.into_text()),
            &body,
            |payload| {
                Command::SendMessage(SendMessage {
                    conversation: conversation_id,
                    message: EventId(Uuid::now_v7()),
                    client_id,
                    payload,
                    reply_to,
                    answer: SendAnswer::Ack,
                })
            },
        );
    }

    fn edit(&mut self, connection: &Connection, edit: Edit) {
        let Edit {
            id,
            conversation_id,
            message_id,
            if_version,
            content,
            metadata,
        } = edit;
        let client_id = keys::of_frame("edit_message", id.as_deref());
        let has_content = content.is_some();
        self.submit(connection, conversation_id, id, &content, |content| {
            Command::EditMessage(EditMessage {
                conversation: Some(conversation_id),
                message: message_id,
                content: has_content.then_some(content),
                metadata,
                expected_version: if_version,
                client_id,
                answer: SendAnswer::Ack,
            })
        });
    }

    fn delete(&mut self, connection: &Connection, delete: Delete) {
        let Delete {
            id,
            conversation_id,
            message_id,
            if_version,
        } = delete;
        let client_id = keys::of_frame("delete_message", id.as_deref());
        self.submit(connection, conversation_id, id, &(), |_nothing| {
            Command::DeleteMessage(DeleteMessage {
                conversation: Some(conversation_id),
                message: message_id,
                expected_version: if_version,
                client_id,
                answer: SendAnswer::Ack,
            })
        });
    }

    /// Puts a command behind those of its conversation that came before.
    fn submit<T: Serialize>(
        &mut self,
        connection: &Connection,
        conversation: ConversationId,
        id: Option<String>,
        content: &T,
        command: impl FnOnce(JsonText) -> Command,
    ) {
        if !self.may_write(connection, id.as_deref()) {
            return;
        }
        let content = match JsonText::of(content) {
            Ok(content) => content,
            Err(error) => {
                warn!(error = %chain(&error), "a message cannot be encoded");
                connection.answer_error(id, Failure::of(Code::Internal));
                return;
            }
        };
        let request = self.request(command(content));
        let submitted = Submitted { id, request };
        if let Some(next) = self.sends.submit(conversation, submitted) {
            self.dispatch(conversation, next);
        }
    }

    fn request(&self, command: Command) -> Request {
        Request {
            request_id: Uuid::now_v7().to_string(),
            traceparent: self.traceparent.as_deref().map(str::to_owned),
            caller: command::Caller {
                tenant: self.caller.tenant.clone(),
                user: self.caller.user.clone(),
                admin: self.caller.scope.is_admin(),
            },
            event: keys::event_of(&command),
            command,
        }
    }

    fn dispatch(&mut self, conversation: ConversationId, submitted: Vec<Submitted>) {
        let commands = self.sockets.commands.clone();
        self.on_the_way.push(Box::pin(async move {
            let mut frames = Vec::with_capacity(submitted.len());
            let mut requests = Vec::with_capacity(submitted.len());
            for Submitted { id, request } in submitted {
                frames.push((id, request.request_id.clone()));
                requests.push(request);
            }
            let outcomes = commands.execute_in_order(requests).await;
            let answers = frames.into_iter().zip(outcomes);
            let answers = answers.map(|((id, request_id), outcome)| Answered {
                id,
                request_id,
                outcome,
            });
            CommandDone::Stored(conversation, answers.collect())
        }));
    }

    fn read(&mut self, connection: &Connection, read: Read) {
        let Read {
            id,
            conversation_id,
            up_to_seq,
        } = read;
        if !self.may_write(connection, id.as_deref()) {
            return;
        }
        let request = self.request(Command::MarkRead(MarkRead::UpTo {
            conversation: conversation_id,
            seq: up_to_seq,
        }));
        let reads = self.sockets.reads.clone();
        self.pending_frames += 1;
        self.on_the_way.push(Box::pin(async move {
            let request_id = request.request_id.clone();
            let outcome = reads.execute(request).await;
            let answered = Answered {
                id,
                request_id,
                outcome,
            };
            CommandDone::Read(conversation_id, answered)
        }));
    }

    /// Something that was asked has its answer; a frame that was parsed meanwhile is not carried out.
    pub(super) fn done(&mut self, connection: &Connection, done: CommandDone) {
        match done {
            CommandDone::Stored(conversation, answers) => {
                for answered in answers {
                    connection.answer(&answered.frame(conversation));
                }
                if let Some(next) = self.sends.answered(conversation) {
                    self.dispatch(conversation, next);
                }
            }
            CommandDone::Read(conversation, answered) => {
                self.pending_frames -= 1;
                connection.answer(&answered.frame(conversation));
            }
            CommandDone::MayType(conversation, answer) => {
                self.pending_frames -= 1;
                self.may_type(connection, conversation, answer);
            }
            CommandDone::Told => self.telling_hub = false,
            CommandDone::Parsed(..) => self.parsing = false,
            CommandDone::Drained(is_told) => {
                self.telling_drained -= 1;
                self.drained_late |= !is_told;
                // However often a shard was late, it is told once again.
                if self.telling_drained == 0 && std::mem::take(&mut self.drained_late) {
                    self.tell_drained();
                }
            }
            CommandDone::Verified(id, verified) => self.renewed(connection, id, verified),
        }
    }
}

impl Answered {
    fn frame(self, conversation: ConversationId) -> ServerFrame {
        let Self {
            id,
            request_id,
            outcome,
        } = self;
        let failure = match outcome {
            Ok(Outcome::Sent(sent)) => {
                return ServerFrame::Ack(Ack {
                    id,
                    conversation_id: Some(conversation),
                    message_id: Some(sent.message_id),
                    seq: Some(sent.seq),
                    created_at: Some(sent.created_at),
                    duplicate: sent.duplicate,
                });
            }
            Ok(Outcome::Read(marks)) => {
                let mark = marks.iter().find(|mark| mark.conversation == conversation);
                return ServerFrame::Ack(Ack {
                    id,
                    conversation_id: Some(conversation),
                    seq: mark.map(|mark| mark.up_to),
                    ..Ack::default()
                });
            }
            Ok(_) => Failure::of(Code::Internal),
            Err(failure) => failure,
        };
        if failure.code == Code::Internal {
            warn!(request.id = %request_id, %failure, "a frame failed");
        }
        ServerFrame::Error(ErrorFrame::new(id, failure, request_id))
    }
}
