//! `confab listen`: a member in the terminal that hears.

use std::io::Write as _;

use clap::Args as ClapArgs;
use confab_client::{Closed, Encoding, Options, Ws};
use confab_protocol::event::{Event, EventType};
use confab_protocol::frame::{ClientFrame, Heard, Plain, ServerFrame, Welcome};
use confab_protocol::resource::Message;

/// Print what a user hears, one line an event, until Ctrl-C ends the session.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// A gateway.
    #[arg(long, env = "CONFAB_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Who listens: a JWT.
    #[arg(long, env = "CONFAB_TOKEN", hide_env_values = true)]
    token: String,
    /// Speak MessagePack instead of JSON.
    #[arg(long)]
    msgpack: bool,
    /// Print every event and frame as JSON.
    #[arg(long)]
    raw: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut options = Options::bearer(&args.token);
    if args.msgpack {
        options.encoding = Encoding::MsgPack;
    }
    let (welcome, mut ws) = Ws::connect(&args.url, options).await?;
    say(&if args.raw {
        ServerFrame::Welcome(Box::new(welcome)).encode()?
    } else {
        opened(&welcome)
    })?;
    loop {
        tokio::select! {
            heard = ws.next() => match heard {
                Ok(heard) => say(&line(&heard, args.raw)?)?,
                Err(closed) => return Err(closed.into()),
            },
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                return say(&leave(ws).await?.to_string());
            }
        }
    }
}

/// Ends the session for good.
async fn leave(mut ws: Ws) -> anyhow::Result<Closed> {
    ws.send_frame(&ClientFrame::Bye(Plain::default())).await?;
    let (_sender, mut receiver) = ws.split();
    Ok(tokio::time::timeout(std::time::Duration::from_secs(5), receiver.closed()).await?)
}

fn opened(welcome: &Welcome) -> String {
    format!(
        "session {} of {} is open; Ctrl-C ends it",
        welcome.session_id, welcome.user_id
    )
}

fn line(heard: &Heard, raw: bool) -> anyhow::Result<String> {
    Ok(match heard {
        Heard::Event(event) if raw => serde_json::to_string(event)?,
        Heard::Event(event) => readable(event),
        Heard::Frame(frame) => frame.encode()?,
    })
}

/// Time, conversation, seq, actor, type, and what it says.
fn readable(event: &Event) -> String {
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

/// Text of others stays on its line and cannot steer the terminal.
fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            line.extend(letter.escape_default());
        } else {
            line.push(letter);
        }
    }
    line
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
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
            assert_eq!(readable(&event(content)), format!("{start}{said}"));
        }
    }
}
