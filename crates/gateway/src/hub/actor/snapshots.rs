//! Snapshots of presence for sessions that want one: those that wait together ask all gateways once.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use confab_bus::{GatewayId, PresenceAnswers};
use confab_protocol::chain::chain;
use confab_protocol::fair::{FairQueue, Slots};
use confab_protocol::frame::{PresenceSignal, PresenceSnapshot, ServerFrame};
use confab_protocol::ids::{ConversationId, Seq, TenantId, UserId};
use confab_protocol::limits;
use confab_protocol::signal::{MemberOf, PresenceQuestion, PresenceStatus};
use futures_util::future::join_all;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::task::{JoinError, JoinSet};
use tracing::warn;

use super::presence::PresenceLoop;
use crate::account::Account;
use crate::cluster::presence::PresenceDirectory;
use crate::delivery::send_queue::SendQueue;
use crate::hub::{SignalMembership, known_up_to};

/// Questions to all gateways at once.
const MAX_ASKING: usize = 2;
/// Sessions that share one.
const MAX_SHARING: usize = 32;
/// Sessions that wait, half of them of one tenant, and so many of one user.
const MAX_WAITING: usize = 8192;
const MAX_OF_USER: usize = 128;
/// What a session counts in its tenant's and its user's share: a turn.
const TURN_BYTES: usize = 16 * 1024;
/// Conversations of users who may come back that are looked at for one question.
const MAX_LINGERING: usize = 100_000;
/// Conversations that one names: some 18 bytes each.
const MAX_CONVERSATIONS: usize = 10_000;
/// How often it is asked, a period apart, before a snapshot lacks those whose gateways had not come to the session's joining yet.
const MAX_TRIES: u8 = 4;

/// The sessions that wait for a snapshot.
#[derive(Debug)]
pub(super) struct Snapshots {
    directory: PresenceDirectory,
    /// In turn by tenant and user.
    waiting: FairQueue<WaitingSession>,
    places: Slots,
    /// Those that are asked for once more with the next period, the last one first.
    again: Vec<WaitingSession>,
    asking: JoinSet<SnapshotAnswers>,
}

/// A session that waits. One that ended meanwhile leaves nothing to tell.
#[derive(Debug)]
pub(super) struct WaitingSession {
    pub(super) account: Arc<Account>,
    send_queue: Weak<SendQueue>,
    /// How often it was asked for.
    tries: u8,
}

/// A session that is asked for, with those of its user's conversations that carry signals.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) waiting: WaitingSession,
    /// With the seq by which it joined each: of those who were there before and not since it is not told.
    pub(super) conversations: FxHashMap<ConversationId, SignalMembership>,
    /// Whether these are all of them.
    pub(super) is_whole: bool,
}

/// What all gateways answered, and for whom; none where they could not be asked.
#[derive(Debug)]
pub(super) struct SnapshotAnswers {
    pub(super) members: Vec<Member>,
    pub(super) asked_at: Instant,
    pub(super) answers: Option<PresenceAnswers>,
}

/// A user in answers, up to where its gateway had heard the conversation's log.
#[derive(Debug)]
struct Named {
    account: Account,
    status: PresenceStatus,
    as_of: Seq,
}

impl Snapshots {
    pub(super) fn new(directory: PresenceDirectory) -> Self {
        Self {
            directory,
            waiting: FairQueue::default(),
            places: Slots::new(MAX_WAITING, MAX_WAITING / 2, MAX_OF_USER),
            again: Vec::new(),
            asking: JoinSet::new(),
        }
    }

    /// A session waits; one for which there is no place is told at once that nothing is known.
    pub(super) fn wait(&mut self, account: Arc<Account>, send_queue: &Arc<SendQueue>) {
        let owner = account.owner();
        if !self.places.allows(&owner.tenant, &owner.user) {
            tell_nothing(send_queue);
            return;
        }
        self.places.take(&owner);
        let send_queue = Arc::downgrade(send_queue);
        let waiting = WaitingSession {
            account,
            send_queue,
            tries: 0,
        };
        self.waiting.push(&owner, waiting);
    }

    /// Whether the next question may be asked.
    pub(super) fn may_ask(&self) -> bool {
        !self.waiting.is_empty() && self.asking.len() < MAX_ASKING
    }

