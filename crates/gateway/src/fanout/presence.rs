//! Presence's loop: what sessions and other gateways say of users, what this gateway says, and who is told. It owns no conversation:
//! shards are asked which carry signals, and tell their sessions.

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

use super::news::news;
use super::shard::tell;
use super::snapshots::Snapshots;
use super::telling::{AskedFor, Tellings};
use super::to_shards::ToShards;
use super::{ForPresence, INBOX, Input, Neighbours, PERIOD};
use crate::hub::{Account, Telling};
use crate::presence::{Presences, Said, Word};
use crate::signals::{FromGateways, Outbound};

/// Users whose conversations are asked for at once.
const SAY_USERS: usize = 64;
/// Conversations whose members' presence is repeated in one turn.
const ASKED_FOR: usize = 256;
/// Changes that are told in one turn.
const TELLINGS: usize = 16;
/// How long a shard is waited for: one that is late is left out.
const PATIENCE: Duration = Duration::from_secs(1);

/// Presence's loop.
pub(crate) struct PresenceLoop {
    pub(super) presences: Presences,
    /// What the coordinator says of sessions: it never waits for presence.
    pub(super) sessions: mpsc::UnboundedReceiver<ForPresence>,
    pub(super) inputs: mpsc::Receiver<ForPresence>,
    pub(super) said: mpsc::Receiver<FromGateways>,
    pub(super) shards: ToShards,
    pub(super) own: GatewayId,
    pub(super) signals: Outbound,
    /// Conversations whose members' presence the other gateways are to repeat.
    pub(super) wanted: Vec<(TenantId, ConversationId)>,
    /// Conversations of which other gateways want the presence of members here.
    pub(super) asked_for: AskedFor,
    pub(super) tellings: Tellings,
    pub(super) snapshots: Snapshots,
    /// Grows with every message about presence to the others.
    pub(super) number: u64,
}

impl PresenceLoop {
    /// Nobody is there yet. The first of the receivers has what the coordinator says of sessions.
    pub(super) fn new(
        neighbours: Neighbours,
        (sessions, inputs): (
            mpsc::UnboundedReceiver<ForPresence>,
            mpsc::Receiver<ForPresence>,
        ),
        shards: ToShards,
    ) -> Self {
        let Neighbours {
            own,
            signals,
            said,
            directory,
            grace,
        } = neighbours;
        Self {
            presences: Presences::new(own, grace),
            sessions,
            inputs,
            said,
            shards,
            own,
            signals,
            wanted: Vec::new(),
            asked_for: AskedFor::default(),
            tellings: Tellings::default(),
            snapshots: Snapshots::new(directory),
            number: 0,
        }
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(Box::pin(self.keep())).await;
    }

    async fn keep(&mut self) {
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = false;
        loop {
            tokio::select! {
                biased;
                Some(said) = self.sessions.recv() => self.hear(said),
                Some(said) = self.inputs.recv() => self.hear_behind_sessions(said),
                _ = period.tick() => due = true,
                Some(said) = self.said.recv() => self.hear_gateway(said).await,
                Some(asked) = self.snapshots.answered() => self.tell_snapshots(asked),
                () = yield_now(), if self.has_work() => {}
            }
            // What shards are asked for may take as long as they are busy: first all is heard that is there.
            while let Ok(said) = self.sessions.try_recv() {
                self.hear(said);
            }
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
    fn hear_behind_sessions(&mut self, said: ForPresence) {
        while let Ok(before) = self.sessions.try_recv() {
            self.hear(before);
        }
        self.hear(said);
    }

    fn hear(&mut self, said: ForPresence) {
        match said {
            ForPresence::Opened(key, account, status) => {
                self.presences.opened_with(key, &account, status);
            }
            ForPresence::Closed(key) => self.presences.closed(key),
            ForPresence::Set(key, status, done) => {
                self.presences.set(key, status);
                tell(done, ());
            }
            ForPresence::Snapshot(account, outbox) => self.snapshots.wait(account, outbox),
            ForPresence::Came { hosted, joined } => {
                self.wanted.extend(hosted);
                for (account, id) in joined {
                    self.presences.joined(&account, id);
                }
            }
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
                    self.want_all().await;
                }
            }
            FromGateways::Back => {
                self.presences.repeat_all();
                self.want_all().await;
            }
        }
    }

    /// Hands a signal to its conversation's shard; one that has too much to do hears fewer of them.
    fn pass_on(&self, signal: Signal) {
        let Some(shard) = self.shards.of(signal.conversation) else {
            return;
        };
        // Half of the room is for what sessions wait for.
        let has_room = shard.capacity() > INBOX / 2;
        match shard.try_reserve() {
            Ok(place) if has_room => place.send(Input::Signal(signal)),
            _ => self.signals.dropped(&signal),
        }
    }

