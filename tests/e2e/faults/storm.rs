//! A resume storm: many sessions lose their gateway at once (docs/performance.md says how to measure it).

use std::sync::Arc;
use std::time::Duration;

use confab_protocol::frame::{Heard, Hello};
use confab_protocol::ids::{SessionId, UserId};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::WAIT_TIMEOUT;
use crate::history::{End, Socket};
use crate::support::{Cluster, Setup, User, soak};

mod cost;

use cost::{Cost, Operations};

/// Conversations of each session.
const SESSION_CONVERSATIONS: usize = 10;
/// Members of each conversation.
const CONVERSATION_MEMBERS: usize = 100;
/// Connections that are made at once before the storm, and messages sent.
const AT_ONCE: usize = 64;
/// Clients between connecting and their welcome at once.
const IN_HANDSHAKE: usize = 256;

/// A session that lost its connection.
struct Lost {
    user: User,
    session: SessionId,
    token: String,
}

/// A session that goes on.
struct Back {
    welcomed: Instant,
    caught_up: Instant,
    tries: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_storm_resumes_every_session() {
    Box::pin(storm(None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_storm_without_window_resumes_every_session() {
    Box::pin(storm(Some("0"))).await;
}

async fn storm(window: Option<&str>) {
    let window_bytes = window.map(|bytes| ("CONFAB_WINDOW_BYTES", Some(bytes.to_owned())));
    let setup = Setup {
        gateway_env: window_bytes.into_iter().collect(),
        ..Setup::default()
    };
    let mut cluster = Cluster::start(setup).await;
    let sessions = soak(5_000, 200);
    let users: Vec<User> = (0..sessions)
        .map(|number| cluster.user(&format!("user-{number}")))
        .collect();
    let conversations = talk(&users).await;
    let (open, tokens) = connect(&users).await;
    cluster.gateways[0].process_mut().kill().unwrap();
    drop(open);
    missed(&conversations).await;
    let operations = Operations::count(&cluster).await;
    let before = Cost::of(&mut cluster, &operations).await;
    let began = Instant::now();
    let (clients, back) = resume_all(tokens).await;
    let after = Cost::of(&mut cluster, &operations).await;
    let last = |of: fn(&Back) -> Instant| back.iter().map(of).max().unwrap() - began;
    let (welcomed, caught_up) = (last(|one| one.welcomed), last(|one| one.caught_up));
    println!(
        "{sessions} sessions, window {}: welcomed {welcomed:.2?}, caught up {caught_up:.2?}, {:.0} resumes/s, {} tries; {}",
        window.unwrap_or("default"),
        sessions as f64 / welcomed.as_secs_f64(),
        back.iter().map(|one| one.tries).sum::<usize>(),
        after.since(before, sessions),
    );
    drop(clients);
    cluster.end().await;
}

/// Conversations of many members, with something said in each, and one who may say more.
async fn talk(users: &[User]) -> Vec<(User, String)> {
    let mut conversations = Vec::new();
    for _ in 0..SESSION_CONVERSATIONS {
        for group in users.chunks(CONVERSATION_MEMBERS) {
            let others: Vec<UserId> = group.iter().map(|user| user.id.clone()).collect();
            let names: Vec<&str> = others.iter().map(UserId::as_str).collect();
            let path = group[0].begins(0, "group", &names).await;
            group[0].says(0, &path, "before the storm").await;
            conversations.push((group[0].clone(), path));
        }
    }
    conversations
}

/// Something that no session has.
async fn missed(conversations: &[(User, String)]) {
    for some in conversations.chunks(AT_ONCE) {
        let mut said = JoinSet::new();
        for (user, path) in some {
            let (user, path) = (user.clone(), path.clone());
            said.spawn(async move { user.says(1, &path, "in the storm").await });
        }
        said.join_all().await;
    }
}

/// Opens a session of each user at the first gateway.
async fn connect(users: &[User]) -> (Vec<Socket>, Vec<Lost>) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut opening = JoinSet::new();
    for user in users.iter().cloned() {
        let room = Arc::clone(&room);
        opening.spawn(async move {
            let _room = room.acquire_owned().await.unwrap();
            open(user).await
        });
    }
    opening.join_all().await.into_iter().unzip()
}

async fn open(user: User) -> (Socket, Lost) {
    let until = Instant::now() + WAIT_TIMEOUT;
    loop {
        match Socket::open(user.url(0), &user.token, Hello::default(), None).await {
            Ok((welcome, socket)) => {
                let (session, token) = (welcome.session_id, welcome.resume_token);
                let lost = Lost {
                    user,
                    session,
                    token: token.expect("a resume token"),
                };
                return (socket, lost);
            }
            Err(end) => assert!(Instant::now() < until, "{end:?}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// All go on at the second gateway, and read on.
async fn resume_all(lost: Vec<Lost>) -> (JoinSet<()>, Vec<Back>) {
    let room = Arc::new(Semaphore::new(IN_HANDSHAKE));
    let (told, mut news) = mpsc::unbounded_channel();
    let mut clients = JoinSet::new();
    let count = lost.len();
    for one in lost {
        let (room, told) = (Arc::clone(&room), told.clone());
        clients.spawn(async move {
            let in_handshake = room.acquire_owned().await.unwrap();
            let (mut socket, tries) = resume(one).await;
            let welcomed = Instant::now();
            drop(in_handshake);
            events(&mut socket).await;
            let caught_up = Instant::now();
            let back = Back {
                welcomed,
                caught_up,
                tries,
            };
            told.send(back)
                .unwrap_or_else(|_| panic!("the test is over"));
            socket.drain().await;
        });
    }
    let mut back = Vec::new();
    while back.len() < count {
        let one = tokio::time::timeout(WAIT_TIMEOUT, news.recv()).await;
        back.push(one.expect("all are back in time").unwrap());
    }
    (clients, back)
}

/// Goes on at the second gateway, and gives how many tries that took.
async fn resume(lost: Lost) -> (Socket, usize) {
    let until = Instant::now() + WAIT_TIMEOUT;
    let mut tries = 0;
    loop {
        tries += 1;
        let hello = Hello {
            resume_token: Some(lost.token.clone()),
            ..Hello::default()
        };
        match Socket::open(lost.user.url(1), &lost.user.token, hello, None).await {
            Ok((welcome, socket)) => {
                assert!(welcome.resumed, "{:?}", welcome.reason);
                assert_eq!(welcome.session_id, lost.session);
                return (socket, tries);
            }
            Err(end) => {
                assert!(Instant::now() < until, "{end:?}");
                let wait = match end {
                    End::Refused(_, Some(after)) => after,
                    _ => 100,
                };
                sleep(Duration::from_millis(wait)).await;
            }
        }
    }
}

/// What was missed comes: one event of each conversation.
async fn events(socket: &mut Socket) {
    let mut missing = SESSION_CONVERSATIONS;
    while missing > 0 {
        if let Some(Heard::Event(_)) = socket.next().await.unwrap() {
            missing -= 1;
        }
    }
}
