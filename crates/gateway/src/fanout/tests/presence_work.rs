//! What presence asks of a shard, and who waits for a snapshot.

use std::collections::BTreeSet;

use confab_protocol::ids::UserId;

use super::*;
use crate::fanout::queries::{CarryingQuery, HostingQuery, MembersQuery};

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
    const CONVERSATIONS: usize = 3000;
    let (_door, loops, _outboxes) = with_sessions_in(Shards::ONE, CONVERSATIONS).await;
    let [mut shard] = <[_; 1]>::try_from(loops.shards).ok().unwrap();
    let ids = || (0..CONVERSATIONS).map(conversation).collect::<Vec<_>>();
    let tenant = "default".parse().unwrap();

    let (answer, answered) = oneshot::channel();
    let query = MembersQuery::new(Some(tenant), ids(), answer);
    shard.take_in(Some(Input::MembersHere(query)));
    let (members, turns) = turns_until(&mut shard, answered);
    assert_eq!(
        members.len(),
        CONVERSATIONS * usize::try_from(SESSIONS).unwrap()
    );
    assert!(turns >= 8, "{turns}");

    let (answer, answered) = oneshot::channel();
    shard.take_in(Some(Input::Hosting(HostingQuery::new(ids(), answer))));
    let (hosted, turns) = turns_until(&mut shard, answered);
    assert_eq!(hosted.len(), CONVERSATIONS);
    assert!(turns >= 3, "{turns}");

    let account = shard.shard.account(SessionKey(1)).cloned().unwrap();
    let (answer, answered) = oneshot::channel();
    let query = CarryingQuery::new(account, answer);
    shard.take_in(Some(Input::CarryingOf(query)));
    let (carrying, turns) = turns_until(&mut shard, answered);
    assert_eq!(carrying.conversations.len(), CONVERSATIONS);
    assert!(turns >= 1, "{turns}");

    let (mut all, mut after) = (BTreeSet::new(), None);
    loop {
        let (answer, answered) = oneshot::channel();
        shard.take_in(Some(Input::Hosted(after, answer)));
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
    let (_door, loops) = without_sessions(Shards::ONE).await;
    let mut snapshots = loops.presence.snapshots;
    let outbox = Arc::new(Outbox::new(Encoding::Json, 1));
    outbox.start(Frame::text(b"welcome"));
    let loud = account("one", "loud");
    for _ in 0..1000 {
        snapshots.wait(Arc::clone(&loud), &outbox);
    }
    let told = outbox.taken(usize::MAX).unwrap();
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
        let gone = Arc::new(Outbox::new(Encoding::Json, 1));
        snapshots.wait(account("one", "gone"), &gone);
    }
    snapshots.wait(account("one", "quiet"), &outbox);
    snapshots.wait(account("two", "quiet"), &outbox);
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
