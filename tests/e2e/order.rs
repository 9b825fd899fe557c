//! Sends of one connection are stored in order, and repeats are stored once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use confab_client::{ClientError, NewMessage, Pending, SendError};
use confab_protocol::error::Code;
use confab_protocol::ids::{ClientId, ConversationId, Seq};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::support::{
    AckedMessage, Cluster, Member, Owed, Setup, assert_log, assert_stored, soak, text,
};

/// How many sends are under way without an acknowledgement.
const UNDER_WAY: usize = 1_000;
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_sends_keep_order_while_workers_die() {
    let mut cluster = Cluster::start(Setup {
        // What a killed worker left comes in one burst, larger than the usual bound; who is slow is another test's matter.
        gateway_env: vec![("CONFAB_OUTBOX_BYTES", Some((32 << 20).to_string()))],
        ..Setup::default()
    })
    .await;
    let alice = cluster.user("alice").on(0).await;
    let bob = cluster.user("bob").on(1).await;

    for _ in 0..soak(10, 1) {
        let conversation = alice.create_group(std::slice::from_ref(&bob.id)).await;
        let killed = AtomicBool::new(false);
        let sending = send_until(&alice, conversation, &killed);
        let killing = async {
            kill_in_turn(&mut cluster, &bob, conversation).await;
            killed.store(true, Ordering::Relaxed);
        };
        let (sent, ()) = tokio::join!(sending, killing);

        let seqs: Vec<Seq> = sent.iter().map(|sent| sent.seq).collect();
        let in_order: Vec<Seq> = (seqs[0]..).take(sent.len()).collect();
        assert_eq!(seqs, in_order);
        assert_stored(&cluster, &sent).await;
        let owed = [Owed::all(&alice), Owed::all(&bob)];
        assert_log(&cluster, conversation, &owed).await;
    }
    drop((alice, bob));
    cluster.end().await;
}

/// Submits message after message until `killed`, however fast they are stored, with [`UNDER_WAY`] of them at a time.
async fn send_until(
    member: &Member,
    conversation: ConversationId,
    killed: &AtomicBool,
) -> Vec<AckedMessage> {
    let mut under_way: VecDeque<(ClientId, String, Pending)> = VecDeque::new();
    let mut sent = Vec::new();
    loop {
        let over = killed.load(Ordering::Relaxed);
        if !over && under_way.len() < UNDER_WAY {
            let client_id = ClientId(Uuid::now_v7());
            let words = (sent.len() + under_way.len()).to_string();
            let pending = member
                .session
                .submit(client_id, conversation, text(&words))
                .await;
            under_way.push_back((client_id, words, pending.unwrap()));
            continue;
        }
        let Some((client_id, words, pending)) = under_way.pop_front() else {
            return sent;
        };
        let ack = pending.ack().await;
        let ack = ack.unwrap_or_else(|error| panic!("after {} sends: {error}", sent.len()));
        sent.push(AckedMessage {
            conversation,
            sender: member.id.clone(),
            client_id,
            words,
            seq: ack.seq,
        });
    }
}

/// Kills one worker and then the other, each in the midst of the sends; the next one only when sends went on without it.
async fn kill_in_turn(cluster: &mut Cluster, listener: &Member, conversation: ConversationId) {
    for round in 0..4 {
        let worker = round % cluster.workers.len();
        goes_on(listener, conversation, 100).await;
        cluster.workers[worker].process_mut().kill().unwrap();
        // More than were under way: some of them were submitted when it was dead.
        goes_on(listener, conversation, UNDER_WAY as Seq + 1).await;
        cluster.restart_worker(worker).await;
    }
}

