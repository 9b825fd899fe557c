//! What JetStream acknowledged and lost is published again, whatever was published meanwhile and however long it was away.

use tokio_util::sync::CancellationToken;

use super::part::Part;
use crate::outbox::marking::{mark, write_marks};
use crate::outbox::{Publisher, Standing, publisher};

#[tokio::test]
async fn what_an_erased_stream_had_is_found_though_the_new_one_has_marks() {
    let mut part = Part::begin().await;
    part.verify().await.unwrap();
    let lost = part.commit().await;
    part.publish(&lost).await;
    assert_eq!(part.marked().await, [true]);
    part.restart(|nats| nats.erase_store().unwrap()).await;
    // A gateway makes the stream anew, and another worker knows it before this one has compared.
    let created = part.bus.provision().await.unwrap().created;
    let epoch = part.link().epoch;
    for _ in 0..2 {
        let there = part.commit().await;
        let another = Standing::new(&part.bus);
        another.holds(created, epoch);
        let of_another = part.acknowledged(&there, &another).await;
        let mut other = part.pool().begin().await.unwrap();
        mark(&mut other, &[of_another], created).await.unwrap();
        other.commit().await.unwrap();
    }
    assert_eq!(part.marked().await, [true, true, true]);

    part.verify().await.unwrap();
    assert!(!part.marked().await[0]);
    part.relay().await;
    assert_eq!(part.messages().await, 3);
}

#[tokio::test]
async fn what_was_published_is_kept_while_nats_is_away_for_long() {
    let mut part = Part::begin().await;
    part.verify().await.unwrap();
    let lost = part.commit().await;
    part.publish(&lost).await;
    // It never came: its worker died, and every other as well.
    part.commit().await;
    part.nats.kill().unwrap();
    part.nats.erase_store().unwrap();
    part.wait_for(false).await;
    part.age().await;
    part.sweep().await;
    assert_eq!(part.marked().await.len(), 2, "swept while NATS is away");
    part.nats.up().await.unwrap();
    part.wait_for(true).await;
    part.sweep().await;
    assert_eq!(
        part.marked().await.len(),
        2,
        "swept before the stream was compared"
    );

    part.verify().await.unwrap();
    part.relay().await;
    assert_eq!(part.messages().await, 2);
    part.age().await;
    part.sweep().await;
    assert!(part.marked().await.is_empty());
}

#[tokio::test]
async fn what_a_stream_lost_is_found_though_it_has_grown_over_it() {
    let mut part = Part::begin().await;
    part.verify().await.unwrap();
    let kept = part.commit().await;
    part.publish(&kept).await;
    part.restart(|nats| nats.copy_store().unwrap()).await;
    part.verify().await.unwrap();
    let lost = part.commit().await;
    part.publish(&lost).await;
    part.restart(|nats| nats.put_back_store().unwrap()).await;
    // What was committed meanwhile comes before the comparison, and takes the place of what was lost.
    let (publisher, committed) = Publisher::new(part.metrics.clone());
    for _ in 0..3 {
        publisher.publish(part.commit().await);
    }
    drop(publisher);
    let (bus, pool) = (part.bus.clone(), part.connections().clone());
    let stop = CancellationToken::new();
    publisher::run(bus, pool, committed, part.standing.clone(), stop).await;
    assert_eq!(part.bus.stream_state().await.unwrap().last, 4);
    assert_eq!(part.marked().await, [true, true, false, false, false]);

    part.verify().await.unwrap();
    assert_eq!(part.marked().await, [true, false, false, false, false]);
    part.relay().await;
    assert_eq!(part.messages().await, 5);
}

#[tokio::test]
async fn marks_of_one_connection_are_not_written_on_the_next() {
    let mut part = Part::begin().await;
    part.verify().await.unwrap();
    let commit = part.commit().await;
    let marks = vec![part.acknowledged(&commit, &part.standing).await];
    part.restart(|_| {}).await;
    part.verify().await.unwrap();
    write_marks(&part.bus, part.connections(), marks, &part.standing).await;
    assert_eq!(part.marked().await, [false]);
    part.relay().await;
    assert_eq!(part.messages().await, 1);
}

