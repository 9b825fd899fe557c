//! The gateway's settings.

use std::net::SocketAddr;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use confab_bus::feed::Reach;
use confab_protocol::revocation::Lifetimes;
use tracing::warn;

use crate::arrivals::Rates;
use crate::commands::CommandLimits;
use crate::fanout::Replay;
use crate::http::{cors, manners};
use crate::hub::{ReplayLimits, Shards};
use crate::limits::RateLimit;
use crate::metrics::WindowMetrics;
use crate::records;
use crate::server::ServerLimits;
use crate::window::Bounds;
use crate::ws::SocketLimits;

/// How far an issuer's clock may be off Postgres', in seconds.
const CLOCK_MARGIN: u64 = 60;
/// How much longer than twice the resume window revocations of sessions are kept, in seconds.
const SESSION_MARGIN: u64 = 600;
/// By how many seconds the replay window reaches further back than a session may be resumed.
const WINDOW_MARGIN: u64 = 5 * 60;

/// A gateway: HTTP and WebSocket for clients, without a database of its own.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Settings {
    /// Where clients connect: HTTP, WebSocket, /health, /ready, /metrics.
    #[arg(long, env = "CONFAB_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    #[command(flatten)]
    pub nats: confab_bus::Settings,
    #[command(flatten)]
    pub auth: confab_auth::Settings,
    /// Origins of pages that may call (CORS) and open a WebSocket, comma separated, such as `https://app.example`;
    /// `localhost` for pages of this machine on any port, `*` for all. Without any: none may call, and a WebSocket is taken from the gateway's
    /// own.
    #[arg(long, env = "CONFAB_CORS_ORIGINS", value_delimiter = ',')]
    pub cors_origins: Vec<String>,
    /// Rate limits of this gateway: `off`, `lenient`, `strict`, or `user=R/B,device=R/B,address=R/B`: R requests and frames
    /// a second, B at once. Gateways do not share them.
    #[arg(long, env = "CONFAB_RATE_LIMIT", default_value = "lenient")]
    pub rate_limit: RateLimit,
    /// Connections that one user may have at this gateway.
    #[arg(long, env = "CONFAB_USER_CONNECTIONS", default_value_t = 100)]
    pub user_connections: usize,
    /// Proxies in front that each write the address they were asked from into X-Forwarded-For, at its right end.
    #[arg(long, env = "CONFAB_TRUSTED_PROXIES", default_value_t = 0)]
    pub trusted_proxies: usize,
    /// Connections at once, and as many sockets besides, as far as the limit of open files goes. When all are taken, one that says
    /// nothing is closed for each newcomer; where none is silent, newcomers are refused with OVERLOADED.
    #[arg(long, env = "CONFAB_MAX_CONNECTIONS", default_value_t = 100_000)]
    pub max_connections: usize,
    /// Seconds that a request's headers may take.
    #[arg(long, env = "CONFAB_HEADER_TIMEOUT", default_value_t = 10)]
    pub header_timeout: u64,
    /// Seconds that a request's body may take.
    #[arg(long, env = "CONFAB_BODY_TIMEOUT", default_value_t = 30)]
    pub body_timeout: u64,
    /// Milliseconds that a command or query may take, its retry included.
    #[arg(long, env = "CONFAB_REQUEST_BUDGET", default_value_t = 5000)]
    pub request_budget: u64,
    /// Messages to one worker on their way at once, of sends and of read marks each; what waits meanwhile goes in the next one.
    #[arg(long, env = "CONFAB_WORKER_REQUESTS", default_value_t = 4)]
    pub worker_requests: usize,
    /// Commands that may wait in this gateway, a tenant's at most half of them, a user's a quarter; beyond, they are refused as
    /// OVERLOADED.
    #[arg(long, env = "CONFAB_QUEUE_COMMANDS", default_value_t = 16_384)]
    pub queue_commands: usize,
    /// Bytes of the commands that may wait in this gateway, with the same shares.
    #[arg(long, env = "CONFAB_QUEUE_BYTES", default_value_t = 128 * 1024 * 1024)]
    pub queue_bytes: usize,
    /// Sockets without a token in their header that may wait for their hello at once, each with at most 24 KiB: beyond, the one that
    /// waits longest, of the address with most such, is closed for the newcomer.
    #[arg(long, env = "CONFAB_HELLO_CONNECTIONS", default_value_t = 16_384, value_parser = at_least_one)]
    pub hello_connections: usize,
    /// Tell callers what is wrong with a token that is refused, and which setting would mend it. For development: it tells whoever asks
    /// about settings.
    #[arg(long, env = "CONFAB_EXPLAIN_REFUSALS", value_parser = BoolishValueParser::new())]
    pub explain_refusals: bool,
    /// Serve /try, a page that opens a WebSocket and sends. For development.
    #[arg(long, env = "CONFAB_TRY_PAGE", value_parser = BoolishValueParser::new())]
    pub try_page: bool,
    /// Seconds within which a new socket must say hello.
    #[arg(long, env = "CONFAB_HELLO_TIMEOUT", default_value_t = 5)]
    pub hello_timeout: u64,
    /// Seconds between the pings of a socket.
    #[arg(long, env = "CONFAB_HEARTBEAT", default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..))]
    pub heartbeat: u64,
    /// Seconds that a client may take nothing while something waits for it.
    #[arg(long, env = "CONFAB_STALL_TIMEOUT", default_value_t = 30)]
    pub stall_timeout: u64,
    /// Bytes of events that may wait for one socket; beyond, its session catches up from the replay window, at the pace
    /// of its client.
    #[arg(long, env = "CONFAB_OUTBOX_BYTES", default_value_t = 256 * 1024)]
    pub outbox_bytes: usize,
    /// Seconds within which a client that lost its connection may resume its session. `CONFAB_EVENTS_MAX_AGE` should be five
    /// minutes more; with less, a gateway that started lately asks workers for what it does not have.
    #[arg(long, env = "CONFAB_RESUME_WINDOW", default_value_t = 900, value_parser = clap::value_parser!(u64).range(10..))]
    pub resume_window: u64,
    /// Bytes of all records of sessions in NATS: where they are nine tenths of that, new sessions cannot be resumed. A bucket that has a
    /// bound already keeps it.
    #[arg(long, env = "CONFAB_SESSIONS_MAX_BYTES", default_value_t = 512 << 20, value_parser = clap::value_parser!(i64).range(1 << 20..))]
    pub sessions_max_bytes: i64,
    /// Bytes of recent events that are kept for those who resume or are slow; 0 for none, then workers are asked for all.
    #[arg(long, env = "CONFAB_WINDOW_BYTES", default_value_t = 256 * 1024 * 1024)]
    pub window_bytes: usize,
    /// Shards of the hub, which hands events to sessions: as many processors as that may use. Conversations are spread over them.
    #[arg(long, env = "CONFAB_HUB_SHARDS", default_value_t = default_shards(), value_parser = clap::value_parser!(u16).range(1..=64))]
    pub hub_shards: u16,
    /// Events replayed to a session that comes back; of more, whole conversations are left to be read over HTTP.
    #[arg(long, env = "CONFAB_REPLAY_EVENTS", default_value_t = 5000)]
    pub replay_events: u64,
    /// Bytes replayed to a session that comes back.
    #[arg(long, env = "CONFAB_REPLAY_BYTES", default_value_t = 5 * 1024 * 1024)]
    pub replay_bytes: usize,
    /// Resuming connections that are let in a second, before all others; those who would wait for more than three
    /// seconds are told to come again.
    #[arg(long, env = "CONFAB_RESUME_RATE", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    pub resume_rate: u32,
    /// Other connections that are let in a second, likewise.
    #[arg(long, env = "CONFAB_CONNECT_RATE", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    pub connect_rate: u32,
    /// Seconds without any session after which a user counts as offline.
    #[arg(long, env = "CONFAB_PRESENCE_GRACE", default_value_t = 10)]
    pub presence_grace: u64,
    /// Seconds that a gateway which was told to stop goes on accepting connections while /ready says `draining`: longer than
    /// whoever sends it clients takes to notice. Then it closes its port and sends its clients away.
    #[arg(long, env = "CONFAB_DRAIN_DELAY", default_value_t = 5)]
    pub drain_delay: u64,
    /// Seconds over which a draining gateway sends its clients away.
    #[arg(long, env = "CONFAB_DRAIN", default_value_t = 10)]
    pub drain: u64,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        Ok(_zero) => Err("must be at least 1".to_owned()),
        Err(error) => Err(format!("{error}")),
    }
}

