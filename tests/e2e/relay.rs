//! Committed events are delivered even if their worker dies before it publishes them.

use std::time::Duration;

use confab_client::NewMessage;
use confab_protocol::ids::{ClientId, ConversationId, Seq};
use confab_protocol::resource::MessageBody;
use uuid::Uuid;

use crate::support::{Cluster, Member, Owed, Setup, assert_log, eventually, soak, text};

const WAIT_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_dead_before_publish_is_relieved_by_another() {
    let mut cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice").on(0).await;
    let bob = cluster.user("bob").on(1).await;
    let conversation = alice.create_group(std::slice::from_ref(&bob.id)).await;

    for round in 0..soak(30, 4) {
        let before = [relayed(&cluster, 0).await, relayed(&cluster, 1).await];
        let seq = match round % 2 {
            0 => send_around(&alice, conversation).await,
            _ => post(&alice, conversation).await,
        };
        let dead = cluster
            .worker_died("the worker that committed it died")
            .await;
        alice.hears(conversation, seq, WAIT_TIMEOUT).await;
        bob.hears(conversation, seq, WAIT_TIMEOUT).await;
        eventually("the relay has counted it", WAIT_TIMEOUT, async || {
            (relayed(&cluster, 1 - dead).await > before[1 - dead]).then_some(())
        })
        .await;
        cluster.restart_worker(dead).await;
    }

    let owed = [Owed::all(&alice), Owed::all(&bob)];
    assert_log(&cluster, conversation, &owed).await;
    drop((alice, bob));
    cluster.end().await;
}

/// The worker that commits it dies before it publishes.
fn deadly() -> MessageBody {
    MessageBody {
        kind: "x-fault".to_owned(),
        ..text("the last words of a worker")
    }
}

/// Sends a deadly message among others without waiting, so that a whole batch is left behind, and gives the seq of the
/// last one.
async fn send_around(member: &Member, conversation: ConversationId) -> Seq {
    let mut pending = Vec::new();
    for number in 0..20 {
        let body = match number {
            10 => deadly(),
            _ => text(&format!("around a death: {number}")),
        };
        let id = ClientId(Uuid::now_v7());
        let submitted = member.session.submit(id, conversation, body).await;
        pending.push(submitted.unwrap());
    }
    let mut last = 0;
    for pending in pending {
        let seq = pending.ack().await.unwrap().seq;
        assert!(seq > last, "{seq} behind {last}");
        last = seq;
    }
    last
}

async fn post(member: &Member, conversation: ConversationId) -> Seq {
    let message = NewMessage {
        conversation_id: conversation,
        client_id: Some(ClientId(Uuid::now_v7())),
        body: deadly(),
    };
    member.http.send_message(&message).await.unwrap().answer.seq
}

/// How many events a worker's relay has published, as its metrics say.
async fn relayed(cluster: &Cluster, worker: usize) -> u64 {
    let port = cluster.workers[worker].port();
    let (_, metrics) = confab_stack::get(port, "/metrics", WAIT_TIMEOUT)
        .await
        .unwrap();
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("confab_outbox_relayed_total "));
    line.unwrap_or_else(|| panic!("no such metric:\n{metrics}"))
        .parse()
        .unwrap()
}