#[tokio::test]
async fn marks_that_wait_in_postgres_are_not_written_on_the_next_connection() {
    let mut part = Part::begin().await;
    part.verify().await.unwrap();
    let commit = part.commit().await;
    let marks = vec![part.acknowledged(&commit, &part.standing).await];
    let mut other = part.pool().begin().await.unwrap();
    sqlx::query("select id from outbox for update")
        .execute(&mut *other)
        .await
        .unwrap();
    let (pool, standing) = (part.connections().clone(), part.standing.clone());
    let bus = part.bus.clone();
    let writing = async move { write_marks(&bus, &pool, marks, &standing).await };
    let meanwhile = async {
        part.waits_for_a_lock().await;
        part.restart(|_| {}).await;
        part.verify().await.unwrap();
        other.rollback().await.unwrap();
    };
    tokio::join!(writing, meanwhile);
    assert_eq!(part.marked().await, [false]);
}

#[tokio::test]
async fn who_stops_writes_the_marks_of_all_that_was_acknowledged() {
    let part = Part::begin().await;
    part.verify().await.unwrap();
    let (publisher, committed) = Publisher::new(part.metrics.clone());
    for _ in 0..3 {
        publisher.publish(part.commit().await);
    }
    let stop = CancellationToken::new();
    stop.cancel();
    let (bus, pool) = (part.bus.clone(), part.connections().clone());
    publisher::run(bus, pool, committed, part.standing.clone(), stop).await;
    assert_eq!(part.marked().await, [true, true, true]);
}

#[tokio::test]
async fn two_workers_unmark_losses_at_once() {
    let mut part = Part::begin().await;
    part.verify().await.unwrap();
    for _ in 0..20 {
        let lost = part.commit().await;
        part.publish(&lost).await;
    }
    part.restart(|nats| nats.erase_store().unwrap()).await;
    let another = Standing::new(&part.bus);
    let (first, second) = tokio::join!(part.verify(), part.verify_by(&another));
    first.unwrap();
    second.unwrap();
    assert_eq!(part.marked().await, [false; 20]);
    part.relay().await;
    assert_eq!(part.messages().await, 20);
}

/// A stream that loses its tail while this connection lives: it leads to another server than the stream's.
#[tokio::test]
async fn tail_lost_behind_living_connection_is_published_again() {
    for was_own in [true, false] {
        let mut part = Part::behind_another_server().await;
        part.verify().await.unwrap();
        let kept = part.commit().await;
        part.publish(&kept).await;
        part.restart_far(|nats| nats.copy_store().unwrap()).await;
        part.verify().await.unwrap();
        // What is lost was published by this worker, or by another whose acknowledgements this one has not seen.
        let publisher = if was_own {
            part.standing.clone()
        } else {
            let another = Standing::new(&part.bus);
            part.verify_by(&another).await.unwrap();
            another
        };
        for _ in 0..3 {
            let lost = part.commit().await;
            part.publish_by(&lost, &publisher).await;
        }
        assert_eq!(part.marked().await, [true; 4]);
        let epoch = part.link().epoch;
        part.restart_far(|nats| nats.put_back_store().unwrap())
            .await;
        assert_eq!((part.link().epoch, part.messages().await), (epoch, 1));
        assert!(part.standing.now().is_some(), "nothing was noticed yet");

        // The stream grows over its lost tail before anyone compares.
        for _ in 0..5 {
            let new = part.commit().await;
            part.publish(&new).await;
        }
        assert_eq!(part.messages().await, 6);
        assert_eq!(part.standing.now(), None, "the stream is in doubt");
        part.verify().await.unwrap();
        part.relay().await;
        assert_eq!(part.messages().await, 9, "{was_own}");
    }
}
