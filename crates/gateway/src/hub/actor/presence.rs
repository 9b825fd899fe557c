//! Presence's loop: what sessions and other gateways say of users, what this gateway says, and who is told. It owns no conversation:
//! shards are asked which carry signals, and tell their sessions.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use confab_bus::{GatewayId, Reply};
use confab_protocol::ids::{ConversationId, TenantId};
use confab_protocol::signal::{PresenceAnswer, PresenceNews, PresenceQuestion, Signal};
use futures_util::future::join_all;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::queries::{CarryingOf, CarryingQuery, HostingQuery, MembersQuery};
use super::session_news::{SessionChange, SessionChanges};
use super::shard::tell;
use super::snapshots::Snapshots;
use super::telling::{PresenceChanges, WantedConversations};
use super::to_shards::ShardSenders;
use super::{INBOX_CAPACITY, Peers, PresenceInput, ShardInput, TICK_PERIOD};
use crate::account::Account;
use crate::cluster::presence::{Answer, PresenceUpdates, Presences, UpdateKind};
use crate::cluster::signals::{FromGateways, Outbound};
use crate::hub::{NewMembers, PresenceChange};

/// Users whose conversations are asked for at once.
const SAY_USERS: usize = 64;
/// Conversations whose members' presence is repeated in one turn.
/// With as many members each as carry signals, they fit one answer of a shard.
const ASKED_FOR: usize = 100;
/// Changes that are told in one turn.
const MAX_TURN_CHANGES: usize = 16;
/// How long a shard is waited for: one that is late is left out.
pub(super) const SHARD_TIMEOUT: Duration = Duration::from_secs(1);

/// Presence's loop.
pub(crate) struct PresenceLoop {
    pub(super) presences: Presences,
    /// What the coordinator says of sessions: it never waits for presence.
    pub(super) sessions: Arc<SessionChanges>,
    pub(super) inputs: mpsc::Receiver<PresenceInput>,
    pub(super) said: mpsc::Receiver<FromGateways>,
    pub(super) shards: ShardSenders,
    pub(super) own: GatewayId,
    pub(super) signals: Outbound,
    /// Conversations whose members' presence the other gateways are to repeat.
    pub(super) wanted: Vec<(TenantId, ConversationId)>,
    /// Shards of whose conversations that is still to be found out, and behind which one.
    pub(super) unwanted: VecDeque<(usize, Option<ConversationId>)>,
    /// Conversations of which other gateways want the presence of members here.
    pub(super) asked_for: WantedConversations,
    /// News for the others for which there was no room yet: nothing else is said before.
    pub(super) unsent: VecDeque<(TenantId, PresenceNews)>,
    pub(super) tellings: PresenceChanges,
    pub(super) snapshots: Snapshots,
    /// Grows with every message about presence to the others.
    pub(super) number: u64,
}

impl PresenceLoop {
    /// Nobody is there yet.
    pub(super) fn new(
        peers: Peers,
        (sessions, inputs): (Arc<SessionChanges>, mpsc::Receiver<PresenceInput>),
        shards: ShardSenders,
    ) -> Self {
        let Peers {
            own,
            signals,
            said,
            directory,
            grace,
        } = peers;
        Self {
            presences: Presences::new(own, grace),
            sessions,
            inputs,
            said,
            shards,
            own,
            signals,
            wanted: Vec::new(),
            unwanted: VecDeque::new(),
            asked_for: WantedConversations::default(),
            unsent: VecDeque::new(),
            tellings: PresenceChanges::default(),
            snapshots: Snapshots::new(directory),
            number: 0,
        }
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(Box::pin(self.keep())).await;
    }

