//! Gateways freeze and continue or lose NATS, and a quiet stream is no fault.

use std::collections::BTreeMap;
use std::time::Duration;

use confab_protocol::ids::UserId;
use confab_stack::Traffic;
use tokio::time::Instant;

use super::{WAIT_TIMEOUT, is_ready, metric, setup};
use crate::history::{ARRIVAL_TIMEOUT, HistoryLoad, LoadShape};
use crate::support::{Cluster, Setup, eventually, soak};

/// The zombie's connections are fenced: each client has one session, wherever it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_gateway_loses_nothing_and_sessions_move() {
    let mut cluster = Cluster::start(setup()).await;
    let load = HistoryLoad::start(&cluster, LoadShape::default()).await;
    for round in 0..soak(5, 1) {
        load.goes_on(100).await;
        // Those who went elsewhere are at the other one.
        let still = round % 2;
        let generations: usize = load.clients.iter().map(|one| one.generations()).sum();
        cluster.gateways[still].process_mut().pause().unwrap();
        eventually("its clients are elsewhere", WAIT_TIMEOUT, async || {
            let now: usize = load.clients.iter().map(|one| one.generations()).sum();
            (now >= generations + load.clients.len() / 3).then_some(())
        })
        .await;
        load.goes_on(100).await;
        cluster.gateways[still].process_mut().resume().unwrap();
        load.arrives(&cluster).await;
        one_session_each(&cluster, &load).await;
    }
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}

async fn one_session_each(cluster: &Cluster, load: &HistoryLoad) {
    let mut devices: BTreeMap<UserId, usize> = BTreeMap::new();
    for client in &load.clients {
        *devices.entry(client.user.clone()).or_default() += 1;
    }
    for (user, devices) in devices {
        let user = cluster.user(user.as_str());
        let http = user.http(1);
        eventually("one session a client", WAIT_TIMEOUT, async || {
            let sessions = http.sessions().await.ok()?;
            (sessions.len() == devices).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_without_nats_hands_clients_to_others() {
    let setup = Setup {
        links: true,
        ..setup()
    };
    let mut cluster = Cluster::start(setup).await;
    let load = HistoryLoad::start(&cluster, LoadShape::default()).await;
    for _ in 0..soak(5, 1) {
        load.goes_on(100).await;
        cluster.links[0].set(Traffic::Stall).await;
        eventually("it is not ready", ARRIVAL_TIMEOUT, async || {
            (!is_ready(&cluster, 0).await).then_some(())
        })
        .await;
        load.goes_on(100).await;
        load.arrives_within(&cluster, WAIT_TIMEOUT).await;
        cluster.links[0].set(Traffic::Pass).await;
        cluster.ready().await;
        load.arrives(&cluster).await;
    }
    load.ends_resumed(&cluster).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_away_for_a_while_costs_no_socket() {
    let mut cluster = Cluster::start(setup()).await;
    let load = HistoryLoad::start(&cluster, LoadShape::default()).await;
    load.goes_on(100).await;
    let generations = || {
        load.clients
            .iter()
            .map(|one| one.generations())
            .collect::<Vec<_>>()
    };
    let before = generations();
    cluster.nats.kill().unwrap();
    let away = Duration::from_secs(soak(60, 6) as u64);
    let until = Instant::now() + away;
    // As long as the fault is, and looked at all the while.
    while Instant::now() < until {
        assert_eq!(generations(), before, "a socket was lost");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    cluster.nats.up().await.unwrap();
    cluster.ready().await;
    load.goes_on(100).await;
    load.arrives(&cluster).await;
    load.ends(&cluster).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_quiet_stream_is_no_discontinuity() {
    let age = ("CONFAB_EVENTS_MAX_AGE", Some("3".to_owned()));
    let mut setup = setup();
    setup.gateway_env.push(age.clone());
    setup.worker_env.push(age);
    let cluster = Cluster::start(setup).await;
    let (alice, bob) = (
        cluster.user("alice").on(0).await,
        cluster.user("bob").on(1).await,
    );
    let conversation = alice.create_group(std::slice::from_ref(&bob.id)).await;
    let first = alice.say(conversation, "before the quiet").await;
    bob.hears(conversation, first, ARRIVAL_TIMEOUT).await;
    let client = async_nats::connect(cluster.nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    eventually("the stream is empty", WAIT_TIMEOUT, async || {
        let mut stream = jetstream.get_stream("CONFAB_EVENTS").await.ok()?;
        (stream.info().await.ok()?.state.messages == 0).then_some(())
    })
    .await;
    // The quiet is the fault itself, and waits for nothing: longer than the five seconds from one look of a gateway at the
    // stream to the next.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let last = alice.say(conversation, "behind the quiet").await;
    bob.hears(conversation, last, ARRIVAL_TIMEOUT).await;
    assert!(metric(&cluster, "confab_feed_breaks_total").await.abs() < 0.5);
    drop((alice, bob));
    cluster.end().await;
}
