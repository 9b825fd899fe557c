//! Checks presence: only peers receive it, in order, and the last state is right (docs/protocol/delivery.md).

use std::collections::{BTreeMap, BTreeSet};

use confab_protocol::ids::{Seq, UserId};
use confab_protocol::signal::PresenceStatus;

use super::check::Violation;
use super::ledger::{ConversationLog, Ledger, MemberInterval};
use super::record::{ClientAccount, Generation, Millis, Presence, ReceivedItem, Saying};

/// How long behind its end a shared membership may still count: commits, events and signals are late by as much in a fault.
const LATENESS_MS: Millis = 15_000;
/// How long behind a welcome the gateway that the session left may still be believed: five seconds, and what is late.
const SETTLING_MS: Millis = 15_000;
/// How long before its client has the welcome a session may be told of to others, with what its record says.
const OPENING_MS: Millis = 5_000;
/// How long all gateways may take to know a member who joins while nothing is wrong.
const JOINING_MS: Millis = 2_000;
/// Members up to which a conversation carries presence.
const SIGNAL_MEMBERS: usize = 100;
/// Users in a snapshot.
const SNAPSHOT_USERS: usize = 1_000;

/// What one client was told, looked at by itself.
pub(super) fn check(ledger: &Ledger, account: &ClientAccount, found: &mut Vec<Violation>) {
    let me = &account.user;
    for generation in &account.generations {
        let mut snapshots = 0;
        for (heard, sent_at) in generation
            .heard
            .iter()
            .zip(sending_times(ledger, generation))
        {
            match heard {
                ReceivedItem::Presence(told) => check_told(ledger, me, told, sent_at, found),
                ReceivedItem::Snapshot { users, .. } => {
                    snapshots += 1;
                    let named: BTreeSet<_> = users.iter().map(|told| &told.user).collect();
                    let is_sound = snapshots == 1
                        && users.len() <= SNAPSHOT_USERS
                        && named.len() == users.len()
                        && users
                            .iter()
                            .all(|told| told.status != PresenceStatus::Offline);
                    if !is_sound {
                        found.push(Violation::Snapshot(me.clone()));
                    }
                    // It was asked for with the hello.
                    for told in users {
                        check_told(ledger, me, told, generation.welcomed_at, found);
                    }
                }
                ReceivedItem::Event(_)
                | ReceivedItem::Receipt { .. }
                | ReceivedItem::Truncated { .. }
                | ReceivedItem::Read { .. } => {}
            }
        }
    }
}

/// Until when at the latest what a client heard was sent: it was before the next event was, which may be long before a slow client reads it.
fn sending_times(ledger: &Ledger, generation: &Generation) -> Vec<Millis> {
    let mut next = Millis::MAX;
    let mut times = Vec::new();
    for heard in generation.heard.iter().rev() {
        times.push(match heard {
            ReceivedItem::Presence(told) => told.at.min(next),
            _ => next,
        });
        if let ReceivedItem::Event(event) = heard
            && let Some(log) = ledger.logs.get(&event.conversation)
        {
            next = log.time(event.seq).max(generation.welcomed_at);
        }
    }
    times.reverse();
    times
}

fn check_told(
    ledger: &Ledger,
    me: &UserId,
    told: &Presence,
    since: Millis,
    found: &mut Vec<Violation>,
) {
    // What is newer than the ledger may make them members of one conversation.
    let is_stranger = ledger.is_final
        && !ledger
            .logs
            .values()
            .any(|log| carries(log, me, told, since));
    if told.user == *me || is_stranger {
        found.push(Violation::Stranger(me.clone(), told.user.clone()));
    }
}

/// Whether a conversation is a reason to tell a member so of another at that moment, or at one since `since`.
fn carries(log: &ConversationLog, me: &UserId, told: &Presence, since: Millis) -> bool {
    shared(log, me, &told.user)
        .into_iter()
        .any(|(from, until)| {
            let has_begun = log.time(from) <= told.at;
            let has_ended = until.is_some_and(|until| log.time(until) + LATENESS_MS < since);
            let is_carried = !has_ended && was_small(log, from, told.at);
            // That a user is gone is told wherever it was told to be there.
            has_begun && (is_carried || told.status == PresenceStatus::Offline)
        })
}

/// From where to where two users were members together.
fn shared(log: &ConversationLog, one: &UserId, other: &UserId) -> Vec<(Seq, Option<Seq>)> {
    let (ones, others) = (log.memberships_of(one), log.memberships_of(other));
    let pairs = ones
        .iter()
        .flat_map(|one| others.iter().map(move |other| both(one, other)));
    pairs
        .filter(|(from, until)| until.is_none_or(|until| *from < until))
        .collect()
}

fn both(one: &MemberInterval, other: &MemberInterval) -> (Seq, Option<Seq>) {
    let lefts = one.left.into_iter().chain(other.left);
    (one.joined.max(other.joined), lefts.min())
}

