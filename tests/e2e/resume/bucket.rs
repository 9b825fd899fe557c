//! The bucket of session records: its cost for users of many conversations, and its loss.

use std::time::Duration;

use async_nats::jetstream;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tokio::time::Instant;

use super::{RawClient, WAIT_TIMEOUT, cluster, eventually};
use crate::support::{Cluster, User, claims, soak};

const BUCKET_STREAM: &str = "KV_confab_sessions";
/// Conversations begun at once.
const MAX_BEGINNING: usize = 8;
/// Sockets of the one user that reconnect.
const SOCKET_COUNT: usize = 8;
/// The bytes that it may hold in the bucket, of 2,000 conversations: some bases, and fifty records a gateway of some 400 bytes each.
const MAX_BYTES: u64 = 4 << 20;

async fn bucket(cluster: &Cluster) -> jetstream::stream::Stream {
    let client = async_nats::connect(cluster.nats.url()).await.unwrap();
    let stream = jetstream::new(client).get_stream(BUCKET_STREAM).await;
    stream.unwrap()
}

async fn bytes(bucket: &mut jetstream::stream::Stream) -> (u64, u64) {
    let state = &bucket.info().await.unwrap().state;
    (state.bytes, state.messages)
}

async fn begin_conversations(user: &User, count: usize) {
    let beginning = stream::iter(0..count).for_each_concurrent(MAX_BEGINNING, async |_| {
        // A machine that runs other tests may be too slow for one of them.
        let group = json!({"type": "group", "participants": ["bob"]});
        eventually("a conversation begins", WAIT_TIMEOUT, async || {
            let begun = user.post(0, "/v1/conversations", group.clone()).await;
            (begun.status == 201).then_some(())
        })
        .await;
    });
    beginning.await;
}

/// Connects and goes away, again and again; gives how often it was welcomed.
async fn reconnects(cluster: &Cluster, user: &User, until: Instant) -> usize {
    let (mut tries, mut welcomes) = (0, 0);
    while Instant::now() < until {
        let client = RawClient::hello(cluster, user, tries % 2, None).await;
        welcomes += usize::from(client.welcome["type"] == "welcome");
        tries += 1;
    }
    welcomes
}

/// A user in many conversations whose sockets reconnect all the time fills nothing, and another tenant's session goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnects_with_many_conversations_fill_no_bucket() {
    let cluster = cluster().await;
    let alice = cluster.user("alice");
    let mut claims = claims("carol");
    claims["tenant"] = "other".into();
    let other = cluster.user_of(&claims);
    begin_conversations(&alice, soak(2000, 300)).await;
    let path = other.begins(0, "group", &["dave"]).await;
    let mut idle = RawClient::fresh(&cluster, &other, 0).await;
    idle.proves().await;
    let (session, token) = (idle.session(), idle.token());
    drop(idle);
    let mut bucket = bucket(&cluster).await;
    let before = bytes(&mut bucket).await;
    let until = Instant::now() + Duration::from_secs(soak(60, 10) as u64);
    let sockets = (0..SOCKET_COUNT).map(|_| reconnects(&cluster, &alice, until));
    let connects: usize = join_all(sockets).await.into_iter().sum();
    let peak = bytes(&mut bucket).await;
    println!("{connects} connects: {before:?} bytes and messages before, {peak:?} behind them");
    let after = eventually("what gave way is deleted", WAIT_TIMEOUT, async || {
        let now = bytes(&mut bucket).await;
        (now.1 < before.1 + 150).then_some(now)
    })
    .await;
    println!("{after:?} bytes and messages when what gave way is deleted");
    assert!(after.0 < MAX_BYTES, "{after:?} bytes and messages");
    assert!(connects >= SOCKET_COUNT, "{connects}");
    // The other tenant's goes on, from where it was.
    other.says(0, &path, "meanwhile").await;
    let client = RawClient::resumed(&cluster, &other, 1, &token).await;
    assert_eq!(client.session(), session);
    assert_eq!(client.welcome["replayed"], 1, "{}", client.welcome);
    drop(client);
    cluster.end().await;
}

/// What the records of a user have in common is lost, and so are the gateways that knew it: nothing is passed over in silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_without_its_base_begins_afresh() {
    let mut cluster = cluster().await;
    let alice = cluster.user("alice");
    begin_conversations(&alice, 50).await;
    let path = alice.begins(0, "group", &["bob"]).await;
    let mut client = RawClient::fresh(&cluster, &alice, 0).await;
    client.proves().await;
    let token = client.token();
    drop(client);
    let stream = bucket(&cluster).await;
    let bases = "$KV.confab_sessions.base.>";
    let purged = eventually("the base is there", WAIT_TIMEOUT, async || {
        let purged = stream.purge().filter(bases).await.unwrap();
        (purged.purged > 0).then_some(purged.purged)
    })
    .await;
    assert!(purged >= 1);
    alice.says(0, &path, "missed").await;
    // While its gateway lives, that knows all of it.
    let client = RawClient::resumed(&cluster, &alice, 1, &token).await;
    let newest = client.token();
    drop(client);
    eventually("the base is there again", WAIT_TIMEOUT, async || {
        let purged = stream.purge().filter(bases).await.unwrap();
        (purged.purged > 0).then_some(())
    })
    .await;
    for gateway in 0..2 {
        cluster.restart_gateway(gateway).await;
    }
    super::all_heard(&cluster).await;
    let client = RawClient::hello(&cluster, &alice, 0, Some(&newest)).await;
    assert_eq!(client.welcome["resumed"], false, "{}", client.welcome);
    assert_eq!(client.welcome["reason"], "unknown", "{}", client.welcome);
    drop(client);
    cluster.end().await;
}