/// Half of the processors: sockets need the others.
fn default_shards() -> u16 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(processors / 2)
        .unwrap_or(u16::MAX)
        .clamp(1, 8)
}

impl Settings {
    /// How many shards the hub has.
    pub(crate) fn shards(&self) -> Shards {
        Shards::of(usize::from(self.hub_shards))
    }

    /// The allowlist; a variable that is set to nothing lists nothing.
    ///
    /// # Errors
    /// The entry that is no origin.
    pub(crate) fn origins(&self) -> Result<Vec<String>, String> {
        let given = self.cors_origins.iter().filter(|entry| !entry.is_empty());
        given
            .map(|entry| cors::origin(entry).ok_or_else(|| entry.clone()))
            .collect()
    }

    /// How long a request may take in all.
    pub(crate) fn longest(&self) -> Duration {
        let body = Duration::from_secs(self.body_timeout);
        manners::longest(body, self.command_limits().budget)
    }

    pub(crate) const fn command_limits(&self) -> CommandLimits {
        CommandLimits {
            budget: Duration::from_millis(self.request_budget),
            in_flight: self.worker_requests,
            waiting: self.queue_commands,
            waiting_bytes: self.queue_bytes,
        }
    }

    /// How old the events of the replay window may be: who resumes at the end of its time still finds all it missed.
    pub(crate) const fn window_age(&self) -> Duration {
        Duration::from_secs(self.resume_window + WINDOW_MARGIN)
    }

