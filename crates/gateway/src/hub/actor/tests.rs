//! The loop and its feed: what is held back while deliveries are behind.

use confab_bus::rpc::Workers;
use confab_bus::{Bus, Gateways, Settings};
use confab_protocol::event::EventType;
use confab_protocol::ids::EventId;
use confab_protocol::query::Membership;
use futures_util::FutureExt as _;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::shard::MAX_TURN_EVENTS;
use super::*;
use crate::delivery::encoding::Encoding;
use crate::delivery::frames::Frame;
use crate::delivery::send_queue::SendQueue;
use crate::hub::feed::FeedArrival;
use crate::hub::feed::ToHub;
use crate::hub::{Effect, FIRST_EPOCH, Start};
use crate::metrics::{CacheMetrics, CommandMetrics, FeedMetrics, SignalMetrics};
use crate::workers::{CommandLimits, WorkerClient};

const REPLY_TIMEOUT: Duration = Duration::from_secs(20);
/// More members than are pushed to in one go, so that events come to them by and by.
const SESSION_COUNT: u64 = 3;

fn conversation(n: usize) -> ConversationId {
    ConversationId(Uuid::from_u128(n as u128))
}

/// A hub without NATS and workers, whose sessions are all in so many conversations; with their outboxes.
async fn with_sessions_in(
    shards: Shards,
    conversations: usize,
) -> (HubHandle, HubLoops, Vec<Arc<SendQueue>>) {
    let (door, mut loops) = without_sessions(shards).await;
    let mut outboxes = Vec::new();
    for number in 0..SESSION_COUNT {
        let send_queue = Arc::new(SendQueue::new(Encoding::Json, usize::MAX));
        outboxes.push(Arc::clone(&send_queue));
        let account = Account {
            tenant: "default".parse().unwrap(),
            user: format!("user-{number}").parse().unwrap(),
        };
        let key = SessionKey(number);
        loops.coordinator.coordinator.open(Opening {
            key,
            account: account.clone(),
            send_queue,
            start: Start::default(),
        });
        while settle(&mut loops, conversations) {}
        let presences = &mut loops.presence.presences;
        presences.opened_with(key, &Arc::new(account), PresenceStatus::Online);
    }
    let hosted = loops
        .shards
        .iter()
        .map(|one| one.shard.conversation_count());
    assert_eq!(hosted.sum::<usize>(), conversations);
    (door, loops, outboxes)
}

fn membership(n: usize) -> Membership {
    Membership {
        conversation: conversation(n),
        joined: 1,
        left: None,
        head: 1,
        members: SESSION_COUNT,
    }
}

/// Does what the coordinator wants; says whether that was anything.
fn settle(loops: &mut HubLoops, conversations: usize) -> bool {
    let coordinator = &mut loops.coordinator.coordinator;
    let effects = coordinator.effects();
    let any = !effects.is_empty();
    for effect in effects {
        match effect {
            Effect::Shards(ticket, steps) => {
                let steps = loops.shards.iter_mut().zip(steps);
                let done = |shard: &mut ShardLoop, mut step| loop {
                    if let Some(answer) = shard.shard.step(&mut step) {
                        return answer;
                    }
                };
                let answers = steps.map(|(shard, step)| done(shard, step));
                let answers = answers.collect();
                coordinator.stepped(ticket, answers);
            }
            Effect::MembershipQuery(ask) => {
                let answer = UserMemberships {
                    memberships: (0..conversations).map(membership).collect(),
                    next: None,
                    ended: Vec::new(),
                };
                coordinator.memberships(ask, vec![answer]);
            }
            _ => {}
        }
    }
    any
}

/// Runs everything but the shards.
fn run_others(
    tasks: &mut JoinSet<()>,
    coordinator: coordinator::CoordinatorLoop,
    presence: presence::PresenceLoop,
    stop: &CancellationToken,
) {
    let (epoch, epochs) = tokio::sync::watch::channel(1);
    let ended = stop.clone();
    tasks.spawn(async move {
        ended.cancelled().await;
        drop(epoch);
    });
    tasks.spawn(coordinator.run(epochs, stop.clone()));
    tasks.spawn(presence.run(stop.clone()));
}

