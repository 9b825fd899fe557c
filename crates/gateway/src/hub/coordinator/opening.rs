//! How sessions open: their memberships are asked for, many sessions in one question while others have no answer, and
//! entered from where each begins.

use std::sync::Arc;

use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::query::{Membership, MembershipsOf, UserMemberships};
use rustc_hash::FxHashMap;

use super::missed::{Missed, MissedRange};
use super::openings::Haste;
use super::owed::owed;
use super::session::PendingReplay;
use super::{
    Account, Coordinator, Effect, MAX_QUERY_POSITIONS, MembershipQuery, Opened, Opening,
    OpeningSize, PendingQuery, Phase, Purpose, RETRY_DELAY, RecordedOpening, Registration,
    ReplayBudget, Retry, Session, SessionKey, ShardOpening, Start, Step, Stepped, Ticket,
    WITHOUT_WORKERS,
};
use crate::hub::asking::memberships_of;

/// Sessions in one question.
const MAX_QUERY_SESSIONS: usize = 100;
/// About what a membership takes in an answer: whoever has many pages gives way to others between them.
const MEMBERSHIP_BYTES: usize = 64;

impl PendingQuery {
    fn new(start: Start, epoch: u64) -> Self {
        Self {
            start,
            memberships: Vec::new(),
            ended: Vec::new(),
            after: None,
            epoch,
        }
    }

    /// The question for the next page. All count as asked in the epoch of the first.
    fn question(&mut self, account: &Account, epoch: u64) -> MembershipsOf {
        if self.after.is_none() {
            self.epoch = epoch;
        }
        MembershipsOf {
            held: self.start.held().into_iter().collect(),
            after: self.after,
            ..memberships_of(account)
        }
    }
}

impl Start {
    /// Up to where the client has each conversation: its own word counts before the record's.
    pub(super) fn held(&self) -> FxHashMap<ConversationId, Seq> {
        let recorded = self.positions.iter().map(|p| (p.conversation, p.seq));
        let seen = self.seen.iter().map(|(id, seq)| (*id, *seq));
        recorded.chain(seen).collect()
    }
}

impl Coordinator {
    /// A session opens: the shards are told, and then its memberships are asked for.
    pub(crate) fn open(&mut self, opening: Opening) {
        let Opening {
            key,
            account,
            send_queue,
            start,
        } = opening;
        let account = Arc::new(account);
        let keys = self.present.entry(Arc::clone(&account)).or_default();
        keys.push(key);
        if start.resumed {
            let without = Effect::Later(WITHOUT_WORKERS, Retry::OpenWithout(key));
            self.effects.push(without);
        }
        let registration = Registration {
            key,
            account: Arc::clone(&account),
            send_queue,
            replay: Arc::new(ReplayBudget::new(self.limits.bytes)),
        };
        let session = Session {
            account,
            phase: Phase::Registering(Box::new(start)),
            opened: 0,
        };
        self.sessions.insert(key, session);
        let register = || Step::Register(registration.clone());
        let steps = std::iter::repeat_with(register).take(self.shards.count());
        let steps = steps.collect();
        self.steps(Ticket::Registered(key), steps);
    }

    /// Every shard takes note of what is added from now on.
    pub(super) fn registered(&mut self, key: SessionKey) {
        let epoch = self.epoch;
        let begin = |phase: &mut Phase| match phase {
            Phase::Registering(start) => {
                let asking = PendingQuery::new(std::mem::take(start), epoch);
                *phase = Phase::PendingQuery(Box::new(asking));
            }
            Phase::PendingQuery(_)
            | Phase::PendingReplay(_)
            | Phase::Entering(..)
            | Phase::Open => {}
        };
        if let Some(session) = self.sessions.get_mut(&key) {
            begin(&mut session.phase);
        }
        self.wait_to_open([key]);
        self.ask_openings();
    }

    fn wait_to_open(&mut self, keys: impl IntoIterator<Item = SessionKey>) {
        for key in keys {
            // One that is closed opens no more.
            if let Some(session) = self.sessions.get(&key)
                && let Phase::PendingQuery(asking) = &session.phase
            {
                self.openings.push(&session.account.owner(), key, asking);
            }
        }
    }

    /// Asks for the memberships of those that have waited for others to share a question with. To be called now and then.
    pub(crate) fn ask_waiting_openings(&mut self) {
        self.ask_openings_in(Haste::Now);
    }

    fn ask_openings(&mut self) {
        self.ask_openings_in(Haste::Together);
    }

