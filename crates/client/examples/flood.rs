//! Sends as fast as acknowledgements come, so many messages in flight, and says how many were acknowledged in a second.
//!
//! `cargo run --release -p confab-client --example flood -- URL SECONDS IN_FLIGHT TOKEN...`: each token's user begins a group
//! of its own and shares the messages in flight.

use std::error::Error;
use std::io::Write as _;
use std::time::{Duration, Instant};

use confab_client::{Encoding, Http, NewConversation, Options, Session};
use confab_protocol::ids::{ClientId, ConversationId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::{ConversationType, MessageBody};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::task::JoinSet;
use uuid::Uuid;

type Failed = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut args = std::env::args().skip(1);
    let usage = "flood URL SECONDS IN_FLIGHT TOKEN...";
    let url = args.next().ok_or(usage)?;
    let seconds = args.next().ok_or(usage)?.parse()?;
    let in_flight: usize = args.next().ok_or(usage)?.parse()?;
    let tokens: Vec<String> = args.collect();
    let each = (in_flight / tokens.len().max(1)).max(1);
    let length = Duration::from_secs(seconds);
    let mut senders = JoinSet::new();
    for token in tokens {
        senders.spawn(send(url.clone(), token, each, length));
    }
    let mut sent = 0;
    while let Some(one) = senders.join_next().await {
        sent += one??;
    }
    writeln!(
        std::io::stdout().lock(),
        "{} sends/s, {in_flight} in flight",
        sent / seconds
    )?;
    Ok(())
}

/// Keeps `in_flight` messages of one user on their way for `length`; gives how many were acknowledged.
async fn send(
    url: String,
    token: String,
    in_flight: usize,
    length: Duration,
) -> Result<u64, Failed> {
    let http = Http::new(&url, &token)?;
    let group = NewConversation {
        r#type: ConversationType::Group,
        participants: vec!["flooded".parse()?],
        metadata: None,
    };
    let conversation = http
        .create_conversation(&group, None)
        .await?
        .answer
        .conversation
        .id;
    let options = Options {
        encoding: Encoding::Json,
        ..Options::bearer(&token)
    };
    let (session, mut events) = Session::open(&url, options).await?;
    let mut heard = JoinSet::new();
    heard.spawn(async move { while events.next().await.is_some() {} });
    let mut pending = FuturesUnordered::new();
    let (until, mut sent) = (Instant::now() + length, 0);
    while Instant::now() < until {
        while pending.len() < in_flight {
            pending.push(one(&session, conversation));
        }
        pending.next().await.transpose()?;
        sent += 1;
    }
    Ok(sent)
}

async fn one(session: &Session, conversation: ConversationId) -> Result<(), Failed> {
    let body = MessageBody {
        kind: "text".to_owned(),
        content: Some(JsonText::trusted(format!(
            "{{\"text\":\"{}\"}}",
            "x".repeat(280)
        ))),
        encrypted_content: None,
        payload_size_bytes: None,
        reply_to: None,
        metadata: JsonText::empty_object(),
    };
    session
        .submit(ClientId(Uuid::now_v7()), conversation, body)
        .await?
        .ack()
        .await?;
    Ok(())
}
