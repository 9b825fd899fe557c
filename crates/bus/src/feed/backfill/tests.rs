use bytes::Bytes;
use confab_protocol::event::EventType;
use confab_protocol::ids::{ConversationId, EventId, Seq};
use tokio::time::timeout;
use uuid::Uuid;

use super::*;
use crate::publish::Outgoing;
use crate::testing::{NatsServer, TEST_TIMEOUT};

const WHOLE_STREAM: BackfillWindow = BackfillWindow {
    age: Duration::from_secs(60),
    bytes: 1 << 20,
};

async fn started() -> (NatsServer, Bus) {
    let server = NatsServer::start().await;
    let bus = server.connect().await;
    bus.provision().await.unwrap();
    (server, bus)
}

fn message(conversation: ConversationId, seq: Seq) -> Outgoing {
    Outgoing {
        tenant: "acme".parse().unwrap(),
        conversation,
        seq,
        id: EventId(Uuid::now_v7()),
        r#type: EventType::MessageCreated,
        target_seq: None,
        json: Bytes::from(format!(r#"{{"seq":{seq}}}"#)),
    }
}

/// Publishes events of one conversation into the stream.
async fn publish(bus: &Bus, seqs: impl IntoIterator<Item = Seq>) {
    let conversation = ConversationId(Uuid::now_v7());
    for seq in seqs {
        put(bus, &message(conversation, seq)).await;
    }
}

async fn put(bus: &Bus, event: &Outgoing) {
    let publishing = bus.publish(event).await.unwrap();
    publishing.ack().await.unwrap();
}

/// Reads to the end; gives the seqs, how many were no events, and the end.
async fn read(mut backfill: Backfill) -> (Vec<Seq>, u64, BackfillEnd) {
    let (mut seqs, mut malformed) = (Vec::new(), 0);
    let reading = async {
        loop {
            match backfill.next().await {
                BackfillItem::Batch(events, bad) => {
                    assert!(events.len() <= MAX_BATCH_MESSAGES);
                    seqs.extend(events.iter().map(|event| event.seq));
                    malformed += bad;
                }
                BackfillItem::End(end) => return end,
            }
        }
    };
    let end = timeout(TEST_TIMEOUT, Box::pin(reading)).await.unwrap();
    (seqs, malformed, end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backfill_reads_in_order_up_to_opening() {
    let (_server, bus) = started().await;
    let empty = Backfill::open(&bus, WHOLE_STREAM).await.unwrap();
    assert_eq!(read(empty).await, (vec![], 0, BackfillEnd::Whole));
    publish(&bus, 1..=300).await;
    let backfill = Backfill::open(&bus, WHOLE_STREAM).await.unwrap();
    publish(&bus, 301..=310).await;
    let all: Vec<_> = (1..=300).collect();
    assert_eq!(read(backfill).await, (all, 0, BackfillEnd::Whole));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_name_message_and_malformed_is_skipped() {
    let (_server, bus) = started().await;
    let conversation = ConversationId(Uuid::now_v7());
    let change = |seq, event_type, target_seq| Outgoing {
        r#type: event_type,
        target_seq,
        ..message(conversation, seq)
    };
    put(&bus, &message(conversation, 1)).await;
    put(&bus, &change(2, EventType::MessageEdited, Some(1))).await;
    put(&bus, &change(3, EventType::MessageEdited, None)).await;
    put(&bus, &change(4, EventType::MessageDeleted, Some(1))).await;
    let mut backfill = Backfill::open(&bus, WHOLE_STREAM).await.unwrap();
    let BackfillItem::Batch(events, malformed) = backfill.next().await else {
        panic!("nothing was read");
    };
    let targets: Vec<_> = events.iter().map(|e| (e.seq, e.target_seq)).collect();
    assert_eq!(targets, [(1, None), (2, Some(1)), (4, Some(1))]);
    assert_eq!(malformed, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oldest_events_are_excluded_by_age_and_bytes() {
    let (_server, bus) = started().await;
    publish(&bus, 1..=40).await;
    // As the stream dates them: by as much the newest is younger than the one in the middle.
    let stream = bus.events().await.unwrap();
    let dated = async |n| stream.get_raw_message(n).await.unwrap().time;
    let age = dated(40).await - dated(21).await;
    let young = BackfillWindow {
        age: age.try_into().unwrap(),
        ..WHOLE_STREAM
    };
    let backfill = Backfill::open(&bus, young).await.unwrap();
    let newest: Vec<_> = (21..=40).collect();
    assert_eq!(read(backfill).await, (newest, 0, BackfillEnd::Whole));
    let info = bus.stream_info().await.unwrap();
    let few = BackfillWindow {
        bytes: info.state.bytes / 4,
        ..WHOLE_STREAM
    };
    let backfill = Backfill::open(&bus, few).await.unwrap();
    let newest: Vec<_> = (31..=40).collect();
    assert_eq!(read(backfill).await, (newest, 0, BackfillEnd::Whole));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backfill_survives_restart_and_ends_when_erased() {
    let (mut server, bus) = started().await;
    let count = 3 * u64::try_from(MAX_BATCH_MESSAGES).unwrap();
    publish(&bus, 1..=count).await;
    let mut backfill = Backfill::open(&bus, WHOLE_STREAM).await.unwrap();
    let BackfillItem::Batch(first, 0) = backfill.next().await else {
        panic!("nothing was read");
    };
    server.nats.restart().await.unwrap();
    let (seqs, 0, BackfillEnd::Whole) = read(backfill).await else {
        panic!("a restart ended it");
    };
    let rest: Vec<_> = (1..=count).skip(first.len()).collect();
    assert_eq!(seqs, rest);

    let mut backfill = Backfill::open(&bus, WHOLE_STREAM).await.unwrap();
    assert!(matches!(backfill.next().await, BackfillItem::Batch(..)));
    server.nats.kill().unwrap();
    server.nats.erase_store().unwrap();
    server.nats.up().await.unwrap();
    let (_some, 0, BackfillEnd::Erased) = read(backfill).await else {
        panic!("it read on in another stream");
    };
}
