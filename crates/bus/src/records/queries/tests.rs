use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::super::testing::record;
use super::*;
use crate::testing::{NatsServer, TEST_TIMEOUT};

fn gateway(n: u128) -> GatewayId {
    GatewayId(Uuid::from_u128(n))
}

fn session(n: u128) -> SessionId {
    SessionId(Uuid::from_u128(n))
}

async fn next(queries: &mut RecordQueries) -> RecordRequest {
    timeout(TEST_TIMEOUT, queries.next())
        .await
        .unwrap()
        .unwrap()
}

/// What several hold, of which all but one lost it.
const MOVED_ID: u128 = 7;

/// A gateway that lets go what is asked for, and holds session n when it is gateway n. Gateway n holds the n-th generation
/// of [`MOVED_ID`].
async fn answering(bus: &Bus, n: u128) -> JoinSet<()> {
    let mut queries = bus.record_queries(gateway(n)).await.unwrap();
    bus.client.flush().await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(asked) = queries.next().await {
            match asked {
                RecordRequest::TakeOver(asked, reply) => {
                    assert_eq!(asked.hash.0, [7; 32]);
                    queries.answer(reply, Answer::Refused).await.unwrap();
                }
                RecordRequest::Record(id, reply) => {
                    let generation = match id {
                        _ if id == session(n) => Some(4),
                        _ if id == session(MOVED_ID) => u64::try_from(n).ok(),
                        _ => None,
                    };
                    let own = generation.map(|n| Entry::Live(Box::new(record(n))));
                    queries.tell(reply, own).await.unwrap();
                }
                RecordRequest::Fence(_) | RecordRequest::Malformed => {}
            }
        }
    });
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_receives_only_queries_for_itself() {
    let server = NatsServer::start().await;
    let bus = server.connect().await;
    let mut queries = bus.record_queries(gateway(1)).await.unwrap();
    bus.client.flush().await.unwrap();
    let fence = Fence {
        session: session(1),
        owner: Ownership {
            generation: 3,
            take_over: Uuid::from_u128(8),
        },
    };
    bus.fence(gateway(2), fence).await.unwrap();
    bus.fence(gateway(1), fence).await.unwrap();
    let RecordRequest::Fence(told) = next(&mut queries).await else {
        panic!("something else");
    };
    assert_eq!(told, fence);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn take_over_is_answered_or_times_out() {
    let server = NatsServer::start().await;
    let bus = server.connect().await;
    let _answering = answering(&bus, 1).await;
    let asked = TakeOver {
        session: session(1),
        hash: TokenHash([7; 32]),
    };
    assert_eq!(
        bus.take_over(gateway(1), asked).await,
        Some(Answer::Refused)
    );
    let _silent = bus.record_queries(gateway(2)).await.unwrap();
    bus.client.flush().await.unwrap();
    let began = Instant::now();
    assert_eq!(bus.take_over(gateway(2), asked).await, None);
    assert!(began.elapsed() >= RELEASE_TIMEOUT);
    let began = Instant::now();
    assert_eq!(bus.take_over(gateway(3), asked).await, None);
    assert!(began.elapsed() < RELEASE_TIMEOUT, "nobody listens there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_holder_answers_and_silent_one_times_out() {
    let server = NatsServer::start().await;
    let bus = server.connect().await;
    let _gateways = (answering(&bus, 1).await, answering(&bus, 2).await);
    let both = [gateway(1), gateway(2)];
    let held = bus.held_record(session(2), &both).await.unwrap();
    assert!(matches!(held.entry, Some(Entry::Live(record)) if record.owner.generation == 4));
    for (others, waits) in [
        (&both[..], false),
        (&[gateway(1), gateway(3)], true),
        (&[], false),
    ] {
        let began = Instant::now();
        let held = bus.held_record(session(9), others).await.unwrap();
        assert!(held.entry.is_none());
        assert_eq!(
            (held.is_all, began.elapsed() >= HOLDER_TIMEOUT),
            (!waits, waits)
        );
    }
    // Also when one of them says nothing.
    let three = [gateway(1), gateway(2), gateway(3)];
    for others in [&both[..], &three] {
        let held = bus.held_record(session(MOVED_ID), others).await.unwrap();
        let generation = held.entry.map(|held| held.standing().generation);
        assert_eq!(generation, Some(2), "the owner's");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_query_is_reported_and_stops_nothing() {
    let server = NatsServer::start().await;
    let bus = server.connect().await;
    let mut queries = bus.record_queries(gateway(1)).await.unwrap();
    let good = encode(RecordQuery {
        session: session(1),
    })
    .unwrap();
    let longer = [&good[..], &[0; MAX_QUERY_BYTES]].concat();
    let other_version = wire::encode(&Versioned {
        version: 2,
        asked: RecordQuery {
            session: session(1),
        },
    });
    let own = [subjects::fence(gateway(1)), subjects::take_over(gateway(1))];
    let subjects = own
        .into_iter()
        .chain([subjects::RECORD_QUERY_SUBJECT.to_owned()]);
    for subject in subjects {
        for junk in [
            b"{}".to_vec(),
            longer.clone(),
            other_version.as_ref().unwrap().clone(),
        ] {
            let publishing = bus.client.publish(subject.clone(), junk.into());
            publishing.await.unwrap();
            assert!(matches!(next(&mut queries).await, RecordRequest::Malformed));
        }
    }
    // Nobody could be answered.
    let publishing = bus
        .client
        .publish(subjects::RECORD_QUERY_SUBJECT, good.clone().into());
    publishing.await.unwrap();
    assert!(matches!(next(&mut queries).await, RecordRequest::Malformed));
    let inbox = bus.client.new_inbox();
    let publishing =
        bus.client
            .publish_with_reply(subjects::RECORD_QUERY_SUBJECT, inbox, good.into());
    publishing.await.unwrap();
    assert!(matches!(next(&mut queries).await, RecordRequest::Record(id, _) if id == session(1)));
}
