//! What a gateway says, but for events.

use confab_protocol::error::{Code, Failure};
use confab_protocol::frame::{
    Ack, ErrorFrame, Goaway, GoawayReason, PresenceSignal, PresenceSnapshot, ReceiptSignal,
    ResumeToken, ServerFrame, TokenExpiring, Truncated, TypingSignal, Welcome, WelcomeLimits,
};
use confab_protocol::signal::PresenceStatus;
use serde_json::{Value, json};

use super::Described;
use super::schemas::{said, with_type};
use crate::api_docs::openapi::samples;

/// Every frame of a gateway.
pub(super) fn frames() -> Vec<Described> {
    samples().iter().map(describe).collect()
}

fn describe(frame: &ServerFrame) -> Described {
    let example = serde_json::to_value(frame).unwrap_or_default();
    let name = example["type"].as_str().unwrap_or_default().to_owned();
    let payload = payload(frame, &name);
    let (summary, description) = texts(frame);
    Described {
        name,
        summary,
        description,
        payload,
        example,
        answers: &[],
    }
}

fn payload(frame: &ServerFrame, name: &str) -> Value {
    match frame {
        ServerFrame::Welcome(_) => said::<Welcome>(name),
        ServerFrame::Ack(_) => said::<Ack>(name),
        ServerFrame::Error(_) => said::<ErrorFrame>(name),
        ServerFrame::Typing(_) => said::<TypingSignal>(name),
        ServerFrame::Receipt(_) => said::<ReceiptSignal>(name),
        ServerFrame::Presence(_) => said::<PresenceSignal>(name),
        ServerFrame::PresenceSnapshot(_) => said::<PresenceSnapshot>(name),
        ServerFrame::Truncated(_) => said::<Truncated>(name),
        ServerFrame::ResumeToken(_) => said::<ResumeToken>(name),
        ServerFrame::TokenExpiring(_) => said::<TokenExpiring>(name),
        ServerFrame::Goaway(_) => said::<Goaway>(name),
        ServerFrame::Pong { .. } => with_type(
            json!({
                "type": "object",
                "required": ["id"],
                "properties": { "id": { "type": ["string", "null"], "description": "The ping's id." } },
            }),
            name,
        ),
    }
}

const fn texts(frame: &ServerFrame) -> (&'static str, &'static str) {
    match frame {
        ServerFrame::Welcome(_) => (
            "The session is open.",
            "The answer to hello: replayed events follow it, then live ones. A resume token that cannot be honoured is no error: `resumed` is false, `reason` says why, and a fresh session starts. `seen` is honoured all the same. Messages are replayed with their present content; only while no worker answers it may be older than an edit or deletion that was committed and has not reached the gateway.",
        ),
        ServerFrame::Ack(_) => (
            "What a frame asked for is done.",
            "Committed: a read at any gateway sees it. `seq` is the number of the event that it made, of a `read` where the mark stands.",
        ),
        ServerFrame::Error(_) => (
            "Something was refused.",
            "`id` is that of the frame that it answers, null where none could be read. `errors` names the bad fields of a VALIDATION_ERROR, the first 20 of them; `moreErrors` says how many more there are. `currentVersion` is the message's, of PRECONDITION_FAILED.",
        ),
        ServerFrame::Typing(_) => (
            "A member types, or stopped to.",
            "Of the user, not of one device: `on` is false when the last of its sessions stops. To be forgotten 6 s after the last that said `on`.",
        ),
        ServerFrame::Receipt(_) => (
            "A member has read.",
            "On one connection a user's receipts in a conversation never go back. Also of one's own user: its other sessions hear it, whatever the size of the conversation.",
        ),
        ServerFrame::Presence(_) => (
            "A user of the client's conversations came, went away or left.",
            "Told on change only, by conversations of at most 100 members (`limits.signalMembers` of the welcome). `offline` comes after a grace period in which the user might have come back, and to all who were told otherwise, also where the conversation has grown too large since.",
        ),
        ServerFrame::PresenceSnapshot(_) => (
            "Who is there.",
            "Behind the welcome where hello asked for it by `presence`, of a session that goes on as well: who of those that share a conversation of at most 100 members with the user is online or away, up to 1,000. Who is not named is offline, where `complete` is true; changes follow as `presence`. Of anyone else `GET /v1/presence` tells.",
        ),
        ServerFrame::Truncated(_) => (
            "A range that is not sent, found after the welcome.",
            "As in welcome: read it over HTTP with `after` = fromSeq − 1, then say so with `seen`. With `reset` what the client holds of the conversation is void.",
        ),
        ServerFrame::ResumeToken(_) => (
            "What resumes the session from now on.",
            "It replaces the former one, or comes when the welcome could not have one yet.",
        ),
        ServerFrame::TokenExpiring(_) => (
            "The token ends soon.",
            "60 s ahead: renew it with `auth`, or the connection is closed (4401).",
        ),
        ServerFrame::Goaway(_) => (
            "The client should connect elsewhere.",
            "`drain`: this gateway ends, and the socket closes then. `degraded`: it has lost the others; try elsewhere, and keep this connection until another one welcomes.",
        ),
        ServerFrame::Pong { .. } => ("The answer to a ping.", "With the ping's id."),
    }
}