/// `messages` more are heard than were before.
async fn goes_on(listener: &Member, conversation: ConversationId, messages: Seq) {
    let heard = listener.record.borrow().last(conversation);
    listener
        .hears(conversation, heard + messages, PROGRESS_TIMEOUT)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_across_gateways_and_transports_store_once() {
    let cluster = Cluster::start(Setup::default()).await;
    let user = cluster.user("alice");
    let doors = [
        user.on(0).await,
        user.on(1).await,
        user.on(0).await,
        user.on(1).await,
    ];
    let conversation = doors[0].create_group(&["bob".parse().unwrap()]).await;

    let mut sent = Vec::new();
    for round in 0..soak(500, 50) {
        let client_id = ClientId(Uuid::now_v7());
        let words = format!("round {round}");
        let answers = repeat(&doors, conversation, client_id, &[&words]).await;
        let seqs: Vec<Seq> = answers
            .iter()
            .map(|(_, answer)| answer.unwrap().0)
            .collect();
        let fresh = answers
            .iter()
            .filter(|(_, answer)| !answer.unwrap().1)
            .count();
        assert!(seqs.iter().all(|seq| *seq == seqs[0]), "{seqs:?}");
        // None is, where the gateway itself had to repeat the first one.
        assert!(
            fresh <= 1,
            "{fresh} of {} were not duplicates",
            answers.len()
        );
        for (_, answer) in repeat(&doors, conversation, client_id, &["something else"]).await {
            assert_eq!(answer, Err(Code::IdempotencyKeyReused));
        }
        sent.push(stored(&doors[0], conversation, client_id, words, seqs[0]));
    }
    assert_stored(&cluster, &sent).await;
    assert_count(&doors[0], conversation, sent.len()).await;
    let owed: Vec<_> = doors.iter().map(Owed::all).collect();
    assert_log(&cluster, conversation, &owed).await;
    drop(doors);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_conflicting_client_id_stores_one_content() {
    let cluster = Cluster::start(Setup::default()).await;
    let user = cluster.user("alice");
    let doors = [user.on(0).await, user.on(1).await];
    let conversation = doors[0].create_group(&["bob".parse().unwrap()]).await;

    let mut sent = Vec::new();
    for round in 0..soak(500, 50) {
        let client_id = ClientId(Uuid::now_v7());
        let contents = [format!("one thing {round}"), format!("another {round}")];
        let contents = [contents[0].as_str(), contents[1].as_str()];
        let answers = repeat(&doors, conversation, client_id, &contents).await;
        let (words, seq) = answers
            .iter()
            .find_map(|(words, answer)| answer.ok().map(|(seq, _)| (*words, seq)))
            .unwrap();
        for (content, answer) in &answers {
            let answer = answer.map(|(seq, _)| seq);
            let due = if *content == words {
                Ok(seq)
            } else {
                Err(Code::IdempotencyKeyReused)
            };
            assert_eq!(answer, due, "{content}, where {words} is stored");
        }
        sent.push(stored(
            &doors[0],
            conversation,
            client_id,
            words.to_owned(),
            seq,
        ));
    }
    assert_stored(&cluster, &sent).await;
    assert_count(&doors[0], conversation, sent.len()).await;
    let owed: Vec<_> = doors.iter().map(Owed::all).collect();
    assert_log(&cluster, conversation, &owed).await;
    drop(doors);
    cluster.end().await;
}

fn stored(
    member: &Member,
    conversation: ConversationId,
    client_id: ClientId,
    words: String,
    seq: Seq,
) -> AckedMessage {
    AckedMessage {
        conversation,
        sender: member.id.clone(),
        client_id,
        words,
        seq,
    }
}

async fn assert_count(member: &Member, conversation: ConversationId, count: usize) {
    let history = member.http.history(conversation).await.unwrap();
    assert_eq!(history.len(), count);
}

/// The seq, and whether it was stored before; or why it was refused.
type Answer = Result<(Seq, bool), Code>;

/// Sends with one client id through all doors at once: over each WebSocket once, and over HTTP once for each content. The
/// contents are dealt in turn.
async fn repeat<'a>(
    doors: &[Member],
    conversation: ConversationId,
    client_id: ClientId,
    contents: &[&'a str],
) -> Vec<(&'a str, Answer)> {
    let over_websocket = doors.iter().enumerate().map(|(number, door)| {
        let words = contents[number % contents.len()];
        let send = send(door, conversation, client_id, words);
        async move { (words, send.await) }
    });
    let over_http = doors.iter().flat_map(|door| {
        contents.iter().map(move |words| {
            let post = post(door, conversation, client_id, words);
            async move { (*words, post.await) }
        })
    });
    let (mut answers, more) = tokio::join!(join_all(over_websocket), join_all(over_http));
    answers.extend(more);
    answers
}

async fn send(door: &Member, conversation: ConversationId, id: ClientId, words: &str) -> Answer {
    let pending = door.session.submit(id, conversation, text(words)).await;
    match pending.unwrap().ack().await {
        Ok(ack) => Ok((ack.seq, ack.duplicate)),
        Err(SendError::Refused(refusal)) => Err(refusal.code),
        Err(error) => panic!("{error}"),
    }
}

async fn post(door: &Member, conversation: ConversationId, id: ClientId, words: &str) -> Answer {
    let message = NewMessage {
        conversation_id: conversation,
        client_id: Some(id),
        body: text(words),
    };
    match door.http.send_message(&message).await {
        Ok(sent) => Ok((sent.answer.seq, sent.replayed)),
        Err(ClientError::Problem(problem)) => Err(problem.code),
        Err(error) => panic!("{error:?}"),
    }
}