    async fn hear_news(&mut self, news: &PresenceNews) {
        let gateway = GatewayId(news.gateway);
        if gateway == self.own {
            return;
        }
        let words = || news.changes.iter().chain(&news.repeats);
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
        for (words, word) in [(&news.changes, Word::Change), (&news.repeats, Word::Repeat)] {
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
        if !conversations.is_empty() {
            let parts: Vec<Vec<_>> = self.shards.shards.split(conversations, |id| *id);
            let asked = self.shards.ask_in_time(parts, PATIENCE, Input::MembersHere);
            let told = asked.await;
            is_known = told.len() == self.shards.shards.count();
            members.extend(told.into_iter().flatten());
        }
        let (words, is_whole) = self.presences.answer(tenant, users, members);
        self.number += 1;
        let answer = PresenceAnswer {
            gateway: self.own.0,
            number: self.number,
            words,
            is_whole: is_whole && is_known,
        };
        self.signals.answer(reply, answer);
    }

    /// Those of the conversations that have members here, with whether they carry signals; and whether every shard said so.
    async fn hosting(
        &self,
        ids: impl Iterator<Item = ConversationId>,
    ) -> (FxHashMap<ConversationId, bool>, bool) {
        let parts: Vec<Vec<_>> = self.shards.shards.split(ids, |id| *id);
        let asked = self.shards.ask_in_time(parts, PATIENCE, Input::Hosting);
        let here = asked.await;
        let is_whole = here.len() == self.shards.shards.count();
        (here.into_iter().flatten().collect(), is_whole)
    }

    /// Asks every shard the same; gives the answers of those that are not late, and whether none is.
    pub(super) async fn ask<A>(
        &self,
        input: impl Fn(oneshot::Sender<Vec<A>>) -> Input,
    ) -> (Vec<A>, bool) {
        let parts = std::iter::repeat(());
        let ask = |(), answer| input(answer);
        let answers = self.shards.ask_in_time(parts, PATIENCE, ask).await;
        let is_whole = answers.len() == self.shards.shards.count();
        (answers.into_iter().flatten().collect(), is_whole)
    }

    /// This gateway may have missed what the others said of anyone.
    async fn want_all(&mut self) {
        let (all, _) = self.ask(Input::Hosted).await;
        self.wanted.extend(all);
    }

    /// Begins to say and tell what is to be said and told.
    async fn begin(&mut self) {
        self.say().await;
        let ids = self.presences.to_sweep();
        if ids.is_empty() {
            self.presences.sweep(|_| false);
        } else if let (here, true) = self.hosting(ids.into_iter()).await {
            self.presences.sweep(|id| here.contains_key(&id));
        }
    }

    /// Whether presence is being said or told.
    fn has_work(&self) -> bool {
        self.presences.is_saying()
            || !self.tellings.is_empty()
            || !self.asked_for.is_empty()
            || self.snapshots.may_ask()
    }

    /// Says and tells some more of what is to be said and told.
    async fn turn(&mut self) {
        self.repeat_asked_for().await;
        self.ask_for_snapshots().await;
        if self.presences.is_saying() {
            self.say().await;
        }
        let next = std::iter::from_fn(|| self.tellings.pop());
        let next: Vec<_> = next.take(TELLINGS).collect();
        let told = next.into_iter().map(|telling| self.tell_on(telling));
        for telling in join_all(told).await.into_iter().flatten() {
            self.tellings.push_back(telling);
        }
    }

    /// Tells a change in the next shard; one that does not answer in time keeps it.
    async fn tell_on(&self, telling: Box<Telling>) -> Option<Box<Telling>> {
        let at = telling.next_shard()?;
        let (done, told) = oneshot::channel();
        let shard = self.shards.at(at)?;
        let tell = async {
            shard.send(Input::Tell(telling, done)).await.ok()?;
            told.await.ok()
        };
        timeout(PATIENCE, tell).await.ok().flatten()
    }

    async fn repeat_asked_for(&mut self) {
        let next = std::iter::from_fn(|| self.asked_for.pop());
        let ids: Vec<_> = next.take(ASKED_FOR).collect();
        if ids.is_empty() {
            return;
        }
        let parts: Vec<Vec<_>> = self.shards.shards.split(ids, |id| *id);
        let asked = self.shards.ask_in_time(parts, PATIENCE, Input::MembersHere);
        let members = asked.await.into_iter().flatten();
        let accounts: FxHashSet<_> = members.map(|(account, _)| account).collect();
        for account in accounts {
            self.presences.repeat(&account);
        }
    }

    async fn say(&mut self) {
        let now = Instant::now();
        let of = self.presences.to_say(now, SAY_USERS);
        let asked = of.iter().map(|account| {
            let ask = |answer| Input::CarryingOf(Arc::clone(account), answer);
            self.ask(ask)
        });
        let answers = join_all(asked).await.into_iter();
        // Nothing is said of a user while a shard is late: its members there would not hear of it.
        let whole = answers.map(|(ids, is_whole)| is_whole.then_some(ids));
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
            |id| here.get(&id) == Some(&false),
        );
        self.publish(said).await;
        for presence in self.presences.told(now) {
            self.tellings.push(presence, self.shards.shards);
        }
    }

    async fn publish(&mut self, said: Said) {
        let wanted = std::mem::take(&mut self.wanted);
        let mut here = FxHashMap::default();
        if !wanted.is_empty() {
            (here, _) = self.hosting(wanted.iter().map(|(_, id)| *id)).await;
        }
        let wanted = wanted.into_iter();
        let wanted = wanted.filter(|(_, id)| here.get(id) == Some(&true));
        for (tenant, mut news) in news(self.own, said, wanted) {
            self.number += 1;
            news.number = self.number;
            self.signals.presence(tenant, news);
        }
    }
}