/// Whether the conversation had so few members behind some event that a gateway may have been at by then.
fn was_small(log: &ConversationLog, from: Seq, at: Millis) -> bool {
    if log.memberships.len() <= SIGNAL_MEMBERS {
        return true;
    }
    let stored = log.rows.iter().filter(|row| row.at <= at);
    let known_to_all = stored
        .clone()
        .filter(|row| row.at + LATENESS_MS < at)
        .map(|row| row.seq);
    let first = known_to_all.max().map_or(from, |seq| seq.max(from));
    stored
        .filter(|row| row.seq >= first)
        .any(|row| log.members_behind(row.seq) <= SIGNAL_MEMBERS)
}

/// What clients were told of each other: nothing older behind what is newer, and in the end what is so.
pub(super) fn check_together(
    ledger: &Ledger,
    accounts: &[&ClientAccount],
    found: &mut Vec<Violation>,
) {
    let mut clients: BTreeMap<&UserId, Vec<&ClientAccount>> = BTreeMap::new();
    for account in accounts {
        clients.entry(&account.user).or_default().push(account);
    }
    for account in accounts {
        for (user, theirs) in &clients {
            if account.user == **user {
                continue;
            }
            if let [only] = theirs.as_slice() {
                check_order(account, only, found);
            }
            check_end(ledger, account, theirs, found);
        }
        if let Some(generation) = connected(account) {
            let is_told = |heard: &ReceivedItem| matches!(heard, ReceivedItem::Snapshot { .. });
            if !generation.heard.iter().any(is_told) {
                found.push(Violation::NoSnapshot(account.user.clone()));
            }
        }
    }
}

/// The connection that a client has.
fn connected(account: &ClientAccount) -> Option<&Generation> {
    let last = account
        .generations
        .last()
        .filter(|generation| generation.ended.is_none());
    last.filter(|_| !account.has_left)
}

/// Of what a user says on one connection everyone hears some, in that order. On a further connection it may begin with what its session's
/// record has, and the gateway before may be believed for a while.
fn check_order(account: &ClientAccount, other: &ClientAccount, found: &mut Vec<Violation>) {
    let told: Vec<Presence> = told_of(account, &other.user);
    for (number, generation) in other.generations.iter().enumerate() {
        let next = other.generations.get(number + 1);
        let end = next.map_or(Millis::MAX, |next| next.welcomed_at);
        let settled = generation.welcomed_at + SETTLING_MS..end - OPENING_MS;
        let said = said_in(other, generation.welcomed_at..end);
        let mut place = 0;
        let judged = told.iter().filter(|told| settled.contains(&told.at));
        for told in judged.filter(|told| told.status != PresenceStatus::Offline) {
            let may_be = |place: &usize| {
                let over = said.get(place + 1).map(|next| next.at + LATENESS_MS);
                let is_over = over.is_some_and(|over| over < told.at);
                said[*place].status == told.status && said[*place].at <= told.at && !is_over
            };
            match (place..said.len()).find(may_be) {
                Some(found) => place = found,
                None => found.push(Violation::OldPresence(account.user.clone(), told.clone())),
            }
        }
    }
}

/// All that a client was told of a user, in that order. What is not whole may be old.
fn told_of(account: &ClientAccount, user: &UserId) -> Vec<Presence> {
    let mut told = Vec::new();
    for heard in account
        .generations
        .iter()
        .flat_map(|generation| &generation.heard)
    {
        match heard {
            ReceivedItem::Presence(one) if one.user == *user => told.push(one.clone()),
            ReceivedItem::Snapshot {
                users,
                is_complete: true,
                ..
            } => told.extend(users.iter().find(|one| one.user == *user).cloned()),
            _ => {}
        }
    }
    told
}

/// What a client said in this time, behind what it had said last before; who says nothing is online.
fn said_in(account: &ClientAccount, time: std::ops::Range<Millis>) -> Vec<Saying> {
    let (before, behind): (Vec<Saying>, Vec<Saying>) =
        account.said.iter().partition(|one| one.at < time.start);
    let first = before.last().copied().unwrap_or(Saying {
        status: PresenceStatus::Online,
        at: time.start,
    });
    let behind = behind.into_iter().filter(|one| one.at < time.end);
    [first].into_iter().chain(behind).collect()
}

/// What a client believes of a user whose clients these are is so, when nothing is on its way any more.
fn check_end(
    ledger: &Ledger,
    account: &ClientAccount,
    theirs: &[&ClientAccount],
    found: &mut Vec<Violation>,
) {
    let Some((is, generation)) = status_of(theirs).zip(connected(account)) else {
        return;
    };
    let user = &theirs[0].user;
    let Some(believed) = belief(generation, user) else {
        return;
    };
    // Of one with whom a conversation began since, or ended meanwhile, only the route tells.
    let is_told = ledger.logs.values().any(|log| {
        let mut shared = shared(log, &account.user, user).into_iter();
        log.memberships.len() <= SIGNAL_MEMBERS
            && shared.any(|(from, until)| until.is_none() && log.time(from) <= believed.since)
    });
    if is_told && believed.status != is {
        let (me, user) = (account.user.clone(), user.clone());
        found.push(Violation::WrongPresence(me, user, believed.status, is));
    }
}

