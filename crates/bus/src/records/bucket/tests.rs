use tokio::time::timeout;
use uuid::Uuid;

use super::super::testing::record;
use super::*;
use crate::testing::{SOON, Server};

const WINDOW: Duration = Duration::from_secs(90);

fn session(n: u128) -> SessionId {
    SessionId(Uuid::from_u128(n))
}

async fn start() -> (Server, Bucket) {
    let server = Server::start().await;
    let bucket = Bucket::new(server.connect().await, WINDOW);
    bucket.provision().await.unwrap();
    (server, bucket)
}

async fn stored(bucket: &Bucket, n: u128, generation: u64, revision: u64) -> u64 {
    let entry = Entry::Live(record(generation));
    match bucket.put(session(n), &entry, revision).await {
        Put::Stored(revision) => revision,
        other => panic!("{other:?}"),
    }
}

async fn generation(bucket: &Bucket, n: u128) -> Option<u64> {
    let from_any = bucket.get(session(n)).await.unwrap();
    let from_leader = bucket.get_from_leader(session(n)).await.unwrap();
    assert_eq!(from_any.revision(), from_leader.revision());
    from_leader.live().map(|record| record.owner.generation)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_swap_by_one_revision_one_is_refused() {
    let (_server, bucket) = start().await;
    assert_eq!(generation(&bucket, 1).await, None);
    let first = stored(&bucket, 1, 1, 0).await;
    let created_twice = bucket.put(session(1), &Entry::Live(record(5)), 0).await;
    assert!(matches!(created_twice, Put::Refused), "{created_twice:?}");

    let second = stored(&bucket, 1, 2, first).await;
    assert!(second > first);
    let late = bucket.put(session(1), &Entry::Live(record(5)), first).await;
    assert!(matches!(late, Put::Refused), "{late:?}");
    assert_eq!(generation(&bucket, 1).await, Some(2));

    let ended = Entry::Ended { generation: 2 };
    let marked = bucket.put(session(1), &ended, second).await;
    assert!(matches!(marked, Put::Stored(_)), "{marked:?}");
    assert_eq!(generation(&bucket, 1).await, None);
    assert!(matches!(
        bucket.get(session(1)).await.unwrap(),
        Found::Entry {
            entry: Entry::Ended { generation: 2 },
            ..
        }
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_deleted_by_hand_is_missing_until_it_is_made_anew() {
    let (_server, bucket) = start().await;
    let made = bucket.provision().await.unwrap();
    let revision = stored(&bucket, 1, 1, 0).await;
    assert_eq!(bucket.provision().await.unwrap(), made);

    let deleted = bucket.bus.jetstream.delete_key_value(SESSIONS_BUCKET);
    deleted.await.unwrap();
    let leader = bucket.get_from_leader(session(1)).await;
    assert!(matches!(leader, Err(BusError::NoStream)), "{leader:?}");
    assert!(bucket.get(session(1)).await.is_err());
    let entry = Entry::Live(record(1));
    let put = bucket.put(session(1), &entry, revision).await;
    assert!(matches!(put, Put::Unknown(BusError::NoStream)), "{put:?}");

    assert_ne!(bucket.provision().await.unwrap(), made);
    let put = bucket.put(session(1), &entry, revision).await;
    assert!(matches!(put, Put::Refused), "{put:?}");
    stored(&bucket, 1, 1, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bucket_explains_itself_and_keeps_records_as_long_as_the_window_needs() {
    let (server, bucket) = start().await;
    let longer = Bucket::new(server.connect().await, WINDOW * 2);
    longer.provision().await.unwrap();
    bucket.provision().await.unwrap();
    let stream = bucket.bus.jetstream.get_stream("KV_confab_sessions").await;
    let config = stream.unwrap().cached_info().config.clone();
    assert_eq!(config.max_age, Duration::from_secs(300));
    assert_eq!(config.max_consumers, MAX_CONSUMERS);
    assert!(config.description.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_what_was_deleted_by_hand_are_written_over() {
    let (_server, bucket) = start().await;
    let publishing = bucket
        .bus
        .jetstream
        .publish(subject(session(1)), "{}".into());
    publishing.await.unwrap().await.unwrap();
    stored(&bucket, 2, 1, 0).await;
    let store = bucket.bus.jetstream.get_key_value(SESSIONS_BUCKET).await;
    let store = store.unwrap();
    store.delete(session(2).to_string()).await.unwrap();
    for (n, was_deleted) in [(1, false), (2, true)] {
        let found = bucket.get_from_leader(session(n)).await.unwrap();
        let Found::Unreadable { revision, deleted } = found else {
            panic!("{found:?}");
        };
        assert_eq!(deleted, was_deleted);
        stored(&bucket, n, 3, revision).await;
        assert_eq!(generation(&bucket, n).await, Some(3));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_look_see_every_session_and_pass_over_what_is_none() {
    let (_server, bucket) = start().await;
    assert_eq!(bucket.list(10).await.unwrap().len(), 0);
    for n in [3, 1, 2] {
        stored(&bucket, n, 1, 0).await;
    }
    let stranger = bucket
        .bus
        .jetstream
        .publish("$KV.confab_sessions.x", "".into());
    stranger.await.unwrap().await.unwrap();
    let listed = bucket.list(10).await.unwrap();
    let ids: Vec<_> = listed.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [1, 2, 3].map(session));
    assert_eq!(bucket.list(2).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nats_nothing_is_queued() {
    let (mut server, bucket) = start().await;
    server.nats.kill().unwrap();
    let mut link = bucket.bus.connection();
    let away = link.wait_for(|link| !link.connected);
    timeout(SOON, away).await.unwrap().unwrap();
    let put = bucket.put(session(1), &Entry::Live(record(1)), 0).await;
    assert!(
        matches!(put, Put::Unknown(BusError::Disconnected)),
        "{put:?}"
    );
    let read = bucket.get(session(1)).await;
    assert!(matches!(read, Err(BusError::Disconnected)), "{read:?}");
}
