//! Gateways restore session records after the bucket is lost or rolled back.

use super::{RawClient, WAIT_TIMEOUT, cluster, eventually};
use crate::support::Cluster;

const BUCKET_NAME: &str = "confab_sessions";

async fn jetstream(cluster: &Cluster) -> async_nats::jetstream::Context {
    let client = async_nats::connect(cluster.nats.url()).await.unwrap();
    async_nats::jetstream::new(client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_deleted_by_hand_strands_nobody() {
    let cluster = cluster().await;
    let alice = cluster.user("alice");
    let mut live = RawClient::fresh(&cluster, &alice, 0).await;
    live.proves().await;
    let ended = RawClient::fresh(&cluster, &alice, 0).await;
    let (session, token) = (ended.session(), ended.token());
    drop(ended);
    let bucket = jetstream(&cluster).await;
    bucket.delete_key_value(BUCKET_NAME).await.unwrap();
    // At once, when no gateway has noticed.
    let mut resumed = RawClient::resumed(&cluster, &alice, 1, &token).await;
    assert_eq!(resumed.session(), session);
    resumed.proves().await;

    // What nobody asks for is written again as well.
    eventually(
        "the record of a live session is written again",
        WAIT_TIMEOUT,
        async || {
            let store = bucket.get_key_value(BUCKET_NAME).await.ok()?;
            store.get(live.session()).await.ok()?
        },
    )
    .await;
    assert!(live.is_served().await && resumed.is_served().await);
    let (session, token) = (live.session(), live.token());
    let moved = RawClient::resumed(&cluster, &alice, 1, &token).await;
    assert_eq!(moved.session(), session);
    drop((live, resumed, moved));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_store_strands_nobody() {
    let mut cluster = cluster().await;
    let alice = cluster.user("alice");
    let mut live = RawClient::fresh(&cluster, &alice, 0).await;
    let ended = RawClient::fresh(&cluster, &alice, 0).await;
    let tokens = [
        (live.session(), live.token()),
        (ended.session(), ended.token()),
    ];
    drop(ended);
    cluster.nats.kill().unwrap();
    cluster.nats.erase_store().unwrap();
    assert!(live.is_served().await, "sockets stay");
    cluster.nats.up().await.unwrap();
    cluster.ready().await;
    for (session, token) in tokens {
        let resumed = eventually("it is resumed", WAIT_TIMEOUT, async || {
            let client = RawClient::hello(&cluster, &alice, 1, Some(&token)).await;
            (client.welcome["type"] == "welcome").then_some(client)
        })
        .await;
        assert_eq!(resumed.welcome["resumed"], true, "{}", resumed.welcome);
        assert_eq!(resumed.session(), session);
    }
    drop(live);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolled_back_store_fences_no_live_session() {
    let mut cluster = cluster().await;
    let alice = cluster.user("alice");
    let mut first = RawClient::fresh(&cluster, &alice, 0).await;
    first.proves().await;
    cluster.nats.kill().unwrap();
    cluster.nats.copy_store().unwrap();
    cluster.nats.up().await.unwrap();
    cluster.ready().await;
    let (session, token) = (first.session(), first.token());
    let mut live = RawClient::resumed(&cluster, &alice, 1, &token).await;
    live.proves().await;
    drop(first);

    cluster.nats.kill().unwrap();
    cluster.nats.put_back_store().unwrap();
    cluster.nats.up().await.unwrap();
    cluster.ready().await;
    assert!(live.is_served().await);
    let newest = live.token();
    let resumed = RawClient::resumed(&cluster, &alice, 0, &newest).await;
    assert_eq!(resumed.session(), session);
    assert_eq!(live.close_code().await, Some(4409));
    drop(resumed);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_jetstream_a_token_stays_good() {
    let mut cluster = cluster().await;
    let alice = cluster.user("alice");
    let client = RawClient::fresh(&cluster, &alice, 0).await;
    let (session, token) = (client.session(), client.token());
    drop(client);
    cluster.nats.kill().unwrap();
    let refused = RawClient::hello(&cluster, &alice, 1, Some(&token)).await;
    assert_eq!(
        refused.welcome["code"], "UNAVAILABLE",
        "{}",
        refused.welcome
    );
    assert!(refused.welcome["retryAfterMs"].as_u64().is_some());
    assert_eq!(refused.close_code().await, Some(1013));
    cluster.nats.up().await.unwrap();
    cluster.ready().await;
    let client = RawClient::resumed(&cluster, &alice, 1, &token).await;
    assert_eq!(client.session(), session);
    drop(client);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_record_is_overwritten_by_session_holder() {
    let cluster = cluster().await;
    let alice = cluster.user("alice");
    let mut client = RawClient::fresh(&cluster, &alice, 0).await;
    client.proves().await;
    let (session, token) = (client.session(), client.token());
    let store = jetstream(&cluster)
        .await
        .get_key_value(BUCKET_NAME)
        .await
        .unwrap();
    for junk in ["", "{}", "\u{2}junk"] {
        store.put(&session, junk.into()).await.unwrap();
        let before = client.token();
        client = RawClient::resumed(&cluster, &alice, 1, &before).await;
        assert_eq!(client.session(), session);
        client.proves().await;
    }
    assert_ne!(client.token(), token);
    drop(client);
    cluster.end().await;
}
