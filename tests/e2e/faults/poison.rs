//! Invalid messages on any subject or in the bucket are counted and skipped.

use async_nats::HeaderMap;
use async_nats::jetstream;
use bytes::Bytes;
use uuid::Uuid;

use super::{WAIT_TIMEOUT, metric, setup};
use crate::history::{HistoryLoad, LoadShape};
use crate::support::{Cluster, eventually};

/// Subjects on which gateways and workers listen; `{}` is something's id.
const LISTENED_SUBJECTS: [&str; 14] = [
    "confab.v1.event.0.default.{}.message.created",
    "confab.v1.event.0.default.{}.participant.added",
    "confab.v1.event.0.strangers.{}.message.created",
    "confab.v1.event.7.default.{}.nonsense",
    "confab.v1.signal.default.{}",
    "confab.v1.workers",
    "confab.v1.workers.leaving",
    "confab.v1.revocation",
    "confab.v1.lingering",
    "confab.v1.record",
    "confab.v2.command",
    "confab.v1.gateway.{}.fence",
    "confab.v1.gateway.{}.takeover",
    "confab.v1.sessions",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_on_subjects_and_bucket_harms_nobody() {
    let mut cluster = Cluster::start(setup()).await;
    let load = HistoryLoad::start(&cluster, LoadShape::default()).await;
    load.goes_on(100).await;
    let client = async_nats::connect(cluster.nats.url()).await.unwrap();
    for subject in LISTENED_SUBJECTS {
        for poison in poisons() {
            let subject = subject.replace("{}", &Uuid::now_v7().to_string());
            client.publish(subject, poison).await.unwrap();
        }
    }
    client.flush().await.unwrap();
    poison_records(&client).await;
    eventually("it is counted", WAIT_TIMEOUT, async || {
        let counted = metric(&cluster, "confab_feed_malformed_total").await;
        (counted >= 1.0).then_some(())
    })
    .await;
    load.goes_on(100).await;
    load.arrives(&cluster).await;

    // Their records are no records any more: the live holder writes them again, or the sessions start afresh.
    cluster.gateways[0].process_mut().kill().unwrap();
    load.goes_on(100).await;
    load.arrives(&cluster).await;
    load.ends(&cluster).await;
    cluster.end().await;
}

/// Garbage, an unknown version, nothing at all, and as much as NATS takes.
fn poisons() -> Vec<Bytes> {
    vec![
        Bytes::from_static(b"\xff\x00 garbage"),
        Bytes::from_static(b"\x63 of another version"),
        Bytes::from_static(b"{\"type\":\"message.created\",\"seq\":1}"),
        Bytes::new(),
        vec![0x41; 1_000_000].into(),
    ]
}

/// Over half of the records that are there, and beside them.
async fn poison_records(client: &async_nats::Client) {
    use futures_util::TryStreamExt as _;
    let bucket = jetstream::new(client.clone())
        .get_key_value("confab_sessions")
        .await;
    let bucket = bucket.unwrap();
    let keys: Vec<String> = bucket.keys().await.unwrap().try_collect().await.unwrap();
    for (key, poison) in keys.iter().step_by(2).zip(poisons().into_iter().cycle()) {
        bucket.put(key, poison).await.unwrap();
    }
    for key in ["nonsense".to_owned(), Uuid::now_v7().to_string()] {
        bucket.put(key, "garbage".into()).await.unwrap();
    }
}

/// The relay may publish an event once more when the stream has forgotten its id, and in any order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_reordered_events_arrive_once_in_order() {
    let cluster = Cluster::start(setup()).await;
    let load = HistoryLoad::start(&cluster, LoadShape::default()).await;
    let client = async_nats::connect(cluster.nats.url()).await.unwrap();
    let mut stream = jetstream::new(client.clone())
        .get_stream("CONFAB_EVENTS")
        .await
        .unwrap();
    for _ in 0..3 {
        load.goes_on(150).await;
        let last = stream.info().await.unwrap().state.last_sequence;
        let first = last.saturating_sub(100).max(1);
        // Backwards.
        for sequence in (first..=last).rev() {
            let message = stream.get_raw_message(sequence).await.unwrap();
            let mut headers = HeaderMap::new();
            for (name, values) in message.headers.iter() {
                let is_id = name.to_string() == "Nats-Msg-Id";
                for value in values.iter().filter(|_| !is_id) {
                    headers.append(name.clone(), value.clone());
                }
            }
            let again = client.publish_with_headers(message.subject, headers, message.payload);
            again.await.unwrap();
        }
        client.flush().await.unwrap();
    }
    load.arrives(&cluster).await;
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}
