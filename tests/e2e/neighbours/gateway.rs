//! One user's worst load on a gateway delays no other user for long.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use confab_protocol::limits;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{copy, sink};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::quiet::Quiet;
use super::user_of;
use crate::support::{Cluster, Raw, Setup, id_of, soak};

mod loud;

use loud::{Loud, Reading};

/// The frame of a number.
type NextFrame<'a> = &'a dyn Fn(usize) -> Value;

/// What a user may be told to be.
const PRESENCE_STATUSES: [&str; 2] = ["online", "away"];

/// How long each of the worst goes on.
fn so_long() -> Duration {
    Duration::from_millis(soak(10_000, 500) as u64)
}

/// How long a neighbour may wait at most: the promise is a second, which a debug build beside other tests may not keep.
fn longest() -> Duration {
    Duration::from_millis(soak(1_000, 4_000) as u64)
}

/// From how many sockets at once.
fn sockets() -> &'static [usize] {
    &[4, 1, 40][..soak(3, 1)]
}

async fn start(limits: &str, more: &[(&'static str, &str)]) -> Cluster {
    let mut env = vec![("CONFAB_RATE_LIMIT", Some(limits.to_owned()))];
    env.extend(
        more.iter()
            .map(|(name, value)| (*name, Some((*value).to_owned()))),
    );
    Cluster::start(Setup {
        gateways: 1,
        workers: 1,
        gateway_env: env,
        ..Setup::default()
    })
    .await
}

/// The loud one is of the tenant of half of its neighbours.
fn loud(cluster: &Cluster) -> Loud {
    Loud::new(cluster, user_of(cluster, "loud", "loud"))
}

/// Every type of frame, as often as it is taken.
async fn floods_of_frames(limits: &str) {
    let cluster = start(limits, &[]).await;
    let loud = loud(&cluster);
    let conversation = loud.begins(1).await.remove(0);
    let message = loud.says(&conversation).await;
    let quiet = Quiet::start_at_gateway(&cluster).await;
    let token = loud.user.token.clone();
    let text = json!({"text": "loud"});
    let own = |n: usize| json!({"type": "send", "id": Uuid::from_u128(n as u128 + 1), "conversationId": conversation, "kind": "text", "content": text});
    let frames: [(&str, NextFrame<'_>); 10] = [
        ("send", &own),
        (
            "edit",
            &|n| json!({"type": "edit", "conversationId": conversation, "messageId": message, "content": {"text": n}}),
        ),
        (
            "delete",
            &|_| json!({"type": "delete", "conversationId": conversation, "messageId": Uuid::nil()}),
        ),
        (
            "read",
            &|n| json!({"type": "read", "conversationId": conversation, "upToSeq": n % 2 + 1}),
        ),
        (
            "typing",
            &|n| json!({"type": "typing", "conversationId": conversation, "on": n % 2 == 0}),
        ),
        (
            "presence",
            &|n| json!({"type": "presence", "status": PRESENCE_STATUSES[n % 2]}),
        ),
        ("auth", &|_| json!({"type": "auth", "token": token})),
        ("ping", &|_| json!({"type": "ping"})),
        (
            "seen",
            &|_| json!({"type": "seen", "positions": {(conversation.clone()): 1}}),
        ),
        ("hello", &|_| json!({"type": "hello"})),
    ];
    for (what, frame) in frames {
        for &sockets in sockets() {
            let next = |n| frame(n).to_string();
            // A second hello is never valid.
            let reading = if what == "hello" {
                Reading::All
            } else {
                Reading::Valid
            };
            let flood = loud.floods(what, sockets, so_long(), reading, next);
            quiet.beside(what, longest(), Box::pin(flood)).await;
        }
    }
    quiet.end(&cluster).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_hold_up_no_neighbour() {
    floods_of_frames("off").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limited_floods_of_frames_hold_up_no_neighbour() {
    floods_of_frames("lenient").await;
}

/// What costs the more the more conversations its user has, or names.
async fn many_conversations(limits: &str) {
    let cluster = start(limits, &[]).await;
    let loud = loud(&cluster);
    let own = loud.begins(soak(2_000, 300)).await;
    let owner = user_of(&cluster, "owner", "quiet");
    let foreign = id_of(&owner.begins(0, "group", &["friend"]).await).to_owned();
    let quiet = Quiet::start_at_gateway(&cluster).await;
    let presence = |n: usize| json!({"type": "presence", "status": PRESENCE_STATUSES[n % 2]});
    let typing = |n: usize| {
        let unknown = Uuid::from_u128(n as u128 + 1).to_string();
        let id = if n.is_multiple_of(2) {
            &foreign
        } else {
            &unknown
        };
        json!({"type": "typing", "conversationId": id, "on": true})
    };
    let (made_up, too_many) = (positions(limits::MAX_SEEN_CONVERSATIONS), positions(12_500));
    let seen = |_| json!({"type": "seen", "positions": made_up});
    let seen_beyond = |_| json!({"type": "seen", "positions": too_many});
    let (valid, all) = (Reading::Valid, Reading::All);
    let frames: [(&str, Reading, NextFrame<'_>); 4] = [
        ("presence of one in many", valid, &presence),
        ("typing in foreign conversations", valid, &typing),
        ("seen of made-up ids", valid, &seen),
        ("seen beyond its bound", all, &seen_beyond),
    ];
    for (what, reading, frame) in frames {
        for &sockets in sockets() {
            let next = |n| frame(n).to_string();
            let flood = loud.floods(what, sockets, so_long(), reading, next);
            quiet.beside(what, longest(), Box::pin(flood)).await;
        }
    }
    let known = own
        .iter()
        .map(|id| (id.clone(), 1))
        .collect::<BTreeMap<_, _>>();
    let hellos: [(&str, Vec<String>); 4] = [
        ("reconnects", hello(&json!({}))),
        (
            "reconnects with presence",
            hello(&json!({"presence": true})),
        ),
        ("reconnects with seen", hello(&json!({"seen": known}))),
        ("hellos of made-up ids", made_up_seen()),
    ];
    for (what, hello) in hellos {
        let again = loud.reconnects(what, soak(16, 4), so_long(), || hello.clone());
        quiet.beside(what, longest(), Box::pin(again)).await;
    }
    quiet.end(&cluster).await;
    cluster.end().await;
}

fn positions(count: usize) -> BTreeMap<String, u64> {
    let ids = (0..count).map(|_| (Uuid::now_v7().to_string(), 1));
    ids.collect()
}

fn hello(more: &Value) -> Vec<String> {
    let mut hello = more.clone();
    hello["type"] = "hello".into();
    vec![hello.to_string()]
}

/// As many ids as may be named, in two frames.
fn made_up_seen() -> Vec<String> {
    let (first, second) = (
        positions(limits::MAX_SEEN_CONVERSATIONS / 2),
        positions(limits::MAX_SEEN_CONVERSATIONS / 2),
    );
    let mut frames = hello(&json!({"seen": first, "seenFollows": true}));
    frames.push(json!({"type": "seen", "positions": second}).to_string());
    frames
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_of_many_conversations_holds_up_no_neighbour() {
    many_conversations("off").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limited_user_delays_no_other_user() {
    many_conversations("lenient").await;
}

/// What no client of good will sends.
async fn nonsense(limits: &str) {
    let cluster = start(limits, &[]).await;
    let loud = loud(&cluster);
    let quiet = Quiet::start_at_gateway(&cluster).await;
    let bad = bad_fields().to_string();
    let flood = loud.floods(
        "bad fields, unread",
        soak(100, 4),
        so_long(),
        Reading::Nothing,
        |_| bad.clone(),
    );
    quiet.beside("bad fields", longest(), Box::pin(flood)).await;
    let token = || {
        let token: [u8; 48] = std::array::from_fn(|_| rand::random());
        hello(&json!({"resumeToken": URL_SAFE_NO_PAD.encode(token)}))
    };
    let trying = loud.reconnects("made-up resume tokens", soak(40, 4), so_long(), token);
    quiet
        .beside("made-up resume tokens", longest(), Box::pin(trying))
        .await;
    quiet.end(&cluster).await;
    cluster.end().await;
}

/// A frame of 512 KiB in which each field is wrong.
fn bad_fields() -> Value {
    let mut frame = json!({"type": "send"});
    for n in 0..50_000 {
        frame[format!("{n}")] = 1.into();
    }
    assert!(frame.to_string().len() < 512 * 1024);
    frame
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_holds_up_no_neighbour() {
    nonsense("off").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limited_nonsense_holds_up_no_neighbour() {
    nonsense("lenient").await;
}

/// As many connections and sockets as there may be, and more, that say nothing.
async fn silent_connections(limits: &str) {
    let cluster = start(limits, &[("CONFAB_MAX_CONNECTIONS", "64")]).await;
    let loud = loud(&cluster);
    let quiet = Quiet::start_at_gateway(&cluster).await;
    // Whoever waits for them to go waits for too long.
    let until = Instant::now() + longest() + so_long();
    let silent = async {
        let sockets = (0..160).map(|n| timeout_at(until, stay_silent(&loud, n % 2 == 0)));
        let _elapsed: Vec<Result<(), _>> = join_all(sockets).await;
    };
    quiet
        .beside("silent connections", longest(), Box::pin(silent))
        .await;
    quiet.end(&cluster).await;
    cluster.end().await;
}

/// Connects, upgrades or not, says nothing, and connects anew when it is closed.
async fn stay_silent(loud: &Loud, upgrades: bool) {
    loop {
        if let Some(mut raw) = loud.connect().await {
            if upgrades {
                let _refused = raw.write(Raw::UPGRADE_HEAD.as_bytes()).await.is_err();
                let _refused = raw.write(b"\r\n").await.is_err();
            }
            let _ended = copy(&mut raw.into_stream(), &mut sink()).await;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_hold_up_no_neighbour() {
    silent_connections("off").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limited_silent_connections_hold_up_no_neighbour() {
    silent_connections("lenient").await;
}
