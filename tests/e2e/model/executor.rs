//! Executes commands on the running service and translates the answers into the model's names.

use std::collections::BTreeMap;
use std::sync::Mutex;

use confab_client::{Encoding, NewMessage, SendError};
use confab_protocol::frame::ErrorFrame;
use confab_protocol::ids::{ClientId, ConversationId, EventId, Seq};
use confab_protocol::json::JsonText;
use confab_protocol::resource::MessageBody;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use uuid::Uuid;

use super::command::{
    BACKEND_USER, Content, Create, MODEL_USERS, ModelAction, ModelBody, ModelCommand, Who,
};
use super::state::ModelAnswer;
use crate::support::{Cluster, Member, User, claims};

/// A message that nobody ever sent.
const NOBODY_S: Uuid = Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057);

/// The users of one history, in a tenant of their own.
pub(super) struct Executor {
    pub(super) tenant: String,
    pub(super) players: BTreeMap<Who, Player>,
    pub(super) names: Mutex<Names>,
}

pub(super) struct Player {
    pub(super) user: User,
    /// Open from the beginning on, one at each gateway; the backend has none.
    pub(super) sockets: Vec<Member>,
}

/// Which id has what name in the model.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) conversations: Vec<ConversationId>,
    messages: BTreeMap<(usize, Seq), EventId>,
    by_id: BTreeMap<String, String>,
}

/// Which way a command goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum CommandRoute {
    /// Over HTTP, at the gateway of this number.
    Http(usize),
    /// Over the user's socket at the gateway of this number, where it is a send.
    Socket(usize),
}

impl CommandRoute {
    pub(super) fn any(rng: &mut StdRng) -> Self {
        let gateway = rng.random_range(0..2);
        if rng.random_bool(0.5) {
            Self::Http(gateway)
        } else {
            Self::Socket(gateway)
        }
    }

    const fn gateway(self) -> usize {
        match self {
            Self::Http(gateway) | Self::Socket(gateway) => gateway,
        }
    }
}

impl Executor {
    /// Everyone connects.
    pub(super) async fn set(cluster: &Cluster, tenant: String) -> Self {
        let mut players = BTreeMap::new();
        for who in MODEL_USERS.into_iter().chain([BACKEND_USER]) {
            let mut claims = claims(who);
            claims["tenant"] = tenant.clone().into();
            if who == BACKEND_USER {
                claims["scope"] = "confab:admin".into();
            }
            let user = cluster.user_of(&claims);
            let mut sockets = Vec::new();
            if who != BACKEND_USER {
                sockets.push(user.speaking(Encoding::Json, 0).await);
                sockets.push(user.speaking(Encoding::MsgPack, 1).await);
            }
            players.insert(who, Player { user, sockets });
        }
        Self {
            tenant,
            players,
            names: Mutex::default(),
        }
    }

    /// Asks for something and gives the answer.
    pub(super) async fn perform(
        &self,
        who: Who,
        command: &ModelCommand,
        way: CommandRoute,
    ) -> ModelAnswer {
        let player = &self.players[who];
        if let (
            CommandRoute::Socket(number),
            ModelCommand::In(at, ModelAction::Send { client_id, message }),
        ) = (way, command)
            && let Some(socket) = player.sockets.get(number)
        {
            let message = self.new_message(*at, *client_id, message);
            return self.submit(socket, *at, message).await;
        }
        let (method, path, headers, body) = self.request(command);
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let calling = player
            .user
            .call(way.gateway(), method, &path, &headers, body);
        let answer = calling.await;
        let mut names = self.names.lock().unwrap();
        names.learn(command, &answer.body);
        ModelAnswer {
            status: answer.status,
            replayed: answer.header("idempotent-replayed") == Some("true"),
            body: names.plain(&answer.body),
        }
    }

    fn new_message(&self, at: usize, client_id: Uuid, message: &ModelBody) -> NewMessage {
        let names = self.names.lock().unwrap();
        names.new_message(at, client_id, message)
    }

    /// A send over a socket, whose acknowledgement is less than HTTP's answer.
    async fn submit(&self, socket: &Member, at: usize, message: NewMessage) -> ModelAnswer {
        let id = message.client_id.unwrap();
        let pending = socket
            .session
            .submit(id, message.conversation_id, message.body);
        match pending.await.unwrap().ack().await {
            Ok(stored) => {
                let mut names = self.names.lock().unwrap();
                names.enter_message(at, stored.seq, &stored.message_id.to_string());
                ModelAnswer {
                    status: 201,
                    replayed: stored.duplicate,
                    body: json!({"ack": stored.seq}),
                }
            }
            Err(SendError::Refused(refusal)) => {
                let ErrorFrame { code, .. } = *refusal;
                ModelAnswer {
                    status: code.status(),
                    replayed: false,
                    body: json!({ "code": code }),
                }
            }
            Err(error) => panic!("{}: {error}", socket.id),
        }
    }