    /// Asks for the memberships of sessions that open, as many at once as wait.
    fn ask_openings_in(&mut self, haste: Haste) {
        for size in OpeningSize::ALL_SIZES {
            while self.openings.may_ask(size, haste) {
                let (of, keys) = self.next_openings(size);
                if keys.is_empty() {
                    break;
                }
                self.openings.asked(size);
                self.effects.push(Effect::MembershipQuery(MembershipQuery {
                    of,
                    purpose: Purpose::Opening(size, keys),
                    epoch: self.epoch,
                    asked: self.clock,
                }));
            }
        }
    }

    /// Sessions of a size that find room in one question.
    fn next_openings(&mut self, size: OpeningSize) -> (Vec<MembershipsOf>, Vec<SessionKey>) {
        let (mut of, mut keys, mut named) = (Vec::new(), Vec::new(), 0);
        while keys.len() < MAX_QUERY_SESSIONS
            && named < MAX_QUERY_POSITIONS
            && let Some((owner, key)) = self.openings.pop(size)
        {
            let session = self.sessions.get_mut(&key);
            let one = session.and_then(|session| match &mut session.phase {
                Phase::PendingQuery(asking) => Some(asking.question(&session.account, self.epoch)),
                _ => None,
            });
            let positions = one.as_ref().map_or(0, |one| one.held.len());
            self.openings.charge(size, &owner, positions);
            if let Some(one) = one {
                named += positions;
                of.push(one);
                keys.push(key);
            }
        }
        (of, keys)
    }

    pub(super) fn openings_answered(
        &mut self,
        size: OpeningSize,
        keys: Vec<SessionKey>,
        answers: Vec<UserMemberships>,
    ) {
        self.openings.answered(size);
        for (key, answer) in keys.into_iter().zip(answers) {
            self.opening_page(key, answer);
        }
        self.ask_openings();
    }

    /// No worker answers: who has a record opens by that, the others wait.
    pub(super) fn openings_failed(&mut self, size: OpeningSize, keys: Vec<SessionKey>) {
        self.openings.answered(size);
        for key in &keys {
            self.open_without_workers(*key);
        }
        self.effects
            .push(Effect::Later(RETRY_DELAY, Retry::Open(keys)));
        self.ask_openings();
    }

    /// The time to ask again has come.
    pub(super) fn open_later(&mut self, keys: Vec<SessionKey>) {
        self.wait_to_open(keys);
        self.ask_openings();
    }

