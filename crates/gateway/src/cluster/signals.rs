//! Signals on their way between gateways: typing, receipts, presence (docs/protocol/delivery.md, "Signals").

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use confab_bus::{Bus, BusError, GatewayId, Gateways, Reply, Signalled, Signals};
use confab_protocol::chain::chain;
use confab_protocol::ids::{ConversationId, TenantId};
use confab_protocol::signal::{PresenceAnswer, PresenceNews, PresenceQuestion, Signal, SignalKind};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::account::{Account, SessionKey};
use crate::metrics::SignalMetrics;

mod throttle;
mod typists;

use throttle::{Throttle, ThrottleKey, ThrottleOutcome};
use typists::Typists;

/// Signals between their sessions and NATS, and between NATS and the hub; more are dropped.
const BUFFER_SIGNALS: usize = 4096;
/// Of those places presence alone takes so many: what is dropped of it nobody says again, of the others the next one does.
const MAX_PRESENCE_SIGNALS: usize = BUFFER_SIGNALS / 2;
/// How often the hub hears which gateways live.
const PEERS_PERIOD: Duration = Duration::from_secs(1);
/// How long the other gateways are not asked again for what this one had no room for: they say all of it at once.
const MISSED_PAUSE: Duration = Duration::from_secs(10);
/// How long NATS must have been connected until silence means death: longer than a gateway's word that it lives is good for.
const MIN_CONNECTED_TIME: Duration = Duration::from_secs(6);

enum Out {
    Signal(Signal),
    /// What one session says of its user's typing.
    Typing(SessionKey, Account, ConversationId, bool),
    Presence(TenantId, PresenceNews),
    /// The answer to a question about presence.
    Answer(Reply, PresenceAnswer),
}

/// The handle to the other gateways, this one included. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Outbound {
    inbox: mpsc::Sender<Out>,
    metrics: SignalMetrics,
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind())
    }
}

impl Out {
    const fn is_presence(&self) -> bool {
        matches!(self, Self::Presence(..) | Self::Answer(..))
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Signal(signal) => kind_of(signal),
            Self::Typing(..) => "typing",
            Self::Presence(..) | Self::Answer(..) => "presence",
        }
    }
}

impl Outbound {
    /// The handle, the tasks behind it, and what the hub hears.
    pub(crate) fn new(
        bus: Bus,
        gateways: Gateways,
        metrics: SignalMetrics,
    ) -> (Self, Signalling, mpsc::Receiver<FromGateways>) {
        let (inbox, signals) = mpsc::channel(BUFFER_SIGNALS);
        let (hub, said) = mpsc::channel(BUFFER_SIGNALS);
        let throttle = Arc::default();
        let outbound = OutboundLoop {
            bus: bus.clone(),
            own: gateways.id(),
            signals,
            throttle: Arc::clone(&throttle),
            typists: Typists::default(),
            metrics: metrics.clone(),
        };
        let inbound = InboundLoop {
            bus,
            throttle,
            gateways,
            hub,
            missed: false,
            missed_news: false,
            tell_missed_news: Instant::now(),
            metrics: metrics.clone(),
        };
        let signalling = Signalling { outbound, inbound };
        (Self { inbox, metrics }, signalling, said)
    }

    /// Publishes a signal, or drops it: it is best effort. Of those of one user, conversation and kind one goes a second.
    pub(crate) fn signal(&self, signal: Signal) {
        self.hand_over(Out::Signal(signal));
    }

    /// Publishes whether a user types, as far as all its sessions here say together; as [`Self::signal`] otherwise.
    pub(crate) fn typing(
        &self,
        session: SessionKey,
        account: Account,
        conversation: ConversationId,
        on: bool,
    ) {
        self.hand_over(Out::Typing(session, account, conversation, on));
    }

    /// Publishes news of the presence of a tenant's users.
    ///
    /// # Errors
    /// Gives them back where there is no room: nobody else says them again.
    pub(crate) fn presence(
        &self,
        tenant: TenantId,
        news: PresenceNews,
    ) -> Result<(), Box<(TenantId, PresenceNews)>> {
        match self.inbox.try_reserve() {
            Ok(place) => {
                place.send(Out::Presence(tenant, news));
                Ok(())
            }
            // The gateway is stopping.
            Err(TrySendError::Closed(())) => Ok(()),
            Err(TrySendError::Full(())) => Err(Box::new((tenant, news))),
        }
    }

