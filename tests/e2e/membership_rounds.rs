//! Members who leave and rejoin receive exactly the events of their memberships.

use std::time::Duration;

use confab_client::SendError;
use confab_protocol::error::Code;
use confab_protocol::ids::{ConversationId, Seq};
use tokio::sync::watch;

use crate::support::{
    Cluster, Member, Owed, Setup, assert_log, assert_memberships, memberships, soak, text,
};

const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_members_receive_exactly_their_memberships() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob, carol) = tokio::join!(
        async { cluster.user("alice").on(0).await },
        async { cluster.user("bob").on(1).await },
        async { cluster.user("carol").on(0).await },
    );
    let movers = [
        cluster.user("mover-0").on(0).await,
        cluster.user("mover-1").on(1).await,
    ];
    // The first one has another device elsewhere.
    let also = cluster.user("mover-0").on(1).await;
    let ids = [bob.id.clone(), carol.id.clone()];
    let conversation = alice.create_group(&ids).await;
    let rounds = soak(50, 6);

    for round in 0..rounds {
        let (end, is_over) = watch::channel(false);
        let visit = async {
            visit(&alice, &movers, &also, conversation, round).await;
            end.send_replace(true);
        };
        tokio::join!(
            chatter(&bob, conversation, &is_over),
            chatter(&carol, conversation, &is_over),
            visit,
        );
    }
    alice.say(conversation, "the last word").await;

    let residents = [Owed::all(&alice), Owed::all(&bob), Owed::all(&carol)];
    assert_log(&cluster, conversation, &residents).await;
    for member in movers.iter().chain([&also]) {
        let told = memberships(&cluster, conversation, &member.id).await;
        assert_eq!(told.len(), rounds);
        assert!(told.iter().all(|(_, left)| left.is_some()));
        assert_memberships(&cluster, conversation, member).await;
    }
    drop((alice, bob, carol, movers, also));
    cluster.end().await;
}

/// Sends over both transports until it is over.
async fn chatter(member: &Member, conversation: ConversationId, is_over: &watch::Receiver<bool>) {
    for number in 0.. {
        if *is_over.borrow() {
            return;
        }
        let words = format!("{} says {number}", member.id);
        match number % 2 {
            0 => member.say(conversation, &words).await,
            _ => member.post(conversation, &words).await,
        };
    }
}

/// The movers are added, speak, hear each other, go or are sent away, and are kept out.
async fn visit(
    alice: &Member,
    movers: &[Member; 2],
    also: &Member,
    conversation: ConversationId,
    round: usize,
) {
    let [first, second] = movers;
    let (one, other) = ([first.id.clone()], [second.id.clone()]);
    if round.is_multiple_of(2) {
        let both = [first.id.clone(), second.id.clone()];
        alice.add(conversation, &both).await;
    } else {
        tokio::join!(
            alice.add(conversation, &one),
            alice.add(conversation, &other)
        );
    }
    let (from_first, from_second, from_alice) = tokio::join!(
        first.say(conversation, "here I am"),
        second.post(conversation, "so am I"),
        alice.say(conversation, "welcome"),
    );
    let last = from_first.max(from_second).max(from_alice);
    for member in [first, second, also] {
        member.hears(conversation, last, ARRIVAL_TIMEOUT).await;
    }
    let is_sent_away = round.is_multiple_of(3);
    let removed = async |member: &Member| {
        let http = if is_sent_away {
            &alice.http
        } else {
            &member.http
        };
        http.remove_participant(conversation, &member.id)
            .await
            .unwrap();
    };
    tokio::join!(removed(first), removed(second));
    alice.say(conversation, "not for who has left").await;
    for member in movers {
        assert_kept_out(member, conversation).await;
    }
}

async fn assert_kept_out(member: &Member, conversation: ConversationId) {
    let unheard = member.session.send(conversation, text("still here?"));
    match unheard.await {
        Err(SendError::Refused(error)) => assert_eq!(error.code, Code::ConversationNotFound),
        other => panic!("{other:?}"),
    }
    let log = member.http.events(conversation, 0).await;
    assert_eq!(log.unwrap_err().code(), Some(Code::ConversationNotFound));
}

/// Nobody else of the conversation is at the guest's gateway, so that each addition must be confirmed there first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_member_receives_membership_end_and_nothing_after() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (
        cluster.user("alice").on(0).await,
        cluster.user("bob").on(0).await,
    );
    let guest = cluster.user("guest").on(1).await;
    let conversation = alice.create_group(std::slice::from_ref(&bob.id)).await;
    let added = [guest.id.clone()];
    for _ in 0..soak(50, 8) {
        let (end, is_over) = watch::channel(false);
        let visit = async {
            alice.add(conversation, &added).await;
            let removal = alice.http.remove_participant(conversation, &guest.id);
            removal.await.unwrap();
            end.send_replace(true);
        };
        tokio::join!(chatter(&bob, conversation, &is_over), visit);
    }
    alice.add(conversation, &added).await;
    let last = alice.say(conversation, "for the guest").await;
    guest.hears(conversation, last, ARRIVAL_TIMEOUT).await;

    let told = memberships(&cluster, conversation, &guest.id).await;
    let heard: Vec<Seq> = guest.record.borrow().events[&conversation]
        .iter()
        .map(|event| event.seq)
        .collect();
    assert!(heard.is_sorted_by(|a, b| a < b), "{heard:?}");
    let mut allowed = Vec::new();
    for (joined, left) in told {
        let within = |seq: &&Seq| (joined..=left.unwrap_or(last)).contains(*seq);
        let part: Vec<Seq> = heard.iter().filter(within).copied().collect();
        // From any point it may be skipped to the end.
        let whole = part.iter().enumerate();
        let gap = whole.clone().find(|(n, seq)| joined + *n as Seq != **seq);
        let rest = part.len() - gap.map_or(part.len(), |(n, _)| n);
        assert!(
            part.last() == Some(&left.unwrap_or(last)) && rest <= usize::from(left.is_some()),
            "{part:?} of {joined} to {left:?}"
        );
        allowed.extend(part);
    }
    assert_eq!(heard, allowed, "outside of its memberships");
    assert_log(
        &cluster,
        conversation,
        &[Owed::all(&alice), Owed::all(&bob)],
    )
    .await;
    drop((alice, bob, guest));
    cluster.end().await;
}
