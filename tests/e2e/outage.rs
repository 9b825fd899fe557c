//! An outage of Postgres, workers or a gateway is reported, and ends by itself.

use std::time::Duration;

use confab_protocol::error::Code;
use confab_protocol::ids::ConversationId;

use crate::support::{Cluster, Member, Owed, Setup, assert_log, eventually, text};

const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_outage_refuses_commands_keeps_sockets_recovers() {
    let setup = Setup {
        own_postgres: true,
        ..Setup::default()
    };
    let mut cluster = Cluster::start(setup).await;
    let (alice, bob, conversation) = pair(&cluster).await;

    cluster.database.server().kill().unwrap();
    refused(&alice, conversation).await;
    cluster.database.server().up().await.unwrap();
    accepted(&alice, conversation).await;

    assert_open(&[&alice, &bob]);
    assert_log(
        &cluster,
        conversation,
        &[Owed::all(&alice), Owed::all(&bob)],
    )
    .await;
    drop((alice, bob));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_outage_refuses_commands_keeps_sockets_recovers() {
    let mut cluster = Cluster::start(Setup::default()).await;
    let (alice, bob, conversation) = pair(&cluster).await;

    for worker in &mut cluster.workers {
        worker.process_mut().kill().unwrap();
    }
    refused(&alice, conversation).await;
    cluster.restart_worker(0).await;
    accepted(&alice, conversation).await;

    assert_open(&[&alice, &bob]);
    assert_log(
        &cluster,
        conversation,
        &[Owed::all(&alice), Owed::all(&bob)],
    )
    .await;
    drop((alice, bob));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_gateway_breaks_only_own_connections_then_serves() {
    let mut cluster = Cluster::start(Setup::default()).await;
    let (alice, bob, conversation) = pair(&cluster).await;

    cluster.gateways[0].process_mut().kill().unwrap();
    assert_eq!(alice.closes(WAIT_TIMEOUT).await.code, None);
    bob.say(conversation, "while alice is away").await;
    cluster.restart_gateway(0).await;
    let alice = cluster.user("alice").on(0).await;
    let back = alice.cursor(conversation).unwrap() + 1;
    bob.say(conversation, "welcome back").await;

    let alice_owed = Owed {
        from: back,
        ..Owed::all(&alice)
    };
    assert_open(&[&bob]);
    assert_log(&cluster, conversation, &[alice_owed, Owed::all(&bob)]).await;
    drop((alice, bob));
    cluster.end().await;
}

/// Two members of a conversation, each on a gateway of its own.
async fn pair(cluster: &Cluster) -> (Member, Member, ConversationId) {
    let alice = cluster.user("alice").on(0).await;
    let bob = cluster.user("bob").on(1).await;
    let conversation = alice.create_group(std::slice::from_ref(&bob.id)).await;
    alice.say(conversation, "before").await;
    (alice, bob, conversation)
}

/// Waits for a refusal that says that something is away. A send that was on its way when it went is answered `TIMEOUT` first.
async fn refused(member: &Member, conversation: ConversationId) {
    eventually("a send is refused", WAIT_TIMEOUT, async || {
        let sent = member.http.send_message(&new(conversation)).await;
        let code = sent.err().and_then(|error| error.code());
        matches!(code, Some(Code::Unavailable | Code::Overloaded)).then_some(())
    })
    .await;
}

async fn accepted(member: &Member, conversation: ConversationId) {
    eventually("a send is accepted", WAIT_TIMEOUT, async || {
        member.http.send_message(&new(conversation)).await.ok()
    })
    .await;
}

fn new(conversation: ConversationId) -> confab_client::NewMessage {
    confab_client::NewMessage {
        conversation_id: conversation,
        client_id: None,
        body: text("is anybody there?"),
    }
}

fn assert_open(members: &[&Member]) {
    for member in members {
        assert_eq!(member.record.borrow().closed, None, "{}", member.id);
    }
}
