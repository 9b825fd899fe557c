//! Bounds per user and per answer hold even without rate limits.

use std::ops::Range;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use confab_client::{Options, Session};
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::support::{Cluster, Ended, Raw, Setup, TEXT_BYTE, User, eventually, frame, soak};

const JSON_SUBPROTOCOL: &str = "confab.v1.json";
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);
/// The first bytes of pings and pongs.
const PING_BYTE: u8 = 0x89;
const PONG_BYTE: u8 = 0x8A;
/// Frames of bad fields that each of them sends.
const BAD_FRAMES: usize = 4;

async fn cluster(env: &[(&'static str, &str)]) -> Cluster {
    let set = |(name, value): &(&'static str, &str)| (*name, Some((*value).to_owned()));
    Cluster::start(Setup {
        gateways: 1,
        workers: 1,
        gateway_env: env.iter().map(set).collect(),
        ..Setup::default()
    })
    .await
}

async fn connected(cluster: &Cluster, user: &User) -> Raw {
    let bearer = [format!("Authorization: Bearer {}", user.token)];
    Raw::upgraded(cluster.gateways[0].port(), JSON_SUBPROTOCOL, &bearer).await
}

/// Says hello; gives the first answer.
async fn hello(cluster: &Cluster, user: &User, more: &Value) -> (Raw, Value) {
    let mut raw = connected(cluster, user).await;
    let mut hello = json!({"type": "hello"});
    hello
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    raw.text(&hello.to_string()).await;
    let answer = raw.json().await;
    (raw, answer)
}

async fn ended(mut raw: Raw) -> Ended {
    timeout(WAIT_TIMEOUT, raw.ended()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_beyond_the_users_bound_is_refused() {
    let cluster = cluster(&[("CONFAB_USER_CONNECTIONS", "3")]).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(hello(&cluster, &alice, &json!({})).await);
    }
    assert!(open.iter().all(|(_, welcome)| welcome["type"] == "welcome"));
    let (raw, refusal) = hello(&cluster, &alice, &json!({})).await;
    assert_eq!(refusal["code"], "RATE_LIMITED", "{refusal}");
    assert!(refusal["retryAfterMs"].is_u64(), "{refusal}");
    assert_eq!(ended(raw).await.code(), Some(4429));
    let (_bob, welcome) = hello(&cluster, &bob, &json!({})).await;
    assert_eq!(welcome["type"], "welcome");
    // One that only names a session which is open here takes the place of none.
    let session: Uuid = open[0].1["sessionId"].as_str().unwrap().parse().unwrap();
    let forged = [session, Uuid::new_v4(), Uuid::new_v4()].map(Uuid::into_bytes);
    let forged = URL_SAFE_NO_PAD.encode(forged.concat());
    let forged = json!({"resumeToken": forged});
    // A gateway that has lately begun does not know yet who else is there.
    let refusal = eventually("a refusal", WAIT_TIMEOUT, async || {
        let (raw, refusal) = hello(&cluster, &alice, &forged).await;
        (refusal["code"] != "UNAVAILABLE").then_some((raw, refusal))
    });
    let (raw, refusal) = refusal.await;
    assert_eq!(refusal["code"], "RATE_LIMITED", "{refusal}");
    assert_eq!(ended(raw).await.code(), Some(4429));
    // One that goes on here takes the place of its former connection.
    let token = open[0].1["resumeToken"].clone();
    let (_resumed, welcome) = hello(&cluster, &alice, &json!({"resumeToken": token})).await;
    assert_eq!(welcome["resumed"], true, "{welcome}");
    open.pop();
    open.remove(0);
    eventually("a place", WAIT_TIMEOUT, async || {
        let (_raw, answer) = hello(&cluster, &alice, &json!({})).await;
        (answer["type"] == "welcome").then_some(())
    })
    .await;
    cluster.end().await;
}

/// What is asked waits for a worker that stands still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_the_users_bound_are_refused() {
    let mut cluster = cluster(&[("CONFAB_USER_REQUESTS", "3")]).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let list = async |user: &User| {
        let began = Instant::now();
        let answer = user.get(0, "/v1/conversations").await;
        (answer, began.elapsed())
    };
    list(&alice).await.0.ok(200);
    cluster.workers[0].process_mut().pause().unwrap();
    let flood = join_all((0..10).map(|_| list(&alice)));
    let (flood, (other, _)) = tokio::join!(flood, list(&bob));
    cluster.workers[0].process_mut().resume().unwrap();
    assert_ne!(other.status, 429, "another user's");
    let refused = flood.into_iter().filter(|(answer, _)| answer.status == 429);
    let refused: Vec<_> = refused.collect();
    // The first answer may still be on its way out of the gateway when its client has it.
    assert!((7..=8).contains(&refused.len()), "{}", refused.len());
    for (answer, took) in refused {
        assert!(took < Duration::from_secs(2), "{took:?}");
        answer.refused(429, "RATE_LIMITED");
    }
    eventually("a place", WAIT_TIMEOUT, async || {
        (list(&alice).await.0.status == 200).then_some(())
    })
    .await;
    cluster.end().await;
}

fn made_up() -> String {
    let bytes = [Uuid::now_v7(), Uuid::new_v4(), Uuid::new_v4()].map(Uuid::into_bytes);
    URL_SAFE_NO_PAD.encode(bytes.concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_up_resume_tokens_are_looked_up_boundedly() {
    let cluster = cluster(&[]).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let (own, welcome) = hello(&cluster, &alice, &json!({})).await;
    let (mut looked_up, mut refused) = (0, 0);
    for _ in 0..400 {
        let hello_of = json!({"resumeToken": made_up()});
        let (_raw, answer) = hello(&cluster, &alice, &hello_of).await;
        match answer["code"].as_str() {
            Some("RATE_LIMITED") => refused += 1,
            // A gateway that has lately begun does not know yet who else is there.
            None | Some("UNAVAILABLE") => looked_up += 1,
            Some(_) => panic!("{answer}"),
        }
    }
    println!("{looked_up} looked up, {refused} refused");
    assert!(refused > 0 && looked_up >= 200, "{looked_up}, {refused}");
    // What is good stays good, and others resume as ever.
    let (_fresh, fresh) = hello(&cluster, &alice, &json!({})).await;
    assert_eq!(fresh["type"], "welcome");
    let hello_of = json!({"resumeToken": made_up()});
    eventually("an answer to another user's", WAIT_TIMEOUT, async || {
        let (_raw, answer) = hello(&cluster, &bob, &hello_of).await;
        assert_ne!(answer["code"], "RATE_LIMITED", "{answer}");
        (answer["reason"] == "unknown").then_some(())
    })
    .await;
    drop(own);
    let hello_of = json!({"resumeToken": welcome["resumeToken"]});
    eventually("a resume", WAIT_TIMEOUT, async || {
        let (_raw, answer) = hello(&cluster, &alice, &hello_of).await;
        (answer["resumed"] == true).then_some(())
    })
    .await;
    cluster.end().await;
}

/// An object of as many bad fields as fit a frame.
fn bad_fields() -> String {
    let fields: Vec<_> = (0..50_000).map(|n| format!("\"{n:x}\":1")).collect();
    format!("{{\"type\":\"ping\",{}}}", fields.join(","))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frame_of_bad_fields_is_answered_with_little() {
    let cluster = cluster(&[]).await;
    let alice = cluster.user("alice");
    let bad = bad_fields();
    let (mut raw, _welcome) = hello(&cluster, &alice, &json!({})).await;
    raw.text(&bad).await;
    let answer = raw.json().await;
    assert!(answer.to_string().len() < 8192, "{answer}");
    let named = answer["errors"].as_array().unwrap().len() as u64;
    assert_eq!(named + answer["moreErrors"].as_u64().unwrap(), 50_000);
    let http = alice.http(0);
    let bearer = format!("Bearer {}", alice.token);
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    let path = "/v1/conversations";
    let answer = http.raw("POST", path, &headers, bad.into_bytes()).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status, 400);
    assert!(answer.body.len() < 8192, "{}", answer.body.len());
    cluster.end().await;
}

/// A process's memory, in KiB, and the processor's time that it has used, in ticks.
fn usage(process: u32) -> (u64, u64) {
    let read = |file| std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap();
    let status = read("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let memory = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    let stat = read("stat");
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<_> = fields.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    (memory, ticks(11) + ticks(12))
}

/// The most memory of a process until it has nothing more to do.
async fn memory_at_rest(process: u32) -> u64 {
    let mut before = usage(process);
    let mut peak = before.0;
    for _ in 0..120 {
        sleep(Duration::from_millis(500)).await;
        let now = usage(process);
        peak = peak.max(now.0);
        if now.1 - before.1 < 5 {
            return peak;
        }
        before = now;
    }
    panic!("it never comes to rest");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_read_nothing_cost_flat_memory() {
    let cluster = cluster(&[]).await;
    let bad = frame(TEXT_BYTE, bad_fields().as_bytes());
    let count = soak(100, 40);
    let mut sockets = Vec::new();
    for n in 0..count {
        let user = cluster.user(&format!("user-{n}"));
        sockets.push(hello(&cluster, &user, &json!({})).await.0);
    }
    let process = cluster.gateways[0].process().id();
    let before = memory_at_rest(process).await;
    for _ in 0..BAD_FRAMES {
        for raw in &mut sockets {
            // One that is not read any more takes no more than the system's buffers.
            drop(timeout(Duration::from_millis(200), raw.write(&bad)).await);
        }
    }
    let after = memory_at_rest(process).await;
    let grown = (after - before) / 1024;
    println!(
        "{count} sockets that read nothing: {} MiB, then {} MiB",
        before / 1024,
        after / 1024
    );
    // Of each a frame half read, whose buffer has grown to a mebibyte, and as much again that the allocator keeps.
    assert!(grown < 2 * count as u64, "{grown} MiB");
    drop(sockets);
    cluster.end().await;
}

/// Reads all that comes, and answers pings, until the connection ends.
async fn read_on(mut raw: Raw) {
    while let Some((first, payload)) = raw.frame().await {
        if first == PING_BYTE && raw.write(&frame(PONG_BYTE, &payload)).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memberships_that_ended_cost_flat_memory() {
    let cluster = cluster(&[]).await;
    let alice = cluster.user("alice");
    let mut sockets = JoinSet::new();
    let count = soak(200, 10);
    for _ in 0..count {
        let (raw, _welcome) = hello(&cluster, &alice, &json!({})).await;
        sockets.spawn(read_on(raw));
    }
    let process = cluster.gateways[0].process().id();
    let come_and_go = async |numbers: Range<usize>| {
        let each = stream::iter(numbers).map(async |n| {
            // Each is left to another: nobody has that many.
            let path = alice.begins(0, "group", &[&format!("bob-{n}")]).await;
            let membership = format!("{path}/participants/alice");
            assert!(alice.delete(0, &membership).await.status < 300);
        });
        each.buffer_unordered(8).for_each(async |()| ()).await;
        memory_at_rest(process).await
    };
    let (few, all) = (soak(2_000, 200), soak(10_000, 400));
    let before = come_and_go(0..few).await;
    let after = come_and_go(few..all).await;
    let grown = after.saturating_sub(before) / 1024;
    println!(
        "{count} sockets, {few} conversations that came and went: {} MiB; {all}: {} MiB",
        before / 1024,
        after / 1024
    );
    assert!(grown < 40, "{grown} MiB");
    sockets.shutdown().await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seen_with_too_many_conversations_is_refused() {
    let cluster = cluster(&[]).await;
    let alice = cluster.user("alice");
    let ids = (0..10_001_u128).map(|n| format!("\"{}\":1", Uuid::from_u128(n)));
    let positions = ids.collect::<Vec<_>>().join(",");
    let (mut raw, _welcome) = hello(&cluster, &alice, &json!({})).await;
    raw.text(&format!(
        "{{\"type\":\"seen\",\"positions\":{{{positions}}}}}"
    ))
    .await;
    let answer = raw.json().await;
    assert_eq!(answer["errors"][0]["pointer"], "/positions", "{answer}");
    // Two parts of one hello count together.
    let mut raw = connected(&cluster, &alice).await;
    let half = |from: u128| {
        let ids = (from..from + 6_000).map(|n| format!("\"{}\":1", Uuid::from_u128(n)));
        ids.collect::<Vec<_>>().join(",")
    };
    raw.text(&format!(
        "{{\"type\":\"hello\",\"seenFollows\":true,\"seen\":{{{}}}}}",
        half(0)
    ))
    .await;
    raw.text(&format!(
        "{{\"type\":\"seen\",\"positions\":{{{}}}}}",
        half(6_000)
    ))
    .await;
    let answer = raw.json().await;
    assert_eq!(answer["errors"][0]["pointer"], "/positions", "{answer}");
    cluster.end().await;
}

/// Without any setting of its own a gateway limits, and what clients honestly do is never refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn default_limits_refuse_no_honest_client() {
    let mut cluster = Cluster::start(Setup {
        gateways: 2,
        workers: 1,
        gateway_env: vec![
            ("CONFAB_RATE_LIMIT", None),
            ("CONFAB_USER_CONNECTIONS", None),
        ],
        ..Setup::default()
    })
    .await;
    let policy = r#""user";q=4000;w=20, "device";q=2000;w=20, "address";q=50000;w=10"#;
    let alice = cluster.user("alice");
    let bearer = format!("Bearer {}", alice.token);
    let headers = [("authorization", bearer.as_str())];
    let http = alice.http(0);
    let list = http.raw("GET", "/v1/conversations", &headers, Vec::new());
    let list = list.await.unwrap();
    assert_eq!(list.header("ratelimit-policy"), Some(policy));
    // Twenty tabs of one device open, and come back at once when their gateway dies.
    let mut tabs = Vec::new();
    for _ in 0..20 {
        tabs.push(alice.on(0).await);
    }
    let conversation = tabs[0].create_group(&["bob".parse().unwrap()]).await;
    for n in 0..100 {
        tabs[n % 20].say(conversation, "honest").await;
    }
    cluster.gateways[0].process_mut().kill().unwrap();
    let opening = (0..20).map(|_| Session::open(alice.url(1), Options::bearer(&alice.token)));
    for opened in join_all(opening).await {
        opened.unwrap();
    }
    drop(tabs);
    cluster.end().await;
}