/// What a user was told of another on its last connections, and when the other's last ones were.
pub(super) fn explain(
    me: &UserId,
    user: &UserId,
    accounts: &[impl std::ops::Deref<Target = ClientAccount>],
) -> String {
    let mut text = String::new();
    for account in accounts.iter().filter(|one| one.user == *me) {
        let generation = account.generations.last();
        let begins = generation.map_or(Millis::MAX, |generation| generation.welcomed_at);
        let told = generation
            .into_iter()
            .flat_map(|generation| &generation.heard);
        let told = told.filter_map(|heard| match heard {
            ReceivedItem::Presence(told) if told.user == *user => Some(format!(
                "{:?} at +{}",
                told.status,
                told.at.saturating_sub(begins)
            )),
            ReceivedItem::Snapshot {
                users,
                is_complete,
                at,
            } => {
                let named = users.iter().find(|told| told.user == *user);
                let status = named.map(|told| told.status);
                let count = users.len();
                Some(format!(
                    "snapshot of {count} (complete: {is_complete}) {status:?} at +{}",
                    at.saturating_sub(begins)
                ))
            }
            _ => None,
        });
        let told: Vec<_> = told.collect();
        text += &format!("\n    welcomed at {begins}, told {}", told.join(", "));
    }
    for account in accounts.iter().filter(|one| one.user == *user) {
        let generations = account.generations.iter().rev().take(3);
        let generations: Vec<_> = generations
            .map(|generation| (generation.welcomed_at, &generation.ended))
            .collect();
        let said: Vec<_> = account.said.iter().rev().take(3).collect();
        text += &format!("\n    {user} lived from {generations:?}, said {said:?}");
    }
    text
}

/// What a user was told of another for no reason, and when the two were members together, by conversation.
pub(super) fn explain_shared(
    ledger: &Ledger,
    me: &UserId,
    user: &UserId,
    accounts: &[impl std::ops::Deref<Target = ClientAccount>],
) -> String {
    let mut text = String::new();
    for account in accounts.iter().filter(|one| one.user == *me) {
        for generation in &account.generations {
            for (heard, sent_at) in generation
                .heard
                .iter()
                .zip(sending_times(ledger, generation))
            {
                let (how, told, since) = match heard {
                    ReceivedItem::Presence(told) => ("by itself", Some(told), sent_at),
                    ReceivedItem::Snapshot { users, .. } => {
                        let mut named = users.iter();
                        let told = named.find(|told| told.user == *user);
                        ("in a snapshot", told, generation.welcomed_at)
                    }
                    _ => continue,
                };
                let is_stranger = |told: &&Presence| {
                    let mut logs = ledger.logs.values();
                    told.user == *user && !logs.any(|log| carries(log, me, told, since))
                };
                if let Some(told) = told.filter(is_stranger) {
                    let welcomed_at = generation.welcomed_at;
                    text += &format!("\n    told {how} {told:?}, welcomed at {welcomed_at}");
                }
            }
        }
    }
    for (id, log) in &ledger.logs {
        for (from, until) in shared(log, me, user) {
            let until = until.map(|until| log.time(until));
            text += &format!(
                "\n    together in {id:?} from {} to {until:?}",
                log.time(from)
            );
        }
    }
    text
}

/// What a user's clients say of it together; nothing while one of them is about to come again.
fn status_of(clients: &[&ClientAccount]) -> Option<PresenceStatus> {
    let mut highest = PresenceStatus::Offline;
    for account in clients {
        let said = account.said.last();
        let status = match connected(account) {
            Some(_) => said.map_or(PresenceStatus::Online, |saying| saying.status),
            None if account.has_left => PresenceStatus::Offline,
            None => return None,
        };
        highest = highest.max(status);
    }
    Some(highest)
}

/// What a client holds for so, where it has been told since whoever was a member with it from `since` on.
struct Belief {
    status: PresenceStatus,
    since: Millis,
}

fn belief(generation: &Generation, user: &UserId) -> Option<Belief> {
    let mut belief = None;
    for heard in &generation.heard {
        match heard {
            ReceivedItem::Presence(told) if told.user == *user => {
                belief = Some(Belief {
                    status: told.status,
                    since: told.at - JOINING_MS,
                });
            }
            ReceivedItem::Snapshot {
                users,
                is_complete,
                at,
            } => match users.iter().find(|told| told.user == *user) {
                Some(told) => {
                    belief = Some(Belief {
                        status: told.status,
                        since: at - JOINING_MS,
                    });
                }
                // Who is not named is offline.
                None if *is_complete => {
                    belief = Some(Belief {
                        status: PresenceStatus::Offline,
                        since: at - LATENESS_MS,
                    });
                }
                None => {}
            },
            _ => {}
        }
    }
    belief
}
