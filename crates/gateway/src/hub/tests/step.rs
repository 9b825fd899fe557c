//! What may happen to the world.

use proptest::prelude::*;

use super::{CONVERSATION_COUNT, USER_COUNT};

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Create(usize, usize),
    Say(usize),
    /// The last message but so many is deleted: the window forgets it.
    Delete(usize, u64),
    Add(usize, usize),
    Remove(usize, usize),
    /// A conversation is deleted.
    End(usize),
    Open(usize),
    /// A connection ends, with what waits for it; or its gateway dies, and the record is as it was put last.
    Close(usize),
    Kill(usize),
    /// The record of a session is put.
    Record(usize),
    /// A client comes back.
    Resume(usize),
    /// A client comes back, and is removed between the snapshot of its memberships and their subscription.
    RemovedWhileOpening(usize, usize),
    /// A client takes some of what waits for it, answers the pings, reads what was truncated.
    Take(usize, usize),
    Pong(usize),
    /// A client says what it has.
    Seen(usize),
    ReadOver(usize),
    /// The feed gives one of its next events, and may give it again later.
    Feed(usize, bool),
    /// A worker announces a conversation's head, and who joined; the feed loses what it has of the conversation.
    Announce(usize),
    /// Every user is asked again, as far as this is the time.
    Recheck(u64),
    /// The feed loses what waits in it, and begins anew.
    Break,
    /// One shard has no room, loses what waits in the feed of a conversation of its, and begins anew.
    BreakOf(usize),
    /// Something on its way between the coordinator and the shards arrives.
    Move(usize),
    /// A client that is away, and says what it has, lost what it had of a conversation behind a seq.
    Forget(usize, usize, u64),
    /// Events that are on their way through many subscriptions go on.
    Push,
    /// A worker reads for one of the questions, or its answer arrives, or is lost.
    Work(usize, bool),
    Arrive(usize),
    /// A wait is over.
    Retry(usize),
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let (c, u, n) = (0..CONVERSATION_COUNT, 0..USER_COUNT, 0..8_usize);
    prop_oneof![
        1 => (c.clone(), u.clone()).prop_map(|(c, u)| Step::Create(c, u)),
        5 => (c.clone(), prop::bool::weighted(0.02)).prop_map(|(c, ends)| if ends { Step::End(c) } else { Step::Say(c) }),
        1 => (c.clone(), 0..4_u64).prop_map(|(c, back)| Step::Delete(c, back)),
        2 => (c.clone(), u.clone()).prop_map(|(c, u)| Step::Add(c, u)),
        2 => (c.clone(), u.clone()).prop_map(|(c, u)| Step::Remove(c, u)),
        2 => u.prop_map(Step::Open),
        1 => n.clone().prop_map(Step::Close),
        1 => n.clone().prop_map(Step::Kill),
        1 => n.clone().prop_map(Step::Record),
        3 => n.clone().prop_map(Step::Resume),
        1 => (n.clone(), c.clone()).prop_map(|(n, c)| Step::RemovedWhileOpening(n, c)),
        3 => (n.clone(), 1..400_usize).prop_map(|(n, bytes)| Step::Take(n, bytes)),
        2 => n.clone().prop_map(Step::Pong),
        1 => (n.clone(), 0..CONVERSATION_COUNT, 0..12_u64).prop_map(|(n, c, seq)| Step::Forget(n, c, seq)),
        1 => n.clone().prop_map(Step::Seen),
        1 => n.clone().prop_map(Step::ReadOver),
        8 => (n.clone(), prop::bool::weighted(0.2)).prop_map(|(n, again)| Step::Feed(n, again)),
        3 => c.prop_map(Step::Announce),
        1 => (0..90_u64).prop_map(Step::Recheck),
        1 => Just(Step::Break),
        1 => (0..CONVERSATION_COUNT).prop_map(Step::BreakOf),
        8 => (0..12_usize).prop_map(Step::Move),
        6 => Just(Step::Push),
        4 => (n.clone(), prop::bool::weighted(0.1)).prop_map(|(n, fails)| Step::Work(n, fails)),
        4 => n.clone().prop_map(Step::Arrive),
        3 => n.prop_map(Step::Retry),
    ]
}