async fn without_sessions(shards: Shards) -> (HubHandle, HubLoops) {
    let mut registry = Registry::default();
    let nowhere = Settings {
        events_max_age: 60,
        events_max_bytes: 1 << 20,
        ..Settings::of_server("nats://127.0.0.1:1".to_owned())
    };
    let bus = Bus::connect(&nowhere, "test").await.unwrap();
    let gateways = Gateways::new(bus.clone());
    let limits = CommandLimits {
        budget: REPLY_TIMEOUT,
        in_flight: 1,
        waiting: 1,
        waiting_bytes: 1,
    };
    let workers = Arc::new(Workers::new(bus.clone()));
    let metrics = CommandMetrics::new(&mut registry);
    let (commands, _) = WorkerClient::new(bus.clone(), workers, limits, metrics);
    let metrics = SignalMetrics::new(&mut registry);
    let (signals, _, said) = Outbound::new(bus.clone(), gateways.clone(), metrics);
    let peers = Peers {
        own: gateways.id(),
        signals,
        said,
        directory: PresenceDirectory::new(bus, gateways),
        grace: REPLY_TIMEOUT,
    };
    let replay = Replay {
        metrics: WindowMetrics::new(&mut registry),
        window: Bounds {
            age: REPLY_TIMEOUT,
            bytes: 1 << 20,
        },
        limits: ReplayLimits {
            events: u64::MAX,
            bytes: usize::MAX,
        },
        shards,
    };
    let (metrics, cache) = (
        FeedMetrics::new(&mut registry, shards.count()),
        CacheMetrics::new(&mut registry),
    );
    HubHandle::new(commands, metrics, cache, peers, replay)
}

fn feed_event(n: usize, seq: Seq) -> FeedEvent {
    FeedEvent {
        tenant: "default".parse().unwrap(),
        conversation: conversation(n),
        seq,
        id: EventId(Uuid::nil()),
        r#type: EventType::MessageCreated,
        target_seq: None,
        json: n.to_string().into(),
    }
}

fn event(n: usize, seq: Seq) -> FromFeed {
    FromFeed::Event(FeedArrival {
        event: feed_event(n, seq),
        read: Instant::now(),
        room: None,
    })
}

/// One thread: where the test looks, the loop has come to an end of a turn.
#[tokio::test]
async fn feed_waits_while_batch_is_pushed() {
    let (_door, loops, outboxes) = with_sessions_in(Shards::SINGLE, MAX_TURN_EVENTS).await;
    let [shard] = <[_; 1]>::try_from(loops.shards).ok().unwrap();
    let (feed, events) = mpsc::channel(2 * MAX_TURN_EVENTS);
    for n in 0..MAX_TURN_EVENTS {
        feed.send(event(n, 2)).await.unwrap();
    }
    feed.send(event(0, 3)).await.unwrap();
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(shard.run(events, stop.clone()));

    let all_is_taken = async {
        while feed.capacity() < feed.max_capacity() {
            yield_now().await;
        }
    };
    timeout(REPLY_TIMEOUT, all_is_taken).await.unwrap();

    let last = outboxes.last().unwrap();
    let delivered = last.unacked().len();
    assert!(
        delivered >= MAX_TURN_EVENTS / 2,
        "{delivered} of {MAX_TURN_EVENTS}"
    );
    let all_is_delivered = async {
        while last.unacked().len() < MAX_TURN_EVENTS {
            yield_now().await;
        }
    };
    timeout(REPLY_TIMEOUT, all_is_delivered).await.unwrap();
    stop.cancel();
    timeout(REPLY_TIMEOUT, tasks.join_all()).await.unwrap();
}

/// What one session says without end.
#[derive(Debug, Clone, Copy)]
enum Flood {
    Presence,
    Typing,
    Seen,
}

