//! While JetStream accepts no events, members still receive them live; afterwards the stream catches up.

use std::time::Duration;

use confab_protocol::ids::{ConversationId, Seq};
use confab_stack::get;
use serde_json::Value;
use tokio::time::Instant;

use crate::support::{
    Cluster, Member, Owed, assert_hears_only, assert_log, eventually, membership, sample, soak,
};

mod account;
mod cut;
mod full;
mod permission;
mod quorum;

/// How soon behind its acknowledgement an event is heard that the stream does not take.
const EVENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon all is level when the stream takes events again, on a machine that runs other tests.
const CONVERGENCE_TIMEOUT: Duration = Duration::from_secs(60);
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// What each role writes when it begins and when it is over.
const CONDITION_LINES: [[&str; 2]; 2] = [
    [
        "the stream of events does not take what is committed",
        "the stream of events takes again what is committed",
    ],
    [
        "the feed does not carry what is committed",
        "the feed carries again what is committed",
    ],
];

/// Members at both gateways, one who is added while the stream takes nothing, and one of a conversation that begins meanwhile.
struct People {
    alice: Member,
    bob: Member,
    removed: Member,
    added: Member,
    invited: Member,
}

impl People {
    async fn connect(cluster: &Cluster) -> (Self, ConversationId) {
        let people = Self {
            alice: cluster.user("alice").on(0).await,
            bob: cluster.user("bob").on(1).await,
            removed: cluster.user("removed").on(1).await,
            added: cluster.user("added").on(0).await,
            invited: cluster.user("invited").on(1).await,
        };
        let others = [people.bob.id.clone(), people.removed.id.clone()];
        let group = people.alice.create_group(&others).await;
        for member in [&people.alice, &people.bob, &people.removed] {
            member.hears(group, 1, WAIT_TIMEOUT).await;
        }
        (people, group)
    }
}

/// Members talk, join and leave while the stream takes nothing, from `fault` to `mend`, for as long as that lasts.
async fn members_hear<Fault>(
    cluster: &mut Cluster,
    fault: impl AsyncFnOnce(&mut Cluster) -> Fault,
    mend: impl AsyncFnOnce(&mut Cluster, Fault),
) {
    let (people, group) = People::connect(cluster).await;
    is_level(cluster).await;
    let said = lines(cluster);
    let began = Instant::now();
    let fault = fault(cluster).await;
    let invitation = talk(&people, group, began).await;
    assert_told(cluster).await;
    mend(cluster, fault).await;
    is_level(cluster).await;
    // Behind what the stream had not taken: whoever is told twice was told by now.
    for member in [&people.alice, &people.bob] {
        let last = member.say(group, "level again").await;
        for hearer in [&people.alice, &people.bob, &people.added] {
            hearer.hears(group, last, EVENT_TIMEOUT).await;
        }
    }
    let (joined, _) = membership(cluster, group, &people.added.id).await;
    let (_, left) = membership(cluster, group, &people.removed.id).await;
    let owed = [
        Owed::all(&people.alice),
        Owed::all(&people.bob),
        Owed {
            from: joined,
            ..Owed::all(&people.added)
        },
        Owed {
            to: left,
            ..Owed::all(&people.removed)
        },
    ];
    assert_log(cluster, group, &owed).await;
    let owed = [Owed::all(&people.bob), Owed::all(&people.invited)];
    assert_log(cluster, invitation, &owed).await;
    assert_hears_only(&people.invited, &[invitation]);
    for (before, now) in said.into_iter().zip(lines(cluster)) {
        assert_eq!(now.1, before.1 + 1, "{}", now.0);
    }
}

/// Gives the conversation that began meanwhile.
async fn talk(people: &People, group: ConversationId, began: Instant) -> ConversationId {
    let People {
        alice,
        bob,
        removed,
        added,
        invited,
    } = people;
    let lasts = Duration::from_secs(u64::try_from(soak(30, 20)).unwrap());
    say_and_hear(alice, group, &[alice, bob, removed]).await;
    say_and_hear(bob, group, &[alice, bob, removed]).await;
    alice.add(group, std::slice::from_ref(&added.id)).await;
    say_and_hear(alice, group, &[alice, bob, removed, added]).await;
    let invitation = bob.create_group(std::slice::from_ref(&invited.id)).await;
    say_and_hear(bob, invitation, &[bob, invited]).await;
    let gone = alice.http.remove_participant(group, &removed.id).await;
    gone.unwrap();
    loop {
        say_and_hear(added, group, &[alice, bob, added]).await;
        if began.elapsed() >= lasts {
            return invitation;
        }
    }
}

/// One sends several messages; all hear them soon behind the last acknowledgement.
async fn say_and_hear(sender: &Member, conversation: ConversationId, hearers: &[&Member]) {
    let mut last: Seq = 0;
    for number in 0..3 {
        last = sender.say(conversation, &format!("number {number}")).await;
    }
    let sent = Instant::now();
    for hearer in hearers {
        let left = EVENT_TIMEOUT.saturating_sub(sent.elapsed());
        hearer.hears(conversation, last, left).await;
    }
    println!("heard {:?} behind the acknowledgement", sent.elapsed());
}

/// What `/ready` tells of the way in which a process works.
async fn degraded(port: u16) -> (u16, Value) {
    let (status, body) = get(port, "/ready", WAIT_TIMEOUT).await.unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    (status, body["degraded"].clone())
}

/// Every process serves and says what it does otherwise; workers tell the age of what the stream does not take.
async fn assert_told(cluster: &Cluster) {
    for service in cluster.workers.iter().chain(&cluster.gateways) {
        let (status, degraded) = degraded(service.port()).await;
        assert_eq!(status, 200, "{degraded}");
        assert_eq!(degraded[0]["what"], "events_linger", "{degraded}");
        assert!(degraded[0]["since"].is_string() && degraded[0]["remedy"].is_string());
    }
    for worker in &cluster.workers {
        let age = sample(worker.port(), "confab_outbox_oldest_seconds").await;
        assert!(age > 3.0, "{age}");
        assert!(sample(worker.port(), "confab_outbox_lingering").await > 0.0);
    }
}

/// Nothing waits for the stream, and every process says so.
async fn is_level(cluster: &Cluster) {
    eventually("all is level", CONVERGENCE_TIMEOUT, async || {
        for service in cluster.workers.iter().chain(&cluster.gateways) {
            let (status, degraded) = degraded(service.port()).await;
            if status != 200 || degraded != Value::Array(Vec::new()) {
                return None;
            }
        }
        for worker in &cluster.workers {
            for name in ["confab_outbox_oldest_seconds", "confab_outbox_lingering"] {
                if sample(worker.port(), name).await > 0.0 {
                    return None;
                }
            }
        }
        Some(())
    })
    .await;
}

/// How often every process has written that it begins, and that it is over; that it lasts is written once a minute.
fn lines(cluster: &Cluster) -> Vec<(String, usize)> {
    let mut all = Vec::new();
    let roles = [&cluster.workers, &cluster.gateways];
    for (services, lines) in roles.into_iter().zip(CONDITION_LINES) {
        for service in services {
            let path = service.process().log();
            let log = std::fs::read_to_string(path).unwrap();
            let count = |line| {
                let with = log.lines().filter(|text| text.contains(line));
                let count = with.filter(|text| !text.contains(", still")).count();
                (format!("{line} in {}", path.display()), count)
            };
            all.extend(lines.map(count));
        }
    }
    all
}
