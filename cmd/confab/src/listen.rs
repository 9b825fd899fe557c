//! `confab listen`: a member in the terminal that hears.

use std::collections::{BTreeMap, HashMap};

use clap::Args;
use confab_client::{Change, Changes, Encoding, ResumeOptions, Resuming};
use confab_protocol::event::Event;
use confab_protocol::frame::Truncated;
use confab_protocol::ids::{ConversationId, Seq};

mod lines;
mod log;

use crate::connecting;
use crate::terminal::say;
use log::{LogReader, Read};

/// Print what a user hears, one line an event, until Ctrl-C ends the session.
///
/// When the connection ends, the session is resumed at the next gateway, and what was missed is printed in its place; what
/// the gateway does not replay is read over HTTP.
#[derive(Debug, Args)]
#[command(after_help = USAGE_EXAMPLES)]
pub(crate) struct ListenArgs {
    /// Required: the token of who listens.
    #[arg(
        long,
        env = "CONFAB_TOKEN",
        hide_env_values = true,
        value_name = "JWT",
        help_heading = "Required"
    )]
    token: String,
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
    /// Speak MessagePack instead of JSON.
    #[arg(long, help_heading = "Output")]
    msgpack: bool,
    /// Print every event and change as JSON.
    #[arg(long, help_heading = "Output")]
    raw: bool,
}

const USAGE_EXAMPLES: &str = "\
Examples, with what `confab dev` prints to paste:
  confab listen --token $BOB
  confab listen --token $BOB --url http://one.example,http://other.example --raw";

pub(crate) async fn run(args: ListenArgs) -> anyhow::Result<()> {
    let log = LogReader::new(&args.url, &args.token)?;
    let mut options = ResumeOptions::new(args.url, args.token.as_str());
    if args.msgpack {
        options.encoding = Encoding::MsgPack;
    }
    let (session, mut changes) = connecting::open(options).await?;
    let mut listener = Listener {
        session: &session,
        log,
        raw: args.raw,
        printed: HashMap::new(),
    };
    let interrupted = tokio::select! {
        ended = Box::pin(listener.follow(&mut changes)) => return ended,
        interrupted = tokio::signal::ctrl_c() => interrupted,
    };
    interrupted?;
    let closed = session.bye().await?;
    say(&closed.to_string())
}

/// Prints, and knows what it has printed.
struct Listener<'a> {
    session: &'a Resuming,
    log: LogReader,
    raw: bool,
    /// The last seq of each conversation.
    printed: HashMap<ConversationId, Seq>,
}

impl Listener<'_> {
    /// To the end, which is an error.
    async fn follow(&mut self, changes: &mut Changes) -> anyhow::Result<()> {
        let mut begun = false;
        while let Some(change) = changes.next().await {
            match change {
                Change::Event(event) => self.event(&event)?,
                Change::Closed(closed) => return Err(closed.into()),
                Change::Truncated(range) => {
                    self.say(&Change::Truncated(range.clone()), begun)?;
                    self.read(range).await?;
                }
                change => self.say(&change, begun)?,
            }
            begun = true;
        }
        anyhow::bail!("the session ended without a word")
    }

    fn say(&self, change: &Change, begun: bool) -> anyhow::Result<()> {
        if self.raw {
            return say(&lines::raw(change)?);
        }
        lines::readable(change, begun).map_or(Ok(()), |line| say(&line))
    }

    /// What was printed before is not printed again (docs/protocol/delivery.md, "Order and acknowledgements").
    fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        let last = self.printed.entry(event.conversation_id).or_default();
        if event.seq <= *last {
            return Ok(());
        }
        *last = event.seq;
        say(&if self.raw {
            serde_json::to_string(event)?
        } else {
            lines::event(event)
        })
    }

    /// Prints a range that was not sent, and says that it is held. What cannot be read is named again with the next
    /// reconnect, unless it can never be.
    async fn read(&mut self, range: Truncated) -> anyhow::Result<()> {
        let conversation = range.conversation_id;
        let before = range.from_seq.saturating_sub(1);
        if range.reset == Some(true) {
            self.printed.insert(conversation, before);
        }
        let mut held = self.printed.get(&conversation).copied().unwrap_or(0);
        held = held.max(before);
        while held < range.head_seq {
            match self.log.after(conversation, held).await {
                Read::Events(events) => {
                    for event in &events {
                        self.event(event)?;
                        held = event.seq;
                    }
                }
                Read::Never(why) => {
                    say(&format!("-- it cannot be read: {why}"))?;
                    held = range.head_seq;
                }
                Read::NotNow(why) => {
                    return say(&format!("-- it cannot be read now: {why}"));
                }
            }
        }
        let held = BTreeMap::from([(conversation, held)]);
        self.session.seen(held).await;
        Ok(())
    }
}
