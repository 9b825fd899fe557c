//! A frozen or isolated gateway cannot overwrite sessions that resumed elsewhere.

use std::time::Duration;

use confab_stack::Traffic;
use serde_json::Value;

use super::RawClient;
use crate::support::{Cluster, Setup, eventually};

/// How long a page of NATS may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long NATS may take to give a silent connection up: with the pings of the tests' servers, fifteen seconds do.
const GIVEN_UP: Duration = Duration::from_secs(40);

/// Whether NATS has ended a gateway's connection by itself, since its pings were answered no more.
async fn is_given_up(cluster: &Cluster) -> bool {
    let pages = cluster.nats.monitor().unwrap();
    let closed = confab_stack::get(pages, "/connz?state=closed", PAGE_TIMEOUT).await;
    let (_, closed) = closed.unwrap();
    let closed: Value = serde_json::from_str(&closed).unwrap();
    let mut closed = closed["connections"].as_array().unwrap().iter();
    closed.any(|one| one["name"] == "confab-gateway" && one["reason"] == "Stale Connection")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continued_gateway_is_fenced_and_overwrites_nothing() {
    // With a heartbeat that is longer than it is stopped: else its clients look silent to it when it goes on.
    let mut cluster = Cluster::start(Setup {
        gateway_env: vec![("CONFAB_HEARTBEAT", Some("60".to_owned()))],
        nats_pages: true,
        ..Setup::default()
    })
    .await;
    let alice = cluster.user("alice");
    let old = RawClient::fresh(&cluster, &alice, 0).await;
    let (session, token) = (old.session(), old.token());
    cluster.gateways[0].process_mut().pause().unwrap();
    let mut new = RawClient::resumed(&cluster, &alice, 1, &token).await;
    eventually("NATS gives the stopped one up", GIVEN_UP, async || {
        assert!(new.is_served().await);
        is_given_up(&cluster).await.then_some(())
    })
    .await;
    cluster.gateways[0].process_mut().resume().unwrap();
    assert_eq!(old.close_code().await, Some(4409));
    cluster.ready().await;
    let newest = new.token();
    let moved = RawClient::resumed(&cluster, &alice, 0, &newest).await;
    assert_eq!(moved.session(), session);
    assert_eq!(new.close_code().await, Some(4409));
    drop(moved);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isolated_gateway_is_fenced_on_return() {
    let mut cluster = Cluster::start(Setup {
        links: true,
        workers: 1,
        gateway_env: vec![("CONFAB_HEARTBEAT", Some("2".to_owned()))],
        ..Setup::default()
    })
    .await;
    let alice = cluster.user("alice");
    let mut old = RawClient::fresh(&cluster, &alice, 0).await;
    old.proves().await;
    let (session, token) = (old.session(), old.token());
    cluster.links[0].set(Traffic::Refuse).await;
    let mut new = RawClient::resumed(&cluster, &alice, 1, &token).await;
    assert_eq!(new.session(), session);
    assert!(old.is_served().await, "it cannot know");
    cluster.links[0].set(Traffic::Pass).await;
    assert_eq!(old.close_code().await, Some(4409));
    assert!(new.is_served().await);
    drop(new);
    cluster.end().await;
}
