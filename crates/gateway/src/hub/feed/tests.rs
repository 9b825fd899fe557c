use confab_protocol::event::EventType;
use confab_protocol::ids::{ConversationId, EventId};
use tokio::time::timeout;
use uuid::Uuid;

use super::*;

fn event(bytes: usize) -> FeedEvent {
    FeedEvent {
        tenant: "acme".parse().unwrap(),
        conversation: ConversationId(Uuid::nil()),
        seq: 1,
        id: EventId(Uuid::nil()),
        r#type: EventType::MessageCreated,
        target_seq: None,
        json: vec![b' '; bytes].into(),
    }
}

fn past() -> FromFeed {
    FromFeed::Past(event(0), None)
}

#[tokio::test(start_paused = true)]
async fn backfill_leaves_room_for_new_events() {
    let (hub, mut from_feed, _) = ToHub::new(Shards::SINGLE, Arc::default());
    let (queue, heard) = (&hub.queues[0], &mut from_feed[0]);
    let filling = async {
        for _ in 0..2 * BUFFER_EVENTS {
            assert!(hand_over(queue, past()).await);
        }
    };
    let mut filling = Box::pin(filling);
    let while_the_hub_stands = Duration::from_secs(1);
    assert!(timeout(while_the_hub_stands, &mut filling).await.is_err());
    assert!(queue.waiting() <= MAX_WAITING_EVENTS + 1);
    let hub_goes_on = async {
        for _ in 0..2 * BUFFER_EVENTS {
            assert!(matches!(heard.recv().await, Some(FromFeed::Past(..))));
        }
    };
    tokio::join!(filling, hub_goes_on);
    drop(from_feed);
    assert!(!hand_over(queue, past()).await);
}

#[tokio::test(start_paused = true)]
async fn large_events_wait_for_room_in_bytes() {
    const LARGE_BYTES: usize = 512 * 1024;
    let (hub, mut from_feed, _) = ToHub::new(Shards::SINGLE, Arc::default());
    let (queue, heard) = (&hub.queues[0], &mut from_feed[0]);
    let reading = async {
        for _ in 0..200 {
            let event = event(LARGE_BYTES);
            let room = queue.room(&event).await;
            assert!(queue.send(FromFeed::Past(event, room)).await);
        }
    };
    let mut reading = Box::pin(reading);
    let while_the_hub_stands = Duration::from_secs(1);
    let waits = timeout(while_the_hub_stands, &mut reading).await.is_err();
    assert!(waits);
    assert_eq!(queue.waiting() * LARGE_BYTES, BUFFER_BYTES as usize);
    let hub_goes_on = async {
        for _ in 0..200 {
            assert!(heard.recv().await.is_some());
        }
    };
    tokio::join!(reading, hub_goes_on);
    let too_large = event(BUFFER_BYTES as usize + 1);
    assert!(queue.room(&too_large).await.is_some(), "it goes alone");
}
