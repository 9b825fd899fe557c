//! The gateway's settings.

use clap::builder::BoolishValueParser;

use crate::http::listen::ListenAddress;
use crate::limits::RateLimit;
use crate::public_url::PublicUrl;

mod bounds;

/// The headings of the flags in `--help`.
mod headings {
    pub(super) const CLIENTS: &str = "Clients";
    pub(super) const LIMITS: &str = "Limits of clients";
    pub(super) const TIMES: &str = "Times";
    pub(super) const RESUMING: &str = "Resuming";
    pub(super) const QUEUES: &str = "Queues";
    pub(super) const STOPPING: &str = "Stopping";
    pub(super) const DEVELOPMENT: &str = "Development";
}

/// A gateway: HTTP and WebSocket for clients, without a database of its own.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Settings {
    #[command(flatten)]
    pub nats: confab_bus::Settings,
    #[command(flatten)]
    pub auth: confab_auth::Settings,
    /// Where clients connect: HTTP, WebSocket, /health, /ready, /metrics.
    ///
    /// A port alone, as in `:8080`, is listened on at every address of the host, IPv6 and IPv4; `127.0.0.1:8080` and `[::1]:8080` are one
    /// address.
    #[arg(
        long,
        env = "CONFAB_LISTEN",
        value_name = "ADDRESS",
        default_value = ":8080",
        help_heading = headings::CLIENTS
    )]
    pub listen: ListenAddress,
    /// URL by which clients reach the gateways, where a proxy has another host or takes a path away.
    ///
    /// Such as `https://chat.example/confab`: what `Location`, the links of `/` and the descriptions of the API say begins with it, and a
    /// page of its origin may open a WebSocket.
    #[arg(
        long,
        env = "CONFAB_PUBLIC_URL",
        value_name = "URL",
        help_heading = headings::CLIENTS
    )]
    pub public_url: Option<PublicUrl>,
    /// Origins of pages that may call (CORS) and open a WebSocket, separated by commas.
    ///
    /// Such as `https://app.example`; `localhost` for pages of this machine on any port, `null` and `file://` for pages from files, `*` for
    /// all. Without any: none may call, and a WebSocket is taken from the gateway's own.
    #[arg(
        long,
        env = "CONFAB_CORS_ORIGINS",
        value_name = "ORIGIN",
        value_delimiter = ',',
        help_heading = headings::CLIENTS
    )]
    pub cors_origins: Vec<String>,
    /// Proxies in front that each write the address they were asked from into X-Forwarded-For.
    ///
    /// Each at its right end.
    #[arg(
        long,
        env = "CONFAB_TRUSTED_PROXIES",
        value_name = "NUMBER",
        default_value_t = 0,
        help_heading = headings::CLIENTS
    )]
    pub trusted_proxies: usize,
    /// Rate limits: `off`, `lenient`, `strict`, or `user=R/B,device=R/B,address=R/B`.
    ///
    /// R requests and frames a second, B at once, at this gateway: gateways do not share them.
    #[arg(
        long,
        env = "CONFAB_RATE_LIMIT",
        value_name = "LIMITS",
        default_value = "lenient",
        help_heading = headings::LIMITS
    )]
    pub rate_limit: RateLimit,
    /// Connections that one user may have at this gateway.
    #[arg(
        long,
        env = "CONFAB_USER_CONNECTIONS",
        value_name = "NUMBER",
        default_value_t = 100,
        help_heading = headings::LIMITS
    )]
    pub user_connections: usize,
    /// HTTP requests of one user that may be on their way at this gateway at once.
    #[arg(
        long,
        env = "CONFAB_USER_REQUESTS",
        value_name = "NUMBER",
        default_value_t = 2_000,
        help_heading = headings::LIMITS
    )]
    pub user_requests: usize,
    /// Connections at once, and as many sockets besides, as far as the limit of open files goes.
    ///
    /// When all are taken, one that says nothing is closed for each newcomer; where none is silent, newcomers are refused with OVERLOADED.
    #[arg(
        long,
        env = "CONFAB_MAX_CONNECTIONS",
        value_name = "NUMBER",
        default_value_t = 100_000,
        help_heading = headings::LIMITS
    )]
    pub max_connections: usize,
    /// Sockets without a token in their header that may wait for their hello at once.
    ///
    /// Each with at most 24 KiB: beyond, the one that waits longest, of the address with most such, is closed for the newcomer.
    #[arg(
        long,
        env = "CONFAB_HELLO_CONNECTIONS",
        value_name = "NUMBER",
        default_value_t = 16_384,
        value_parser = at_least_one,
        help_heading = headings::LIMITS
    )]
    pub hello_connections: usize,
    /// Resuming connections that are let in a second, before all others.
    ///
    /// Those who would wait for more than three seconds are told to come again.
    #[arg(
        long,
        env = "CONFAB_RESUME_RATE",
        value_name = "NUMBER",
        default_value_t = 5000,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = headings::LIMITS
    )]
    pub resume_rate: u32,
    /// Other connections that are let in a second, likewise.
    #[arg(
        long,
        env = "CONFAB_CONNECT_RATE",
        value_name = "NUMBER",
        default_value_t = 2000,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = headings::LIMITS
    )]
    pub connect_rate: u32,
    /// Time that a request's headers may take.
    #[arg(
        long,
        env = "CONFAB_HEADER_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 10,
        help_heading = headings::TIMES
    )]
    pub header_timeout: u64,
    /// Time that a request's body may take.
    #[arg(
        long,
        env = "CONFAB_BODY_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 30,
        help_heading = headings::TIMES
    )]
    pub body_timeout: u64,
    /// Time that a command or query may take, its retry included.
    #[arg(
        long,
        env = "CONFAB_REQUEST_BUDGET",
        value_name = "MILLISECONDS",
        default_value_t = 5000,
        help_heading = headings::TIMES
    )]
    pub request_budget: u64,
    /// Time within which a new socket must say hello.
    #[arg(
        long,
        env = "CONFAB_HELLO_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 5,
        help_heading = headings::TIMES
    )]
    pub hello_timeout: u64,
    /// Time between the pings of a socket.
    #[arg(
        long,
        env = "CONFAB_HEARTBEAT",
        value_name = "SECONDS",
        default_value_t = 25,
        value_parser = clap::value_parser!(u64).range(1..),
        help_heading = headings::TIMES
    )]
    pub heartbeat: u64,
    /// Time that a client may take nothing while something waits for it.
    #[arg(
        long,
        env = "CONFAB_STALL_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 30,
        help_heading = headings::TIMES
    )]
    pub stall_timeout: u64,
    /// Time without any session after which a user counts as offline.
    #[arg(
        long,
        env = "CONFAB_PRESENCE_GRACE",
        value_name = "SECONDS",
        default_value_t = 10,
        help_heading = headings::TIMES
    )]
    pub presence_grace: u64,
    /// Time within which a client that lost its connection may resume its session.
    ///
    /// `CONFAB_EVENTS_MAX_AGE` should be five minutes more; with less, a gateway that started lately asks workers for what it does not have.
    #[arg(
        long,
        env = "CONFAB_RESUME_WINDOW",
        value_name = "SECONDS",
        default_value_t = 900,
        value_parser = clap::value_parser!(u64).range(10..),
        help_heading = headings::RESUMING
    )]
    pub resume_window: u64,
    /// Bytes of all records of sessions in NATS.
    ///
    /// Where they are nine tenths of that, new sessions cannot be resumed. A bucket that has a bound already keeps it.
    #[arg(
        long,
        env = "CONFAB_SESSIONS_MAX_BYTES",
        value_name = "BYTES",
        default_value_t = 512 << 20,
        value_parser = clap::value_parser!(i64).range(1 << 20..),
        help_heading = headings::RESUMING
    )]
    pub sessions_max_bytes: i64,
    /// Bytes of recent events that are kept for those who resume or are slow.
    ///
    /// 0 for none: then workers are asked for all.
    #[arg(
        long,
        env = "CONFAB_WINDOW_BYTES",
        value_name = "BYTES",
        default_value_t = 256 * 1024 * 1024,
        help_heading = headings::RESUMING
    )]
    pub window_bytes: usize,
    /// Events replayed to a session that comes back.
    ///
    /// Of more, whole conversations are left to be read over HTTP.
    #[arg(
        long,
        env = "CONFAB_REPLAY_EVENTS",
        value_name = "NUMBER",
        default_value_t = 5000,
        help_heading = headings::RESUMING
    )]
    pub replay_events: u64,
    /// Bytes replayed to a session that comes back.
    #[arg(
        long,
        env = "CONFAB_REPLAY_BYTES",
        value_name = "BYTES",
        default_value_t = 5 * 1024 * 1024,
        help_heading = headings::RESUMING
    )]
    pub replay_bytes: usize,
    /// Bytes of events that may wait for one socket.
    ///
    /// Beyond, its session catches up from the replay window, at the pace of its client.
    #[arg(
        long,
        env = "CONFAB_OUTBOX_BYTES",
        value_name = "BYTES",
        default_value_t = 256 * 1024,
        help_heading = headings::QUEUES
    )]
    pub outbox_bytes: usize,
    /// Messages to one worker on their way at once, of sends and of read marks each.
    ///
    /// What waits meanwhile goes in the next one.
    #[arg(
        long,
        env = "CONFAB_WORKER_REQUESTS",
        value_name = "NUMBER",
        default_value_t = 4,
        help_heading = headings::QUEUES
    )]
    pub worker_requests: usize,
    /// Commands that may wait in this gateway.
    ///
    /// Of one tenant at most half of them, of one user a quarter; beyond, they are refused as OVERLOADED.
    #[arg(
        long,
        env = "CONFAB_QUEUE_COMMANDS",
        value_name = "NUMBER",
        default_value_t = 16_384,
        help_heading = headings::QUEUES
    )]
    pub queue_commands: usize,
    /// Bytes of the commands that may wait in this gateway, with the same shares.
    #[arg(
        long,
        env = "CONFAB_QUEUE_BYTES",
        value_name = "BYTES",
        default_value_t = 128 * 1024 * 1024,
        help_heading = headings::QUEUES
    )]
    pub queue_bytes: usize,
    /// Shards of the hub, which hands events to sessions: as many processors as that may use.
    ///
    /// Conversations are spread over them.
    #[arg(
        long,
        env = "CONFAB_HUB_SHARDS",
        value_name = "NUMBER",
        default_value_t = default_shards(),
        value_parser = clap::value_parser!(u16).range(1..=64),
        help_heading = headings::QUEUES
    )]
    pub hub_shards: u16,
    /// Time that a gateway which was told to stop goes on accepting connections.
    ///
    /// Meanwhile /ready says `draining`: longer than whoever sends it clients takes to notice. Then it closes its port and sends its clients
    /// away.
    #[arg(
        long,
        env = "CONFAB_DRAIN_DELAY",
        value_name = "SECONDS",
        default_value_t = 5,
        help_heading = headings::STOPPING
    )]
    pub drain_delay: u64,
    /// Time over which a draining gateway sends its clients away.
    #[arg(
        long,
        env = "CONFAB_DRAIN",
        value_name = "SECONDS",
        default_value_t = 10,
        help_heading = headings::STOPPING
    )]
    pub drain: u64,
    /// Tell callers what is wrong with a token that is refused, and which setting would mend it.
    ///
    /// For development: it tells whoever asks about settings.
    #[arg(
        long,
        env = "CONFAB_EXPLAIN_REFUSALS",
        value_parser = BoolishValueParser::new(),
        help_heading = headings::DEVELOPMENT
    )]
    pub explain_refusals: bool,
    /// Serve /try, a page that opens a WebSocket and sends. For development.
    #[arg(
        long,
        env = "CONFAB_TRY_PAGE",
        value_parser = BoolishValueParser::new(),
        help_heading = headings::DEVELOPMENT
    )]
    pub try_page: bool,
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