    /// Answers what a gateway asked about presence, behind the news that were published before.
    pub(crate) fn answer(&self, reply: Reply, answer: PresenceAnswer) {
        self.hand_over(Out::Answer(reply, answer));
    }

    /// Counts a signal of others that no session here hears.
    pub(crate) fn dropped(&self, signal: &Signal) {
        self.metrics.count(kind_of(signal), "dropped");
    }

    fn hand_over(&self, out: Out) {
        let kind = out.kind();
        let has_room = out.is_presence() || self.inbox.capacity() > MAX_PRESENCE_SIGNALS;
        if !has_room || self.inbox.try_send(out).is_err() {
            self.metrics.count(kind, "dropped");
        }
    }
}

/// What sends and hears signals.
pub(crate) struct Signalling {
    outbound: OutboundLoop,
    inbound: InboundLoop,
}

impl Signalling {
    /// Runs until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = Box::pin(self.outbound.run()) => {}
            ended = Box::pin(self.inbound.run()) => {
                if let Err(error) = ended {
                    warn!(error = %chain(&error), "signals cannot be heard");
                }
            }
            () = stop.cancelled() => {}
        }
    }
}

/// Throttles and publishes.
struct OutboundLoop {
    bus: Bus,
    /// This gateway among the others.
    own: GatewayId,
    signals: mpsc::Receiver<Out>,
    throttle: Arc<Mutex<Throttle>>,
    typists: Typists,
    metrics: SignalMetrics,
}

impl OutboundLoop {
    async fn run(mut self) {
        loop {
            // Whatever waits, something is looked at once a minute.
            let next = locked(&self.throttle).next();
            let next = next.unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
            tokio::select! {
                Some(out) = self.signals.recv() => self.take(out).await,
                () = sleep_until(next.into()) => {}
            }
            let due = locked(&self.throttle).due(Instant::now());
            for signal in due {
                self.publish(&signal).await;
            }
        }
    }

    async fn take(&mut self, out: Out) {
        match out {
            Out::Signal(signal) => self.offer(signal).await,
            Out::Typing(session, account, conversation, on) => {
                let mut signal = Signal {
                    tenant: account.tenant,
                    conversation,
                    user: account.user,
                    kind: SignalKind::Typing(on),
                    gateway: Some(self.own.0),
                };
                let of = ThrottleKey::of(&signal);
                match self.typists.say(&of, session, on, Instant::now()) {
                    Some(on) => {
                        signal.kind = SignalKind::Typing(on);
                        self.offer(signal).await;
                    }
                    None => self.metrics.count("typing", "throttled"),
                }
            }
            Out::Presence(tenant, news) => {
                let sent = self.bus.presence(&tenant, &news).await;
                self.sent("presence", sent);
            }
            Out::Answer(reply, answer) => {
                let sent = self.bus.answer_presence(reply, &answer).await;
                self.sent("presence", sent);
            }
        }
    }

    async fn offer(&mut self, signal: Signal) {
        let kind = kind_of(&signal);
        let verdict = locked(&self.throttle).offer(signal, Instant::now());
        match verdict {
            ThrottleOutcome::Go(signal) => self.publish(&signal).await,
            ThrottleOutcome::Waits => self.metrics.count(kind, "throttled"),
            ThrottleOutcome::Dropped => self.metrics.count(kind, "dropped"),
        }
    }

    async fn publish(&self, signal: &Signal) {
        let sent = self.bus.signal(signal).await;
        self.sent(kind_of(signal), sent);
    }

    fn sent(&self, kind: &'static str, sent: Result<(), BusError>) {
        match sent {
            Ok(()) => self.metrics.count(kind, "sent"),
            Err(error) => {
                debug!(error = %chain(&error), "a signal is lost");
                self.metrics.count(kind, "dropped");
            }
        }
    }
}

fn locked(throttle: &Mutex<Throttle>) -> MutexGuard<'_, Throttle> {
    throttle.lock().unwrap_or_else(PoisonError::into_inner)
}