    fn request(&self, command: &ModelCommand) -> Request {
        let (at, action) = match command {
            ModelCommand::Create(create) => return creation(create),
            ModelCommand::ReadMessages(messages) => {
                let names = self.names.lock().unwrap();
                let messages = messages.iter();
                let ids: Vec<_> = messages.map(|(at, seq)| names.message(*at, *seq)).collect();
                return post("/v1/messages/read".to_owned(), json!({"messageIds": ids}));
            }
            ModelCommand::In(at, action) => (*at, action),
        };
        let names = self.names.lock().unwrap();
        let id = names.conversations[at];
        let path = format!("/v1/conversations/{id}");
        let message = |seq: &Seq| format!("/v1/messages/{}", names.message(at, *seq));
        match action {
            ModelAction::Patch { patch, if_match } => {
                let value = if_match.as_ref().map(|(value, _)| value.clone());
                let headers = value.map(|value| ("if-match", value)).into_iter().collect();
                ("PATCH", path, headers, Some(json!({"metadata": patch})))
            }
            ModelAction::Delete => ("DELETE", path, Vec::new(), None),
            ModelAction::Add { members } => post(format!("{path}/participants"), addition(members)),
            ModelAction::SetRole { user, role } => (
                "PATCH",
                format!("{path}/participants/{user}"),
                Vec::new(),
                Some(json!({ "role": role })),
            ),
            ModelAction::Remove { user } => {
                let route = format!("{path}/participants/{user}");
                ("DELETE", route, Vec::new(), None)
            }
            ModelAction::Edit { seq, content: to } => {
                ("PATCH", message(seq), Vec::new(), Some(content(to)))
            }
            ModelAction::Unsend { seq } => ("DELETE", message(seq), Vec::new(), None),
            ModelAction::Read { up_to } => post(
                "/v1/messages/read".to_owned(),
                json!({"conversationId": id, "upToSeq": up_to}),
            ),
            ModelAction::Send { client_id, message } => {
                let message = names.new_message(at, *client_id, message);
                let body = serde_json::to_string(&message).unwrap();
                post(
                    "/v1/messages".to_owned(),
                    serde_json::from_str(&body).unwrap(),
                )
            }
        }
    }
}

type Request = (
    &'static str,
    String,
    Vec<(&'static str, String)>,
    Option<Value>,
);

fn post(path: String, body: Value) -> Request {
    ("POST", path, Vec::new(), Some(body))
}

fn creation(create: &Create) -> Request {
    let body =
        json!({"type": create.r#type, "participants": create.users, "metadata": create.metadata});
    let key = create.key.clone();
    let headers = key
        .map(|key| ("idempotency-key", key))
        .into_iter()
        .collect();
    let path = "/v1/conversations".to_owned();
    ("POST", path, headers, Some(body))
}

/// One by itself, or several.
fn addition(members: &[(Who, &'static str)]) -> Value {
    let one = |(user, role): &(Who, &'static str)| json!({"userId": user, "role": role});
    if let [member] = members {
        return one(member);
    }
    let members: Vec<Value> = members.iter().map(one).collect();
    json!({ "participants": members })
}

fn content(content: &Content) -> Value {
    match content {
        Content::Clear(content) => json!({ "content": content }),
        Content::Sealed(text, _) => json!({ "encryptedContent": text }),
    }
}

impl Names {
    /// Takes in what an answer begins: a conversation or a message.
    fn learn(&mut self, command: &ModelCommand, body: &Value) {
        if let Some(id) = body.pointer("/conversation/id").and_then(Value::as_str) {
            self.enter_conversation(id);
        }
        if let (ModelCommand::In(at, ModelAction::Send { .. }), Some(message)) =
            (command, body.get("message"))
        {
            let seq = message["seq"].as_u64().unwrap();
            self.enter_message(*at, seq, message["id"].as_str().unwrap());
        }
    }

    fn enter_conversation(&mut self, id: &str) {
        if !self.by_id.contains_key(id) {
            let name = format!("c{}", self.conversations.len());
            self.conversations.push(id.parse().unwrap());
            self.by_id.insert(id.to_owned(), name);
        }
    }

    /// A seq has one message, and a message one seq.
    fn enter_message(&mut self, at: usize, seq: Seq, id: &str) {
        let name = format!("c{at}/{seq}");
        let known = self.messages.insert((at, seq), id.parse().unwrap());
        assert!(known.is_none_or(|known| known.to_string() == id), "{name}");
        let before = self.by_id.insert(id.to_owned(), name.clone());
        assert!(before.is_none_or(|before| before == name), "{name}");
    }

    fn new_message(&self, at: usize, client_id: Uuid, message: &ModelBody) -> NewMessage {
        let content = content(&message.content);
        let body = MessageBody {
            kind: message.kind.to_owned(),
            content: content
                .get("content")
                .map(|content| JsonText::of(content).unwrap()),
            encrypted_content: content["encryptedContent"].as_str().map(str::to_owned),
            payload_size_bytes: None,
            reply_to: message.reply_to.map(|seq| self.message(at, seq)),
            metadata: JsonText::of(&message.metadata).unwrap(),
        };
        NewMessage {
            conversation_id: self.conversations[at],
            client_id: Some(ClientId(client_id)),
            body,
        }
    }

    pub(super) fn message(&self, at: usize, seq: Seq) -> EventId {
        let known = self.messages.get(&(at, seq)).copied();
        known.unwrap_or(EventId(NOBODY_S))
    }

    /// A body in the model's words. Of a problem its code and what that says beyond itself.
    pub(super) fn plain(&self, value: &Value) -> Value {
        let named = |text: &str| self.by_id.get(text).cloned();
        match value {
            Value::Object(members) => {
                let is_problem = members.contains_key("requestId");
                let said = ["type", "title", "status", "detail", "requestId"];
                let members = members
                    .iter()
                    .filter(|(name, _)| !(is_problem && said.contains(&name.as_str())));
                let plain = members.map(|(name, value)| {
                    let plain = match (name.as_str(), value) {
                        ("id", Value::String(id)) => named(id).unwrap_or("?".to_owned()).into(),
                        _ => self.plain(value),
                    };
                    (named(name).unwrap_or_else(|| name.clone()), plain)
                });
                Value::Object(plain.collect())
            }
            Value::Array(elements) => elements.iter().map(|one| self.plain(one)).collect(),
            Value::String(text) => named(text).unwrap_or_else(|| text.clone()).into(),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }
}
