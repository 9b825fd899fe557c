//! Snapshots of presence for sessions that want one: those that wait together ask all gateways once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use confab_bus::{GatewayId, PresenceAnswers};
use confab_protocol::frame::{PresenceSignal, PresenceSnapshot, ServerFrame};
use confab_protocol::ids::{ConversationId, TenantId, UserId};
use confab_protocol::limits;
use confab_protocol::signal::{PresenceQuestion, PresenceStatus};
use futures_util::future::join_all;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::task::{JoinError, JoinSet};
use tracing::warn;

use super::Input;
use super::presence::PresenceLoop;
use crate::hub::Account;
use crate::presence::PresenceDirectory;
use crate::ws::outbox::Outbox;

/// Questions to all gateways at once.
const MAX_ASKING: usize = 2;
/// Sessions that share one.
const MAX_SHARING: usize = 32;
/// Conversations that one names: some 18 bytes each.
const MAX_CONVERSATIONS: usize = 10_000;

/// The sessions that wait for a snapshot.
#[derive(Debug)]
pub(super) struct Snapshots {
    directory: PresenceDirectory,
    waiting: VecDeque<Waiting>,
    asking: JoinSet<Asked>,
}

#[derive(Debug)]
struct Waiting {
    account: Arc<Account>,
    outbox: Arc<Outbox>,
}

/// A session that waits, with those of its user's conversations that carry signals.
#[derive(Debug)]
struct Member {
    waiting: Waiting,
    conversations: FxHashSet<ConversationId>,
    /// Whether these are all of them.
    is_whole: bool,
}

/// What all gateways answered, and for whom; none where they could not be asked.
#[derive(Debug)]
pub(super) struct Asked {
    members: Vec<Member>,
    answers: Option<PresenceAnswers>,
}

impl Snapshots {
    pub(super) fn new(directory: PresenceDirectory) -> Self {
        Self {
            directory,
            waiting: VecDeque::new(),
            asking: JoinSet::new(),
        }
    }

    pub(super) fn wait(&mut self, account: Arc<Account>, outbox: Arc<Outbox>) {
        self.waiting.push_back(Waiting { account, outbox });
    }

    /// Whether the next question may be asked.
    pub(super) fn may_ask(&self) -> bool {
        !self.waiting.is_empty() && self.asking.len() < MAX_ASKING
    }

    /// The answers to a question; none comes while none is asked. Cancel-safe.
    pub(super) async fn answered(&mut self) -> Option<Result<Asked, JoinError>> {
        self.asking.join_next().await
    }

    /// The first that wait, of one tenant.
    fn next(&mut self) -> Option<(TenantId, Vec<Waiting>)> {
        let tenant = self.waiting.front()?.account.tenant.clone();
        let (mut next, mut others) = (Vec::new(), VecDeque::new());
        while next.len() < MAX_SHARING
            && let Some(waiting) = self.waiting.pop_front()
        {
            if waiting.account.tenant == tenant {
                next.push(waiting);
            } else {
                others.push_back(waiting);
            }
        }
        others.append(&mut self.waiting);
        self.waiting = others;
        Some((tenant, next))
    }
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
        let asked = next.iter().map(|waiting| {
            let account = &waiting.account;
            self.ask(|answer| Input::CarryingOf(Arc::clone(account), answer))
        });
        let carrying = join_all(asked).await;
        let (mut members, mut later) = (Vec::new(), Vec::new());
        let mut conversations = FxHashSet::default();
        for (waiting, (ids, is_known)) in next.into_iter().zip(carrying) {
            if !conversations.is_empty() && conversations.len() + ids.len() > MAX_CONVERSATIONS {
                later.push(waiting);
                continue;
            }
            let is_whole = is_known && ids.len() <= MAX_CONVERSATIONS;
            let own: FxHashSet<_> = ids.into_iter().take(MAX_CONVERSATIONS).collect();
            conversations.extend(&own);
            members.push(Member {
                waiting,
                conversations: own,
                is_whole,
            });
        }
        for waiting in later.into_iter().rev() {
            self.snapshots.waiting.push_front(waiting);
        }
        let question = PresenceQuestion {
            users: Vec::new(),
            conversations: conversations.into_iter().collect(),
        };
        self.presences.asks();
        let directory = self.snapshots.directory.clone();
        self.snapshots.asking.spawn(async move {
            let answers = directory.ask(&tenant, &question).await.ok();
            Asked { members, answers }
        });
    }

    /// Tells those who waited what all gateways answered.
    pub(super) fn tell_snapshots(&mut self, asked: Result<Asked, JoinError>) {
        match asked {
            Ok(Asked { members, answers }) => self.tell_members(members, answers),
            Err(error) => warn!(%error, "a question about presence died"),
        }
        self.presences.answered();
    }

    fn tell_members(&mut self, members: Vec<Member>, answers: Option<PresenceAnswers>) {
        let is_whole = answers
            .as_ref()
            .is_some_and(|told| told.is_whole && told.answers.iter().all(|answer| answer.is_whole));
        let asked: FxHashSet<_> = members.iter().flat_map(|one| &one.conversations).collect();
        let now = Instant::now();
        let mut users: FxHashMap<ConversationId, Vec<(Account, PresenceStatus)>> =
            FxHashMap::default();
        for answer in answers.into_iter().flat_map(|told| told.answers) {
            let gateway = GatewayId(answer.gateway);
            for word in answer.words {
                let carries = |id| asked.contains(&id).then_some(true);
                let heard = &mut self.presences;
                if !heard.heard_answer(gateway, answer.number, &word, now, carries) {
                    continue;
                }
                let account = Account {
                    tenant: word.tenant,
                    user: word.user,
                };
                for id in word.conversations {
                    let here = users.entry(id).or_default();
                    here.push((account.clone(), word.status));
                }
            }
        }
        for member in &members {
            let mut snapshot = self.snapshot(member, &users);
            snapshot.complete &= is_whole;
            let frame = ServerFrame::PresenceSnapshot(snapshot);
            member.waiting.outbox.tell(&frame);
        }
    }

    fn snapshot(
        &self,
        member: &Member,
        users: &FxHashMap<ConversationId, Vec<(Account, PresenceStatus)>>,
    ) -> PresenceSnapshot {
        let own = &member.waiting.account;
        let mut told: BTreeMap<UserId, PresenceStatus> = BTreeMap::new();
        let shared = member.conversations.iter();
        for (account, answered) in shared.filter_map(|id| users.get(id)).flatten() {
            // What was heard since counts more.
            let status = self.presences.status_of(account).unwrap_or(*answered);
            let said = told.entry(account.user.clone()).or_insert(status);
            *said = status.max(*said);
        }
        for (account, status) in self.presences.lingering_in(&member.conversations) {
            told.entry(account.user.clone()).or_insert(status);
        }
        told.remove(&own.user);
        let is_whole = member.is_whole && told.len() <= limits::PRESENCE_SNAPSHOT_USERS;
        let users = told.into_iter().take(limits::PRESENCE_SNAPSHOT_USERS);
        PresenceSnapshot {
            users: users
                .map(|(user_id, status)| PresenceSignal { user_id, status })
                .collect(),
            complete: is_whole,
        }
    }
}