const fn kind_of(signal: &Signal) -> &'static str {
    match signal.kind {
        SignalKind::Typing(_) => "typing",
        SignalKind::Receipt(_) => "receipt",
    }
}

/// What the hub hears of other gateways, and of this one.
#[derive(Debug)]
pub(crate) enum FromGateways {
    /// A signal about a conversation.
    Signal(Signal),
    /// News of presence.
    Presence(PresenceNews),
    /// A gateway, this one perhaps, asks about the presence of a tenant's users.
    Asked(TenantId, PresenceQuestion, Reply),
    /// The gateways that live; said only while silence means death.
    Alive(Vec<GatewayId>),
    /// NATS was away, or messages were dropped: what was said meanwhile was not heard.
    Back,
    /// News of presence found no room here.
    Missed,
}

/// Hears the signals of all gateways, and which of them live.
struct InboundLoop {
    bus: Bus,
    /// What waits to be sent: a receipt is not, once a newer one was heard.
    throttle: Arc<Mutex<Throttle>>,
    gateways: Gateways,
    hub: mpsc::Sender<FromGateways>,
    /// Whether the hub is still to be told that something was not heard.
    missed: bool,
    /// Whether news of presence found no room, and since when that may be told.
    missed_news: bool,
    tell_missed_news: Instant,
    metrics: SignalMetrics,
}

impl InboundLoop {
    /// Runs until the connection is closed.
    async fn run(mut self) -> Result<(), BusError> {
        let mut signals = Signals::open(&self.bus).await?;
        let mut link = self.bus.connection();
        let mut since = Instant::now();
        let mut glances = interval(PEERS_PERIOD);
        glances.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = glances.tick() => {
                    self.tell_missed();
                    if !self.bus.is_connected() {
                        since = Instant::now();
                    }
                    if since.elapsed() >= MIN_CONNECTED_TIME {
                        self.tell(FromGateways::Alive(self.gateways.alive()), None);
                    }
                }
                Ok(()) = link.changed() => {
                    since = Instant::now();
                    self.missed |= link.borrow_and_update().connected;
                    self.tell_missed();
                }
                heard = signals.next() => match heard {
                    Some(signalled) => self.heard(signalled),
                    None => return Ok(()),
                },
            }
        }
    }

    fn heard(&mut self, signalled: Signalled) {
        match signalled {
            Signalled::Signal(signal) => {
                let kind = kind_of(&signal);
                if matches!(signal.kind, SignalKind::Receipt(_)) {
                    locked(&self.throttle).overtaken(&signal);
                }
                if self.hub.capacity() > self.hub.max_capacity() / 2 {
                    self.tell(FromGateways::Signal(signal), Some(kind));
                } else {
                    // Half of the places are presence's.
                    self.metrics.count(kind, "dropped");
                }
            }
            Signalled::Presence(news) => {
                let news = FromGateways::Presence(news);
                self.missed_news |= !self.tell(news, Some("presence"));
            }
            Signalled::Asked(tenant, question, reply) => {
                let asked = FromGateways::Asked(tenant, question, reply);
                self.tell(asked, Some("presence"));
            }
            Signalled::Malformed => {
                if self.metrics.malformed() {
                    warn!(
                        "a message on the signals' subjects is no signal; such are skipped and counted"
                    );
                }
            }
        }
    }

    /// What was not heard is asked for again by nobody but the hub, so that it must learn of it, however much it has to do:
    /// messages are dropped when there are many.
    fn tell_missed(&mut self) {
        self.missed = self.missed && !self.tell(FromGateways::Back, None);
        let now = Instant::now();
        if self.missed_news && self.tell_missed_news <= now && self.tell(FromGateways::Missed, None)
        {
            self.missed_news = false;
            self.tell_missed_news = now + MISSED_PAUSE;
        }
    }

    /// A hub that has too much to do hears fewer signals, and later which gateways live. Says whether it hears this.
    fn tell(&self, said: FromGateways, kind: Option<&'static str>) -> bool {
        let is_heard = self.hub.try_send(said).is_ok();
        if let Some(kind) = kind {
            let result = if is_heard { "heard" } else { "dropped" };
            self.metrics.count(kind, result);
        }
        is_heard
    }
}

#[cfg(test)]
mod tests;
