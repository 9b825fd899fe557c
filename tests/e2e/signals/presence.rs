//! Presence is sent on change, per user, and ends with the last session or its gateway.

use std::time::Duration;

use confab_client::{Encoding, Notice};
use confab_protocol::frame::{Hello, PresenceSignal};
use confab_protocol::ids::UserId;
use confab_protocol::signal::PresenceStatus::{self, Away, Offline, Online};

use super::{WAIT_TIMEOUT, hears, hears_within};
use crate::support::{Cluster, Member, Setup, User, eventually};

/// How long a gateway that was killed may be waited for.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);

fn is(user: &UserId, status: PresenceStatus) -> Notice {
    Notice::Presence(PresenceSignal {
        user_id: user.clone(),
        status,
    })
}

/// What a member heard of a user's presence.
fn heard(member: &Member, user: &UserId) -> Vec<PresenceStatus> {
    let record = member.record.borrow();
    let of = record.signals.iter().filter_map(|notice| match notice {
        Notice::Presence(signal) if signal.user_id == *user => Some(signal.status),
        _ => None,
    });
    of.collect()
}

/// Waits until this is what a member heard of a user's presence.
async fn has_heard(member: &Member, user: &UserId, statuses: &[PresenceStatus]) {
    eventually("what is said of a user", WAIT_TIMEOUT, async || {
        (heard(member, user) == statuses).then_some(())
    })
    .await;
}

