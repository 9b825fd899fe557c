//! The loop and its feed: what is held back while deliveries are behind.

use bytes::Bytes;
use confab_bus::rpc::Workers;
use confab_bus::{Bus, Gateways, Settings};
use confab_protocol::event::EventType;
use confab_protocol::ids::EventId;
use confab_protocol::query::Membership;
use futures_util::FutureExt as _;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::timeout;
use uuid::Uuid;

use std::collections::BTreeMap;

use super::*;
use crate::commands::CommandLimits;
use crate::feed::FeedArrival;
use crate::hub::{Account, Start};
use crate::metrics::{CacheMetrics, CommandMetrics, SignalMetrics};
use crate::ws::outbox::Outbox;
use crate::ws::upgrade::Encoding;

const SOON: Duration = Duration::from_secs(20);
/// More members than are pushed to in one go, so that events come to them by and by.
const SESSIONS: u64 = 3;

fn conversation(n: usize) -> ConversationId {
    ConversationId(Uuid::from_u128(n as u128))
}

/// A loop without NATS and workers, whose sessions are all in so many conversations; with their outboxes.
async fn with_sessions_in(conversations: usize) -> (Fanout, FanoutLoop, Vec<Arc<Outbox>>) {
    let (door, mut fanout) = without_sessions().await;
    let mut outboxes = Vec::new();
    for number in 0..SESSIONS {
        let outbox = Arc::new(Outbox::new(Encoding::Json, usize::MAX));
        outboxes.push(Arc::clone(&outbox));
        fanout.hub.open(Opening {
            key: SessionKey(number),
            account: Account {
                tenant: "default".parse().unwrap(),
                user: format!("user-{number}").parse().unwrap(),
            },
            outbox,
            start: Start::default(),
        });
        for effect in fanout.hub.effects() {
            if let Effect::Ask(ask) = effect {
                let membership = |n| Membership {
                    conversation: conversation(n),
                    joined: 1,
                    left: None,
                    head: 1,
                    members: SESSIONS,
                };
                let answer = UserMemberships {
                    memberships: (0..conversations).map(membership).collect(),
                    next: None,
                    ended: Vec::new(),
                };
                fanout.hub.memberships(ask, vec![answer]);
            }
        }
    }
    for number in 0..SESSIONS {
        let key = SessionKey(number);
        let account = Arc::clone(fanout.hub.account(key).unwrap());
        let none = |_: &Account| Vec::new();
        let presences = &mut fanout.presences;
        presences.opened_with(key, &account, PresenceStatus::Online, none);
    }
    drop(fanout.hub.effects());
    assert_eq!(fanout.hub.conversation_count(), conversations);
    (door, fanout, outboxes)
}

async fn without_sessions() -> (Fanout, FanoutLoop) {
    let mut registry = Registry::default();
    let nowhere = Settings {
        nats_url: vec!["nats://127.0.0.1:1".to_owned()],
        nats_user: None,
        nats_password: None,
        nats_credentials: None,
        nats_replicas: 1,
        events_max_age: 60,
        events_max_bytes: 1 << 20,
    };
    let bus = Bus::connect(&nowhere, "test").await.unwrap();
    let gateways = Gateways::new(bus.clone());
    let limits = CommandLimits {
        budget: SOON,
        in_flight: 1,
        waiting: 1,
        waiting_bytes: 1,
    };
    let workers = Arc::new(Workers::new(bus.clone()));
    let metrics = CommandMetrics::new(&mut registry);
    let (commands, _) = Commands::new(bus.clone(), workers, limits, metrics);
    let metrics = SignalMetrics::new(&mut registry);
    let (signals, _, said) = Outbound::new(bus, gateways.clone(), metrics);
    let neighbours = Neighbours {
        own: gateways.id(),
        signals,
        said,
        grace: SOON,
    };
    let replay = Replay {
        metrics: WindowMetrics::new(&mut registry),
        window: Bounds {
            age: SOON,
            bytes: 1 << 20,
        },
        limits: ReplayLimits {
            events: u64::MAX,
            bytes: usize::MAX,
        },
    };
    let (metrics, cache) = (
        FeedMetrics::new(&mut registry),
        CacheMetrics::new(&mut registry),
    );
    Fanout::new(commands, metrics, cache, neighbours, replay)
}

fn event(n: usize, seq: Seq) -> FromFeed {
    let event = FeedEvent {
        tenant: "default".parse().unwrap(),
        conversation: conversation(n),
        seq,
        id: EventId(Uuid::nil()),
        r#type: EventType::MessageCreated,
        target_seq: None,
        json: Bytes::from_static(b"{}"),
    };
    FromFeed::Event(FeedArrival {
        event,
        pending: 0,
        read: Instant::now(),
        room: None,
    })
}

