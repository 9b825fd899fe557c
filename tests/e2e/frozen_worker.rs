//! A refused command is never executed later, even if it waited in a frozen worker's socket.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use crate::support::{Answer, Cluster, Setup, User, eventually, id_of, sample, soak};

const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
/// What met a stopped worker waits for longer.
const MIN_SILENCE: Duration = Duration::from_millis(400);
/// When someone is added whom a worker has refused, and when the other one goes on: within the budget of what was sent to it.
const ADDED_AFTER: Duration = Duration::from_millis(900);
const RESUMED_AFTER: Duration = Duration::from_millis(1_400);
/// Each goes to one of the two workers: so many that some go to the stopped one in every round.
const CONVERSATION_COUNT: usize = 20;

/// A non-member sends while a worker stands still; the other one refuses it, it is added, and the worker goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_worker_stores_no_refused_send() {
    let mut cluster = Cluster::start(Setup::default()).await;
    let (alice, mallory) = (cluster.user("alice"), cluster.user("mallory"));
    let mut refused = Vec::new();
    for round in 0..soak(14, 4) {
        let mut paths = Vec::new();
        for _ in 0..CONVERSATION_COUNT {
            paths.push(alice.begins(round % 2, "group", &["bob"]).await);
        }
        // As long as the fault is: beyond the budget of what was sent to it, or within, when it may still carry that out.
        let stop = [4_000, 900, 1_300, 1_800, 8_000, 25_000, 15_000][round % 7];
        let stopped = cluster.workers[round % 2].process_mut();
        let began = Instant::now();
        stopped.pause().unwrap();
        let resuming = async {
            tokio::time::sleep_until(began + Duration::from_millis(stop)).await;
            stopped.resume().unwrap();
        };
        let sending = join_all(paths.iter().map(async |path| {
            let answer = sends(&mallory, path).await;
            let took = began.elapsed();
            add(&alice, path).await;
            (answer.status, took)
        }));
        let ((), answers) = tokio::join!(resuming, sending);
        let longest = answers.iter().map(|(_, took)| *took).max();
        assert!(
            longest > Some(MIN_SILENCE),
            "none met the stopped worker: {longest:?}"
        );
        for (path, (status, _)) in paths.iter().zip(answers) {
            if status == 404 {
                refused.push(path.clone());
            }
        }
        has_caught_up(&cluster, round % 2, &alice, &paths).await;
        for path in &refused {
            assert_eq!(stored(&cluster, path).await, 0, "round {round}: {path}");
        }
    }
    assert!(!refused.is_empty());
    cluster.end().await;
}

/// A non-member sends while a worker stands still, and is added before it hears what the other one said; then the worker goes on, and stores
/// what was sent to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn send_stored_behind_a_refusal_is_acknowledged() {
    let mut cluster = Cluster::start(Setup::default()).await;
    let (alice, mallory) = (cluster.user("alice"), cluster.user("mallory"));
    let (mut acknowledged, mut waited) = (0, 0);
    for round in 0..soak(8, 2) {
        let mut paths = Vec::new();
        for _ in 0..CONVERSATION_COUNT {
            paths.push(alice.begins(round % 2, "group", &["bob"]).await);
        }
        let stopped = cluster.workers[round % 2].process_mut();
        let began = Instant::now();
        stopped.pause().unwrap();
        let resuming = async {
            tokio::time::sleep_until(began + RESUMED_AFTER).await;
            stopped.resume().unwrap();
        };
        let sending = join_all(paths.iter().map(async |path| {
            let sending = async {
                let answer = sends(&mallory, path).await;
                (answer.status, began.elapsed())
            };
            let adding = async {
                // As long as it takes until the stopped worker is given up, and the other one has refused.
                tokio::time::sleep_until(began + ADDED_AFTER).await;
                add(&alice, path).await;
            };
            tokio::join!(sending, adding).0
        }));
        let ((), answers) = tokio::join!(resuming, sending);
        has_caught_up(&cluster, round % 2, &alice, &paths).await;
        for (path, (status, took)) in paths.iter().zip(answers) {
            let stored = stored(&cluster, path).await;
            match status {
                201 => assert_eq!(stored, 1, "{path} after {took:?}"),
                404 => assert_eq!(stored, 0, "{path} after {took:?}"),
                _ => assert!(stored <= 1, "{path} after {took:?}"),
            }
            acknowledged += usize::from(status == 201);
            waited += usize::from(took > MIN_SILENCE);
        }
    }
    assert!(waited > 0, "none met a stopped worker");
    assert!(acknowledged > 0, "none of {waited} was stored");
    cluster.end().await;
}

async fn sends(user: &User, path: &str) -> Answer {
    let message = json!({"conversationId": id_of(path), "kind": "text", "content": 1});
    user.post(0, "/v1/messages", message).await
}

/// The first try may meet the stopped worker, whatever it is answered.
async fn add(alice: &User, path: &str) {
    let people = format!("{path}/participants");
    eventually("mallory is a member", WAIT_TIMEOUT, async || {
        let added = alice.post(0, &people, json!({"userId": "mallory"})).await;
        (added.status == 201 || added["code"] == "ALREADY_PARTICIPANT").then_some(())
    })
    .await;
}

/// Waits until the worker has carried out what was sent to it behind the stop, and with that has read all from before.
async fn has_caught_up(cluster: &Cluster, worker: usize, alice: &User, paths: &[String]) {
    let port = cluster.workers[worker].port();
    let answered = async || sample(port, "confab_worker_commands_total").await;
    let before = answered().await;
    eventually("the worker has caught up", WAIT_TIMEOUT, async || {
        for path in paths {
            // In the same conversations, behind what may lie before.
            sends(alice, path).await.ok(201);
        }
        let waiting = sample(port, "confab_commit_waiting").await;
        (answered().await >= before + 8.0 && waiting < 0.5).then_some(())
    })
    .await;
}

/// How many messages of someone who was none of its members are in the conversation.
async fn stored(cluster: &Cluster, path: &str) -> i64 {
    let count = "select count(*) from events where conversation_id = $1::uuid and actor = 'mallory' and type = 'message.created'";
    let count = sqlx::query_scalar(count).bind(id_of(path));
    count.fetch_one(&cluster.store).await.unwrap()
}