/// A frame of every kind.
fn samples() -> Vec<ServerFrame> {
    let conversation_id = samples::CONVERSATION_ID;
    let id = || Some("7".to_owned());
    vec![
        ServerFrame::Welcome(Box::new(Welcome {
            id: None,
            session_id: samples::SESSION_ID,
            user_id: samples::user("alice"),
            resumed: false,
            reason: None,
            replayed: 0,
            truncated: vec![Truncated {
                conversation_id,
                from_seq: 42,
                head_seq: 60,
                reset: None,
            }],
            heads: None,
            resume_token: Some(samples::RESUME_TOKEN.to_owned()),
            resume_window_seconds: 900,
            heartbeat_seconds: 25,
            limits: WelcomeLimits::default(),
        })),
        ServerFrame::Ack(Ack {
            id: Some(samples::CLIENT_ID.to_string()),
            conversation_id: Some(conversation_id),
            message_id: Some(samples::MESSAGE_ID),
            seq: Some(61),
            created_at: Some(samples::at()),
            duplicate: false,
        }),
        ServerFrame::Error(ErrorFrame::new(
            id(),
            Failure::of(Code::RateLimited).retry_after(250),
            "01890a5d-ac96-774b-bcce-b302099a8060".to_owned(),
        )),
        ServerFrame::Typing(TypingSignal {
            conversation_id,
            user_id: samples::user("bob"),
            on: true,
        }),
        ServerFrame::Receipt(ReceiptSignal {
            conversation_id,
            user_id: samples::user("bob"),
            up_to_seq: 61,
        }),
        ServerFrame::Presence(PresenceSignal {
            user_id: samples::user("bob"),
            status: PresenceStatus::Online,
        }),
        ServerFrame::PresenceSnapshot(PresenceSnapshot {
            users: vec![PresenceSignal {
                user_id: samples::user("bob"),
                status: PresenceStatus::Away,
            }],
            complete: true,
        }),
        ServerFrame::Truncated(Truncated {
            conversation_id,
            from_seq: 42,
            head_seq: 60,
            reset: None,
        }),
        ServerFrame::ResumeToken(ResumeToken {
            resume_token: samples::RESUME_TOKEN.to_owned(),
        }),
        ServerFrame::TokenExpiring(TokenExpiring {
            expires_at: samples::later(),
        }),
        ServerFrame::Goaway(Goaway {
            reason: GoawayReason::Drain,
            reconnect_after_ms: 2300,
        }),
        ServerFrame::Pong { id: id() },
    ]
}
