//! A gateway that loses NATS tells its clients, keeps them, and recovers when NATS returns.

use std::time::Duration;

use confab_protocol::error::Code;
use confab_protocol::frame::GoawayReason;
use confab_stack::{Traffic, get};
use tokio::time::Instant;

use crate::support::{Cluster, Member, Owed, Setup, assert_log, eventually, text};

/// What the issue promises: the time to find it.
const DETECTION_TIMEOUT: Duration = Duration::from_secs(10);
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

fn goaways(member: &Member) -> usize {
    let record = member.record.borrow();
    for goaway in &record.goaways {
        assert_eq!(goaway.reason, GoawayReason::Degraded);
        assert!(goaway.reconnect_after_ms <= 1000, "{goaway:?}");
    }
    assert!(record.closed.is_none(), "{:?}", record.closed);
    record.goaways.len()
}

async fn is_ready(cluster: &Cluster, gateway: usize) -> bool {
    let port = cluster.gateways[gateway].port();
    matches!(get(port, "/ready", WAIT_TIMEOUT).await, Ok((200, _)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_losing_packets_redirects_and_keeps_clients() {
    let mut cluster = Cluster::start(Setup {
        links: true,
        ..Setup::default()
    })
    .await;
    let alice = cluster.user("alice").on(0).await;
    let also = cluster.user("alice").on(0).await;
    let bob = cluster.user("bob").on(1).await;
    let conversation = alice.create_group(std::slice::from_ref(&bob.id)).await;
    bob.hears(conversation, 1, WAIT_TIMEOUT).await;

    for round in 1..=2 {
        let begin = Instant::now();
        cluster.links[0].set(Traffic::Stall).await;
        for member in [&alice, &also] {
            eventually("a goaway", DETECTION_TIMEOUT, async || {
                (goaways(member) == round).then_some(())
            })
            .await;
        }
        assert!(begin.elapsed() < DETECTION_TIMEOUT, "{:?}", begin.elapsed());
        assert!(!is_ready(&cluster, 0).await);
        assert!(is_ready(&cluster, 1).await);
        let sent = alice.session.send(conversation, text("to nobody")).await;
        let Err(confab_client::SendError::Refused(refusal)) = sent else {
            panic!("{sent:?}");
        };
        assert_eq!(refusal.code, Code::Unavailable);
        let meanwhile = bob.say(conversation, "meanwhile").await;

        cluster.links[0].set(Traffic::Pass).await;
        for member in [&alice, &also, &bob] {
            member.hears(conversation, meanwhile, WAIT_TIMEOUT).await;
        }
        cluster.ready().await;
        // Until the gateway has heard of a worker again, one that it never heard of may get this and take it for old.
        eventually("a send after the return", WAIT_TIMEOUT, async || {
            let sent = alice.session.send(conversation, text("back")).await;
            sent.ok()
        })
        .await;
        for member in [&alice, &also] {
            assert_eq!(goaways(member), round, "its return is not told");
        }
    }
    assert_eq!(goaways(&bob), 0);
    let owed = [Owed::all(&alice), Owed::all(&also), Owed::all(&bob)];
    assert_log(&cluster, conversation, &owed).await;
    drop((alice, also, bob));
    cluster.end().await;
}
