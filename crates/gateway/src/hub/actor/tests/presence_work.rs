//! What presence asks of a shard, and who waits for a snapshot.

use std::collections::BTreeSet;

use confab_bus::PresenceAnswers;
use confab_protocol::ids::UserId;
use confab_protocol::signal::{MemberOf, Presence, PresenceAnswer};

use super::*;
use crate::hub::SignalMembership;
use crate::hub::actor::queries::{CarryingQuery, HostingQuery, MembersQuery};
use crate::hub::actor::snapshots::{Member, SnapshotAnswers};

/// Turns until a shard has answered.
fn turns_until<T>(shard: &mut ShardLoop, mut answered: oneshot::Receiver<T>) -> (T, usize) {
    for turns in 0..10_000 {
        if let Ok(answer) = answered.try_recv() {
            return (answer, turns);
        }
        shard.client_turn();
    }
    panic!("no answer");
}

#[tokio::test]
async fn question_about_many_conversations_takes_turns() {
    const CONVERSATION_COUNT: usize = 3000;
    let (_door, loops, _outboxes) = with_sessions_in(Shards::SINGLE, CONVERSATION_COUNT).await;
    let [mut shard] = <[_; 1]>::try_from(loops.shards).ok().unwrap();
    let ids = || {
        (0..CONVERSATION_COUNT)
            .map(conversation)
            .collect::<Vec<_>>()
    };
    let tenant = "default".parse().unwrap();

    let (answer, answered) = oneshot::channel();
    let query = MembersQuery::new(Some(tenant), ids(), answer);
    shard.take_in(Some(ShardInput::MembersHere(query)));
    let (members, turns) = turns_until(&mut shard, answered);
    assert_eq!(
        members.members.len(),
        CONVERSATION_COUNT * usize::try_from(SESSION_COUNT).unwrap()
    );
    assert!(turns >= 8, "{turns}");

    let (answer, answered) = oneshot::channel();
    shard.take_in(Some(ShardInput::Hosting(HostingQuery::new(ids(), answer))));
    let (hosted, turns) = turns_until(&mut shard, answered);
    assert_eq!(hosted.len(), CONVERSATION_COUNT);
    assert!(turns >= 3, "{turns}");

    let account = shard.shard.account(SessionKey(1)).cloned().unwrap();
    let (answer, answered) = oneshot::channel();
    let query = CarryingQuery::new(account, answer);
    shard.take_in(Some(ShardInput::CarryingOf(query)));
    let (carrying, turns) = turns_until(&mut shard, answered);
    assert_eq!(carrying.conversations.len(), CONVERSATION_COUNT);
    assert!(turns >= 1, "{turns}");

    let (mut all, mut after) = (BTreeSet::new(), None);
    loop {
        let (answer, answered) = oneshot::channel();
        shard.take_in(Some(ShardInput::Hosted(after, answer)));
        let ((page, last), _) = turns_until(&mut shard, answered);
        assert!(page.len() <= 256);
        all.extend(page.into_iter().map(|(_, id)| id));
        after = last;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(all, ids().into_iter().collect());
}

fn account(tenant: &str, user: &str) -> Arc<Account> {
    Arc::new(Account {
        tenant: tenant.parse().unwrap(),
        user: user.parse().unwrap(),
    })
}

#[tokio::test]
async fn snapshots_are_told_in_turn() {
    let (_door, loops) = without_sessions(Shards::SINGLE).await;
    let mut snapshots = loops.presence.snapshots;
    let send_queue = Arc::new(SendQueue::new(Encoding::Json, 1));
    send_queue.start(Frame::text(b"welcome"));
    let loud = account("one", "loud");
    for _ in 0..1000 {
        snapshots.wait(Arc::clone(&loud), &send_queue);
    }
    let told = send_queue.taken(usize::MAX).unwrap();
    let refused = told.iter().filter(|frame| {
        let text = String::from_utf8_lossy(frame.payload());
        text.contains("presenceSnapshot") && text.contains("false")
    });
    assert_eq!(
        refused.count(),
        1000 - 128,
        "told at once that nothing is known"
    );
    {
        let gone = Arc::new(SendQueue::new(Encoding::Json, 1));
        snapshots.wait(account("one", "gone"), &gone);
    }
    snapshots.wait(account("one", "quiet"), &send_queue);
    snapshots.wait(account("two", "quiet"), &send_queue);
    let mut asked: Vec<Vec<UserId>> = Vec::new();
    for _ in 0..2 {
        let (_, next) = snapshots.next().unwrap();
        asked.push(
            next.into_iter()
                .map(|one| one.account.user.clone())
                .collect(),
        );
    }
    let quiet: UserId = "quiet".parse().unwrap();
    assert!(
        asked.iter().all(|users| users.contains(&quiet)),
        "{asked:?}"
    );
    let gone: UserId = "gone".parse().unwrap();
    assert!(!asked.iter().flatten().any(|user| *user == gone));
}

/// A session of ann, who joined by the fifth event, is told what a gateway answers: of bob up to `as_of`, of carol up to the fifth.
fn answered(loops: &mut HubLoops, as_of: u64) -> bool {
    let presence = &mut loops.presence;
    presence.snapshots.ask_again();
    let Some((tenant, mut next)) = presence.snapshots.next() else {
        return false;
    };
    let word = |user: &str, as_of| {
        let member_of = MemberOf {
            conversation: conversation(0),
            as_of,
        };
        let user = user.parse().unwrap();
        Presence::new(tenant.clone(), user, PresenceStatus::Online, [member_of])
    };
    let answer = PresenceAnswer {
        gateway: Uuid::from_u128(2),
        number: 1,
        words: vec![word("bob", as_of), word("carol", 5)],
        lingering: vec![],
        is_whole: true,
    };
    let own = SignalMembership {
        joined: 5,
        as_of: 5,
    };
    presence.presences.hosts(conversation(0), 5);
    presence.presences.asks();
    presence.tell_snapshots(Ok(SnapshotAnswers {
        members: vec![Member {
            waiting: next.pop().unwrap(),
            conversations: [(conversation(0), own)].into_iter().collect(),
            is_whole: true,
        }],
        asked_at: Instant::now(),
        answers: Some(PresenceAnswers {
            answers: vec![answer],
            is_whole: true,
        }),
    }));
    true
}

#[tokio::test]
async fn snapshot_omits_who_left_before_joining() {
    for (comes, users) in [
        (
            true,
            r#"[{"userId":"bob","status":"online"},{"userId":"carol","status":"online"}]"#,
        ),
        (false, r#"[{"userId":"carol","status":"online"}]"#),
    ] {
        let (_door, mut loops) = without_sessions(Shards::SINGLE).await;
        let send_queue = Arc::new(SendQueue::new(Encoding::Json, 1));
        send_queue.start(Frame::text(b"welcome"));
        let told = || {
            let frames = send_queue.taken(usize::MAX).unwrap();
            let texts = frames
                .iter()
                .map(|frame| String::from_utf8_lossy(frame.payload()).into_owned());
            texts
                .filter(|text| text.contains("presenceSnapshot"))
                .collect::<Vec<_>>()
        };
        let ann = account("one", "ann");
        loops.presence.snapshots.wait(ann, &send_queue);
        assert!(answered(&mut loops, 4));
        assert_eq!(told(), [""; 0], "his gateway is asked again");
        let mut tries = 1;
        while answered(&mut loops, if comes { 5 } else { 4 }) {
            tries += 1;
        }
        assert_eq!(tries, if comes { 2 } else { 4 });
        let text = &told()[0];
        assert!(text.contains(users), "{text}");
        assert!(text.contains(&format!(r#""complete":{comes}"#)), "{text}");
    }
}
