//! The frames of the WebSocket (API.md, WebSocket): each encode has its decode here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Code, Failure, FieldError};
use crate::event::Event;
use crate::ids::{ClientId, ConversationId, EventId, Seq, SessionId, UserId};
use crate::json::Fields;
use crate::resource::MessageBody;
use crate::timestamp::Timestamp;

mod message;

pub use message::read_body;

/// A frame from a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ClientFrame {
    /// Opens the session; the first frame.
    Hello(Hello),
    /// Says what the client holds without a gap.
    Seen(Seen),
    /// Ends the session for good.
    Bye(Plain),
    /// Sends a message.
    Send(Send),
    /// Asks for a pong.
    Ping(Plain),
}

/// A frame of nothing but an id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plain {
    /// Echoed in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// The first frame.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Echoed in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The JWT, where the upgrade's header carried none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The token of the session to resume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_token: Option<String>,
    /// The last seq, by conversation, up to which the client holds all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<BTreeMap<ConversationId, Seq>>,
    /// Whether the next frame is a `seen` that belongs to this hello.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_follows: Option<bool>,
    /// Whether welcome shall name every conversation's head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<bool>,
    /// Which client this is, for the logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientInfo>,
}

impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello")
            .field("seen", &self.seen)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// A client's name and version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientInfo {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
}

/// What the client holds without a gap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Echoed in an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The last seq by conversation.
    pub positions: BTreeMap<ConversationId, Seq>,
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Send {
    /// The message's client id, echoed in the answer.
    pub id: ClientId,
    /// Where to.
    pub conversation_id: ConversationId,
    /// The message.
    #[serde(flatten)]
    pub body: MessageBody,
}

/// A frame that cannot be carried out, with the id to answer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFrame {
    /// The frame's id, where one could be read.
    pub id: Option<String>,
    /// What is wrong.
    pub failure: Failure,
}

/// Longest `id` of a frame, in bytes.
const ID: usize = 128;

impl ClientFrame {
    /// The frame as JSON.
    ///
    /// # Errors
    /// Never for frames made by this crate's types.
    pub fn encode(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// What is wrong with it, every bad field at once.
    pub fn decode(json: &[u8]) -> Result<Self, BadFrame> {
        let mut fields = Fields::parse(json).map_err(|failure| BadFrame { id: None, failure })?;
        let given = fields.take::<String>("id");
        if given.as_ref().is_some_and(|id| id.len() > ID) {
            fields.reject("id", format!("must be at most {ID} bytes"));
        }
        let id = given.filter(|id| id.len() <= ID);
        let bad = |failure| BadFrame {
            id: id.clone(),
            failure,
        };
        let Some(kind) = fields.require::<String>("type") else {
            return Err(bad(fields
                .finish()
                .err()
                .unwrap_or_else(|| Failure::field("/type", "must be given"))));
        };
        let read = match kind.as_str() {
            "hello" => Self::hello(fields, id.clone()),
            "seen" => Self::seen(fields, id.clone()),
            "bye" => fields
                .finish()
                .map(|()| Self::Bye(Plain { id: id.clone() })),
            "ping" => fields
                .finish()
                .map(|()| Self::Ping(Plain { id: id.clone() })),
            "send" => Self::send(fields, id.as_deref()),
            _ => Err(Failure::field("/type", "is not a known type of frame")),
        };
        read.map_err(bad)
    }

    fn hello(mut fields: Fields<'_>, id: Option<String>) -> Result<Self, Failure> {
        let hello = Hello {
            id,
            token: fields.take("token"),
            resume_token: fields.take("resumeToken"),
            seen: fields.take("seen"),
            seen_follows: fields.take("seenFollows"),
            heads: fields.take("heads"),
            client: fields.take("client"),
        };
        fields.finish().map(|()| Self::Hello(hello))
    }

    fn seen(mut fields: Fields<'_>, id: Option<String>) -> Result<Self, Failure> {
        let positions = fields.require("positions");
        fields.finish()?;
        Ok(Self::Seen(Seen {
            id,
            positions: positions.unwrap_or_default(),
        }))
    }

    fn send(mut fields: Fields<'_>, id: Option<&str>) -> Result<Self, Failure> {
        let client_id = id.and_then(|id| id.parse::<ClientId>().ok());
        if client_id.is_none() {
            fields.reject("id", "must be a UUID: it is the message's clientId");
        }
        let conversation = fields.require::<ConversationId>("conversationId");
        let body = read_body(&mut fields);
        fields.finish()?;
        match (client_id, conversation, body) {
            (Some(id), Some(conversation_id), Some(body)) => Ok(Self::Send(Send {
                id,
                conversation_id,
                body,
            })),
            _ => Err(Failure::of(Code::Validation)),
        }
    }
}

/// A frame from a gateway, but for events, which are encoded by the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ServerFrame {
    /// The session is open.
    Welcome(Box<Welcome>),
    /// A message is stored.
    Ack(Ack),
    /// Something was refused.
    Error(ErrorFrame),
    /// The client should connect elsewhere.
    Goaway(Goaway),
    /// The answer to a ping.
    Pong {
        /// The ping's id.
        id: Option<String>,
    },
}

