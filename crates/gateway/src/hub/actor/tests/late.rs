//! A shard that stands still: who waits for it goes on in time, and nothing of those who ended is left.

use futures_util::future::join_all;

use super::*;
use crate::account::SessionKey;

#[tokio::test]
async fn sessions_end_while_a_shard_stands_still() {
    let shards = Shards::of(2);
    let (door, loops) = without_sessions(shards).await;
    let [stalled, other] = <[_; 2]>::try_from(loops.shards).ok().unwrap();
    let (to_other, from_feed) = mpsc::channel(1);
    let (to_stalled, of_stalled) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(other.run(from_feed, stop.clone()));
    let metrics = loops.coordinator.metrics.clone();
    run_others(&mut tasks, loops.coordinator, loops.presence, &stop);
    tokio::time::pause();
    // More than the ways to the coordinator and to the shard hold.
    for _ in 0..3 {
        open_in_vain(&door, INBOX_CAPACITY).await;
    }
    assert!(
        timeout(REPLY_TIMEOUT, door.positions(SessionKey(1)))
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        timeout(REPLY_TIMEOUT, door.close(SessionKey(1)))
            .await
            .unwrap()
            .is_none()
    );
    let made_up = (1..100).map(|n| (ConversationId(Uuid::from_u128(n << 64)), 1));
    timeout(REPLY_TIMEOUT, door.seen(SessionKey(1), made_up.collect()))
        .await
        .unwrap();
    tokio::time::sleep(2 * TICK_PERIOD).await;
    assert_eq!(metrics.sessions(), 0, "the coordinator goes on");

    // Of all that it was told meanwhile nothing is left.
    tasks.spawn(stalled.run(of_stalled, stop.clone()));
    let answered = async {
        while door.positions(SessionKey(1)).await.is_none() {
            yield_now().await;
        }
    };
    timeout(REPLY_TIMEOUT, answered).await.unwrap();
    drop((to_other, to_stalled));
    stop.cancel();
    timeout(REPLY_TIMEOUT, tasks.join_all()).await.unwrap();
}

#[tokio::test]
async fn sessions_that_coordinator_never_knew_leave_nothing() {
    let (door, loops) = without_sessions(Shards::of(1)).await;
    tokio::time::pause();
    open_in_vain(&door, 4 * INBOX_CAPACITY).await;
    assert!(loops.coordinator.closes.len() <= INBOX_CAPACITY);
}

/// Opens so many sessions at once, of which none is open in time.
async fn open_in_vain(door: &HubHandle, count: usize) {
    let opens = (0..count).map(|n| {
        let account = Account {
            tenant: "default".parse().unwrap(),
            user: format!("user-{n}").parse().unwrap(),
        };
        let send_queue = Arc::new(SendQueue::new(Encoding::Json, 1));
        door.open(
            account,
            send_queue,
            Start::default(),
            Duration::from_secs(1),
        )
    });
    let opened = timeout(REPLY_TIMEOUT, join_all(opens))
        .await
        .expect("in time");
    assert!(
        opened.iter().all(Result::is_err),
        "no shard may be left out"
    );
}
