//! How sessions open: their memberships are asked for, many sessions in one question while others have no answer, and
//! entered from where each begins.

use std::sync::Arc;

use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::query::{Membership, MembershipsOf, UserMemberships};
use rustc_hash::{FxHashMap, FxHashSet};

use super::asking::{NAMED, confirmation, memberships_of};
use super::ended::Ended;
use super::openings::OpeningSize;
use super::session::Conversations;
use super::truncating::Missed;
use super::{
    AGAIN, Account, Asking, Effect, Hub, Opened, Opening, Purpose, Retry, Session, SessionKey,
    Start, WITHOUT_WORKERS,
};

/// Sessions in one question.
const SESSIONS: usize = 100;
/// About what a membership takes in an answer: whoever has many pages gives way to others between them.
const MEMBERSHIP_BYTES: usize = 64;

impl Asking {
    fn new(start: Start, epoch: u64) -> Self {
        Self {
            start,
            memberships: Vec::new(),
            ended: Vec::new(),
            noted: FxHashMap::default(),
            after: None,
            epoch,
        }
    }

    /// The question for the next page. Pages from before a break of the feed count no more.
    fn question(&mut self, account: &Account, epoch: u64) -> MembershipsOf {
        if self.epoch != epoch {
            self.memberships.clear();
            self.ended.clear();
            (self.after, self.epoch) = (None, epoch);
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

impl Hub {
    /// A session opens: it is present from now on, and asks for its memberships.
    pub(crate) fn open(&mut self, opening: Opening) {
        let Opening {
            key,
            account,
            outbox,
            start,
        } = opening;
        let account = Arc::new(account);
        self.present
            .entry(Arc::clone(&account))
            .or_default()
            .push(key);
        if start.resumed {
            self.effects
                .push(Effect::Later(WITHOUT_WORKERS, Retry::OpenWithout(key)));
        }
        let session = Session {
            account,
            outbox,
            conversations: Conversations::default(),
            ended: Ended::default(),
            opening: Some(Box::new(Asking::new(start, self.epoch))),
            opened: 0,
            confirming: FxHashMap::default(),
            epoch: self.epoch,
            behind: FxHashSet::default(),
            kept: FxHashMap::default(),
            claims: FxHashMap::default(),
            replay_bytes: self.limits.bytes,
        };
        self.sessions.insert(key, Box::new(session));
        self.wait_to_open([key]);
        self.ask_openings();
    }

    fn wait_to_open(&mut self, keys: impl IntoIterator<Item = SessionKey>) {
        for key in keys {
            // One that is closed opens no more.
            if let Some(session) = self.sessions.get(&key)
                && let Some(asking) = &session.opening
            {
                self.openings.push(&session.account.owner(), key, asking);
            }
        }
    }

    /// Asks for the memberships of sessions that open, as many at once as wait.
    fn ask_openings(&mut self) {
        for size in OpeningSize::ALL {
            while self.openings.may_ask(size) {
                let (of, keys) = self.next_openings(size);
                if keys.is_empty() {
                    break;
                }
                self.openings.asked(size);
                self.ask(of, Purpose::Opening(size, keys));
            }
        }
    }

    /// Sessions of a size that find room in one question.
    fn next_openings(&mut self, size: OpeningSize) -> (Vec<MembershipsOf>, Vec<SessionKey>) {
        let (mut of, mut keys, mut named) = (Vec::new(), Vec::new(), 0);
        while keys.len() < SESSIONS
            && named < NAMED
            && let Some((owner, key)) = self.openings.pop(size)
        {
            let session = self.sessions.get_mut(&key);
            let one = session.and_then(|session| {
                let asking = session.opening.as_mut()?;
                Some(asking.question(&session.account, self.epoch))
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

    /// The answer does not count: it is from before a break.
    pub(super) fn openings_again(&mut self, size: OpeningSize, keys: Vec<SessionKey>) {
        self.openings.answered(size);
        self.wait_to_open(keys);
        self.ask_openings();
    }

    /// No worker answers: who has a record opens by that, the others wait.
    pub(super) fn openings_failed(&mut self, size: OpeningSize, keys: Vec<SessionKey>) {
        self.openings.answered(size);
        for key in &keys {
            self.open_without_workers(*key);
        }
        self.effects.push(Effect::Later(AGAIN, Retry::Open(keys)));
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
        let Some(asking) = &mut session.opening else {
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
        session.epoch = self.epoch;
        session.opened = self.clock;
        if let Some(asking) = session.opening.take() {
            self.enter_all(key, *asking);
        }
    }

    /// Enters the memberships of a session that opens, and says that it is open.
    fn enter_all(&mut self, key: SessionKey, asking: Asking) {
        let Asking {
            start,
            memberships,
            ended,
            noted,
            ..
        } = asking;
        let heads: FxHashMap<_, _> = memberships
            .iter()
            .filter(|m| m.left.is_none())
            .map(|m| (m.conversation, m.head))
            .collect();
        let (over, owed) = owed(&start, memberships, ended);
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        session.note_ended(&over);
        let account = Arc::clone(&session.account);
        let Missed {
            begins,
            truncated,
            kept,
            replayed,
        } = self.missed(&start, owed);
        self.replays.truncated += u64::try_from(truncated.len()).unwrap_or(u64::MAX);
        if let Some(session) = self.sessions.get_mut(&key) {
            session.kept = kept;
            session.conversations.expect(begins.len());
        }
        for (membership, begin) in begins {
            self.enter(key, membership, begin);
            if membership.left.is_none() {
                self.count(&membership);
            }
        }
        let is_unknown = |(id, seq): &(ConversationId, Seq)| {
            heads.get(id).is_none_or(|head| head < seq) && !self.knows(key, *id, *seq)
        };
        let unknown = noted.into_iter().filter(is_unknown);
        let of = unknown
            .map(|(id, seq)| confirmation(&account, id, seq))
            .collect();
        self.confirm(of);
        let opened = Opened {
            heads: heads.into_iter().collect(),
            truncated,
            replayed,
        };
        self.effects.push(Effect::Opened(key, opened));
    }
}

/// What a session that opens is owed nothing of, and what it is, each from behind a seq, in the order of conversation and
/// joining.
fn owed(
    start: &Start,
    mut memberships: Vec<Membership>,
    ended: Vec<Membership>,
) -> (Vec<Membership>, Vec<(Membership, Seq)>) {
    let held = start.held();
    let Behind { over, later } = end_told(&mut memberships, ended);
    let from = |m: &Membership, otherwise: Option<Seq>| match held.get(&m.conversation) {
        Some(position) if m.left.is_some_and(|left| left <= *position) => None,
        Some(position) => Some((*position).max(m.joined - 1)),
        None if start.resumed => Some(m.joined - 1),
        None => otherwise,
    };
    let mut owed = Vec::new();
    let mut nothing = Vec::new();
    let mut sort = |m: Membership, otherwise| match from(&m, otherwise) {
        Some(cursor) => owed.push((m, cursor)),
        None => nothing.push(m),
    };
    for m in memberships {
        // One that ended behind the page that told it is owed its end.
        sort(m, Some(m.head));
    }
    for m in later {
        sort(m, Some(m.joined - 1));
    }
    for m in over {
        sort(m, None);
    }
    owed.sort_unstable_by_key(|(m, _)| (m.conversation, m.joined));
    (nothing, owed)
}

/// What ended while a session's memberships were read page by page.
#[derive(Default)]
struct Behind {
    /// What was over before: it is not owed.
    over: Vec<Membership>,
    /// What began behind one that was told as present.
    later: Vec<Membership>,
}

/// A membership that ended behind the page that told it as present is owed its end, and so are those between that and the
/// last page. Pages come in the order of conversation and joining.
fn end_told(memberships: &mut [Membership], ended: Vec<Membership>) -> Behind {
    let place = |m: &Membership| (m.conversation, m.joined);
    let mut behind = Behind::default();
    for one in ended {
        match memberships.binary_search_by_key(&place(&one), place) {
            Ok(at) => {
                if let Some(told) = memberships.get_mut(at) {
                    told.left = one.left;
                }
            }
            Err(at) => {
                let before = at.checked_sub(1).and_then(|before| memberships.get(before));
                if before.is_some_and(|told| told.conversation == one.conversation) {
                    behind.later.push(one);
                } else {
                    behind.over.push(one);
                }
            }
        }
    }
    behind.later.sort_unstable_by_key(place);
    behind
}