    /// How far back the stream is read at a start; none where nothing is kept.
    pub(crate) fn window_reach(&self) -> Option<Reach> {
        let bytes = u64::try_from(self.window_bytes).unwrap_or(u64::MAX);
        (bytes > 0).then(|| Reach {
            age: self.window_age(),
            bytes,
        })
    }

    /// Warns where the stream does not keep events for as long as the replay window wants them at a start.
    pub(crate) fn advise(&self) {
        let wanted = self.resume_window + WINDOW_MARGIN;
        if self.window_bytes > 0 && self.nats.events_max_age < wanted {
            warn!("CONFAB_EVENTS_MAX_AGE is below CONFAB_RESUME_WINDOW and its margin: see --help");
        }
    }

    /// For how long revocations must be kept for this gateway: those of tokens until the last one has expired by any clock that may be a
    /// minute off; those of sessions until none can be resumed that was live at a gateway which has not heard of it, and a margin.
    pub(crate) fn lifetimes(&self) -> Lifetimes {
        let token = u64::from(self.auth.max_lifetime) + u64::from(self.auth.leeway);
        Lifetimes {
            token_seconds: token + CLOCK_MARGIN,
            session_seconds: self.resume_window.saturating_mul(2) + SESSION_MARGIN,
        }
    }

    /// How long sessions may be resumed, and how much is kept for that.
    pub(crate) const fn records(&self) -> records::Bounds {
        records::Bounds {
            window: Duration::from_secs(self.resume_window),
            max_bytes: self.sessions_max_bytes,
        }
    }

    pub(crate) const fn arrival_rates(&self) -> Rates {
        Rates {
            resumes: self.resume_rate,
            fresh: self.connect_rate,
        }
    }

    pub(crate) const fn socket_limits(&self) -> SocketLimits {
        SocketLimits {
            hello: Duration::from_secs(self.hello_timeout),
            heartbeat: Duration::from_secs(self.heartbeat),
            stall: Duration::from_secs(self.stall_timeout),
            outbox_bytes: self.outbox_bytes,
            open: Duration::from_secs(10),
            drain: Duration::from_secs(self.drain),
            resume_rate: self.resume_rate,
        }
    }

    /// How much of what was missed is replayed, and from what.
    pub(crate) fn replay(&self, metrics: WindowMetrics) -> Replay {
        Replay {
            metrics,
            window: Bounds {
                age: self.window_age(),
                bytes: self.window_bytes,
            },
            limits: ReplayLimits {
                events: self.replay_events,
                bytes: self.replay_bytes,
            },
            shards: self.shards(),
        }
    }

    pub(crate) const fn server_limits(&self) -> ServerLimits {
        ServerLimits {
            connections: self.max_connections,
            header_timeout: Duration::from_secs(self.header_timeout),
            drain: Duration::from_secs(self.drain),
        }
    }
}
