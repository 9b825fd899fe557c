//! The frames of the WebSocket (docs/protocol/websocket.md): each encode has its decode here.

use serde::Deserialize;

use crate::event::Event;

mod client;
mod message;
mod server;

pub use client::{
    Auth, BadFrame, ClientFrame, ClientInfo, Delete, Edit, Hello, Plain, Read, Seen, Send, SendId,
    SetPresence, Typing, key_of,
};
pub use message::{KIND_RULE, is_kind, read_body, read_change, read_content};
pub use server::{
    Ack, ErrorFrame, Goaway, GoawayReason, PresenceSignal, PresenceSnapshot, ReceiptSignal,
    ResumeToken, ServerFrame, TokenExpiring, Truncated, TypingSignal, Welcome, WelcomeLimits,
};

/// A message that a client receives: a frame or an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A frame.
    Frame(ServerFrame),
    /// An event.
    Event(Event),
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
    use crate::error::{Code, Failure};
    use crate::ids::{ConversationId, EventId, SessionId};
    use crate::json::JsonText;
    use crate::resource::{MessageBody, MessageContent};
    use crate::signal::PresenceStatus;

    fn send() -> ClientFrame {
        ClientFrame::Send(Send {
            id: SendId::parse("01890A5D-AC96-774B-BCCE-B302099A8059".into()).unwrap(),
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
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let frames = [
            ClientFrame::Hello(Hello {
                token: Some("t".into()),
                heads: Some(true),
                presence: Some(true),
                ..Hello::default()
            }),
            ClientFrame::Seen(Seen::default()),
            ClientFrame::Bye(Plain::default()),
            ClientFrame::Ping(Plain {
                id: Some("7".into()),
            }),
            send(),
            ClientFrame::Edit(Edit {
                id: Some("8".into()),
                conversation_id: id.parse().unwrap(),
                message_id: id.parse().unwrap(),
                if_version: Some(2),
                content: Some(MessageContent {
                    content: None,
                    encrypted_content: Some("AAEC".into()),
                    payload_size_bytes: Some(3),
                }),
                metadata: Some(JsonText::trusted(r#"{"mentions": null}"#.into())),
            }),
            ClientFrame::Edit(Edit {
                id: None,
                conversation_id: id.parse().unwrap(),
                message_id: id.parse().unwrap(),
                if_version: None,
                content: None,
                metadata: Some(JsonText::empty_object()),
            }),
            ClientFrame::Delete(Delete {
                id: None,
                conversation_id: id.parse().unwrap(),
                message_id: id.parse().unwrap(),
                if_version: Some(1),
            }),
            ClientFrame::Read(Read {
                id: None,
                conversation_id: id.parse().unwrap(),
                up_to_seq: 4,
            }),
            ClientFrame::Typing(Typing {
                id: None,
                conversation_id: id.parse().unwrap(),
                on: true,
            }),
            ClientFrame::Presence(SetPresence {
                id: None,
                status: PresenceStatus::Away,
            }),
            ClientFrame::Auth(Auth {
                id: None,
                token: "t".into(),
            }),
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
                id: Some(session_id.to_string()),
                conversation_id: Some(ConversationId(session_id.0)),
                message_id: Some(EventId(session_id.0)),
                seq: Some(3),
                created_at: "2026-11-23T10:20:30.123Z".parse().ok(),
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
            ServerFrame::Typing(TypingSignal {
                conversation_id: ConversationId(session_id.0),
                user_id: "alice".parse().unwrap(),
                on: true,
            }),
            ServerFrame::Receipt(ReceiptSignal {
                conversation_id: ConversationId(session_id.0),
                user_id: "alice".parse().unwrap(),
                up_to_seq: 7,
            }),
            ServerFrame::Presence(PresenceSignal {
                user_id: "alice".parse().unwrap(),
                status: PresenceStatus::Offline,
            }),
            ServerFrame::PresenceSnapshot(PresenceSnapshot {
                users: vec![PresenceSignal {
                    user_id: "alice".parse().unwrap(),
                    status: PresenceStatus::Away,
                }],
                complete: true,
            }),
            ServerFrame::TokenExpiring(TokenExpiring {
                expires_at: "2026-11-23T10:20:30.123Z".parse().unwrap(),
            }),
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
    fn seen_of_more_conversations_than_possible_is_refused() {
        let named = |count: u128| {
            let ids = (0..count).map(|n| format!("\"{}\":1", uuid::Uuid::from_u128(n)));
            ids.collect::<Vec<_>>().join(",")
        };
        let seen = |count| format!("{{\"type\":\"seen\",\"positions\":{{{}}}}}", named(count));
        assert!(ClientFrame::decode(seen(10_000).as_bytes()).is_ok());
        let bad = ClientFrame::decode(seen(10_001).as_bytes()).unwrap_err();
        let [error] = bad.failure.extension.errors.as_slice() else {
            panic!("{bad:?}")
        };
        assert_eq!(error.pointer, "/positions");
        assert_eq!(error.message, "must name at most 10000 conversations");
        let hello = format!("{{\"type\":\"hello\",\"seen\":{{{}}}}}", named(10_001));
        let bad = ClientFrame::decode(hello.as_bytes()).unwrap_err();
        assert_eq!(bad.failure.extension.errors[0].pointer, "/seen");
    }

    #[test]
    fn id_in_any_form_is_echoed_as_given() {
        let canonical = "01890a5d-ac96-774b-bcce-b302099a8059";
        let simple = canonical.replace('-', "");
        for given in [
            canonical,
            &canonical.to_uppercase(),
            &format!("{{{canonical}}}"),
            &format!("urn:uuid:{canonical}"),
            &simple,
        ] {
            let json = format!(
                r#"{{"type":"send","id":"{given}","conversationId":"{canonical}","kind":"text","content":1}}"#
            );
            let ClientFrame::Send(send) = ClientFrame::decode(json.as_bytes()).unwrap() else {
                panic!("no send: {json}")
            };
            assert_eq!(
                (send.id.as_str(), send.id.key().to_string().as_str()),
                (given, canonical)
            );
            assert_eq!(key_of(Some(given)), Some(send.id.key()));
            let bad = json.replace("text", "nope");
            assert_eq!(
                ClientFrame::decode(bad.as_bytes())
                    .unwrap_err()
                    .id
                    .as_deref(),
                Some(given)
            );
        }
        assert_eq!((key_of(None), key_of(Some("7"))), (None, None));
    }

    #[test]
    fn bad_frame_reports_faults_and_frame_id() {
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
