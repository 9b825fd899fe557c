//! Sessions of a gateway isolated from NATS resume elsewhere, or stay and resume later.

use confab_protocol::ids::ConversationId;
use confab_stack::Traffic;
use serde_json::Value;
use tokio::time::timeout;

use super::{CLOSE_BYTE, PING_BYTE, PONG_BYTE, RawClient, TEXT_BYTE, WAIT_TIMEOUT, all_heard};
use crate::support::{Cluster, Setup, eventually, frame};

/// Two gateways with links to NATS that the test may cut.
async fn cluster(more: &[(&'static str, &str)]) -> Cluster {
    let mut env = vec![
        ("CONFAB_HEARTBEAT", Some("2".to_owned())),
        ("CONFAB_DRAIN", Some("2".to_owned())),
    ];
    env.extend(
        more.iter()
            .map(|(name, value)| (*name, Some((*value).to_owned()))),
    );
    let cluster = Cluster::start(Setup {
        gateway_env: env,
        workers: 1,
        links: true,
        ..Setup::default()
    })
    .await;
    all_heard(&cluster).await;
    cluster
}

/// The next frame but for pings, which are answered: a silent client would be closed.
async fn frame_of(client: &mut RawClient) -> (u8, Vec<u8>) {
    loop {
        match client.raw.frame().await.expect("a frame") {
            (PING_BYTE, payload) => client.raw.write(&frame(PONG_BYTE, &payload)).await.unwrap(),
            other => return other,
        }
    }
}

/// The next frame of this type.
async fn next_of(client: &mut RawClient, kind: &str) -> Value {
    let looking = async {
        loop {
            let (first, payload) = frame_of(client).await;
            assert_eq!(first, TEXT_BYTE, "{}", String::from_utf8_lossy(&payload));
            let frame: Value = serde_json::from_slice(&payload).unwrap();
            if frame["type"] == kind {
                return frame;
            }
        }
    };
    let found = timeout(WAIT_TIMEOUT, looking).await;
    found.unwrap_or_else(|_| panic!("no {kind}"))
}

/// Every seq of a conversation that comes until this one.
async fn hears(client: &mut RawClient, conversation: ConversationId, last: u64) -> Vec<u64> {
    let mut seqs = Vec::new();
    let hearing = async {
        while seqs.last() != Some(&last) {
            let (first, payload) = frame_of(client).await;
            assert_eq!(first, TEXT_BYTE, "{}", String::from_utf8_lossy(&payload));
            let frame: Value = serde_json::from_slice(&payload).unwrap();
            if frame["conversationId"] == conversation.to_string() {
                seqs.extend(frame["seq"].as_u64());
            }
        }
    };
    timeout(WAIT_TIMEOUT, hearing)
        .await
        .expect("the last message");
    seqs
}

/// With which code the gateway closes.
async fn closes(mut client: RawClient) -> u16 {
    let closing = async {
        loop {
            if let (CLOSE_BYTE, payload) = frame_of(&mut client).await {
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    };
    timeout(WAIT_TIMEOUT, closing)
        .await
        .expect("the connection's end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isolated_gateways_session_resumes_elsewhere_exclusively() {
    let mut cluster = cluster(&[]).await;
    let alice = cluster.user("alice");
    let bob = cluster.user("bob").on(1).await;
    let conversation = bob.create_group(std::slice::from_ref(&alice.id)).await;
    let mut old = RawClient::fresh(&cluster, &alice, 0).await;
    old.proves().await;
    let before = bob.say(conversation, "before").await;
    hears(&mut old, conversation, before).await;
    old.proves().await;
    let (session, token) = (old.session(), old.token());

    cluster.links[0].set(Traffic::Stall).await;
    let goaway = next_of(&mut old, "goaway").await;
    assert_eq!(goaway["reason"], "degraded");
    let meanwhile = bob.say(conversation, "meanwhile").await;
    let mut new = RawClient::resumed(&cluster, &alice, 1, &token).await;
    assert_eq!(new.session(), session);
    let heard = hears(&mut new, conversation, meanwhile).await;
    // What it was proven to have lately only the other gateway knows: that comes again.
    let (first, last) = (heard[0], meanwhile);
    assert!(heard.iter().copied().eq(first..=last), "{heard:?}");
    assert!(
        old.is_served().await,
        "the old socket stays until it is known"
    );

    cluster.links[0].set(Traffic::Pass).await;
    assert_eq!(closes(old).await, 4409);
    cluster.ready().await;
    assert!(new.is_served().await);
    let last = bob.say(conversation, "behind it").await;
    assert_eq!(hears(&mut new, conversation, last).await, [last]);
    let listed = alice.http(0).sessions().await.unwrap();
    let own = listed.iter().filter(|one| one.id.to_string() == session);
    assert_eq!(own.count(), 1);
    drop((new, bob));
    cluster.end().await;
}

/// NATS is away for longer than it keeps a record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_left_at_isolated_gateway_is_resumable() {
    let mut cluster = cluster(&[("CONFAB_RESUME_WINDOW", "10")]).await;
    let alice = cluster.user("alice");
    let bob = cluster.user("bob").on(1).await;
    let conversation = bob.create_group(std::slice::from_ref(&alice.id)).await;
    let mut client = RawClient::fresh(&cluster, &alice, 0).await;
    client.proves().await;
    let (session, token) = (client.session(), client.token());

    cluster.links[0].set(Traffic::Stall).await;
    next_of(&mut client, "goaway").await;
    let nats = async_nats::connect(cluster.nats.url()).await.unwrap();
    let records = async_nats::jetstream::new(nats)
        .get_key_value("confab_sessions")
        .await
        .unwrap();
    eventually("the record has expired", 3 * WAIT_TIMEOUT, async || {
        // A client that answers no ping would be silent.
        client.proves().await;
        let record = records.get(session.as_str()).await.unwrap();
        record.is_none().then_some(())
    })
    .await;
    let meanwhile = bob.say(conversation, "meanwhile").await;
    cluster.links[0].set(Traffic::Pass).await;
    hears(&mut client, conversation, meanwhile).await;
    client.proves().await;
    eventually("the record is written again", WAIT_TIMEOUT, async || {
        records.get(session.as_str()).await.unwrap().map(drop)
    })
    .await;
    drop(client);
    let last = bob.say(conversation, "behind it").await;
    let mut client = RawClient::resumed(&cluster, &alice, 1, &token).await;
    assert_eq!(client.session(), session);
    assert_eq!(
        *hears(&mut client, conversation, last).await.last().unwrap(),
        last
    );
    drop((client, bob));
    cluster.end().await;
}
