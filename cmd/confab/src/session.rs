//! `confab session`: what is kept of sessions, for operators.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use confab_bus::records::{Bucket, Entry, Found, Record};
use confab_bus::rpc::Workers;
use confab_bus::{Bus, Settings};
use confab_protocol::command::{Batch, COMMAND_VERSION, Caller, Command, Outcome, Request, Revoke};
use confab_protocol::ids::{SessionId, TenantId};
use confab_protocol::revocation::{Revocation, RevocationTarget};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::terminal::{on_one_line, say};

/// Look at the sessions that are connected or may be resumed, or end one. Needs NATS.
#[derive(Debug, Args)]
#[command(after_help = USAGE_EXAMPLES)]
pub(crate) struct SessionArgs {
    #[command(subcommand)]
    action: SessionAction,
}

const USAGE_EXAMPLES: &str = "\
Examples:
  confab session ls --nats-url nats://127.0.0.1:4222
  confab session show 01890a5d-ac96-774b-bcce-b302099a8057
  confab session revoke 01890a5d-ac96-774b-bcce-b302099a8057";

#[derive(Debug, Subcommand)]
enum SessionAction {
    /// Print one line a session. `live` ones are connected or may be resumed; `ended` ones may not, and are kept until nobody may try.
    Ls {
        #[command(flatten)]
        nats: Box<Settings>,
        /// How many at most.
        #[arg(
            long,
            value_name = "NUMBER",
            default_value_t = 1000,
            help_heading = "Which"
        )]
        limit: usize,
    },
    /// Print what is kept of a session: up to where its client is proven to have each conversation.
    Show {
        /// Which.
        id: SessionId,
        #[command(flatten)]
        nats: Box<Settings>,
    },
    /// Revoke a session: its socket closes wherever it is, and it cannot be resumed. Needs a worker.
    Revoke {
        /// Which.
        id: SessionId,
        #[command(flatten)]
        nats: Box<Settings>,
        /// The session's product, where nothing is kept of the session.
        #[arg(long, help_heading = "Which")]
        tenant: Option<TenantId>,
    },
}

impl SessionAction {
    const fn nats(&self) -> &Settings {
        match self {
            Self::Ls { nats, .. } | Self::Show { nats, .. } | Self::Revoke { nats, .. } => nats,
        }
    }
}

/// How long NATS may take to answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a worker may take to revoke.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Every worker says each second that it lives.
const WORKER_HEARD_TIMEOUT: Duration = Duration::from_secs(2);
/// Of looking at a bucket nothing depends on how long it keeps records.
const ANY_WINDOW: Duration = Duration::from_secs(900);

/// What a line of `ls` has.
const LIST_COLUMNS: [&str; 8] = [
    "SESSION",
    "STATE",
    "TENANT",
    "USER",
    "DEVICE",
    "GATEWAY",
    "GENERATION",
    "POSITIONS",
];

pub(crate) async fn run(args: SessionArgs) -> anyhow::Result<()> {
    let bus = connect(args.action.nats()).await?;
    let bucket = Bucket::new(bus.clone(), ANY_WINDOW);
    match args.action {
        SessionAction::Ls { limit, .. } => list(&bucket, limit).await?,
        SessionAction::Show { id, .. } => show(&bucket, id).await?,
        SessionAction::Revoke { id, tenant, .. } => revoke(&bus, &bucket, id, tenant).await?,
    }
    bus.close().await;
    Ok(())
}

async fn connect(nats: &Settings) -> anyhow::Result<Bus> {
    let bus = Bus::connect(nats, "confab session").await?;
    let mut link = bus.connection();
    let connected = link.wait_for(|link| link.connected);
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connected).await;
    connected.context(
        "NATS does not answer: is it where --nats-url (CONFAB_NATS_URL) says? `confab doctor` tells more",
    )??;
    Ok(bus)
}

async fn list(bucket: &Bucket, limit: usize) -> anyhow::Result<()> {
    say(&LIST_COLUMNS.join("\t"))?;
    for (id, found) in bucket.list(limit).await? {
        say(&line(id, &found))?;
    }
    Ok(())
}

/// One line, its parts set apart by tabs.
fn line(id: SessionId, found: &Found) -> String {
    if let Some(record) = found.live() {
        return live(id, record);
    }
    match found {
        Found::Entry {
            entry: Entry::Ended { generation, .. },
            ..
        } => format!("{id}\tended\t-\t-\t-\t-\t{generation}\t0"),
        Found::Baseless { record, .. } => format!("{}\tbaseless", live(id, record)),
        Found::Unreadable { deleted: true, .. } => format!("{id}\tdeleted"),
        Found::Unreadable { .. } | Found::Entry { .. } => format!("{id}\tunreadable"),
        Found::Absent => format!("{id}\tabsent"),
    }
}

fn live(id: SessionId, record: &Record) -> String {
    let Record {
        tenant,
        user,
        device,
        gateway,
        owner,
        positions,
        ..
    } = record;
    let (user, device) = (on_one_line(user.as_str()), on_one_line(device));
    let (generation, many) = (owner.generation, positions.len());
    format!("{id}\tlive\t{tenant}\t{user}\t{device}\t{gateway}\t{generation}\t{many}")
}

async fn show(bucket: &Bucket, id: SessionId) -> anyhow::Result<()> {
    let found = bucket.get_from_leader(id).await?;
    if matches!(found, Found::Absent) {
        bail!("nothing is kept of the session {id}");
    }
    let Some(record) = found.live() else {
        return say(&line(id, &found));
    };
    for line in lines(id, record, found.revision()) {
        say(&line)?;
    }
    Ok(())
}

