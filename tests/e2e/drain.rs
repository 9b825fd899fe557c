//! A draining gateway announces it, admits latecomers for a while, hands its clients on and exits in time.

use std::net::Ipv4Addr;
use std::process::ExitStatus;
use std::time::Duration;

use confab_protocol::frame::GoawayReason;
use confab_stack::get;
use tokio::time::Instant;

use crate::support::{Cluster, Raw, Setup, eventually};

const WAIT_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_of_one_second_tells_all_in_time() {
    let mut cluster = Cluster::start(Setup {
        gateways: 1,
        workers: 1,
        gateway_env: vec![("CONFAB_DRAIN", Some("1".to_owned()))],
        ..Setup::default()
    })
    .await;
    let mut members = Vec::new();
    for number in 0..20 {
        members.push(cluster.user(&format!("user-{number}")).on(0).await);
    }

    let begin = Instant::now();
    let status = cluster.gateways[0]
        .process_mut()
        .stop(WAIT_TIMEOUT)
        .await
        .unwrap();
    assert!(status.success(), "{status}");
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");

    for member in &members {
        let closed = eventually("the end", WAIT_TIMEOUT, async || {
            member.record.borrow().closed.clone()
        });
        assert_eq!(closed.await.code, Some(1001));
        let record = member.record.borrow();
        let [goaway] = &record.goaways[..] else {
            panic!("{:?}", record.goaways);
        };
        assert_eq!(goaway.reason, GoawayReason::Drain);
        assert!(goaway.reconnect_after_ms <= 1000, "{goaway:?}");
    }
    drop(members);
    cluster.restart_gateway(0).await;
    cluster.end().await;
}

/// Whatever sends clients here needs a while to notice that it should not any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_gateway_accepts_newcomers_until_it_drains() {
    const DRAIN_DELAY: Duration = Duration::from_secs(5);
    let mut cluster = Cluster::start(Setup {
        gateways: 1,
        workers: 1,
        gateway_env: vec![
            (
                "CONFAB_DRAIN_DELAY",
                Some(DRAIN_DELAY.as_secs().to_string()),
            ),
            ("CONFAB_DRAIN", Some("1".to_owned())),
        ],
        ..Setup::default()
    })
    .await;
    let early = cluster.user("early").on(0).await;
    let conversation = early.create_group(&["late".parse().unwrap()]).await;
    let late = cluster.user("late");
    let port = cluster.gateways[0].port();

    let told = Instant::now();
    let stopping = cluster.gateways[0].process_mut().stop(3 * WAIT_TIMEOUT);
    let newcomers = async {
        let mut members = Vec::new();
        // Until the drain is as near as a busy machine may be late.
        while told.elapsed() < DRAIN_DELAY / 2 {
            let (status, body) = get(port, "/ready", WAIT_TIMEOUT)
                .await
                .expect("a readable /ready");
            let is_told = status == 503;
            assert!(!is_told || body.contains("draining"), "{status} {body}");
            assert!(is_told || members.is_empty(), "ready again: {body}");
            if is_told {
                let member = late.on(0).await;
                let seq = member.say(conversation, "over the socket").await;
                let seq = seq.max(member.post(conversation, "over HTTP").await);
                early.hears(conversation, seq, WAIT_TIMEOUT).await;
                assert!(early.record.borrow().goaways.is_empty());
                members.push(member);
            }
        }
        members
    };
    let (status, members) = tokio::join!(stopping, newcomers);

    assert!(status.as_ref().is_ok_and(ExitStatus::success), "{status:?}");
    assert!(told.elapsed() >= DRAIN_DELAY, "{:?}", told.elapsed());
    assert!(members.len() > 1, "{} newcomers", members.len());
    for member in members.iter().chain([&early]) {
        assert_eq!(member.closes(WAIT_TIMEOUT).await.code, Some(1001));
    }
    drop((early, members));
    cluster.restart_gateway(0).await;
    cluster.end().await;
}

/// A cluster of one gateway, with its port and the header of a user's token.
async fn one_gateway() -> (Cluster, u16, String) {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let port = cluster.gateways[0].port();
    let bearer = format!("Authorization: Bearer {}", cluster.user("alice").token);
    (cluster, port, bearer)
}

/// Who found the port open may have nowhere else to send a request that is not safe to repeat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_made_before_drain_is_answered() {
    let (mut cluster, port, bearer) = one_gateway().await;
    let mut made = Raw::connect(port).await;
    let gateway = cluster.gateways[0].process_mut();
    gateway.tell_to_stop().unwrap();
    eventually("the port is closed", WAIT_TIMEOUT, async || {
        let refused = Raw::connect_from(Ipv4Addr::LOCALHOST, port).await.is_err();
        refused.then_some(())
    })
    .await;
    let (status, body) = made
        .request("GET", "/v1/conversations", &[bearer], "")
        .await;
    assert_eq!(status, 200, "{body}");
    assert!(made.status().await.is_none(), "no further request is taken");
    let ended = gateway.wait(2 * WAIT_TIMEOUT).await.unwrap();
    assert!(ended.success(), "{ended}");
    cluster.restart_gateway(0).await;
    cluster.end().await;
}

/// Whatever does not ask `/ready` sends requests as soon as the port is open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_to_starting_gateway_waits_until_ready() {
    let (mut cluster, port, bearer) = one_gateway().await;
    cluster.gateways[0].respawn().unwrap();
    let mut first = eventually("the port is open", WAIT_TIMEOUT, async || {
        Raw::connect_from(Ipv4Addr::LOCALHOST, port).await.ok()
    })
    .await;
    let (status, body) = first
        .request("GET", "/v1/conversations", &[bearer], "")
        .await;
    assert_eq!(status, 200, "{body}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_signal_ends_draining_gateway_at_once() {
    let mut cluster = Cluster::start(Setup {
        gateways: 1,
        workers: 1,
        gateway_env: vec![("CONFAB_DRAIN_DELAY", Some("600".to_owned()))],
        ..Setup::default()
    })
    .await;
    let port = cluster.gateways[0].port();
    let gateway = cluster.gateways[0].process_mut();
    gateway.tell_to_stop().unwrap();
    eventually("it drains", WAIT_TIMEOUT, async || {
        let ready = get(port, "/ready", WAIT_TIMEOUT).await;
        ready.is_ok_and(|(status, _)| status == 503).then_some(())
    })
    .await;
    let status = gateway.stop(WAIT_TIMEOUT).await.unwrap();
    assert_eq!(status.code(), Some(1), "cut off");
    // The cluster ends it without waiting.
    cluster.restart_gateway(0).await;
    cluster.gateways[0].process_mut().kill().unwrap();
    cluster.end().await;
}
