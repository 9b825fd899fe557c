//! One tenant's worst load on a worker only slows its neighbours by a fair share of the machine.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use confab_client::NewMembers;
use confab_protocol::event::Member as NewMember;
use confab_protocol::ids::UserId;
use confab_protocol::resource::Role;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::{Cluster, Setup, User, claims, eventually, id_of, soak};

mod gateway;
mod locked;
mod quiet;
mod sockets;

use quiet::Quiet;

/// How long a neighbour may wait at most: the promise is a second, which a machine that builds and runs other tests meanwhile may not keep.
fn longest() -> Duration {
    Duration::from_millis(soak(1_000, 3_000) as u64)
}

fn user_of(cluster: &Cluster, name: &str, tenant: &str) -> User {
    let mut claims = claims(name);
    claims["tenant"] = tenant.into();
    cluster.user_of(&claims)
}

async fn start(workers: usize) -> Cluster {
    Cluster::start(Setup {
        gateways: 1,
        workers,
        ..Setup::default()
    })
    .await
}

/// Adds so many new members at once, named by a number of their own.
async fn add(loud: &User, path: &str, batch: usize, count: usize) -> u16 {
    let participants = (0..count).map(|n| NewMember {
        user_id: format!("member-{batch}-{n}").parse::<UserId>().unwrap(),
        role: Role::Member,
    });
    let members = NewMembers {
        participants: participants.collect(),
    };
    let body = serde_json::to_value(&members).unwrap();
    loud.post(0, &format!("{path}/participants"), body)
        .await
        .status
}

