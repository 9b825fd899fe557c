//! The gateway's settings: those of its modules, and what follows from several of them.

use std::time::Duration;

use clap::builder::BoolishValueParser;
use confab_bus::feed::BackfillWindow;
use confab_protocol::revocation::Lifetimes;
use tracing::warn;

use crate::hub::actor::Replay;
use crate::metrics::WindowMetrics;
use crate::{auth, headings, http, hub, limits, sessions, workers, ws};

/// How far an issuer's clock may be off Postgres', in seconds.
const CLOCK_MARGIN_SECONDS: u64 = 60;

/// A gateway: HTTP and WebSocket for clients, without a database of its own.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Settings {
    #[command(flatten)]
    pub nats: confab_bus::Settings,
    #[command(flatten)]
    pub tokens: confab_auth::Settings,
    #[command(flatten)]
    pub http: http::HttpSettings,
    #[command(flatten)]
    pub limits: limits::LimitSettings,
    #[command(flatten)]
    pub ws: ws::SocketSettings,
    #[command(flatten)]
    pub sessions: sessions::SessionSettings,
    #[command(flatten)]
    pub hub: hub::HubSettings,
    #[command(flatten)]
    pub workers: workers::WorkerClientSettings,
    /// Time that a gateway which was told to stop goes on accepting connections.
    ///
    /// Meanwhile /ready says `draining`: longer than whoever sends it clients takes to notice. Then it closes its port and sends its clients
    /// away.
    #[arg(
        long,
        env = "CONFAB_DRAIN_DELAY",
        value_name = "SECONDS",
        default_value_t = 5,
        help_heading = headings::STOPPING_HEADING
    )]
    pub drain_delay: u64,
    /// Time over which a draining gateway sends its clients away.
    #[arg(
        long,
        env = "CONFAB_DRAIN",
        value_name = "SECONDS",
        default_value_t = 10,
        help_heading = headings::STOPPING_HEADING
    )]
    pub drain: u64,
    #[command(flatten)]
    pub auth: auth::RefusalSettings,
    /// Serve /try, a page that opens a WebSocket and sends. For development.
    #[arg(
        long,
        env = "CONFAB_TRY_PAGE",
        value_parser = BoolishValueParser::new(),
        help_heading = headings::DEVELOPMENT_HEADING
    )]
    pub try_page: bool,
}

impl Settings {
    /// Warns where the stream does not keep events for as long as the replay window wants them at a start.
    pub(crate) fn advise(&self) {
        let wanted = self.sessions.window_age().as_secs();
        if self.hub.window_bytes > 0 && self.nats.events_max_age < wanted {
            warn!("CONFAB_EVENTS_MAX_AGE is below CONFAB_RESUME_WINDOW and its margin: see --help");
        }
    }

    /// For how long revocations must be kept for this gateway: those of tokens until the last one has expired by any clock that may be a
    /// minute off; those of sessions until none can be resumed.
    pub(crate) fn lifetimes(&self) -> Lifetimes {
        let token = u64::from(self.tokens.max_lifetime) + u64::from(self.tokens.leeway);
        Lifetimes {
            token_seconds: token + CLOCK_MARGIN_SECONDS,
            session_seconds: self.sessions.revocation_seconds(),
        }
    }

    /// How far back the stream is read at a start; none where nothing is kept.
    pub(crate) fn window_reach(&self) -> Option<BackfillWindow> {
        self.hub.window_reach(self.sessions.window_age())
    }

    /// How much of what was missed is replayed, and from what.
    pub(crate) fn replay(&self, metrics: WindowMetrics) -> Replay {
        self.hub.replay(metrics, self.sessions.window_age())
    }

    /// How long the gateway sends its clients away before it ends.
    pub(crate) const fn drain(&self) -> Duration {
        Duration::from_secs(self.drain)
    }
}
