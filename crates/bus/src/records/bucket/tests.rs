use tokio::time::timeout;
use uuid::Uuid;

use super::super::Position;
use super::super::testing::record;
use super::*;
use crate::testing::{NatsServer, TEST_TIMEOUT};

const RESUME_WINDOW: Duration = Duration::from_secs(90);

fn session(n: u128) -> SessionId {
    SessionId(Uuid::from_u128(n))
}

async fn start() -> (NatsServer, Bucket) {
    let server = NatsServer::start().await;
    let bucket = Bucket::new(server.connect().await, RESUME_WINDOW);
    bucket.provision().await.unwrap();
    (server, bucket)
}

async fn stored(bucket: &Bucket, n: u128, generation: u64, revision: u64) -> u64 {
    let entry = Entry::Live(Box::new(record(generation)));
    match bucket.put(session(n), &entry, revision).await {
        Put::Stored { revision, .. } => revision,
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
async fn second_write_at_same_revision_is_refused() {
    let (_server, bucket) = start().await;
    assert_eq!(generation(&bucket, 1).await, None);
    let first = stored(&bucket, 1, 1, 0).await;
    let created_twice = bucket
        .put(session(1), &Entry::Live(Box::new(record(5))), 0)
        .await;
    assert!(matches!(created_twice, Put::Refused), "{created_twice:?}");

    let second = stored(&bucket, 1, 2, first).await;
    assert!(second > first);
    let late = bucket
        .put(session(1), &Entry::Live(Box::new(record(5))), first)
        .await;
    assert!(matches!(late, Put::Refused), "{late:?}");
    assert_eq!(generation(&bucket, 1).await, Some(2));

    let ended = Entry::Ended {
        generation: 2,
        tokens: Vec::new(),
    };
    let marked = bucket.put(session(1), &ended, second).await;
    assert!(matches!(marked, Put::Stored { .. }), "{marked:?}");
    assert_eq!(generation(&bucket, 1).await, None);
    assert!(matches!(
        bucket.get(session(1)).await.unwrap(),
        Found::Entry {
            entry: Entry::Ended { generation: 2, .. },
            ..
        }
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_bucket_is_missing_until_recreated() {
    let (_server, bucket) = start().await;
    let made = bucket.provision().await.unwrap();
    let revision = stored(&bucket, 1, 1, 0).await;
    assert_eq!(bucket.provision().await.unwrap(), made);

    let deleted = bucket.bus.jetstream.delete_key_value(SESSIONS_BUCKET);
    deleted.await.unwrap();
    let leader = bucket.get_from_leader(session(1)).await;
    assert!(matches!(leader, Err(BusError::NoStream)), "{leader:?}");
    assert!(bucket.get(session(1)).await.is_err());
    let entry = Entry::Live(Box::new(record(1)));
    let put = bucket.put(session(1), &entry, revision).await;
    assert!(matches!(put, Put::Unknown(BusError::NoStream)), "{put:?}");

    assert_ne!(bucket.provision().await.unwrap(), made);
    let put = bucket.put(session(1), &entry, revision).await;
    assert!(matches!(put, Put::Refused), "{put:?}");
    stored(&bucket, 1, 1, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bucket_has_description_and_age_of_window() {
    let (server, bucket) = start().await;
    let longer = Bucket::new(server.connect().await, RESUME_WINDOW * 2);
    longer.provision().await.unwrap();
    bucket.provision().await.unwrap();
    let stream = bucket.bus.jetstream.get_stream("KV_confab_sessions").await;
    let config = stream.unwrap().cached_info().config.clone();
    assert_eq!(config.max_age, Duration::from_secs(300));
    assert_eq!(config.max_consumers, MAX_CONSUMERS);
    assert!(config.description.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_deleted_records_are_overwritten() {
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
async fn listing_shows_every_session_and_skips_garbage() {
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
    timeout(TEST_TIMEOUT, away).await.unwrap().unwrap();
    let put = bucket
        .put(session(1), &Entry::Live(Box::new(record(1))), 0)
        .await;
    assert!(
        matches!(put, Put::Unknown(BusError::Disconnected)),
        "{put:?}"
    );
    let read = bucket.get(session(1)).await;
    assert!(matches!(read, Err(BusError::Disconnected)), "{read:?}");
}

fn positions(count: u128, seq: u64) -> Vec<Position> {
    let position = |n| Position {
        conversation: confab_protocol::ids::ConversationId(Uuid::from_u128(n)),
        joined: 1,
        seq,
    };
    (0..count).map(position).collect()
}

async fn stored_with(bucket: &Bucket, n: u128, positions: Vec<Position>) -> usize {
    let entry = Entry::Live(Box::new(Record {
        positions,
        ..record(1)
    }));
    match bucket.put(session(n), &entry, 0).await {
        Put::Stored { bytes, .. } => bytes,
        other => panic!("{other:?}"),
    }
}

async fn bytes(bucket: &Bucket) -> u64 {
    let stream = bucket.bus.jetstream.get_stream("KV_confab_sessions").await;
    stream.unwrap().cached_info().state.bytes
}

/// Another gateway, which knows nothing of what the first one wrote.
async fn other(server: &NatsServer) -> Bucket {
    Bucket::new(server.connect().await, RESUME_WINDOW)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_user_share_common_positions() {
    const CONVERSATION_COUNT: u128 = 2000;
    let (server, bucket) = start().await;
    let mut all = positions(CONVERSATION_COUNT, 1_000_000);
    let first = stored_with(&bucket, 0, all.clone()).await;
    for n in 1..100_u64 {
        all[7].seq = 2_000_000 + n;
        let more = stored_with(&bucket, n.into(), all.clone()).await;
        assert!(more < 500, "{more} bytes beside the base");
    }
    let total = bytes(&bucket).await;
    // A hundred with all their positions took 5.4 MB.
    assert!(
        total < 2 * first as u64,
        "{total} bytes, the first one {first}"
    );
    let read = other(&server).await.get(session(99)).await.unwrap();
    assert_eq!(read.live().unwrap().positions, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_without_base_reveals_only_owner() {
    let (server, bucket) = start().await;
    stored_with(&bucket, 1, positions(100, 5)).await;
    let stream = bucket.stream().await.unwrap();
    let bases = stream.purge().filter("$KV.confab_sessions.base.>");
    bases.await.unwrap();
    let other = other(&server).await;
    for found in [
        other.get(session(1)).await.unwrap(),
        other.get_from_leader(session(1)).await.unwrap(),
    ] {
        let Found::Baseless { record, .. } = &found else {
            panic!("{found:?}");
        };
        assert_eq!((record.user.as_str(), record.positions.len()), ("alice", 0));
        assert!(found.live().is_none());
        assert_eq!(found.standing(), Some(record.owner));
    }
    // Who wrote it puts the base again with the next record, when it hears of the loss.
    bucket.bases_lost();
    stored_with(&bucket, 2, positions(100, 5)).await;
    let found = other.get(session(1)).await.unwrap();
    assert_eq!(found.live().unwrap().positions, positions(100, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_bucket_refuses_new_and_keeps_old_records() {
    const MAX_BYTES: i64 = 200_000;
    let server = NatsServer::start().await;
    let unbounded = Bucket::new(server.connect().await, RESUME_WINDOW).with_max_bytes(-1);
    unbounded.provision().await.unwrap();
    // One that was made without a bound is given one.
    let bucket = other(&server).await.with_max_bytes(MAX_BYTES);
    bucket.provision().await.unwrap();
    let mut count = 0_u128;
    while !bucket.is_full() {
        count += 1;
        let mut user = record(1);
        user.user = format!("user{count}").parse().unwrap();
        user.positions = positions(200, 5);
        let put = bucket
            .put(session(count), &Entry::Live(Box::new(user)), 0)
            .await;
        assert!(matches!(put, Put::Stored { .. }), "{put:?}");
        bucket.provision().await.unwrap();
        assert!(count < 1000, "it is never full");
    }
    let entry = Entry::Live(Box::new(record(1)));
    let put = bucket.put(session(0), &entry, 0).await;
    assert!(matches!(put, Put::Full), "{put:?}");
    for n in 1..=count {
        let found = bucket.get_from_leader(session(n)).await.unwrap();
        let record = found.live().unwrap().clone();
        let again = Entry::Live(Box::new(record));
        let put = bucket.put(session(n), &again, found.revision()).await;
        assert!(matches!(put, Put::Stored { .. }), "{n}: {put:?}");
    }
    assert!(bytes(&bucket).await <= MAX_BYTES.unsigned_abs());
    bucket.delete(session(1), u64::MAX - 1).await.unwrap();
    assert!(matches!(
        bucket.get(session(1)).await.unwrap(),
        Found::Absent
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_spares_what_was_written_since() {
    let (_server, bucket) = start().await;
    let first = stored(&bucket, 1, 1, 0).await;
    stored(&bucket, 1, 2, first).await;
    bucket.delete(session(1), first).await.unwrap();
    assert_eq!(generation(&bucket, 1).await, Some(2));
}
