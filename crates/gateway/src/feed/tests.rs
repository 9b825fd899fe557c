use bytes::Bytes;
use confab_bus::feed::FeedEvent;
use confab_protocol::event::EventType;
use confab_protocol::ids::{ConversationId, EventId};
use tokio::time::timeout;
use uuid::Uuid;

use super::*;

fn past() -> FromFeed {
    FromFeed::Past(FeedEvent {
        tenant: "acme".parse().unwrap(),
        conversation: ConversationId(Uuid::nil()),
        seq: 1,
        id: EventId(Uuid::nil()),
        r#type: EventType::MessageCreated,
        target_seq: None,
        json: Bytes::new(),
    })
}

#[tokio::test(start_paused = true)]
async fn the_past_leaves_room_for_what_is_new_and_goes_on_when_the_hub_does() {
    let (hub, mut heard) = mpsc::channel(BUFFER);
    let filling = async {
        for _ in 0..2 * BUFFER {
            assert!(hand_over(&hub, past()).await);
        }
    };
    let mut filling = Box::pin(filling);
    let while_the_hub_stands = Duration::from_secs(1);
    assert!(timeout(while_the_hub_stands, &mut filling).await.is_err());
    assert!(BUFFER - hub.capacity() <= AHEAD + 1);
    let hub_goes_on = async {
        for _ in 0..2 * BUFFER {
            assert!(matches!(heard.recv().await, Some(FromFeed::Past(_))));
        }
    };
    tokio::join!(filling, hub_goes_on);
    drop(heard);
    assert!(!hand_over(&hub, past()).await);
}
