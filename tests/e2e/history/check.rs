//! The list of violations that the checker finds.

use std::collections::BTreeSet;

use confab_protocol::error::Code;
use confab_protocol::ids::{ConversationId, Seq, UserId};
use confab_protocol::signal::PresenceStatus;

use super::ledger::Ledger;
use super::record::{ClientAccount, IssuedCommand, LogAction, Presence, ReadMark, ReceivedEvent};
use super::{commands, deliveries, marks, presence, signals};

/// Something that was promised and is not so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Violation {
    /// The log's numbers are not 1, 2, 3 ….
    Numbers(ConversationId),
    /// The participants are not those that the log names.
    Projection(ConversationId, UserId),
    /// Answered with success, and stored less often.
    Lost(ConversationId, UserId, LogAction),
    /// Stored more often than it was asked for.
    Twice(ConversationId, UserId, LogAction),
    /// Refused, and stored all the same.
    RefusedAndStored(ConversationId, UserId, LogAction, Code),
    /// Stored, and asked for by nobody.
    Unasked(ConversationId, UserId, LogAction),
    /// Stored elsewhere than its answer said.
    Elsewhere(ConversationId, UserId, LogAction, Seq),
    /// A client was told what is not in the log, or is another event there.
    Altered(ReceivedEvent),
    /// A client was told what lies outside of its memberships.
    Foreign(UserId, ReceivedEvent),
    /// A connection was told a seq that is not above the one before.
    Backwards(UserId, ReceivedEvent, Seq),
    /// A client was told what it said that it holds.
    Repeated(UserId, ReceivedEvent),
    /// What lies before `ReceivedEvent` and was owed never came, and was not named as truncated.
    Gap(UserId, ReceivedEvent, Seq),
    /// What was owed from this seq on was skipped by a `truncated` that does not name it.
    Unnamed(UserId, ConversationId, Seq),
    /// What is owed from this seq on has not come yet.
    Late(UserId, ConversationId, Seq),
    /// A range that was read over HTTP has a hole.
    HoleInLog(UserId, ConversationId, Seq),
    /// A client heard of a read mark of a user that is not above the one before, or is beyond the log.
    Receipt(UserId, ConversationId, UserId, Seq),
    /// A client heard of a user with whom it shares no conversation, or of its own presence.
    Stranger(UserId, UserId),
    /// A client was told who is there more than once on a connection, of too many, of one twice, or of one who is not there.
    Snapshot(UserId),
    /// A client was never told who is there, though it asked.
    NoSnapshot(UserId),
    /// A client was told what a user had said of itself before what it was told already, or never.
    OldPresence(UserId, Presence),
    /// A client was told this of a user last, and that is so.
    WrongPresence(UserId, UserId, PresenceStatus, PresenceStatus),
    /// A read mark was told, or stands in the end, below what was told before.
    MarkLower(UserId, ConversationId, Seq, Seq),
    /// What must not have happened to a client.
    Trouble(UserId, String),
}

impl Violation {
    /// Whether waiting may mend it.
    pub(crate) const fn is_late(&self) -> bool {
        matches!(
            self,
            Self::Late(..) | Self::NoSnapshot(_) | Self::WrongPresence(..)
        )
    }

    /// Whether it is none if they became members of one conversation meanwhile.
    pub(super) const fn is_stranger(&self) -> bool {
        matches!(self, Self::Stranger(..))
    }
}

/// What led to it, where that is not in the violation itself.
pub(super) fn explain(
    ledger: &Ledger,
    found: &Violation,
    accounts: &[impl std::ops::Deref<Target = ClientAccount>],
) -> String {
    match found {
        Violation::Stranger(me, user) => presence::explain_shared(ledger, me, user, accounts),
        Violation::WrongPresence(me, user, ..) => presence::explain(me, user, accounts),
        Violation::OldPresence(me, told) => presence::explain(me, &told.user, accounts),
        _ => String::new(),
    }
}

/// All that is wrong with what is stored, when nothing is on its way any more.
pub(crate) fn stored(
    ledger: &Ledger,
    commands: &[IssuedCommand],
    read_marks: &[ReadMark],
) -> Vec<Violation> {
    assert!(ledger.is_final, "what is stored later explains nothing");
    let mut found = Vec::new();
    for (conversation, log) in &ledger.logs {
        let seqs = log.rows.iter().map(|row| row.seq);
        if !seqs.eq(1..=log.head()) {
            found.push(Violation::Numbers(*conversation));
        }
        let derived = log.derived();
        let users: BTreeSet<_> = log.memberships.keys().chain(derived.keys()).collect();
        for user in users {
            if log.memberships.get(user) != derived.get(user) {
                found.push(Violation::Projection(*conversation, user.clone()));
            }
        }
    }
    commands::check(ledger, commands, &mut found);
    marks::check(ledger, read_marks, &mut found);
    found
}

/// What is wrong with what a client was told by now; while the ledger is not final, what is newer than it is not judged.
pub(crate) fn told(ledger: &Ledger, account: &ClientAccount) -> Vec<Violation> {
    let mut found = Vec::new();
    deliveries::check(ledger, account, &mut found);
    signals::check(ledger, account, &mut found);
    presence::check(ledger, account, &mut found);
    let trouble = account.trouble.iter();
    found.extend(trouble.map(|what| Violation::Trouble(account.user.clone(), what.clone())));
    found
}

/// What is wrong with what all clients were told of each other, when nothing is on its way any more.
pub(crate) fn together(ledger: &Ledger, accounts: &[&ClientAccount]) -> Vec<Violation> {
    let mut found = Vec::new();
    presence::check_together(ledger, accounts, &mut found);
    found
}
