//! Compares each command's answer with the log by counting.

use std::collections::BTreeMap;

use confab_protocol::error::Code;
use confab_protocol::ids::{ConversationId, Seq, UserId};

use super::check::Violation;
use super::ledger::{Ledger, LogRow};
use super::record::{CommandOutcome, IssuedCommand, LogAction, Millis};

/// How long behind the time of its event a commit may end.
const COMMIT_MS: Millis = 10_000;

/// How often one thing was asked for, by what came of it, and how often it was done.
#[derive(Debug, Default)]
struct Tally {
    stored: Vec<Seq>,
    done: Vec<Option<Seq>>,
    /// How many of those that were done may have found nothing to do.
    silent: usize,
    refused: Option<Code>,
    unknown: usize,
}

type Key<'a> = (ConversationId, &'a UserId, &'a LogAction);

pub(super) fn check(ledger: &Ledger, commands: &[IssuedCommand], found: &mut Vec<Violation>) {
    for ((conversation, user, action), tally) in tallies(ledger, commands) {
        let (user, action) = (user.clone(), action.clone());
        let possible = tally.done.len() + tally.unknown;
        for seq in tally.done.iter().flatten() {
            if !tally.stored.contains(seq) {
                let (user, action) = (user.clone(), action.clone());
                found.push(Violation::Elsewhere(conversation, user, action, *seq));
            }
        }
        found.extend(match (tally.stored.len(), tally.refused) {
            (stored, _) if stored + tally.silent < tally.done.len() => {
                Some(Violation::Lost(conversation, user, action))
            }
            (stored, _) if stored <= possible => None,
            (_, Some(code)) if possible == 0 => Some(Violation::RefusedAndStored(
                conversation,
                user,
                action,
                code,
            )),
            (_, None) if possible == 0 => Some(Violation::Unasked(conversation, user, action)),
            _ => Some(Violation::Twice(conversation, user, action)),
        });
    }
}

/// Whether a change of a role may have found its user with that role, which is no event: an event before its answer gave it, which is not
/// its own, and none took it long before it was asked for. Whoever joins is a plain member.
fn may_have_had_role(ledger: &Ledger, command: &IssuedCommand) -> bool {
    let LogAction::Role(user, role) = &command.action else {
        return false;
    };
    let Some(log) = ledger.logs.get(&command.conversation) else {
        return false;
    };
    let (asked, answered) = (*command.time.start(), *command.time.end());
    let is_own = |row: &&LogRow| {
        let is_same = (&row.actor, &row.action) == (&command.actor, &command.action);
        is_same && command.time.contains(&row.at)
    };
    let others = log.rows.iter().filter(|row| !is_own(row));
    let changes = others.filter_map(|row| match &row.action {
        _ if row.joins.contains(user) => Some((row.at, role == "member")),
        LogAction::Role(of, given) if of == user => Some((row.at, given == role)),
        LogAction::Remove(of) if of == user => Some((row.at, false)),
        LogAction::End => Some((row.at, false)),
        _ => None,
    });
    let changes: Vec<_> = changes.filter(|(at, _)| *at <= answered).collect();
    let until = changes.iter().skip(1).map(|(at, _)| at + COMMIT_MS);
    let until = until.chain([Millis::MAX]);
    changes
        .iter()
        .zip(until)
        .any(|((_, has_role), until)| *has_role && asked <= until)
}

fn tallies<'a>(ledger: &'a Ledger, commands: &'a [IssuedCommand]) -> BTreeMap<Key<'a>, Tally> {
    let mut tallies: BTreeMap<Key<'_>, Tally> = BTreeMap::new();
    for command in commands {
        let key = (command.conversation, &command.actor, &command.action);
        let tally = tallies.entry(key).or_default();
        match &command.outcome {
            CommandOutcome::Done(seq) => {
                tally.done.push(*seq);
                tally.silent += usize::from(may_have_had_role(ledger, command));
            }
            CommandOutcome::Refused(code) => tally.refused = Some(*code),
            CommandOutcome::Unknown => tally.unknown += 1,
        }
    }
    for (conversation, log) in &ledger.logs {
        for row in &log.rows {
            let key = (*conversation, &row.actor, &row.action);
            tallies.entry(key).or_default().stored.push(row.seq);
        }
    }
    tallies
}