    /// The answers to a question; none comes while none is asked. Cancel-safe.
    pub(super) async fn answered(&mut self) -> Option<Result<SnapshotAnswers, JoinError>> {
        self.asking.join_next().await
    }

    /// The next that wait, of the tenant whose turn it is: of each user one, and then another.
    pub(super) fn next(&mut self) -> Option<(TenantId, Vec<WaitingSession>)> {
        let (owner, first) = self.waiting.pop()?;
        let tenant = owner.tenant.clone();
        let mut next = Vec::new();
        let mut taken = Some((owner, first));
        while let Some((owner, waiting)) = taken.take() {
            self.waiting.charge(&owner, 1, TURN_BYTES);
            self.places.give_back(&owner);
            if waiting.send_queue.strong_count() > 0 {
                next.push(waiting);
            }
            if next.len() < MAX_SHARING {
                taken = self.waiting.pop_of(|of| *of == tenant, |_, _| true);
            }
        }
        Some((tenant, next))
    }

    /// Those who are to be asked for once more come first.
    pub(super) fn ask_again(&mut self) {
        for waiting in std::mem::take(&mut self.again) {
            self.wait_first(waiting);
        }
    }

    /// One that found no room among those that are asked for together comes first with the next question.
    fn wait_first(&mut self, waiting: WaitingSession) {
        let owner = waiting.account.owner();
        self.places.take(&owner);
        self.waiting.push_front(&owner, waiting);
    }
}

/// Tells a session that it is not known who is there.
pub(super) fn tell_nothing(send_queue: &SendQueue) {
    send_queue.tell(&ServerFrame::PresenceSnapshot(PresenceSnapshot {
        users: Vec::new(),
        complete: false,
    }));
}

impl PresenceLoop {
    /// Asks all gateways for some of the sessions that wait.
    pub(super) async fn ask_for_snapshots(&mut self) {
        if !self.snapshots.may_ask() {
            return;
        }
        let Some((tenant, next)) = self.snapshots.next() else {
            return;
        };
        let asked = next
            .iter()
            .map(|waiting| self.carrying_of(&waiting.account));
        let carrying = join_all(asked).await;
        let (mut members, mut later) = (Vec::new(), Vec::new());
        let mut conversations = FxHashSet::default();
        for (waiting, (carrying, is_known)) in next.into_iter().zip(carrying) {
            let ids = carrying.conversations;
            if !conversations.is_empty() && conversations.len() + ids.len() > MAX_CONVERSATIONS {
                later.push(waiting);
                continue;
            }
            let is_whole = is_known && carrying.are_counted && ids.len() <= MAX_CONVERSATIONS;
            let own = ids.into_iter().take(MAX_CONVERSATIONS);
            let own: FxHashMap<_, _> = own.collect();
            conversations.extend(own.keys());
            members.push(Member {
                waiting,
                conversations: own,
                is_whole,
            });
        }
        for waiting in later.into_iter().rev() {
            self.snapshots.wait_first(waiting);
        }
        if members.is_empty() {
            return;
        }
        let question = PresenceQuestion {
            users: Vec::new(),
            conversations: conversations.into_iter().collect(),
        };
        self.presences.asks();
        let asked_at = Instant::now();
        let directory = self.snapshots.directory.clone();
        self.snapshots.asking.spawn(async move {
            let answers = directory.ask(&tenant, &question).await.ok();
            SnapshotAnswers {
                members,
                asked_at,
                answers,
            }
        });
    }

    /// Tells those who waited what all gateways answered.
    pub(super) fn tell_snapshots(&mut self, asked: Result<SnapshotAnswers, JoinError>) {
        match asked {
            Ok(asked) => self.tell_members(asked),
            Err(error) => warn!(error = %chain(&error), "a question about presence died"),
        }
        self.presences.answered();
    }

