//! `confab send`: a member in the terminal that says one thing.

use anyhow::Context as _;
use clap::Args;
use confab_client::ResumeOptions;
use confab_protocol::ids::{ClientId, ConversationId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::MessageBody;
use uuid::Uuid;

use crate::connecting;
use crate::terminal::say;

/// Send a text over a WebSocket and print its acknowledgement as JSON. It is sent again where the connection ends first.
#[derive(Debug, Args)]
#[command(after_help = USAGE_EXAMPLES)]
pub(crate) struct SendArgs {
    /// Required: the token of who sends.
    #[arg(
        long,
        env = "CONFAB_TOKEN",
        hide_env_values = true,
        value_name = "JWT",
        help_heading = "Required"
    )]
    token: String,
    /// Required: the conversation's id.
    #[arg(long, value_name = "ID", help_heading = "Required")]
    conversation: ConversationId,
    /// Gateways, separated by commas: tried in turn.
    #[arg(
        long,
        env = "CONFAB_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080",
        value_delimiter = ',',
        help_heading = "Where"
    )]
    url: Vec<String>,
    /// A UUID that makes the send idempotent: repeated with the same, it is stored once.
    #[arg(long, value_name = "UUID", help_heading = "Repeating")]
    client_id: Option<ClientId>,
    /// What to say; it becomes the content `{"text": TEXT}`.
    text: String,
}

const USAGE_EXAMPLES: &str = "\
Example, with what `confab dev` prints to paste:
  confab send --token $ALICE --conversation $ID 'hello bob'";

pub(crate) async fn run(args: SendArgs) -> anyhow::Result<()> {
    let options = ResumeOptions::new(args.url, args.token.as_str());
    let (session, changes) = connecting::open(options).await?;
    // Who only sends hears nothing.
    drop(changes);
    let id = args.client_id.unwrap_or_else(|| ClientId(Uuid::now_v7()));
    let pending = session
        .submit(id, args.conversation, text(&args.text)?)
        .await?;
    let ack = pending
        .ack()
        .await
        .with_context(|| format!("repeat it with --client-id {id}: it is stored once"))?;
    say(&serde_json::to_string(&ack)?)?;
    session.bye().await?;
    Ok(())
}

fn text(text: &str) -> anyhow::Result<MessageBody> {
    Ok(MessageBody {
        kind: "text".to_owned(),
        content: Some(JsonText::of(&serde_json::json!({ "text": text }))?),
        encrypted_content: None,
        payload_size_bytes: None,
        reply_to: None,
        metadata: JsonText::empty_object(),
    })
}