fn setup(grace: &str) -> Setup {
    Setup {
        gateway_env: vec![("CONFAB_PRESENCE_GRACE", Some(grace.to_owned()))],
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_change_arrives_once_to_peers_only() {
    let cluster = Cluster::start(setup("1")).await;
    let bob = cluster.user("bob").on(1).await;
    let carol = cluster.user("carol").on(0).await;
    let eve = cluster.user("eve").on(1).await;
    let alice = cluster.user("alice");
    for _ in 0..3 {
        let others = [alice.id.clone(), carol.id.clone()];
        let conversation = bob.create_group(&others).await;
        bob.hears(conversation, 1, WAIT_TIMEOUT).await;
        carol.hears(conversation, 1, WAIT_TIMEOUT).await;
    }
    let first = alice.on(0).await;
    for member in [&bob, &carol] {
        hears(member, &is(&alice.id, Online)).await;
    }
    let second = alice.on(1).await;
    first.session.presence(Away).await;
    second.session.presence(Away).await;
    for member in [&bob, &carol] {
        hears(member, &is(&alice.id, Away)).await;
    }
    drop(second);
    first.session.bye().await.unwrap();
    for member in [&bob, &carol] {
        hears(member, &is(&alice.id, Offline)).await;
        assert_eq!(heard(member, &alice.id), [Online, Away, Offline]);
        assert_eq!(heard(member, &member.id), [], "its own");
    }
    assert_eq!(heard(&eve, &alice.id), []);
    drop((bob, carol, eve));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnect_within_grace_period_shows_no_offline() {
    let cluster = Cluster::start(setup("5")).await;
    let bob = cluster.user("bob").on(1).await;
    let (alice, carol) = (cluster.user("alice"), cluster.user("carol"));
    let others = [alice.id.clone(), carol.id.clone()];
    let conversation = bob.create_group(&others).await;
    bob.hears(conversation, 1, WAIT_TIMEOUT).await;
    let first = alice.on(0).await;
    hears(&bob, &is(&alice.id, Online)).await;
    // What a gateway says goes in order, of each user one word a second. Carol speaks behind Alice each time, so that whoever
    // heard her has heard of Alice what there was to say, also where that was said twice.
    let carol = carol.on(0).await;
    has_heard(&bob, &carol.id, &[Online]).await;
    carol.session.presence(Away).await;
    has_heard(&bob, &carol.id, &[Online, Away]).await;

    drop(first);
    eventually("the first session is gone", WAIT_TIMEOUT, async || {
        let listed = alice.http(0).sessions().await.unwrap();
        listed.is_empty().then_some(())
    })
    .await;
    carol.session.presence(Online).await;
    has_heard(&bob, &carol.id, &[Online, Away, Online]).await;
    let second = alice.on(1).await;
    let carol_id = carol.id.clone();
    drop(carol);
    // All wait as long until they are told to be offline: when it is Carol's turn, Alice's, who left before, is over.
    hears_within(&bob, &is(&carol_id, Offline), Duration::from_secs(20)).await;

    assert_eq!(heard(&bob, &alice.id), [Online]);
    drop(second);
    hears(&bob, &is(&alice.id, Offline)).await;
    drop(bob);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_ends_with_gateway_for_all_users() {
    let mut cluster = Cluster::start(setup("1")).await;
    let alice = cluster.user("alice").on(0).await;
    let dave = cluster.user("dave").on(0).await;
    let bob = cluster.user("bob").on(1).await;
    let others = [bob.id.clone(), dave.id.clone()];
    let conversation = alice.create_group(&others).await;
    for member in [&alice, &bob, &dave] {
        member.hears(conversation, 1, WAIT_TIMEOUT).await;
    }
    dave.session.presence(Away).await;
    // Alice's word is repeated for the new conversation and told to nobody, so that nothing of her own shows when it was heard.
    // What a gateway says goes in order, of each user one word a second. When Dave's first word is told, Bob's gateway has asked
    // for what it missed of both; Alice's comes before another of Dave's.
    has_heard(&bob, &dave.id, &[Away]).await;
    dave.session.presence(Online).await;
    has_heard(&bob, &dave.id, &[Away, Online]).await;

    cluster.gateways[0].process_mut().kill().unwrap();

    // Five seconds until the gateway counts as dead, one of grace.
    for user in [&alice.id, &dave.id] {
        hears_within(&bob, &is(user, Offline), Duration::from_secs(20)).await;
    }
    // That he was online before the conversation began is no news in it.
    assert_eq!(heard(&bob, &dave.id), [Away, Online, Offline]);
    cluster.restart_gateway(0).await;
    let alice_again = cluster.user("alice").on(0).await;
    hears(&bob, &is(&alice_again.id, Online)).await;
    drop((alice, dave, bob, alice_again));
    cluster.end().await;
}

/// Who is there as a new session of a user is told, once all gateways have said so.
async fn snapshot(user: &User, gateway: usize) -> Vec<(String, PresenceStatus)> {
    eventually("a complete snapshot", WAIT_TIMEOUT, async || {
        told(&user.asking_presence(gateway).await).await
    })
    .await
}

/// Who is there as a new connection is told, unless some gateway did not say so.
async fn told(member: &Member) -> Option<Vec<(String, PresenceStatus)>> {
    let mut record = member.record.clone();
    let is_one = |notice: &Notice| matches!(notice, Notice::PresenceSnapshot(_));
    let told = record.wait_for(|record| record.signals.iter().any(is_one));
    let told = tokio::time::timeout(WAIT_TIMEOUT, told)
        .await
        .unwrap()
        .unwrap();
    let snapshot = told.signals.iter().find_map(|notice| match notice {
        Notice::PresenceSnapshot(snapshot) => Some(snapshot.clone()),
        _ => None,
    })?;
    let users = snapshot.users.into_iter();
    let users = users.map(|one| (one.user_id.to_string(), one.status));
    snapshot.complete.then(|| users.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_lists_present_users_sharing_conversation() {
    let cluster = Cluster::start(setup("1")).await;
    let (alice, carol) = (cluster.user("alice"), cluster.user("carol"));
    let eve = cluster.user("eve").on(0).await;
    let (first, away) = (alice.on(0).await, carol.on(1).await);
    let conversation = first
        .create_group(&[carol.id.clone(), "bob".parse().unwrap()])
        .await;
    away.session.presence(Away).await;
    first.hears(conversation, 1, WAIT_TIMEOUT).await;
    away.hears(conversation, 1, WAIT_TIMEOUT).await;
    let bob = cluster.user("bob");
    let all = [("alice".to_owned(), Online), ("carol".to_owned(), Away)];
    eventually("both are told", WAIT_TIMEOUT, async || {
        (snapshot(&bob, 1).await == all).then_some(())
    })
    .await;
    // Who was told to be there is told to be gone, though it never changed since.
    let watching = bob.asking_presence(1).await;
    let mut record = watching.record.clone();
    let is_told =
        |notice: &Notice| matches!(notice, Notice::PresenceSnapshot(one) if one.users.len() == 2);
    let named = record.wait_for(|record| record.signals.iter().any(is_told));
    drop(
        tokio::time::timeout(WAIT_TIMEOUT, named)
            .await
            .unwrap()
            .unwrap(),
    );
    drop(first);
    hears_within(&watching, &is(&alice.id, Offline), WAIT_TIMEOUT).await;
    // Each gateway waits on its own for who may come back: one that names her still tells her end.
    let (late, named) = eventually("a complete snapshot", WAIT_TIMEOUT, async || {
        let member = bob.asking_presence(0).await;
        told(&member).await.map(|named| (member, named))
    })
    .await;
    if named != all[1..] {
        assert_eq!(named, all);
        hears(&late, &is(&alice.id, Offline)).await;
    }
    drop((away, watching, late, eve));
    cluster.end().await;
}

/// Resumes a session at a gateway and asks who is there; the connection has the newest token.
async fn resumed(user: &User, token: &mut String, gateway: usize) -> Member {
    let hello = Hello {
        resume_token: Some(token.clone()),
        presence: Some(true),
        ..Hello::default()
    };
    let member = user.greeting(hello, Encoding::Json, gateway).await;
    let welcome = member.session.welcome();
    assert!(welcome.resumed, "{:?}", welcome.reason);
    if let Some(newer) = &welcome.resume_token {
        newer.clone_into(token);
    }
    member
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_is_told_to_who_resumes() {
    let mut cluster = Cluster::start(setup("1")).await;
    let (bob, dave) = (cluster.user("bob"), cluster.user("dave"));
    let (alice, carol) = (
        cluster.user("alice").on(1).await,
        cluster.user("carol").on(1).await,
    );
    let others = [&carol.id, &bob.id, &dave.id].map(Clone::clone);
    let conversation = alice.create_group(&others).await;
    for member in [&alice, &carol] {
        member.hears(conversation, 1, WAIT_TIMEOUT).await;
    }
    let mut token = eventually("a resume token", WAIT_TIMEOUT, async || {
        let first = bob.asking_presence(0).await;
        first.session.welcome().resume_token.clone()
    })
    .await;
    // What changes while Bob has no connection is in the snapshot of the next one.
    let away = |name: &str| (name.to_owned(), Away);
    let online = |name: &str| (name.to_owned(), Online);
    let there = dave.on(0).await;
    carol.session.presence(Away).await;
    let expected = [online("alice"), away("carol"), online("dave")];
    for gateway in [0, 1, 0] {
        eventually("all who are there are told", WAIT_TIMEOUT, async || {
            let member = resumed(&bob, &mut token, gateway).await;
            (told(&member).await? == expected).then_some(())
        })
        .await;
    }
    let before = resumed(&bob, &mut token, 0).await;
    cluster.gateways[0].process_mut().kill().unwrap();
    before.closes(WAIT_TIMEOUT).await;
    // Who was there by the gateway that was killed is told no more once it counts as dead.
    eventually("those who are left are told", KILL_TIMEOUT, async || {
        let member = resumed(&bob, &mut token, 1).await;
        (told(&member).await? == expected[..2]).then_some(())
    })
    .await;
    cluster.restart_gateway(0).await;
    drop((alice, carol, before, there));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_resumes_without_workers_is_online_later() {
    let setup = Setup {
        gateways: 3,
        ..setup("1")
    };
    let mut cluster = Cluster::start(setup).await;
    let (alice, bob) = (cluster.user("alice").on(0).await, cluster.user("bob"));
    let conversation = alice.create_group(std::slice::from_ref(&bob.id)).await;
    alice.hears(conversation, 1, WAIT_TIMEOUT).await;
    let first = bob.on(1).await;
    hears(&alice, &is(&bob.id, Online)).await;
    let mut token = first.session.welcome().resume_token.clone().unwrap();
    drop(first);
    for worker in &mut cluster.workers {
        worker.process_mut().kill().unwrap();
    }
    hears_within(&alice, &is(&bob.id, Offline), KILL_TIMEOUT).await;

    // No worker says to the third gateway how large the conversation is: nobody is told anything in it.
    let back = resumed(&bob, &mut token, 2).await;
    assert_eq!(told(&back).await, None, "it claims to know who is there");
    cluster.restart_worker(0).await;
    eventually("bob is there again", WAIT_TIMEOUT, async || {
        (heard(&alice, &bob.id) == [Online, Offline, Online]).then_some(())
    })
    .await;
    alice.session.presence(Away).await;
    hears(&back, &is(&alice.id, Away)).await;
    drop((alice, back));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn route_tells_of_those_who_share_a_conversation() {
    let cluster = Cluster::start(setup("1")).await;
    let (alice, carol) = (cluster.user("alice"), cluster.user("carol"));
    let (eve, mallory) = (cluster.user("eve"), cluster.user("mallory"));
    let (there, stranger) = (alice.on(0).await, eve.on(1).await);
    there
        .create_group(&[carol.id.clone(), mallory.id.clone()])
        .await;
    let asked = [&mallory.id, &eve.id, &alice.id].map(Clone::clone);
    let told = |user: &User| {
        let (http, asked) = (user.http(1), asked.clone());
        async move {
            let told = http.presence(&asked).await.unwrap();
            let presences = told.presences.into_iter();
            let presences = presences.map(|one| (one.user_id.to_string(), one.status));
            (presences.collect::<Vec<_>>(), told.complete)
        }
    };
    let expected = [
        ("mallory".to_owned(), Offline),
        ("alice".to_owned(), Online),
    ];
    eventually("all gateways answer", WAIT_TIMEOUT, async || {
        let (presences, complete) = told(&carol).await;
        assert_eq!(presences, expected);
        complete.then_some(())
    })
    .await;
    assert_eq!(told(&eve).await.0, [("eve".to_owned(), Online)][..0]);
    for (query, pointer) in [
        ("", "userIds"),
        ("?userIds=&userIds=a", "userIds"),
        ("?userIds=a&x=1", "x"),
    ] {
        let refused = carol.get(0, &format!("/v1/presence{query}")).await;
        refused.invalid(&[pointer]);
    }
    drop((there, stranger));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offline_is_told_in_conversation_grown_large() {
    let cluster = Cluster::start(setup("1")).await;
    let bob = cluster.user("bob").on(1).await;
    let alice = cluster.user("alice");
    let mut crowd: Vec<UserId> = (0..98).map(|n| format!("u{n}").parse().unwrap()).collect();
    crowd.push(alice.id.clone());
    let conversation = bob.create_group(&crowd).await;
    bob.hears(conversation, 1, WAIT_TIMEOUT).await;
    let there = alice.on(0).await;
    hears(&bob, &is(&alice.id, Online)).await;
    bob.add(conversation, &["one-more".parse().unwrap()]).await;
    let last = bob.say(conversation, "now we are too many").await;
    for member in [&bob, &there] {
        member.hears(conversation, last, WAIT_TIMEOUT).await;
    }
    there.session.presence(Away).await;
    there.session.bye().await.unwrap();
    hears(&bob, &is(&alice.id, Offline)).await;
    assert_eq!(heard(&bob, &alice.id), [Online, Offline]);
    drop(bob);
    cluster.end().await;
}

/// Who joins later knows by the route who is there, and is told its end, though nothing was said in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offline_is_told_to_who_joined_since() {
    let cluster = Cluster::start(setup("1")).await;
    let alice = cluster.user("alice");
    let bob = cluster.user("bob").on(1).await;
    let carol = cluster.user("carol");
    let listeners = [carol.on(0).await, carol.on(1).await];
    let conversation = bob.create_group(std::slice::from_ref(&alice.id)).await;
    bob.hears(conversation, 1, WAIT_TIMEOUT).await;
    let there = alice.on(0).await;
    hears(&bob, &is(&alice.id, Online)).await;
    bob.add(conversation, std::slice::from_ref(&carol.id)).await;
    for listener in &listeners {
        listener.hears(conversation, 2, WAIT_TIMEOUT).await;
    }
    there.session.bye().await.unwrap();
    hears(&bob, &is(&alice.id, Offline)).await;
    for listener in &listeners {
        hears(listener, &is(&alice.id, Offline)).await;
        assert_eq!(heard(listener, &alice.id), [Offline]);
    }
    drop((bob, listeners));
    cluster.end().await;
}