/// What is kept, but for tokens' hashes.
fn lines(id: SessionId, record: &Record, revision: u64) -> Vec<String> {
    let mut lines = vec![
        format!("session     {id}"),
        format!("tenant      {}", record.tenant),
        format!("user        {}", on_one_line(record.user.as_str())),
        format!("device      {}", on_one_line(&record.device)),
        format!("login       {}", on_one_line(&record.login_session)),
        format!("gateway     {}", record.gateway),
        format!("generation  {}", record.owner.generation),
        format!("take-over   {}", record.owner.take_over),
        format!("presence    {:?}", record.presence),
        format!("revision    {revision}"),
        format!("positions   {}", record.positions.len()),
    ];
    let mut positions = record.positions.clone();
    positions.sort_unstable_by_key(|position| (position.conversation, position.joined));
    lines.extend(positions.iter().map(|position| {
        format!(
            "  {} joined #{} has #{}",
            position.conversation, position.joined, position.seq
        )
    }));
    lines
}

/// Has a worker revoke, and tells the gateways what it did.
async fn revoke(
    bus: &Bus,
    bucket: &Bucket,
    id: SessionId,
    tenant: Option<TenantId>,
) -> anyhow::Result<()> {
    let tenant = match tenant {
        Some(tenant) => tenant,
        None => {
            let found = bucket.get_from_leader(id).await?;
            let kept = found.live().map(|record| record.tenant.clone());
            kept.ok_or_else(|| anyhow!("nothing is kept of the session {id}: name its --tenant"))?
        }
    };
    let revocation = ask(bus, id, tenant).await?;
    bus.tell_revocation(&revocation).await?;
    say(&format!(
        "session {id} is revoked since {}",
        revocation.created_at
    ))
}

/// An operator with access to NATS may do what a token with `confab:admin` may.
async fn ask(bus: &Bus, id: SessionId, tenant: TenantId) -> anyhow::Result<Revocation> {
    let target = RevocationTarget::Session {
        session: id,
        user: None,
    };
    let request = Request {
        request_id: Uuid::now_v7().to_string(),
        traceparent: None,
        caller: Caller {
            tenant,
            user: "operator".parse()?,
            admin: true,
        },
        event: None,
        command: Command::Revoke(Revoke { target, key: None }),
    };
    let workers = Workers::new(bus.clone());
    tokio::select! {
        listened = workers.run(CancellationToken::new()) => listened?,
        () = workers.heard_of_one(WORKER_HEARD_TIMEOUT) => {}
    }
    let batch = Batch {
        version: COMMAND_VERSION,
        budget_ms: u32::try_from(REVOKE_TIMEOUT.as_millis())?,
        sent: Some(workers.sent_now()),
        requests: vec![&request],
    };
    let outcomes = bus
        .command(workers.pick(id, &[]), &batch, REVOKE_TIMEOUT)
        .await
        .context("no worker revoked it")?;
    match outcomes.into_iter().next() {
        Some(Ok(Outcome::Revoked(revocation))) => Ok(revocation),
        Some(Err(failure)) => Err(failure.into()),
        Some(Ok(_)) | None => bail!("the worker's answer is about something else"),
    }
}

#[cfg(test)]
mod tests {
    use confab_bus::GatewayId;
    use confab_bus::records::{Ownership, Position, TokenHash};
    use confab_protocol::ids::ConversationId;
    use confab_protocol::signal::PresenceStatus;

    use super::*;

    fn record() -> Record {
        Record {
            tenant: "acme".parse().unwrap(),
            user: "alice".parse().unwrap(),
            device: "phone\n\u{1b}[2J".to_owned(),
            login_session: "login".to_owned(),
            token: TokenHash([0xab; 32]),
            former: Some(TokenHash([0xcd; 32])),
            owner: Ownership {
                generation: 3,
                take_over: Uuid::nil(),
            },
            gateway: GatewayId(Uuid::nil()),
            presence: PresenceStatus::Away,
            positions: vec![Position {
                conversation: ConversationId(Uuid::nil()),
                joined: 2,
                seq: 9,
            }],
        }
    }

    #[test]
    fn session_line_escapes_terminal_control_characters() {
        let (nil, gateway) = (Uuid::nil(), GatewayId(Uuid::nil()));
        let found = |entry| Found::Entry { entry, revision: 7 };
        let live = line(SessionId(nil), &found(Entry::Live(Box::new(record()))));
        let wanted = format!("{nil}\tlive\tacme\talice\tphone\\n\\u{{1b}}[2J\t{gateway}\t3\t1");
        assert_eq!(live, wanted);
        let ended = line(
            SessionId(nil),
            &found(Entry::Ended {
                generation: 4,
                tokens: Vec::new(),
            }),
        );
        assert_eq!(ended, format!("{nil}\tended\t-\t-\t-\t-\t4\t0"));
    }

    #[test]
    fn session_record_is_shown_without_token_hashes() {
        let shown = lines(SessionId(Uuid::nil()), &record(), 7).join("\n");
        let position = format!("  {} joined #2 has #9", Uuid::nil());
        assert!(shown.ends_with(&position), "{shown}");
        for secret in ["ab", "171", "cd", "205"] {
            assert!(!shown.contains(&secret.repeat(4)), "{shown}");
        }
        assert!(!shown.contains("token"), "{shown}");
    }
}