/// Whatever answer: the loud one may be refused.
fn tell(what: &str, answers: &[u16]) {
    let ok = answers.iter().filter(|status| **status < 300).count();
    println!("{what}: {ok} of {} were carried out", answers.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn additions_of_thousand_members_hold_up_no_neighbour() {
    let cluster = start(1).await;
    let loud = user_of(&cluster, "loud", "loud");
    let (at_once, members) = (soak(64, 32), soak(1000, 500));
    let mut paths = Vec::new();
    for _ in 0..at_once {
        paths.push(loud.begins(0, "channel", &["other"]).await);
    }
    let quiet = Quiet::start(&cluster).await;
    let adding = async {
        for round in 0..soak(3, 1) {
            let adds = paths.iter().enumerate();
            let adds = adds.map(|(n, path)| add(&loud, path, round * at_once + n, members));
            tell("additions", &join_all(adds).await);
        }
    };
    quiet.beside("additions", longest(), adding).await;
    quiet.end(&cluster).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_metadata_hold_up_no_neighbour() {
    let cluster = start(1).await;
    let loud = user_of(&cluster, "loud", "loud");
    let mut paths = Vec::new();
    for _ in 0..soak(100, 25) {
        paths.push(loud.begins(0, "group", &["other"]).await);
    }
    let quiet = Quiet::start(&cluster).await;
    let patching = async {
        let patches = (0..soak(1500, 1000)).map(|n| {
            let (loud, path) = (&loud, &paths[n % paths.len()]);
            let body = json!({"metadata": {"name": format!("{n}")}});
            async move { loud.patch(0, path, body).await.status }
        });
        tell("changes", &join_all(patches).await);
    };
    quiet
        .beside("changes of metadata", longest(), patching)
        .await;
    quiet.end(&cluster).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_of_large_channel_holds_up_no_neighbour() {
    let cluster = start(1).await;
    let loud = user_of(&cluster, "loud", "loud");
    let path = loud.begins(0, "channel", &["other"]).await;
    for batch in 0..soak(99, 5) {
        assert_eq!(add(&loud, &path, batch, 1000).await, 201);
    }
    let quiet = Quiet::start(&cluster).await;
    let deleting = async { tell("deletions", &[loud.delete(0, &path).await.status]) };
    quiet
        .beside("the deletion of a channel", longest(), deleting)
        .await;
    quiet.end(&cluster).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_own_messages_hold_up_no_neighbour() {
    let cluster = start(1).await;
    let loud = user_of(&cluster, "loud", "loud");
    let bot = loud.on(0).await;
    for _ in 0..soak(100, 20) {
        let conversation = bot.create_group(&["other".parse().unwrap()]).await;
        let sends = (0..soak(2_000, 100)).map(|_| bot.say(conversation, "mine"));
        stream::iter(sends)
            .buffered(64)
            .for_each(async |_| ())
            .await;
    }
    let quiet = Quiet::start(&cluster).await;
    let listing = async {
        for _ in 0..soak(10, 3) {
            let lists = (0..40).map(|_| loud.get(0, "/v1/conversations?limit=100"));
            let lists = join_all(lists).await;
            let statuses: Vec<_> = lists.iter().map(|list| list.status).collect();
            tell("lists", &statuses);
            let counts = lists.iter().filter(|list| list.status == 200);
            for list in counts {
                assert!(
                    list.each("conversations", "unreadCount")
                        .iter()
                        .all(|count| *count == 0)
                );
            }
        }
    };
    quiet.beside("lists", longest(), listing).await;
    quiet.end(&cluster).await;
    drop(bot);
    cluster.end().await;
}

/// Of conversations that do not exist, and of others' that do: not found, at once, and nobody waits for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_and_foreign_ids_hold_up_no_neighbour() {
    let cluster = start(1).await;
    let (loud, owner) = (
        user_of(&cluster, "loud", "loud"),
        user_of(&cluster, "owner", "quiet"),
    );
    let mut foreign = Vec::new();
    for _ in 0..8 {
        foreign.push(id_of(&owner.begins(0, "group", &["friend"]).await).to_owned());
    }
    let quiet = Quiet::start(&cluster).await;
    let guessing = async {
        let sends = (0..soak(20_000, 1_500)).map(|n| {
            let unknown = Uuid::now_v7().to_string();
            let id = if n % 2 == 0 {
                unknown
            } else {
                foreign[n / 2 % 8].clone()
            };
            let loud = &loud;
            async move {
                let message = json!({"conversationId": id, "kind": "text", "content": 1});
                let began = Instant::now();
                let status = loud.post(0, "/v1/messages", message).await.status;
                (status, began.elapsed())
            }
        });
        let answers: Vec<_> = stream::iter(sends).buffer_unordered(64).collect().await;
        assert!(answers.iter().all(|(status, _)| *status == 404));
        let longest_answer = answers.iter().map(|(_, took)| *took).max().unwrap();
        assert!(longest_answer < longest(), "{longest_answer:?}");
    };
    quiet
        .beside("unknown and foreign ids", longest(), guessing)
        .await;
    quiet.end(&cluster).await;
    cluster.end().await;
}

/// What the stopped worker holds, Postgres lets go of; what it has not answered another worker does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_stopped_with_open_transactions_holds_up_nobody() {
    let mut cluster = start(2).await;
    let loud = user_of(&cluster, "loud", "loud");
    let mut ids = Vec::new();
    for _ in 0..16 {
        ids.push(loud.begins(0, "group", &["other"]).await);
    }
    let quiet = Quiet::start(&cluster).await;
    let stop = Duration::from_secs(soak(25, 5) as u64);
    let worker = cluster.workers[0].process_mut();
    let stopping = async {
        let answered = AtomicUsize::new(0);
        let load = (0..400).map(async |n| {
            add(&loud, &ids[n % ids.len()], n, 1).await;
            answered.fetch_add(1, Ordering::Relaxed);
        });
        let load = stream::iter(load).buffer_unordered(64).collect::<Vec<_>>();
        let stopped = async {
            // Amid what the others ask.
            eventually("some of the load is answered", longest(), async || {
                (answered.load(Ordering::Relaxed) >= 16).then_some(())
            })
            .await;
            worker.pause().unwrap();
            tokio::time::sleep(stop).await;
            worker.resume().unwrap();
        };
        tokio::join!(load, stopped);
    };
    // What it holds Postgres lets go of after 0.7 s.
    let most = Duration::from_millis(soak(1_000, 5_000) as u64);
    quiet.beside("a stopped worker", most, stopping).await;
    quiet.end(&cluster).await;
    cluster.end().await;
}
