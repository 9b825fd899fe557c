//! What the settings make of the gateway's parts.

use std::time::Duration;

use confab_bus::feed::Reach;
use confab_protocol::revocation::Lifetimes;
use tracing::warn;

use super::Settings;
use crate::delivery::window::Bounds;
use crate::http::manners;
use crate::http::server::ServerLimits;
use crate::hub::actor::Replay;
use crate::hub::{ReplayLimits, Shards};
use crate::limits::Limits;
use crate::limits::connects::Rates;
use crate::metrics::{LimitMetrics, WindowMetrics};
use crate::origins::Origins;
use crate::public_url::PublicUrl;
use crate::sessions::records;
use crate::workers::CommandLimits;
use crate::ws::SocketLimits;

/// How far an issuer's clock may be off Postgres', in seconds.
const CLOCK_MARGIN: u64 = 60;
/// How much longer than twice the resume window revocations of sessions are kept, in seconds.
const SESSION_MARGIN: u64 = 600;
/// By how many seconds the replay window reaches further back than a session may be resumed.
const WINDOW_MARGIN: u64 = 5 * 60;

impl Settings {
    /// How many shards the hub has.
    pub(crate) fn shards(&self) -> Shards {
        Shards::of(usize::from(self.hub_shards))
    }

    /// The limits of rates.
    pub(crate) fn limits(&self, metrics: LimitMetrics) -> Limits {
        Limits::new(&self.rate_limit, self.trusted_proxies, metrics)
    }

    /// The allowlist; a variable that is set to nothing lists nothing.
    ///
    /// # Errors
    /// The entry that is no origin.
    pub(crate) fn origins(&self) -> Result<Origins, String> {
        let public = self.public_url.as_ref().map(PublicUrl::origin);
        Origins::new(&self.cors_origins, public)
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
