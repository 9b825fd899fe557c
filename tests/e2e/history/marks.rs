//! Checks that read marks only advance, over all of a user's memberships.

use std::collections::BTreeMap;

use confab_protocol::ids::Seq;

use super::check::Violation;
use super::ledger::Ledger;
use super::record::ReadMark;

/// Of each user the marks stand in the order in which they were told.
pub(super) fn check(ledger: &Ledger, marks: &[ReadMark], found: &mut Vec<Violation>) {
    let mut highest: BTreeMap<_, Seq> = BTreeMap::new();
    let lower = |mark: &ReadMark, seen, told| {
        Violation::MarkLower(mark.user.clone(), mark.conversation, seen, told)
    };
    for mark in marks {
        let told = highest.entry((&mark.user, mark.conversation)).or_default();
        if mark.up_to < *told {
            found.push(lower(mark, mark.up_to, *told));
        }
        *told = mark.up_to.max(*told);
    }
    for ((user, conversation), told) in highest {
        let log = ledger.logs.get(&conversation);
        let stands = log.and_then(|log| log.read.get(user).copied());
        let stands = stands.unwrap_or_default();
        if stands < told {
            found.push(Violation::MarkLower(
                user.clone(),
                conversation,
                stands,
                told,
            ));
        }
    }
}
