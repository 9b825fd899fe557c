//! Many sessions lose their gateway at once and resume at another: how long it takes, and what it costs.

use std::sync::Arc;
use std::time::Duration;

use confab_protocol::frame::Hello;
use confab_protocol::ids::{SessionId, UserId};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{DEADLINE, setup};
use crate::history::{End, Socket};
use crate::support::{Cluster, Setup, User, soak};

/// Conversations of each session.
const EACH: usize = 10;
/// Members of each conversation.
const MEMBERS: usize = 100;
/// Connections that are made at once before the storm.
const AT_ONCE: usize = 64;

/// A session that lost its connection.
struct Lost {
    user: User,
    session: SessionId,
    token: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_resumes_goes_on_with_every_session() {
    Box::pin(storm(None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_resumes_without_a_window_goes_on_with_every_session() {
    Box::pin(storm(Some("0"))).await;
}

async fn storm(window: Option<&str>) {
    let mut env = setup().gateway_env;
    env.retain(|(name, _)| *name != "CONFAB_HEARTBEAT");
    env.extend(window.map(|bytes| ("CONFAB_WINDOW_BYTES", Some(bytes.to_owned()))));
    let setup = Setup {
        gateway_env: env,
        ..setup()
    };
    let mut cluster = Cluster::start(setup).await;
    let sessions = soak(5_000, 200);
    let users: Vec<User> = (0..sessions)
        .map(|number| cluster.user(&format!("user-{number}")))
        .collect();
    talk(&users).await;
    let (open, tokens) = connect(&users).await;
    let before = Cost::of(&cluster).await;
    cluster.gateways[0].process_mut().kill().unwrap();
    drop(open);
    let began = Instant::now();
    let mut resumes = JoinSet::new();
    for lost in tokens {
        resumes.spawn(resume(lost));
    }
    let tries: usize = resumes.join_all().await.into_iter().sum();
    let took = began.elapsed();
    let after = Cost::of(&cluster).await;
    let per_second = sessions as f64 / took.as_secs_f64();
    println!(
        "{sessions} sessions, window {}: {took:.2?}, {per_second:.0} resumes/s, {tries} tries; Postgres transactions a resume {:.2}, \
         records written a resume {:.2}; gateway {} MiB before, {} MiB after",
        window.unwrap_or("default"),
        (after.transactions - before.transactions) / sessions as f64,
        (after.records - before.records) / sessions as f64,
        before.memory,
        after.memory,
    );
    cluster.end().await;
}

/// Conversations of many members, with something said in each.
async fn talk(users: &[User]) {
    let groups: Vec<&[User]> = users.chunks(MEMBERS).collect();
    for _ in 0..EACH {
        for group in &groups {
            let others: Vec<UserId> = group.iter().map(|user| user.id.clone()).collect();
            let names: Vec<&str> = others.iter().map(UserId::as_str).collect();
            let path = group[0].begins(0, "group", &names).await;
            group[0].says(0, &path, "before the storm").await;
        }
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
    let until = Instant::now() + DEADLINE;
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

/// Goes on at the second gateway, and gives how many tries that took.
async fn resume(lost: Lost) -> usize {
    let until = Instant::now() + DEADLINE;
    for tries in 1.. {
        let hello = Hello {
            resume_token: Some(lost.token.clone()),
            ..Hello::default()
        };
        match Socket::open(lost.user.url(1), &lost.user.token, hello, None).await {
            Ok((welcome, _socket)) => {
                assert!(welcome.resumed, "{:?}", welcome.reason);
                assert_eq!(welcome.session_id, lost.session);
                return tries;
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
    0
}

/// What was spent by now.
struct Cost {
    transactions: f64,
    records: f64,
    /// Of the second gateway, in MiB.
    memory: u64,
}

impl Cost {
    async fn of(cluster: &Cluster) -> Self {
        let transactions: i64 = sqlx::query_scalar(
            "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()",
        )
        .fetch_one(&cluster.store)
        .await
        .unwrap();
        let client = async_nats::connect(cluster.nats.url()).await.unwrap();
        let jetstream = async_nats::jetstream::new(client);
        let records = match jetstream.get_stream("KV_confab_sessions").await {
            Ok(mut stream) => stream.info().await.unwrap().state.last_sequence,
            Err(_) => 0,
        };
        let pid = cluster.gateways[1].process().id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        Self {
            transactions: transactions as f64,
            records: records as f64,
            memory: kib.parse::<u64>().unwrap() / 1024,
        }
    }
}
