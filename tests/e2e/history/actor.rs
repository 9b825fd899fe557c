//! One client's random commands and their answers.

use std::sync::Arc;
use std::time::Duration;

use confab_client::{ClientError, Http, NewMembers, NewMessage};
use confab_protocol::error::Code;
use confab_protocol::event::Member;
use confab_protocol::frame::{ClientFrame, Delete, Edit, Send};
use confab_protocol::ids::{ClientId, ConversationId, EventId, Seq, UserId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::{MessageContent, Role};
use confab_protocol::signal::PresenceStatus;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::client::{FrameAnswer, HistoryClient};
use super::load::{Chat, moment};
use super::record::{Acts, CommandOutcome, IssuedCommand, LogAction, Millis, ReadMark, now};
use crate::support::text;

/// How long a call may take: a gateway that stands still answers nothing.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a send is tried again with its client id.
const SEND_TIMEOUT: Duration = Duration::from_secs(40);

pub(super) struct Actor {
    pub(super) client: Arc<HistoryClient>,
    /// Its calls to each gateway.
    pub(super) https: Vec<Http>,
    pub(super) everyone: Vec<UserId>,
    pub(super) chats: Arc<[Chat]>,
    pub(super) rng: StdRng,
    /// Its messages that are neither deleted nor about to be.
    pub(super) own: Vec<(ConversationId, EventId)>,
    pub(super) done: Acts,
    /// When it began what it does.
    pub(super) began: Millis,
}

impl Actor {
    pub(super) async fn run(mut self, pause: u64, mut stopped: watch::Receiver<bool>) -> Acts {
        while !*stopped.borrow() {
            self.act().await;
            let pause = moment(&mut self.rng, pause);
            let _over = timeout(pause, stopped.changed()).await.is_ok();
        }
        self.done
    }

    async fn act(&mut self) {
        self.began = now();
        let chats = Arc::clone(&self.chats);
        let me = self.client.user.clone();
        let is_in = |chat: &&Chat| chat.members.lock().unwrap().contains(&me);
        let mine: Vec<&Chat> = chats.iter().filter(is_in).collect();
        // Now and then where it may not.
        let anywhere = mine.is_empty() || self.rng.random_ratio(1, 20);
        let chat = match anywhere {
            true => chats.choose(&mut self.rng).unwrap(),
            false => mine.choose(&mut self.rng).copied().unwrap(),
        };
        let (is_owner, draw) = (chat.owner == me, self.rng.random_range(0..100));
        match draw {
            0..40 => self.send(chat.id, true).await,
            40..44 => self.read(chat.id).await,
            44..45 => self.change_presence().await,
            45..62 => self.send(chat.id, false).await,
            62..72 => self.edit().await,
            72..77 => self.delete().await,
            77..80 if !is_owner => self.remove(chat, me).await,
            77..84 if is_owner => self.add(chat).await,
            84..90 if is_owner => {
                let someone = self.everyone.choose(&mut self.rng).cloned().unwrap();
                if someone != me {
                    self.remove(chat, someone).await;
                }
            }
            90..95 if is_owner => self.role(chat).await,
            95..100 if is_owner => self.name(chat).await,
            _ => self.send(chat.id, true).await,
        }
    }

    fn note(&mut self, conversation: ConversationId, action: LogAction, outcome: CommandOutcome) {
        self.done.commands.push(IssuedCommand {
            conversation,
            actor: self.client.user.clone(),
            action,
            outcome,
            time: self.began..=now(),
        });
    }

    /// Moves a read mark, or tries to, and looks where it stands, at whatever gateway. Without an answer it may stand where it was asked to.
    async fn read(&mut self, conversation: ConversationId) {
        let up_to = self.rng.random_range(1..100);
        if let Ok(marks) = call(self.http().mark_read(conversation, up_to)).await {
            for (conversation, up_to) in marks {
                self.is_told(conversation, up_to);
            }
        }
        if let Ok(view) = call(self.http().conversation(conversation)).await
            && let Some(up_to) = view.conversation.last_read_seq
        {
            self.is_told(conversation, up_to);
        }
    }

    async fn change_presence(&mut self) {
        let status = match self.rng.random() {
            true => PresenceStatus::Online,
            false => PresenceStatus::Away,
        };
        self.client.says(status).await;
    }

    fn is_told(&mut self, conversation: ConversationId, up_to: Seq) {
        self.done.marks.push(ReadMark {
            conversation,
            user: self.client.user.clone(),
            up_to,
        });
    }

    fn http(&mut self) -> Http {
        self.https.choose(&mut self.rng).unwrap().clone()
    }

    /// Sends until it is answered for good: the client id makes that safe.
    async fn send(&mut self, conversation: ConversationId, over_socket: bool) {
        let id = ClientId(Uuid::now_v7());
        let words = format!("{} says {id}", self.client.user);
        let until = Instant::now() + SEND_TIMEOUT;
        let mut open = false;
        let outcome = loop {
            let tried = match over_socket {
                true => self.send_by_socket(id, conversation, &words).await,
                false => self.send_by_http(id, conversation, &words).await,
            };
            match tried {
                Ok((message, seq)) => {
                    self.own.push((conversation, message));
                    break CommandOutcome::Done(Some(seq));
                }
                Err(CommandOutcome::Refused(code)) if !code.retryable() => {
                    // An earlier try may have been carried out.
                    break if open {
                        CommandOutcome::Unknown
                    } else {
                        CommandOutcome::Refused(code)
                    };
                }
                Err(outcome) => open |= outcome == CommandOutcome::Unknown,
            }
            if Instant::now() >= until {
                break CommandOutcome::Unknown;
            }
            sleep(moment(&mut self.rng, 200)).await;
        };
        self.note(conversation, LogAction::Send(id), outcome);
    }

    async fn send_by_socket(
        &self,
        id: ClientId,
        conversation_id: ConversationId,
        words: &str,
    ) -> Result<(EventId, Seq), CommandOutcome> {
        let send = ClientFrame::Send(Send {
            id: id.into(),
            conversation_id,
            body: text(words),
        });
        match self.client.ask(id.to_string(), send).await {
            FrameAnswer::Done(message, seq) => Ok((message, seq)),
            FrameAnswer::Refused(error) => Err(refused(error.code)),
            FrameAnswer::Broken => Err(CommandOutcome::Unknown),
        }
    }

    async fn send_by_http(
        &mut self,
        id: ClientId,
        conversation_id: ConversationId,
        words: &str,
    ) -> Result<(EventId, Seq), CommandOutcome> {
        let message = NewMessage {
            conversation_id,
            client_id: Some(id),
            body: text(words),
        };
        let sent = call(self.http().send_message(&message)).await?;
        Ok((sent.answer.id, sent.answer.seq))
    }

    /// Half over the socket and half over HTTP; tried once, for it has no key.
    async fn edit(&mut self) {
        let Some((conversation, message)) = self.own.choose(&mut self.rng).copied() else {
            return;
        };
        let words = json!({"text": format!("edited {}", Uuid::now_v7())});
        let content = MessageContent {
            content: Some(JsonText::of(&words).unwrap()),
            encrypted_content: None,
            payload_size_bytes: None,
        };
        let outcome = if self.rng.random() {
            let id = Uuid::now_v7().to_string();
            let edit = ClientFrame::Edit(Edit {
                id: Some(id.clone()),
                conversation_id: conversation,
                message_id: message,
                if_version: None,
                content: Some(content),
                metadata: None,
            });
            outcome(self.client.ask(id, edit).await)
        } else {
            done(call(self.http().edit_message(message, &content)).await)
        };
        self.note(conversation, LogAction::Edit(message), outcome);
    }

    async fn delete(&mut self) {
        if self.own.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.own.len());
        let (conversation, message) = self.own.swap_remove(at);
        let outcome = if self.rng.random() {
            let id = Uuid::now_v7().to_string();
            let delete = ClientFrame::Delete(Delete {
                id: Some(id.clone()),
                conversation_id: conversation,
                message_id: message,
                if_version: None,
            });
            outcome(self.client.ask(id, delete).await)
        } else {
            done(call(self.http().delete_message(message)).await)
        };
        self.note(conversation, LogAction::Delete(message), outcome);
    }

    async fn add(&mut self, chat: &Chat) {
        let someone = self.everyone.choose(&mut self.rng).cloned().unwrap();
        let members = NewMembers {
            participants: vec![Member {
                user_id: someone.clone(),
                role: Role::Member,
            }],
        };
        let added = done(call(self.http().add_participants(chat.id, &members)).await);
        // Who is not sure tries it there.
        if !matches!(added, CommandOutcome::Refused(_)) {
            chat.members.lock().unwrap().insert(someone.clone());
        }
        self.note(chat.id, LogAction::Add(vec![someone]), added);
    }

    /// Removes another, or leaves.
    async fn remove(&mut self, chat: &Chat, someone: UserId) {
        let removed = done(call(self.http().remove_participant(chat.id, &someone)).await);
        if matches!(removed, CommandOutcome::Done(_)) {
            chat.members.lock().unwrap().remove(&someone);
        }
        self.note(chat.id, LogAction::Remove(someone), removed);
    }

    async fn role(&mut self, chat: &Chat) {
        let members: Vec<_> = chat.members.lock().unwrap().iter().cloned().collect();
        let someone = members.choose(&mut self.rng).cloned().unwrap();
        if someone == chat.owner {
            return;
        }
        let role = if self.rng.random() {
            Role::Admin
        } else {
            Role::Member
        };
        let changed = done(call(self.http().set_role(chat.id, &someone, role)).await);
        let action = LogAction::Role(someone, role.as_str().to_owned());
        self.note(chat.id, action, changed);
    }

    async fn name(&mut self, chat: &Chat) {
        let name = format!("named {}", Uuid::now_v7());
        let metadata = JsonText::of(&json!({ "name": name })).unwrap();
        let http = self.http();
        let outcome = done(call(http.update_conversation(chat.id, &metadata, None)).await);
        self.note(chat.id, LogAction::Name(name), outcome);
    }
}

/// What a call came to. A refusal leaves it open only where it says so.
async fn call<T>(call: impl Future<Output = Result<T, ClientError>>) -> Result<T, CommandOutcome> {
    match timeout(CALL_TIMEOUT, Box::pin(call)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error.code().map_or(CommandOutcome::Unknown, refused)),
        Err(_) => Err(CommandOutcome::Unknown),
    }
}

fn done<T>(called: Result<T, CommandOutcome>) -> CommandOutcome {
    called.map_or_else(|outcome| outcome, |_| CommandOutcome::Done(None))
}

fn outcome(answer: FrameAnswer) -> CommandOutcome {
    match answer {
        FrameAnswer::Done(_, seq) => CommandOutcome::Done(Some(seq)),
        FrameAnswer::Refused(error) => refused(error.code),
        FrameAnswer::Broken => CommandOutcome::Unknown,
    }
}

const fn refused(code: Code) -> CommandOutcome {
    match code {
        Code::Timeout | Code::Internal => CommandOutcome::Unknown,
        code => CommandOutcome::Refused(code),
    }
}