impl Flood {
    async fn run(self, door: HubHandle) {
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
                    for _ in 0..INBOX_CAPACITY {
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
        let (door, loops, outboxes) = with_sessions_in(Shards::SINGLE, MAX_TURN_EVENTS).await;
        let [shard] = <[_; 1]>::try_from(loops.shards).ok().unwrap();
        let (feed, events) = mpsc::channel(2 * MAX_TURN_EVENTS);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(shard.run(events, stop.clone()));
        run_others(&mut tasks, loops.coordinator, loops.presence, &stop);
        for _ in 0..8 {
            tasks.spawn(flood.run(door.clone()));
        }
        for _ in 0..100 {
            yield_now().await;
        }
        let last = outboxes.last().unwrap();
        for n in 0..MAX_TURN_EVENTS {
            feed.send(event(n, 2)).await.unwrap();
        }
        let all_is_delivered = async {
            while last.unacked().len() < MAX_TURN_EVENTS {
                yield_now().await;
            }
        };
        let heard = timeout(REPLY_TIMEOUT, all_is_delivered).await;
        let count = last.unacked().len();
        assert!(heard.is_ok(), "{flood:?}: {count} of {MAX_TURN_EVENTS}");
        tasks.shutdown().await;
    }
}

#[tokio::test]
async fn abandoned_opening_opens_no_session() {
    let (door, loops) = without_sessions(Shards::SINGLE).await;
    let [shard] = <[_; 1]>::try_from(loops.shards).ok().unwrap();
    let account = Account {
        tenant: "default".parse().unwrap(),
        user: "user-0".parse().unwrap(),
    };
    let send_queue = Arc::new(SendQueue::new(Encoding::Json, 1));
    let opened = door.open(account, send_queue, Start::default(), Duration::ZERO);
    // The hub takes no turn meanwhile, and finds both the opening and the end of it.
    let opened = timeout(Duration::from_millis(50), opened).await;
    assert!(opened.expect("in time").is_err());
    let (feed, events) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(shard.run(events, stop.clone()));
    let metrics = loops.coordinator.metrics.clone();
    run_others(&mut tasks, loops.coordinator, loops.presence, &stop);
    // What was asked before it is done with when this is answered.
    timeout(REPLY_TIMEOUT, door.close(SessionKey(1)))
        .await
        .unwrap();
    assert_eq!(metrics.sessions(), 0);
    drop(feed);
    stop.cancel();
    timeout(REPLY_TIMEOUT, tasks.join_all()).await.unwrap();
}

#[tokio::test]
async fn hub_without_turns_does_not_keep_up() {
    let (_door, loops, _outboxes) = with_sessions_in(Shards::SINGLE, 1).await;
    let [shard] = <[_; 1]>::try_from(loops.shards).ok().unwrap();
    let lag = shard.metrics.lag(0).clone();
    let (feed, events) = mpsc::channel(MAX_TURN_EVENTS);
    let read = Instant::now();
    lag.read(read);
    feed.send(event(0, 2)).await.unwrap();
    let later = Instant::now() + Duration::from_secs(5);
    assert!(lag.age(later) >= Duration::from_secs(5));
    assert!(!lag.keeps_up(later), "nobody runs the hub");
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(shard.run(events, stop.clone()));
    let caught_up = async {
        while lag.age(Instant::now()) > Duration::ZERO {
            yield_now().await;
        }
    };
    timeout(REPLY_TIMEOUT, caught_up).await.unwrap();
    assert!(lag.keeps_up(Instant::now()));
    stop.cancel();
    timeout(REPLY_TIMEOUT, tasks.join_all()).await.unwrap();
}

/// The first shard takes no turn until the other has delivered more than the queue to the first one holds.
#[tokio::test]
async fn stalled_shard_blocks_no_other() {
    const EVENT_COUNT: u64 = 5000;
    let shards = Shards::of(2);
    let (_door, loops, outboxes) = with_sessions_in(shards, 2).await;
    let [stalled, other] = <[_; 2]>::try_from(loops.shards).ok().unwrap();
    let metrics = stalled.metrics.clone();
    let broken = metrics.broken();
    let (to_hub, from_feed, epochs) = ToHub::new(shards, Arc::clone(&broken));
    let [to_stalled, to_other] = <[_; 2]>::try_from(from_feed).ok().unwrap();
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(other.run(to_other, stop.clone()));
    let mending = to_hub.clone();
    let ended = stop.clone();
    tasks.spawn(async move {
        ended.run_until_cancelled(mending.mend()).await;
    });
    let last = outboxes.last().unwrap();
    last.start(Frame::text(b"welcome"));
    let mut heard = [0_u64; 2];
    let mut heard_of = |n: usize| {
        for frame in last.taken(usize::MAX).unwrap() {
            let of = std::str::from_utf8(frame.payload()).ok();
            if let Some(of) = of.and_then(|of| of.parse::<usize>().ok()) {
                heard[of] += 1;
            }
        }
        heard[n]
    };
    for seq in 2..EVENT_COUNT {
        for n in [0, 1] {
            assert!(to_hub.hand_on(feed_event(n, seq), 0, &metrics).await);
        }
        yield_now().await;
    }
    let is_delivered = async {
        while heard_of(1) < EVENT_COUNT - 2 {
            yield_now().await;
        }
    };
    timeout(REPLY_TIMEOUT, is_delivered).await.unwrap();
    let later = Instant::now() + Duration::from_secs(5);
    assert!(!metrics.keeps_up(later));
    assert!(metrics.lag(0).age(later) >= Duration::from_secs(5));
    assert_eq!(*epochs.borrow(), FIRST_EPOCH, "it has no room yet");
    assert_eq!(broken.load(Ordering::Relaxed), 1, "it misses events");

    tasks.spawn(stalled.run(to_stalled, stop.clone()));
    let begins_anew = async {
        while *epochs.borrow() == FIRST_EPOCH || heard_of(0) == 0 {
            yield_now().await;
        }
    };
    timeout(REPLY_TIMEOUT, begins_anew).await.unwrap();
    // What makes the gateway ready again.
    assert_eq!(broken.load(Ordering::Relaxed), 0);
    stop.cancel();
    timeout(REPLY_TIMEOUT, tasks.join_all()).await.unwrap();
}

/// What a worker told of each user is more than is taken in at once.
#[tokio::test]
async fn all_users_are_told_after_break() {
    const CONVERSATION_COUNT: usize = 200;
    let (door, mut loops, _outboxes) = with_sessions_in(Shards::SINGLE, CONVERSATION_COUNT).await;
    let [shard] = <[_; 1]>::try_from(loops.shards).ok().unwrap();
    let (feed, events) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(shard.run(events, stop.clone()));
    let coordinator = &mut loops.coordinator.coordinator;
    coordinator.began(FIRST_EPOCH + 1);
    let mut is_reconciled = false;
    while !is_reconciled {
        for effect in coordinator.effects() {
            match effect {
                Effect::Shards(ticket, steps) => {
                    let mut answers = Vec::new();
                    for (to_do, step) in loops.coordinator.shards.inboxes().zip(steps) {
                        let (answer, answered) = oneshot::channel();
                        to_do.send(ShardTask::Step(step, answer)).await.unwrap();
                        answers.push(timeout(REPLY_TIMEOUT, answered).await.unwrap().unwrap());
                    }
                    coordinator.stepped(ticket, answers);
                }
                Effect::MembershipQuery(ask) => {
                    let told = UserMemberships {
                        memberships: (0..=CONVERSATION_COUNT).map(membership).collect(),
                        next: None,
                        ended: Vec::new(),
                    };
                    let answers = vec![told; ask.of.len()];
                    coordinator.memberships(ask, answers);
                }
                Effect::Reconciled => is_reconciled = true,
                _ => {}
            }
        }
    }
    for number in 0..SESSION_COUNT {
        let positions = door.positions(SessionKey(number));
        let positions = timeout(REPLY_TIMEOUT, positions).await.unwrap().unwrap();
        assert_eq!(positions.len(), CONVERSATION_COUNT + 1, "{number}");
    }
    drop(feed);
    stop.cancel();
    timeout(REPLY_TIMEOUT, tasks.join_all()).await.unwrap();
}

mod late;
mod presence_work;
