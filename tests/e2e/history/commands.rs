//! Each command stored as it was answered: by counting, what was asked for against what the log says was done.

use std::collections::BTreeMap;

use confab_protocol::error::Code;
use confab_protocol::ids::{ConversationId, Seq, UserId};

use super::check::Violation;
use super::ledger::Ledger;
use super::record::{Command, Deed, Outcome};

/// How often one thing was asked for, by what came of it, and how often it was done.
#[derive(Debug, Default)]
struct Tally {
    stored: Vec<Seq>,
    done: Vec<Option<Seq>>,
    refused: Option<Code>,
    unknown: usize,
}

type Key<'a> = (ConversationId, &'a UserId, &'a Deed);

pub(super) fn check(ledger: &Ledger, commands: &[Command], found: &mut Vec<Violation>) {
    for ((conversation, user, deed), tally) in tallies(ledger, commands) {
        let (user, deed) = (user.clone(), deed.clone());
        let possible = tally.done.len() + tally.unknown;
        for seq in tally.done.iter().flatten() {
            if !tally.stored.contains(seq) {
                let (user, deed) = (user.clone(), deed.clone());
                found.push(Violation::Elsewhere(conversation, user, deed, *seq));
            }
        }
        found.extend(match (tally.stored.len(), tally.refused) {
            (stored, _)
                if stored < tally.done.len() && has_had_role(ledger, conversation, &deed) =>
            {
                None
            }
            (stored, _) if stored < tally.done.len() => {
                Some(Violation::Lost(conversation, user, deed))
            }
            (stored, _) if stored <= possible => None,
            (_, Some(code)) if possible == 0 => {
                Some(Violation::RefusedAndStored(conversation, user, deed, code))
            }
            (_, None) if possible == 0 => Some(Violation::Unasked(conversation, user, deed)),
            _ => Some(Violation::Twice(conversation, user, deed)),
        });
    }
}

/// Whether a change of a role gives one that its user had, at its joining or by another change: given again, it is no event.
fn has_had_role(ledger: &Ledger, conversation: ConversationId, deed: &Deed) -> bool {
    let Deed::Role(_, role) = deed else {
        return false;
    };
    let rows = ledger.logs.get(&conversation).map(|log| &log.rows);
    role == "member" || rows.is_some_and(|rows| rows.iter().any(|row| row.deed == *deed))
}

fn tallies<'a>(ledger: &'a Ledger, commands: &'a [Command]) -> BTreeMap<Key<'a>, Tally> {
    let mut tallies: BTreeMap<Key<'_>, Tally> = BTreeMap::new();
    for command in commands {
        let key = (command.conversation, &command.actor, &command.deed);
        let tally = tallies.entry(key).or_default();
        match &command.outcome {
            Outcome::Done(seq) => tally.done.push(*seq),
            Outcome::Refused(code) => tally.refused = Some(*code),
            Outcome::Unknown => tally.unknown += 1,
        }
    }
    for (conversation, log) in &ledger.logs {
        for row in &log.rows {
            let key = (*conversation, &row.actor, &row.deed);
            tallies.entry(key).or_default().stored.push(row.seq);
        }
    }
    tallies
}