    async fn keep(&mut self) {
        let mut period = interval(TICK_PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = false;
        loop {
            tokio::select! {
                biased;
                () = self.sessions.come() => {}
                Some(said) = self.inputs.recv() => self.hear_behind_sessions(said),
                _ = period.tick() => due = true,
                Some(said) = self.said.recv() => self.hear_gateway(said).await,
                Some(asked) = self.snapshots.answered() => self.tell_snapshots(asked),
                () = yield_now(), if self.has_work() => {}
            }
            // What shards are asked for may take as long as they are busy: first all is heard that is there.
            self.hear_sessions();
            while let Ok(said) = self.inputs.try_recv() {
                self.hear_behind_sessions(said);
            }
            if std::mem::take(&mut due) {
                self.begin().await;
            }
            self.turn().await;
        }
    }

    /// Hears what a session or a shard says, behind all that is known of sessions that opened before.
    fn hear_behind_sessions(&mut self, said: PresenceInput) {
        self.hear_sessions();
        self.hear(said);
    }

    /// Hears what the coordinator says of sessions.
    fn hear_sessions(&mut self) {
        for (key, said) in self.sessions.take() {
            match said {
                SessionChange::Opened(account, status) => {
                    self.presences.opened_with(key, &account, status);
                }
                SessionChange::Closed => self.presences.closed(key),
            }
        }
    }

    fn hear(&mut self, said: PresenceInput) {
        match said {
            PresenceInput::Set(key, status, done) => {
                self.presences.set(key, status);
                tell(done, ());
            }
            PresenceInput::Snapshot(account, send_queue) => {
                self.snapshots.wait(account, &send_queue);
            }
            PresenceInput::UserArrival(come) => self.hear_of(come),
        }
    }

    fn hear_of(&mut self, come: NewMembers) {
        let NewMembers {
            hosted,
            joined,
            counted,
            left,
            is_cut,
        } = come;
        for (tenant, id, unheard) in hosted {
            self.presences.hosts(id, unheard);
            self.wanted.push((tenant, id));
        }
        for (account, id) in joined {
            self.presences.joined(&account, id);
        }
        for (account, id, seq) in left {
            self.presences.left(account, id, seq);
        }
        for account in counted {
            self.presences.counted(&account);
        }
        if is_cut {
            self.presences.hosts_many();
            self.presences.repeat_all();
        }
        if is_cut || self.wants_too_many() {
            self.want_all();
        }
    }

    async fn hear_gateway(&mut self, said: FromGateways) {
        match said {
            FromGateways::Signal(signal) => self.pass_on(signal),
            FromGateways::Presence(news) => self.hear_news(&news).await,
            FromGateways::Asked(tenant, question, reply) => {
                self.answer(&tenant, question, reply).await;
            }
            FromGateways::Alive(alive) => {
                if self.presences.alive(&alive, Instant::now()) {
                    self.want_all();
                }
            }
            FromGateways::Missed => self.want_all(),
            FromGateways::Back => {
                self.presences.repeat_all();
                self.want_all();
            }
        }
    }

    /// Hands a signal to its conversation's shard; one that has too much to do hears fewer of them.
    fn pass_on(&self, signal: Signal) {
        let Some(shard) = self.shards.of(signal.conversation) else {
            return;
        };
        // Half of the room is for what sessions wait for.
        let has_room = shard.capacity() > INBOX_CAPACITY / 2;
        match shard.try_reserve() {
            Ok(place) if has_room => place.send(ShardInput::Signal(signal)),
            _ => self.signals.dropped(&signal),
        }
    }

    async fn hear_news(&mut self, news: &PresenceNews) {
        let gateway = GatewayId(news.gateway);
        if gateway == self.own {
            return;
        }
        let words = || {
            (news.changes.iter())
                .chain(&news.repeats)
                .chain(&news.unheard)
        };
        let named = words().flat_map(|word| &word.conversations);
        let accounts: Vec<_> = words()
            .map(|word| Account {
                tenant: word.tenant.clone(),
                user: word.user.clone(),
            })
            .collect();
        // Those in which changes were told before may have grown too large since.
        let told_in: Vec<_> = self.presences.told_in(accounts.iter()).collect();
        let ids: FxHashSet<_> = named.chain(&news.wanted).copied().chain(told_in).collect();
        let (here, _) = self.hosting(ids.into_iter()).await;
        let now = Instant::now();
        let lists = [
            (&news.changes, UpdateKind::Change),
            (&news.repeats, UpdateKind::Repeat),
            (&news.unheard, UpdateKind::Unheard),
        ];
        for (words, word) in lists {
            for presence in words {
                let from = (gateway, news.number);
                self.presences
                    .heard(from, presence, word, now, |id| here.get(&id).copied());
            }
        }
        let wanted = news.wanted.iter();
        let wanted = wanted.filter(|id| here.get(id) == Some(&true));
        self.asked_for.extend(wanted.copied());
    }

    /// Answers what a gateway asked: all that is said of presence from now on has a higher number.
    async fn answer(&mut self, tenant: &TenantId, question: PresenceQuestion, reply: Reply) {
        let PresenceQuestion {
            users,
            conversations,
        } = question;
        let mut is_known = true;
        let mut members = Vec::new();
        let asked = conversations.iter().copied().collect();
        if !conversations.is_empty() {
            let parts: Vec<Vec<_>> = self.shards.shards.split(conversations, |id| *id);
            let ask = |ids, answer| {
                let tenant = Some(tenant.clone());
                ShardInput::MembersHere(MembersQuery::new(tenant, ids, answer))
            };
            let told = self.shards.ask_in_time(parts, SHARD_TIMEOUT, ask).await;
            is_known = told.len() == self.shards.shards.count()
                && !told.iter().any(|told| told.are_unsure);
            members.extend(told.into_iter().flat_map(|told| told.members));
        }
        self.hear_sessions();
        let answer = self.presences.answer(tenant, users, &asked, members);
        let Answer {
            words,
            lingering,
            is_whole,
        } = answer;
        self.number += 1;
        let answer = PresenceAnswer {
            gateway: self.own.0,
            number: self.number,
            words,
            lingering,
            is_whole: is_whole && is_known,
        };
        self.signals.answer(reply, answer);
    }

    /// Those of the conversations that have members here, with whether they carry signals; and whether every shard said so.
    pub(super) async fn hosting(
        &self,
        ids: impl Iterator<Item = ConversationId>,
    ) -> (FxHashMap<ConversationId, bool>, bool) {
        let parts: Vec<Vec<_>> = self.shards.shards.split(ids, |id| *id);
        let ask = |ids, answer| ShardInput::Hosting(HostingQuery::new(ids, answer));
        let here = self.shards.ask_in_time(parts, SHARD_TIMEOUT, ask).await;
        let is_whole = here.len() == self.shards.shards.count();
        (here.into_iter().flatten().collect(), is_whole)
    }

    /// Those of a user's conversations that carry signals, of the shards that are not late; and whether none is.
    pub(super) async fn carrying_of(&self, account: &Arc<Account>) -> (CarryingOf, bool) {
        let parts = std::iter::repeat(());
        let ask =
            |(), answer| ShardInput::CarryingOf(CarryingQuery::new(Arc::clone(account), answer));
        let answers = self.shards.ask_in_time(parts, SHARD_TIMEOUT, ask).await;
        let is_whole = answers.len() == self.shards.shards.count();
        let are_counted = answers.iter().all(|answer| answer.are_counted);
        let conversations = answers.into_iter().flat_map(|answer| answer.conversations);
        let carrying = CarryingOf {
            conversations: conversations.collect(),
            are_counted,
        };
        (carrying, is_whole)
    }

    /// Begins to say and tell what is to be said and told.
    async fn begin(&mut self) {
        self.snapshots.ask_again();
        self.send();
        if self.unsent.is_empty() {
            self.say().await;
        }
        let ids = self.presences.to_sweep();
        if ids.is_empty() {
            self.presences.sweep(Instant::now(), |_| false);
        } else if let (here, true) = self.hosting(ids.into_iter()).await {
            let is_here = |id| here.contains_key(&id);
            self.presences.sweep(Instant::now(), is_here);
        }
    }

    /// Whether presence is being said or told. What has no room waits for the next period.
    fn has_work(&self) -> bool {
        let may_say = self.unsent.is_empty();
        !self.tellings.is_empty()
            || !self.asked_for.is_empty()
            || (may_say && (self.presences.is_saying() || self.wants_more() || self.wants_many()))
            || self.snapshots.may_ask()
    }

    /// Says and tells some more of what is to be said and told.
    async fn turn(&mut self) {
        self.repeat_asked_for().await;
        self.ask_for_snapshots().await;
        self.want_more().await;
        if !self.unsent.is_empty() {
            // It is sent with the next period.
        } else if self.presences.is_saying() {
            self.say().await;
        } else if self.wants_many() {
            self.publish(PresenceUpdates::default()).await;
        }
        let next = std::iter::from_fn(|| self.tellings.pop());
        let next: Vec<_> = next.take(MAX_TURN_CHANGES).collect();
        let told = next.into_iter().map(|telling| self.tell_on(telling));
        for telling in join_all(told).await.into_iter().flatten() {
            self.tellings.push_back(telling);
        }
    }

    /// Tells a change in the next shard; one that does not answer in time keeps it.
    async fn tell_on(&self, telling: Box<PresenceChange>) -> Option<Box<PresenceChange>> {
        let at = telling.next_shard()?;
        let (done, told) = oneshot::channel();
        let shard = self.shards.at(at)?;
        let tell = async {
            shard.send(ShardInput::Tell(telling, done)).await.ok()?;
            told.await.ok()
        };
        timeout(SHARD_TIMEOUT, tell).await.ok().flatten()
    }

    async fn repeat_asked_for(&mut self) {
        let next = std::iter::from_fn(|| self.asked_for.pop());
        let ids: Vec<_> = next.take(ASKED_FOR).collect();
        if ids.is_empty() {
            return;
        }
        let parts: Vec<Vec<_>> = self.shards.shards.split(ids, |id| *id);
        let ask = |ids, answer| ShardInput::MembersHere(MembersQuery::new(None, ids, answer));
        let told = self.shards.ask_in_time(parts, SHARD_TIMEOUT, ask).await;
        let members = told.into_iter().flat_map(|told| told.members);
        let accounts: FxHashSet<_> = members.map(|(account, _)| account).collect();
        for account in accounts {
            self.presences.repeat(&account);
        }
    }

    async fn say(&mut self) {
        let now = Instant::now();
        let of = self.presences.to_say(now, SAY_USERS);
        let asked = of.iter().map(|account| self.carrying_of(account));
        let answers = join_all(asked).await.into_iter();
        // Nothing is said of a user while a shard is late: its members there would not hear of it.
        let whole = answers.map(|(carrying, is_whole)| is_whole.then(|| carrying.member_of()));
        let known = of.iter().map(AsRef::as_ref).zip(whole);
        let conversations: FxHashMap<&Account, _> = known
            .filter_map(|(account, ids)| Some((account, ids?)))
            .collect();
        let told_in: Vec<_> = self
            .presences
            .told_in(of.iter().map(AsRef::as_ref))
            .collect();
        let (here, _) = self.hosting(told_in.into_iter()).await;
        let said = self.presences.say(
            now,
            |account| conversations.get(account).cloned(),
            |id| here.contains_key(&id),
        );
        self.publish(said).await;
        for presence in self.presences.told(now) {
            self.tellings.push(presence, self.shards.shards);
        }
    }
}
