//! `confab send`: a member in the terminal that says one thing.

use anyhow::Context as _;
use clap::Args as ClapArgs;
use confab_client::{ResumeOptions, Resuming};
use confab_protocol::ids::{ClientId, ConversationId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::MessageBody;
use uuid::Uuid;

use crate::terminal::say;

/// Send a text over a WebSocket and print its acknowledgement as JSON. It is sent again where the connection ends first.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Gateways, comma separated: tried in turn.
    #[arg(
        long,
        env = "CONFAB_URL",
        default_value = "http://127.0.0.1:8080",
        value_delimiter = ','
    )]
    url: Vec<String>,
    /// Who sends: a JWT.
    #[arg(long, env = "CONFAB_TOKEN", hide_env_values = true)]
    token: String,
    /// Where to: a conversation's id.
    #[arg(long)]
    conversation: ConversationId,
    /// A UUID that makes the send idempotent: repeated with the same, it is stored once.
    #[arg(long)]
    client_id: Option<ClientId>,
    /// What to say; it becomes the content `{"text": TEXT}`.
    text: String,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let options = ResumeOptions::new(args.url, args.token.as_str());
    let (session, changes) = Resuming::open(options).await?;
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