    fn tell_members(&mut self, asked: SnapshotAnswers) {
        let SnapshotAnswers {
            members,
            asked_at,
            answers,
        } = asked;
        let is_whole = answers
            .as_ref()
            .is_some_and(|told| told.is_whole && told.answers.iter().all(|answer| answer.is_whole));
        let asked = members.iter().flat_map(|one| one.conversations.keys());
        let asked: FxHashSet<_> = asked.copied().collect();
        let now = Instant::now();
        let mut users: FxHashMap<ConversationId, Vec<Named>> = FxHashMap::default();
        let mut answered = FxHashSet::default();
        for answer in answers.into_iter().flat_map(|told| told.answers) {
            let gateway = GatewayId(answer.gateway);
            answered.insert(gateway);
            for word in answer.words {
                let carries = |id| asked.contains(&id).then_some(true);
                let heard = &mut self.presences;
                if !heard.heard_answer(gateway, answer.number, &word, now, carries) {
                    continue;
                }
                let account = Account {
                    tenant: word.tenant.clone(),
                    user: word.user.clone(),
                };
                for member_of in word.member_of() {
                    let Some(as_of) = self.presences.named_up_to(&account, member_of) else {
                        continue;
                    };
                    let (account, conversation) = (account.clone(), member_of.conversation);
                    let status = word.status;
                    let named = Named {
                        account,
                        status,
                        as_of,
                    };
                    users.entry(conversation).or_default().push(named);
                }
            }
            for word in answer.lingering {
                // The lingering are named below, these among them.
                let carries = |id| asked.contains(&id).then_some(true);
                self.presences.heard_lingering(&word, now, carries);
            }
        }
        let presences = &self.presences;
        let mut name = |member_of: MemberOf, account: &Account| {
            let Some(as_of) = presences.named_up_to(account, member_of) else {
                return;
            };
            let named = Named {
                account: account.clone(),
                // What stands of it is looked up.
                status: PresenceStatus::Offline,
                as_of,
            };
            users.entry(member_of.conversation).or_default().push(named);
        };
        let all_who_came = presences.came_to(&asked, asked_at, &mut name);
        let have_answered = presences.unanswered_in(&asked, &answered, MAX_LINGERING, &mut name);
        let all_lingering = presences.lingering_in(&asked, MAX_LINGERING, name);
        let all_answered = have_answered && !presences.lost_lately(now);
        let are_all = is_whole && all_answered && all_who_came && all_lingering;
        for mut member in members {
            let Some(send_queue) = member.waiting.send_queue.upgrade() else {
                continue;
            };
            let (mut snapshot, lacks) = self.snapshot(&member, &users);
            member.waiting.tries += 1;
            if lacks && member.waiting.tries < MAX_TRIES {
                self.snapshots.again.push(member.waiting);
                continue;
            }
            snapshot.complete &= are_all && !lacks;
            send_queue.tell(&ServerFrame::PresenceSnapshot(snapshot));
        }
    }

    /// What a session is told; and whether that lacks users of whom it is not known yet whether they were members when it was.
    fn snapshot(
        &self,
        member: &Member,
        users: &FxHashMap<ConversationId, Vec<Named>>,
    ) -> (PresenceSnapshot, bool) {
        let own = &member.waiting.account;
        let mut told: BTreeMap<UserId, PresenceStatus> = BTreeMap::new();
        let mut unsure = FxHashSet::default();
        let shared = member.conversations.iter();
        let shared = shared.filter_map(|(id, carrying)| Some((users.get(id)?, *carrying)));
        let shared = shared.flat_map(|(all, own)| all.iter().map(move |one| (one, own)));
        for (named, SignalMembership { joined, as_of }) in shared {
            let user = &named.account.user;
            if known_up_to(named.as_of, as_of) < joined {
                unsure.insert(user);
                continue;
            }
            // What was heard since counts more.
            let status = self
                .presences
                .status_of(&named.account)
                .unwrap_or(named.status);
            let said = told.entry(user.clone()).or_insert(status);
            *said = status.max(*said);
        }
        let lacks = unsure.iter().any(|user| !told.contains_key(*user));
        told.retain(|_, status| *status != PresenceStatus::Offline);
        told.remove(&own.user);
        let is_whole = member.is_whole && told.len() <= limits::PRESENCE_SNAPSHOT_USERS;
        let users = told.into_iter().take(limits::PRESENCE_SNAPSHOT_USERS);
        let snapshot = PresenceSnapshot {
            users: users
                .map(|(user_id, status)| PresenceSignal { user_id, status })
                .collect(),
            complete: is_whole,
        };
        (snapshot, lacks)
    }
}
