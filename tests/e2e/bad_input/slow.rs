//! Slow clients time out, and hold bounded memory until then.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until, timeout};

use super::{JSON_SUBPROTOCOL, TEXT_BEGUN, assert_lives, bearer, small, welcomed};
use crate::support::{CLOSE_BYTE, Cluster, Raw, TEXT_BYTE, eventually, frame, frame_head, soak};

/// The gateway's limit for a hello, for headers and for a body in these tests, in seconds.
const READ_TIMEOUT_SECONDS: u64 = 2;
/// Within which a slow client is cut off: the limit, the closing handshake, and a busy machine.
const CUT_OFF: Duration = Duration::from_secs(READ_TIMEOUT_SECONDS + 10);
/// How often a slow client sends a byte.
const BYTE_INTERVAL: Duration = Duration::from_millis(300);
/// How often the gateway's use of the machine is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// What an idle socket may cost the gateway at most, in KiB, its task and buffers included.
const SOCKET_KIB: usize = 64;
/// What the gateway may take besides, in KiB.
const SLACK_KIB: usize = 32 * 1024;

async fn cluster() -> Cluster {
    let limit = || Some(READ_TIMEOUT_SECONDS.to_string());
    let env = vec![
        ("CONFAB_HELLO_TIMEOUT", limit()),
        ("CONFAB_HEADER_TIMEOUT", limit()),
        ("CONFAB_BODY_TIMEOUT", limit()),
    ];
    Cluster::start(small(env)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_headers_and_bodies_time_out() {
    let cluster = cluster().await;
    let port = cluster.gateways[0].port();
    let count = soak(200, 40);
    let token = cluster.user("mallory").token;
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: confab\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {token}\r\nContent-Length: 1000\r\n\r\n{{"
    );
    let silent = (0..count).map(|_| cut_off(port, "", ""));
    let headers = (0..count).map(|_| cut_off(port, "GET /v1/conversations HTTP/1.1\r\nX-", "a"));
    let bodies = (0..count).map(|_| cut_off(port, &head, " "));

    let (silent, headers, bodies) =
        tokio::join!(join_all(silent), join_all(headers), join_all(bodies));

    assert!(
        silent
            .iter()
            .chain(&headers)
            .all(|answer| *answer != Some(200))
    );
    assert!(
        bodies.iter().all(|answer| *answer == Some(400)),
        "{bodies:?}"
    );
    eventually("the descriptors are free", CUT_OFF, async || {
        (descriptors(&cluster) < count).then_some(())
    })
    .await;
    cluster.end().await;
}

/// Sends `begin`, and then `drip` now and then, until the gateway ends the connection; gives its answer's status, if any.
async fn cut_off(port: u16, begin: &str, drip: &str) -> Option<u16> {
    let mut raw = Raw::connect(port).await;
    raw.write(begin.as_bytes()).await.unwrap();
    let end = Instant::now() + CUT_OFF;
    while !raw.has_answer() {
        assert!(Instant::now() < end, "still open: {begin:?}");
        sleep_until(Instant::now() + BYTE_INTERVAL).await;
        if raw.write(drip.as_bytes()).await.is_err() {
            break;
        }
    }
    let answer = timeout(CUT_OFF, raw.answer())
        .await
        .expect("an answer or the end");
    let rest = timeout(CUT_OFF, raw.answer())
        .await
        .expect("the connection's end");
    assert_eq!(rest, None);
    answer.map(|(status, _)| status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_sockets_without_hello_time_out_using_little() {
    let cluster = cluster().await;
    let mut bystander = welcomed(&cluster).await;
    let (descriptors_before, memory_before) = (descriptors(&cluster), memory(&cluster));
    let count = soak(1000, 200);
    let sockets = async {
        let mut sockets = join_all((0..count).map(|number| idle(&cluster, number))).await;
        join_all(sockets.iter_mut().map(Raw::ended)).await
    };

    let (closed, peak) = Box::pin(with_peak(&cluster, timeout(2 * CUT_OFF, sockets))).await;

    for end in closed.expect("all sockets are closed in time") {
        assert_eq!(end.close, Some((4408, "HELLO_TIMEOUT".to_owned())));
    }
    let held = peak.0 - descriptors_before;
    assert!(
        (count / 2..=count + 10).contains(&held),
        "{held} descriptors"
    );
    let allowed = memory_before + count * SOCKET_KIB + SLACK_KIB;
    assert!(peak.1 <= allowed, "{} KiB, before {memory_before}", peak.1);
    eventually("the descriptors are free", CUT_OFF, async || {
        (descriptors(&cluster) <= descriptors_before + 5).then_some(())
    })
    .await;
    assert_lives(&mut bystander).await;
    cluster.end().await;
}

/// A socket that says nothing, or begins a frame that never ends, of any size that is allowed.
async fn idle(cluster: &Cluster, number: usize) -> Raw {
    let port = cluster.gateways[0].port();
    let header = bearer(cluster);
    let headers = if number % 4 == 3 { &header[..] } else { &[] };
    let mut raw = Raw::upgraded(port, JSON_SUBPROTOCOL, headers).await;
    let begun = match number % 4 {
        0 => Vec::new(),
        1 => frame_head(TEXT_BYTE, 8 * 1024),
        2 => frame(TEXT_BEGUN, &[b' '; 4096]),
        _ => [&frame_head(TEXT_BYTE, 512 * 1024)[..], &[0; 4], b"{"].concat(),
    };
    raw.write(&begun).await.unwrap();
    raw
}

/// The result of `work`, and the most descriptors and memory that the gateway had meanwhile.
async fn with_peak<T>(cluster: &Cluster, work: impl Future<Output = T>) -> (T, (usize, usize)) {
    let mut work = pin!(work);
    let mut peak = (0, 0);
    loop {
        tokio::select! {
            done = &mut work => return (done, peak),
            () = sleep_until(Instant::now() + POLL_INTERVAL) => {
                peak.0 = peak.0.max(descriptors(cluster));
                peak.1 = peak.1.max(memory(cluster));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dripping_hello_times_out_despite_pings() {
    let cluster = cluster().await;
    let mut raw = super::silent(&cluster).await;
    let hello = frame(
        TEXT_BYTE,
        br#"{"type":"hello"}                                                "#,
    );
    let began = Instant::now();
    for byte in hello {
        if raw.has_answer() {
            break;
        }
        sleep_until(Instant::now() + BYTE_INTERVAL).await;
        let _closed = raw.write(&[byte]).await.is_err();
    }
    assert!(began.elapsed() < CUT_OFF);
    assert_eq!(super::ended(raw).await.code(), Some(4408));

    let mut raw = super::silent(&cluster).await;
    let (first, payload) = loop {
        assert!(began.elapsed() < 2 * CUT_OFF);
        let written = raw.write(&frame(super::PING_BYTE, b"")).await;
        match raw.frame().await.expect("a pong or the close") {
            (super::PONG_BYTE, _) => written.unwrap(),
            other => break other,
        }
        sleep_until(Instant::now() + BYTE_INTERVAL).await;
    };
    assert_eq!(
        (first, &payload[..2]),
        (CLOSE_BYTE, &4408_u16.to_be_bytes()[..])
    );
    cluster.end().await;
}

fn descriptors(cluster: &Cluster) -> usize {
    let pid = cluster.gateways[0].process().id();
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

/// The gateway's resident memory in KiB.
fn memory(cluster: &Cluster) -> usize {
    let pid = cluster.gateways[0].process().id();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