/// One thread: where the test looks, the loop has come to an end of a turn.
#[tokio::test]
async fn what_comes_next_stays_in_the_feed_while_a_run_of_it_is_on_its_way() {
    let (_door, fanout, outboxes) = with_sessions_in(RUN).await;
    let (feed, events) = mpsc::channel(2 * RUN);
    for n in 0..RUN {
        feed.send(event(n, 2)).await.unwrap();
    }
    feed.send(event(0, 3)).await.unwrap();
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(fanout.run(events, stop.clone()));

    let all_is_taken = async {
        while feed.capacity() < feed.max_capacity() {
            yield_now().await;
        }
    };
    timeout(SOON, all_is_taken).await.unwrap();

    let last = outboxes.last().unwrap();
    let delivered = last.unproven().len();
    assert!(delivered >= RUN / 2, "{delivered} of {RUN}");
    let all_is_delivered = async {
        while last.unproven().len() < RUN {
            yield_now().await;
        }
    };
    timeout(SOON, all_is_delivered).await.unwrap();
    stop.cancel();
    timeout(SOON, tasks.join_all()).await.unwrap();
}

/// What one session says without end.
#[derive(Debug, Clone, Copy)]
enum Flood {
    Presence,
    Typing,
    Seen,
}

impl Flood {
    async fn run(self, door: Fanout) {
        let key = SessionKey(0);
        let turns = Semaphore::new(1);
        let foreign = ConversationId(Uuid::from_u128(u128::MAX));
        let made_up = (1..=20_000).map(|n| (ConversationId(Uuid::from_u128(n << 64)), 1));
        let made_up: BTreeMap<_, _> = made_up.collect();
        let statuses = [PresenceStatus::Away, PresenceStatus::Online];
        for status in statuses.into_iter().cycle() {
            match self {
                Self::Presence => door.presence(key, status).await,
                Self::Typing => {
                    // More than the inbox takes; no worker is there to answer.
                    for _ in 0..INBOX {
                        drop(door.membership(key, foreign, &turns).now_or_never());
                    }
                    yield_now().await;
                }
                Self::Seen => door.seen(key, made_up.clone()).await,
            }
        }
    }
}

/// The flood waits for nothing but the hub, which has something to do for it at any time.
#[tokio::test]
async fn live_events_pass_flood_of_client_work() {
    for flood in [Flood::Presence, Flood::Typing, Flood::Seen] {
        let (door, fanout, outboxes) = with_sessions_in(RUN).await;
        let (feed, events) = mpsc::channel(2 * RUN);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(fanout.run(events, stop.clone()));
        for _ in 0..8 {
            tasks.spawn(flood.run(door.clone()));
        }
        for _ in 0..100 {
            yield_now().await;
        }
        let last = outboxes.last().unwrap();
        for n in 0..RUN {
            feed.send(event(n, 2)).await.unwrap();
        }
        let all_is_delivered = async {
            while last.unproven().len() < RUN {
                yield_now().await;
            }
        };
        let heard = timeout(SOON, all_is_delivered).await;
        let count = last.unproven().len();
        assert!(heard.is_ok(), "{flood:?}: {count} of {RUN}");
        tasks.shutdown().await;
    }
}

#[tokio::test]
async fn session_whose_opening_was_given_up_is_not_opened() {
    let (door, fanout) = without_sessions().await;
    let account = Account {
        tenant: "default".parse().unwrap(),
        user: "user-0".parse().unwrap(),
    };
    let outbox = Arc::new(Outbox::new(Encoding::Json, 1));
    let opened = door.open(account, outbox, Start::default(), Duration::ZERO);
    // The hub takes no turn meanwhile, and finds both the opening and the end of it in its inbox.
    assert!(timeout(Duration::from_millis(50), opened).await.is_err());
    let (feed, events) = mpsc::channel(1);
    let (stop, metrics) = (CancellationToken::new(), fanout.metrics.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(fanout.run(events, stop.clone()));
    timeout(SOON, door.positions(SessionKey(1))).await.unwrap();
    assert_eq!(metrics.sessions(), 0);
    drop(feed);
    timeout(SOON, tasks.join_all()).await.unwrap();
}

#[tokio::test]
async fn hub_without_turns_does_not_keep_up() {
    let (_door, fanout, _outboxes) = with_sessions_in(1).await;
    let lag = fanout.metrics.hub_lag().clone();
    let (feed, events) = mpsc::channel(RUN);
    let read = Instant::now();
    lag.read(read);
    feed.send(event(0, 2)).await.unwrap();
    let later = Instant::now() + Duration::from_secs(5);
    assert!(lag.age(later) >= Duration::from_secs(5));
    assert!(!lag.keeps_up(later), "nobody runs the hub");
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(fanout.run(events, stop.clone()));
    let caught_up = async {
        while lag.age(Instant::now()) > Duration::ZERO {
            yield_now().await;
        }
    };
    timeout(SOON, caught_up).await.unwrap();
    assert!(lag.keeps_up(Instant::now()));
    stop.cancel();
    timeout(SOON, tasks.join_all()).await.unwrap();
}
