//! The loop and its feed: what is held back while deliveries are behind.

use bytes::Bytes;
use confab_bus::rpc::Workers;
use confab_bus::{Bus, Gateways, Settings};
use confab_protocol::event::EventType;
use confab_protocol::ids::EventId;
use confab_protocol::query::Membership;
use prometheus_client::registry::Registry;
use tokio::task::yield_now;
use tokio::time::timeout;
use uuid::Uuid;

use super::*;
use crate::commands::CommandLimits;
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
async fn with_sessions_in(conversations: usize) -> (FanoutLoop, Vec<Arc<Outbox>>) {
    let mut fanout = without_sessions().await;
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
    assert_eq!(fanout.hub.conversation_count(), conversations);
    (fanout, outboxes)
}

async fn without_sessions() -> FanoutLoop {
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
    let (_, fanout) = Fanout::new(commands, metrics, cache, neighbours, replay);
    fanout
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
    FromFeed::Event(event, 0)
}

/// One thread: where the test looks, the loop has come to an end of a turn.
#[tokio::test]
async fn what_comes_next_stays_in_the_feed_while_a_run_of_it_is_on_its_way() {
    let (fanout, outboxes) = with_sessions_in(RUN).await;
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
