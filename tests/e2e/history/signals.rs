//! Checks that receipts never go back or beyond the log, and reach only users of shared conversations.

use std::collections::BTreeMap;

use confab_protocol::ids::UserId;

use super::check::Violation;
use super::ledger::Ledger;
use super::record::{ClientAccount, ReceivedItem};

pub(super) fn check(ledger: &Ledger, account: &ClientAccount, found: &mut Vec<Violation>) {
    let me = &account.user;
    for generation in &account.generations {
        let mut marks = BTreeMap::new();
        for heard in &generation.heard {
            if let ReceivedItem::Receipt {
                conversation,
                user,
                up_to,
            } = heard
            {
                let last = marks.insert((*conversation, user), *up_to);
                let log = ledger.logs.get(conversation);
                let is_ahead = log.is_none_or(|log| *up_to > log.head()) && ledger.is_final;
                if last.is_some_and(|last| last >= *up_to) || is_ahead {
                    let violation =
                        Violation::Receipt(me.clone(), *conversation, user.clone(), *up_to);
                    found.push(violation);
                }
                note_stranger(ledger, me, user, found);
            }
        }
    }
}

/// What is newer than the ledger may make them members of one conversation.
fn note_stranger(ledger: &Ledger, me: &UserId, user: &UserId, found: &mut Vec<Violation>) {
    let mut logs = ledger.logs.values();
    let shares = logs.any(|log| {
        let is_member = |user| !log.memberships_of(user).is_empty();
        is_member(me) && is_member(user)
    });
    if ledger.is_final && !shares {
        found.push(Violation::Stranger(me.clone(), user.clone()));
    }
}