/// The session is open; replayed events follow, then live ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// The hello's id.
    pub id: Option<String>,
    /// This connection's life across resumes.
    pub session_id: SessionId,
    /// Who the client is, as its token says.
    pub user_id: UserId,
    /// Whether the session of the resume token goes on.
    pub resumed: bool,
    /// Why it does not.
    pub reason: Option<String>,
    /// How many events are replayed.
    pub replayed: u64,
    /// What is not replayed and must be read over HTTP.
    pub truncated: Vec<Truncated>,
    /// Every conversation's last seq, where hello asked for it.
    pub heads: Option<BTreeMap<ConversationId, Seq>>,
    /// What resumes this session.
    pub resume_token: Option<String>,
    /// For how long after the connection's end it can be resumed, in seconds.
    pub resume_window_seconds: u64,
    /// How often the server pings, in seconds.
    pub heartbeat_seconds: u64,
    /// What the client may send.
    pub limits: WelcomeLimits,
}

/// What the client may send, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WelcomeLimits {
    /// A frame.
    pub frame_bytes: usize,
    /// A message's content in clear.
    pub content_bytes: usize,
    /// A message's encrypted content, decoded.
    pub encrypted_content_bytes: usize,
}

impl Default for WelcomeLimits {
    fn default() -> Self {
        Self {
            frame_bytes: crate::limits::FRAME,
            content_bytes: crate::limits::CONTENT,
            encrypted_content_bytes: crate::limits::ENCRYPTED_CONTENT,
        }
    }
}

/// A range that is not sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Truncated {
    /// Whose log.
    pub conversation_id: ConversationId,
    /// The first seq not sent.
    pub from_seq: Seq,
    /// The last seq not sent.
    pub head_seq: Seq,
    /// Whether what the client holds of it is void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<bool>,
}

/// A message is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    /// The send's id.
    pub id: ClientId,
    /// Where it is stored.
    pub conversation_id: ConversationId,
    /// Its id.
    pub message_id: EventId,
    /// Its number.
    pub seq: Seq,
    /// When it was stored.
    pub created_at: Timestamp,
    /// Whether it was stored before.
    pub duplicate: bool,
}

/// Something was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorFrame {
    /// The id of the frame that it answers.
    pub id: Option<String>,
    /// Which refusal.
    pub code: Code,
    /// What is wrong this time.
    pub detail: String,
    /// After how long trying again makes sense, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The id of the request in the gateway's logs.
    pub request_id: String,
    /// The bad fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

impl ErrorFrame {
    /// The frame that answers with `failure`.
    #[must_use]
    pub fn new(id: Option<String>, failure: Failure, request_id: String) -> Self {
        let Failure {
            code,
            detail,
            retry_after_ms,
            extension,
        } = failure;
        Self {
            id,
            code,
            detail,
            retry_after_ms,
            request_id,
            errors: extension.errors,
        }
    }
}

/// Why a client should connect elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GoawayReason {
    /// This gateway ends; the socket closes.
    Drain,
    /// This gateway has lost the others; keep the connection until another welcomes.
    Degraded,
}

/// The client should connect elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Goaway {
    /// Why.
    pub reason: GoawayReason,
    /// After how long, in milliseconds.
    pub reconnect_after_ms: u64,
}

/// What a client hears: a frame or an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A frame.
    Frame(ServerFrame),
    /// An event.
    Event(Event),
}

