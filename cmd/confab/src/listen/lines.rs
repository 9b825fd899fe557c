//! What is printed of what is heard.

use confab_client::{Change, Closed};
use confab_protocol::event::{Event, EventType};
use confab_protocol::frame::{ServerFrame, Truncated};
use confab_protocol::resource::Message;
use serde_json::json;

use crate::terminal::on_one_line;

/// For people; nothing where there is nothing to say.
pub(super) fn readable(change: &Change, begun: bool) -> Option<String> {
    Some(match change {
        Change::Connected {
            url, session_id, ..
        } if !begun => format!("session {session_id} is open at {url}; Ctrl-C ends it"),
        Change::Connected {
            url,
            resumed,
            reason,
            session_id,
            replayed,
        } => {
            let how = if *resumed {
                "is resumed"
            } else {
                "begins afresh"
            };
            let why = reason
                .as_ref()
                .map_or_else(String::new, |reason| format!(" ({})", on_one_line(reason)));
            format!("-- session {session_id} {how} at {url}{why}; replayed: {replayed}")
        }
        Change::Disconnected(closed) => format!("-- {}", told(closed)),
        Change::Truncated(Truncated {
            conversation_id,
            from_seq,
            head_seq,
            reset,
        }) => {
            let void = match reset {
                Some(true) => "; what was printed of it before is void",
                Some(false) | None => "",
            };
            format!(
                "-- {conversation_id} #{from_seq} to #{head_seq} is not replayed but read over HTTP{void}"
            )
        }
        Change::Goaway(_)
        | Change::Typing(_)
        | Change::Receipt(_)
        | Change::Presence(_)
        | Change::PresenceSnapshot(_)
        | Change::Error(_) => raw(change).ok()?,
        Change::Event(event) => self::event(event),
        Change::Closed(_) => return None,
    })
}

fn told(closed: &Closed) -> String {
    on_one_line(&closed.to_string())
}

/// For programs: frames as they came, and what no frame says as an object with a `type`.
pub(super) fn raw(change: &Change) -> Result<String, serde_json::Error> {
    let ended = |kind: &str, closed: &Closed| {
        json!({"type": kind, "code": closed.code, "reason": closed.reason}).to_string()
    };
    Ok(match change {
        Change::Connected {
            url,
            resumed,
            reason,
            session_id,
            replayed,
        } => json!({
            "type": "connected", "url": url, "resumed": resumed, "reason": reason,
            "sessionId": session_id, "replayed": replayed,
        })
        .to_string(),
        Change::Disconnected(closed) => ended("disconnected", closed),
        Change::Closed(closed) => ended("closed", closed),
        Change::Event(event) => serde_json::to_string(event)?,
        Change::Truncated(range) => ServerFrame::Truncated(range.clone()).encode()?,
        Change::Typing(typing) => ServerFrame::Typing(typing.clone()).encode()?,
        Change::Receipt(receipt) => ServerFrame::Receipt(receipt.clone()).encode()?,
        Change::Presence(presence) => ServerFrame::Presence(presence.clone()).encode()?,
        Change::PresenceSnapshot(snapshot) => {
            ServerFrame::PresenceSnapshot(snapshot.clone()).encode()?
        }
        Change::Goaway(goaway) => ServerFrame::Goaway(goaway.clone()).encode()?,
        Change::Error(error) => ServerFrame::Error(error.clone()).encode()?,
    })
}

/// Time, conversation, seq, actor, type, and what it says.
pub(super) fn event(event: &Event) -> String {
    let Event {
        created_at,
        conversation_id,
        seq,
        actor,
        r#type,
        ..
    } = event;
    let name = r#type.as_str();
    let said = if *r#type == EventType::MessageCreated {
        message(event)
    } else {
        on_one_line(event.data.as_str())
    };
    format!("{created_at} {conversation_id} #{seq} {actor} {name} {said}")
}

/// The text of a message where it has one, else its content as JSON, else its kind.
fn message(event: &Event) -> String {
    let Ok(message) = serde_json::from_str::<Message>(event.data.as_str()) else {
        return event.data.as_str().to_owned();
    };
    let Some(content) = message.content else {
        return format!("[{}]", message.kind);
    };
    let text = match serde_json::from_str(content.as_str()) {
        Ok(serde_json::Value::String(text)) => Some(text),
        Ok(serde_json::Value::Object(object)) => match object.get("text") {
            Some(serde_json::Value::String(text)) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    };
    on_one_line(&text.unwrap_or_else(|| content.into_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(content: &str) -> Event {
        let json = format!(
            r#"{{"type":"message.created","conversationId":"01890a5d-ac96-774b-bcce-b302099a8057","seq":7,"id":"01890a5d-ac96-774b-bcce-b302099a8058","actor":"alice","createdAt":"2026-11-23T10:20:30.123Z","data":{{"id":"01890a5d-ac96-774b-bcce-b302099a8058","conversationId":"01890a5d-ac96-774b-bcce-b302099a8057","seq":7,"sender":"alice","clientId":null,"kind":"text","content":{content},"payloadSizeBytes":null,"replyTo":null,"metadata":{{}},"createdAt":"2026-11-23T10:20:30.123Z","editedAt":null,"deletedAt":null}}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn a_message_is_one_line_with_its_text() {
        let start = "2026-11-23T10:20:30.123Z 01890a5d-ac96-774b-bcce-b302099a8057 #7 alice message.created ";
        for (content, said) in [
            (r#"{"text":"hi"}"#, "hi"),
            (r#""hi\nyou\u001b[2J""#, "hi\\nyou\\u{1b}[2J"),
            (r#"{"a":1}"#, r#"{"a":1}"#),
        ] {
            assert_eq!(super::event(&event(content)), format!("{start}{said}"));
        }
    }

    fn connected(resumed: bool, reason: Option<&str>) -> Change {
        Change::Connected {
            url: "http://h".to_owned(),
            resumed,
            reason: reason.map(str::to_owned),
            session_id: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
            replayed: 3,
        }
    }

    #[test]
    fn reconnect_line_says_if_session_resumed() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        for (change, begun, line) in [
            (
                connected(false, None),
                false,
                format!("session {id} is open at http://h; Ctrl-C ends it"),
            ),
            (
                connected(true, None),
                true,
                format!("-- session {id} is resumed at http://h; replayed: 3"),
            ),
            (
                connected(false, Some("used")),
                true,
                format!("-- session {id} begins afresh at http://h (used); replayed: 3"),
            ),
        ] {
            assert_eq!(readable(&change, begun), Some(line));
        }
    }

    #[test]
    fn raw_output_has_typed_object_per_event() {
        let closed = Closed {
            code: Some(1001),
            reason: "drain".to_owned(),
        };
        for change in [connected(true, None), Change::Disconnected(closed)] {
            let value: serde_json::Value = serde_json::from_str(&raw(&change).unwrap()).unwrap();
            assert!(value["type"].is_string(), "{value}");
        }
    }
}