    fn opening_page(&mut self, key: SessionKey, answer: UserMemberships) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let Phase::PendingQuery(asking) = &mut session.phase else {
            return;
        };
        let bytes = answer.memberships.len() * MEMBERSHIP_BYTES;
        asking.memberships.extend(answer.memberships);
        asking.ended.extend(answer.ended);
        if answer.next.is_some() {
            asking.after = answer.next;
            let owner = session.account.owner();
            self.openings.push_next_page(&owner, key, bytes);
            return;
        }
        let PendingQuery {
            start,
            memberships,
            ended,
            epoch,
            ..
        } = std::mem::replace(&mut **asking, PendingQuery::new(Start::default(), 0));
        let (over, owed) = owed(&start, memberships, ended);
        let (missed, lacks) = Missed::of(&start, owed);
        let weighing = PendingReplay {
            epoch,
            over,
            missed,
            lacks: self
                .shards
                .split(lacks, |lack| lack.membership.conversation),
        };
        self.weigh(key, weighing);
    }

    /// Asks the shards what that would put on the wire which the session missed; of what is too long anyway it does not matter.
    fn weigh(&mut self, key: SessionKey, weighing: PendingReplay) {
        if weighing.lacks.iter().all(Vec::is_empty) {
            self.enter(key, weighing.epoch, weighing.over, weighing.missed);
            return;
        }
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let ranges = |lacks: &Vec<MissedRange>| lacks.iter().map(MissedRange::range).collect();
        let account = &session.account;
        let weigh = |lacks| Step::Weigh(Arc::clone(account), ranges(lacks));
        let steps = weighing.lacks.iter().map(weigh).collect();
        session.phase = Phase::PendingReplay(Box::new(weighing));
        self.steps(Ticket::Weighed(key), steps);
    }

    pub(super) fn weighed(&mut self, key: SessionKey, answers: Vec<Stepped>) {
        let session = self.sessions.get_mut(&key);
        let Some(Phase::PendingReplay(weighing)) = session.map(|session| &mut session.phase) else {
            return;
        };
        let PendingReplay {
            epoch,
            over,
            missed,
            lacks,
        } = std::mem::take(&mut **weighing);
        let weights = answers.into_iter().map(|answer| match answer {
            Stepped::Weights(weights) => weights,
            _ => Vec::new(),
        });
        let weighed = lacks.into_iter().zip(weights);
        let weighed = weighed.flat_map(|(lacks, weights)| {
            let weights = weights.into_iter().chain(std::iter::repeat(0));
            lacks.into_iter().zip(weights)
        });
        let missed = missed.choose(weighed.collect(), self.limits);
        self.enter(key, epoch, over, missed);
    }

    /// Has the shards enter what was decided.
    fn enter(&mut self, key: SessionKey, epoch: u64, over: Vec<Membership>, missed: Missed) {
        let Missed {
            begins,
            truncated,
            kept,
            replayed,
        } = missed;
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        self.truncated += u64::try_from(truncated.len()).unwrap_or(u64::MAX);
        let present = begins.iter().filter(|(m, _)| was_present(m));
        let heads: FxHashMap<_, _> = present.map(|(m, _)| (m.conversation, m.head)).collect();
        let opened = Opened {
            heads: heads.into_iter().collect(),
            truncated,
            replayed,
        };
        session.phase = Phase::Entering(Box::new(opened), epoch);
        let over: Vec<Vec<_>> = self.shards.split(over, |m| m.conversation);
        let begins: Vec<Vec<_>> = self.shards.split(begins, |(m, _)| m.conversation);
        let kept: Vec<Vec<_>> = self.shards.split(kept, |(id, _)| *id);
        let parts = over.into_iter().zip(begins).zip(kept);
        let account = &session.account;
        let steps = parts.map(|((over, begins), kept)| {
            let part = ShardOpening {
                epoch,
                over,
                begins: begins.into(),
                kept,
            };
            Step::Enter(key, Arc::clone(account), Box::new(part))
        });
        let steps = steps.collect();
        self.steps(Ticket::Entered(key), steps);
    }

    /// The session is open. What a break hid that came since its memberships were asked for is asked for anew.
    pub(super) fn entered(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let Phase::Entering(opened, epoch) = std::mem::replace(&mut session.phase, Phase::Open)
        else {
            return;
        };
        let is_current = epoch == self.epoch;
        self.clock += u64::from(!is_current);
        session.opened = self.clock;
        let account = Arc::clone(&session.account);
        self.effects.push(Effect::Opened(key, *opened));
        if !is_current {
            self.reconcile_also(account);
        }
    }

    /// A session that goes on opens without a worker's word.
    pub(super) fn open_without_workers(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        match &mut session.phase {
            Phase::PendingQuery(asking) if asking.start.resumed => {
                let start = std::mem::take(&mut asking.start);
                let opened = Opened {
                    heads: Vec::new(),
                    truncated: Vec::new(),
                    replayed: 0,
                };
                session.phase = Phase::Entering(Box::new(opened), 0);
                let positions: Vec<Vec<_>> = self.shards.split(start.positions, |p| p.conversation);
                let seen: Vec<_> = self.shards.split(start.seen, |(id, _)| *id);
                let parts = positions.into_iter().zip(seen);
                let account = &session.account;
                let steps = parts.map(|(positions, seen)| {
                    let recorded = RecordedOpening { positions, seen };
                    Step::EnterByRecord(key, Arc::clone(account), recorded)
                });
                let steps = steps.collect();
                self.steps(Ticket::EnteredByRecord(key), steps);
            }
            // Some shard is late: it has the session's first step before it.
            Phase::Registering(start) if start.resumed => {
                let again = Effect::Later(RETRY_DELAY, Retry::OpenWithout(key));
                self.effects.push(again);
            }
            _ => {}
        }
    }

    pub(super) fn entered_by_record(&mut self, key: SessionKey, answers: Vec<Stepped>) {
        let session = self.sessions.get_mut(&key);
        if let Some(Phase::Entering(opened, _)) = session.map(|session| &mut session.phase) {
            for answer in answers {
                if let Stepped::ByRecord(heads, replayed) = answer {
                    opened.heads.extend(heads);
                    opened.replayed += replayed;
                }
            }
        }
        self.entered(key);
    }
}

/// Whether a membership was present when a worker told it: it may have ended behind the page that did.
fn was_present(membership: &Membership) -> bool {
    membership.left.is_none_or(|left| left > membership.head)
}