impl ServerFrame {
    /// The frame as JSON.
    ///
    /// # Errors
    /// Never for frames made by this crate's types.
    pub fn encode(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

impl Heard {
    /// Reads what a gateway sent.
    ///
    /// # Errors
    /// When it is neither a frame nor an event.
    pub fn decode(json: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(borrow)]
            r#type: std::borrow::Cow<'a, str>,
        }
        let head: Head<'_> = serde_json::from_slice(json)?;
        if head.r#type.contains('.') {
            return serde_json::from_slice(json).map(Self::Event);
        }
        serde_json::from_slice(json).map(Self::Frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::JsonText;

    fn send() -> ClientFrame {
        ClientFrame::Send(Send {
            id: "01890a5d-ac96-774b-bcce-b302099a8059".parse().unwrap(),
            conversation_id: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
            body: MessageBody {
                kind: "text".into(),
                content: Some(JsonText::trusted(r#"{"text": "hi"}"#.into())),
                encrypted_content: None,
                payload_size_bytes: None,
                reply_to: None,
                metadata: JsonText::empty_object(),
            },
        })
    }

    #[test]
    fn client_frames_survive_the_wire() {
        let frames = [
            ClientFrame::Hello(Hello {
                token: Some("t".into()),
                heads: Some(true),
                ..Hello::default()
            }),
            ClientFrame::Seen(Seen::default()),
            ClientFrame::Bye(Plain::default()),
            ClientFrame::Ping(Plain {
                id: Some("7".into()),
            }),
            send(),
        ];
        let mut wire = String::new();
        for frame in frames {
            let json = frame.encode().unwrap();
            assert_eq!(ClientFrame::decode(json.as_bytes()).unwrap(), frame);
            wire.push_str(&json);
            wire.push('\n');
        }
        insta::assert_snapshot!(wire);
    }

    #[test]
    fn server_frames_survive_the_wire() {
        let session_id = SessionId("01890a5d-ac96-774b-bcce-b302099a8059".parse().unwrap());
        let frames = [
            ServerFrame::Welcome(Box::new(Welcome {
                id: None,
                session_id,
                user_id: "alice".parse().unwrap(),
                resumed: false,
                reason: None,
                replayed: 0,
                truncated: vec![],
                heads: None,
                resume_token: None,
                resume_window_seconds: 0,
                heartbeat_seconds: 25,
                limits: WelcomeLimits::default(),
            })),
            ServerFrame::Ack(Ack {
                id: ClientId(session_id.0),
                conversation_id: ConversationId(session_id.0),
                message_id: EventId(session_id.0),
                seq: 3,
                created_at: "2026-11-23T10:20:30.123Z".parse().unwrap(),
                duplicate: false,
            }),
            ServerFrame::Error(ErrorFrame::new(
                Some("7".into()),
                Failure::field("/kind", "must be given"),
                "r".into(),
            )),
            ServerFrame::Goaway(Goaway {
                reason: GoawayReason::Drain,
                reconnect_after_ms: 20,
            }),
            ServerFrame::Pong { id: None },
        ];
        let mut wire = String::new();
        for frame in frames {
            let json = frame.encode().unwrap();
            assert_eq!(Heard::decode(json.as_bytes()).unwrap(), Heard::Frame(frame));
            wire.push_str(&json);
            wire.push('\n');
        }
        insta::assert_snapshot!(wire);
    }

    #[test]
    fn a_bad_frame_says_what_is_wrong_and_to_whom_it_answers() {
        let bad = ClientFrame::decode(br#"{"type":"send","id":"x","sender":"eve","kind":"text"}"#)
            .unwrap_err();
        assert_eq!(bad.id.as_deref(), Some("x"));
        let pointers: Vec<_> = bad
            .failure
            .extension
            .errors
            .iter()
            .map(|e| e.pointer.as_str())
            .collect();
        assert_eq!(pointers, ["/id", "/conversationId", "/content", "/sender"]);
        for junk in [
            "",
            "[]",
            "{}",
            r#"{"type":7}"#,
            r#"{"type":"nope"}"#,
            r#"{"type":"ping","typo":1}"#,
            r#"{"type":"ping","id":"a\u0000"}"#,
            r#"{"type":"hello","client":{"name":"a\u0000","version":null}}"#,
        ] {
            assert_eq!(
                ClientFrame::decode(junk.as_bytes())
                    .unwrap_err()
                    .failure
                    .code,
                Code::Validation,
                "{junk}"
            );
        }
    }
}
