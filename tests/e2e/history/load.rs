//! Many clients that send, reconnect and change each other's memberships until stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use confab_client::NewConversation;
use confab_protocol::ids::{ConversationId, UserId};
use confab_protocol::resource::ConversationType;
use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::actor::Actor;
use super::check;
use super::client::{Farewell, HistoryClient, Profile};
use super::ledger::Ledger;
use super::record::{Acts, ClientAccount, CommandOutcome, IssuedCommand, LogAction, now};
use crate::support::{Cluster, eventually, is_soak, soak};

/// How long after the last fault what is owed may take (docs/architecture.md, promise 4).
pub(crate) const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long after its end, also of its gateway, a user's presence may stand: five seconds, a grace period of one, and what a busy machine takes.
const PRESENCE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the test looks for what it needs to know.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait before looking again whether all has arrived.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How many, and what they are like.
#[derive(Debug, Clone)]
pub(crate) struct LoadShape {
    pub(crate) clients: usize,
    pub(crate) conversations: usize,
    /// Of the clients so many have a second device, which never says what it holds.
    pub(crate) silent: usize,
    /// Of the clients so many are on the library that resumes by itself, the others go by hand.
    pub(crate) library: usize,
    /// Milliseconds between two things that one client does, at most.
    pub(crate) pause: u64,
    pub(crate) seed: u64,
    /// Where they connect, when not at the gateways themselves.
    pub(crate) urls: Option<Vec<String>>,
    pub(crate) silence: Duration,
}

impl Default for LoadShape {
    fn default() -> Self {
        Self {
            clients: soak(50, 10),
            conversations: soak(20, 4),
            silent: soak(10, 3),
            library: soak(20, 4),
            pause: soak(300, 120) as u64,
            seed: rand::random(),
            urls: None,
            silence: Duration::from_secs(5),
        }
    }
}

/// A conversation, and who is believed to be in it.
pub(super) struct Chat {
    pub(super) id: ConversationId,
    pub(super) owner: UserId,
    pub(super) members: Mutex<BTreeSet<UserId>>,
}

/// A running load.
pub(crate) struct HistoryLoad {
    pub(crate) clients: Vec<Arc<HistoryClient>>,
    actors: JoinSet<Acts>,
    begun: Vec<IssuedCommand>,
    stop: watch::Sender<bool>,
    seed: u64,
}

impl HistoryLoad {
    pub(crate) async fn start(cluster: &Cluster, shape: LoadShape) -> Self {
        let gateways = cluster.gateways.len();
        let urls = shape.urls.clone();
        let urls = urls.unwrap_or_else(|| cluster.gateways.iter().map(|one| one.url()).collect());
        let profile = Profile {
            silence: shape.silence,
            ..Profile::usual(urls)
        };
        let users: Vec<_> = (0..shape.clients)
            .map(|number| cluster.user(&format!("user-{number}")))
            .collect();
        let mut clients: Vec<Arc<HistoryClient>> = Vec::new();
        for (number, user) in users.iter().enumerate() {
            let is_library = number >= users.len().saturating_sub(shape.library);
            clients.push(Arc::new(match is_library {
                true => HistoryClient::library(user, &profile, number, gateways).await,
                false => HistoryClient::start(user, profile.clone(), number, gateways),
            }));
        }
        for (number, user) in users.iter().enumerate().take(shape.silent) {
            let silent = Profile {
                says_seen: false,
                ..profile.clone()
            };
            let client = HistoryClient::start(user, silent, number + 1, gateways);
            clients.push(Arc::new(client));
        }
        let mut load = Self {
            clients,
            actors: JoinSet::new(),
            begun: Vec::new(),
            stop: watch::channel(false).0,
            seed: shape.seed,
        };
        load.connected().await;
        let mut chats = Vec::new();
        for number in 0..shape.conversations {
            let owner = &users[number % users.len()];
            let others = users.iter().map(|user| user.id.clone());
            let others: Vec<_> = others.skip(number % 2).step_by(2).collect();
            chats.push(load.begin(owner, others).await);
        }
        let chats: Arc<[Chat]> = chats.into();
        for (number, user) in users.iter().enumerate() {
            let actor = Actor {
                client: Arc::clone(&load.clients[number]),
                https: (0..gateways).map(|gateway| user.http(gateway)).collect(),
                everyone: users.iter().map(|user| user.id.clone()).collect(),
                chats: Arc::clone(&chats),
                rng: StdRng::seed_from_u64(shape.seed.wrapping_add(number as u64)),
                own: Vec::new(),
                done: Acts::default(),
                began: now(),
            };
            let stopped = load.stop.subscribe();
            load.actors.spawn(actor.run(shape.pause, stopped));
        }
        load
    }

    async fn begin(&mut self, owner: &crate::support::User, others: Vec<UserId>) -> Chat {
        let new = NewConversation {
            r#type: ConversationType::Group,
            participants: others.clone(),
            metadata: None,
        };
        let key = Uuid::now_v7().to_string();
        let began = now();
        let created = owner.http(0).create_conversation(&new, Some(&key)).await;
        let id = created.unwrap().answer.conversation.id;
        self.begun.push(IssuedCommand {
            conversation: id,
            actor: owner.id.clone(),
            action: LogAction::Create,
            outcome: CommandOutcome::Done(Some(1)),
            time: began..=now(),
        });
        let members = others.into_iter().chain([owner.id.clone()]);
        Chat {
            id,
            owner: owner.id.clone(),
            members: Mutex::new(members.collect()),
        }
    }

    /// Waits until every client had a welcome.
    async fn connected(&self) {
        eventually("everyone is connected", WAIT_TIMEOUT, async || {
            self.clients
                .iter()
                .all(|one| one.generations() > 0)
                .then_some(())
        })
        .await;
    }

    /// Waits until more events were heard by all clients together, `count` as a measure: a fault comes amid traffic.
    pub(crate) async fn goes_on(&self, count: usize) {
        let heard = || self.clients.iter().map(|one| one.heard()).sum::<usize>();
        let wanted = heard() + count * soak(10, 2);
        eventually("the load goes on", WAIT_TIMEOUT, async || {
            (heard() >= wanted).then_some(())
        })
        .await;
    }

    /// After a fault: waits until everyone has what it is owed of all that is stored by now.
    pub(crate) async fn arrives(&self, cluster: &Cluster) {
        self.arrives_within(cluster, ARRIVAL_TIMEOUT).await;
    }

    /// The same while a fault lasts, which gives no promise of how soon.
    pub(crate) async fn arrives_within(&self, cluster: &Cluster, deadline: Duration) {
        let ledger = read(cluster, false).await;
        self.arrived(cluster, ledger, Instant::now() + deadline)
            .await;
    }

    /// Gives what is stored by then.
    async fn arrived(&self, cluster: &Cluster, mut ledger: Ledger, until: Instant) -> Ledger {
        loop {
            let found = self.clients.iter();
            let found = found.flat_map(|client| check::told(&ledger, &client.account()));
            let found: Vec<_> = found.collect();
            if found.is_empty() {
                return ledger;
            }
            let may_be = |one: &check::Violation| one.is_late() || one.is_stranger();
            let is_over = Instant::now() >= until || !found.iter().all(may_be);
            assert!(!is_over, "{}", self.tell(&ledger, &found));
            tokio::time::sleep(POLL_INTERVAL).await;
            // Commands whose outcome is unknown may make them members behind what was read.
            if found.iter().any(check::Violation::is_stranger) {
                ledger = read(cluster, ledger.is_final).await;
            }
        }
    }

    /// Stops, compares everything with what is stored, and looks that who leaves is told to be gone.
    pub(crate) async fn ends(mut self, cluster: &Cluster) {
        let ledger = self.stops(cluster).await;
        self.settles(&ledger).await;
        let leavers = self.leavers().into_iter();
        for (client, farewell) in leavers.zip([Farewell::Bye, Farewell::None]) {
            client.leave(farewell).await;
        }
        self.settles(&ledger).await;
    }

    /// Clients by hand who are all that their users have.
    fn leavers(&self) -> Vec<Arc<HistoryClient>> {
        let is_only = |one: &&Arc<HistoryClient>| {
            let of_user = self.clients.iter().filter(|other| other.user == one.user);
            one.can_leave() && of_user.count() == 1
        };
        self.clients.iter().filter(is_only).cloned().collect()
    }

    /// Those at a gateway who may leave let their connections go; how many there are.
    pub(crate) async fn leave_from(&self, url: &str) -> usize {
        let here = self.leavers().into_iter();
        let here: Vec<_> = here.filter(|one| one.is_at(url)).collect();
        for client in &here {
            client.leave(Farewell::None).await;
        }
        here.len()
    }

    /// Waits until everyone was told what is so of everybody's presence.
    pub(crate) async fn settles(&self, ledger: &Ledger) {
        let until = Instant::now() + PRESENCE_TIMEOUT;
        loop {
            let found = {
                let accounts: Vec<_> = self.clients.iter().map(|one| one.account()).collect();
                let accounts: Vec<&ClientAccount> = accounts.iter().map(|one| &**one).collect();
                check::together(ledger, &accounts)
            };
            if found.is_empty() {
                return;
            }
            let is_over = Instant::now() >= until || !found.iter().all(check::Violation::is_late);
            // Late presence decides with full counts alone, until each fault was seen to leave none behind.
            if is_over && !is_soak() && found.iter().all(check::Violation::is_late) {
                eprintln!("{}", self.tell(ledger, &found));
                return;
            }
            assert!(!is_over, "{}", self.tell(ledger, &found));
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Stops, waits for what is on its way, and compares it with what is stored, which it gives.
    pub(crate) async fn stops(&mut self, cluster: &Cluster) -> Ledger {
        self.stop.send_replace(true);
        let mut commands = std::mem::take(&mut self.begun);
        let mut marks = Vec::new();
        let joined = async {
            while let Some(done) = self.actors.join_next().await {
                let done = done.unwrap();
                commands.extend(done.commands);
                marks.extend(done.marks);
            }
        };
        let joined = tokio::time::timeout(WAIT_TIMEOUT, joined).await;
        joined.expect("the end of all commands");
        let ledger = read(cluster, true).await;
        self.arrived(cluster, ledger, Instant::now() + ARRIVAL_TIMEOUT)
            .await;
        // Read again: nothing that nobody waits for any more may be stored behind it.
        let ledger = read(cluster, true).await;
        let arrived = self.arrived(cluster, ledger, Instant::now() + ARRIVAL_TIMEOUT);
        let mut ledger = arrived.await;
        // Who else is at work in the same cluster checks itself.
        let own: BTreeSet<_> = commands.iter().map(|one| one.conversation).collect();
        ledger.logs.retain(|id, _| own.contains(id));
        let found = check::stored(&ledger, &commands, &marks);
        assert!(found.is_empty(), "{}", self.tell(&ledger, &found));
        self.summarise(&commands, marks.len());
        ledger
    }

    /// Why sessions started afresh, by how often.
    pub(crate) fn afresh(&self) -> BTreeMap<String, usize> {
        let mut all = BTreeMap::new();
        for (reason, count) in self.clients.iter().flat_map(|client| client.afresh()) {
            *all.entry(reason).or_default() += count;
        }
        all
    }

    /// Asserts that no session had to start afresh.
    pub(crate) fn assert_resumed(&self) {
        let afresh = self.afresh();
        assert!(afresh.is_empty(), "started afresh: {afresh:?}");
    }

    /// As [`Self::ends`], and no session had to start afresh.
    pub(crate) async fn ends_resumed(self, cluster: &Cluster) {
        self.assert_resumed();
        self.ends(cluster).await;
    }

    fn tell(&self, ledger: &Ledger, found: &[check::Violation]) -> String {
        let few = found.iter().take(10);
        let accounts: Vec<_> = self.clients.iter().map(|one| one.account()).collect();
        let few: Vec<_> = few
            .map(|one| format!("  {one:?}{}", check::explain(ledger, one, &accounts)))
            .collect();
        drop(accounts);
        let generations = self.clients.iter().map(|client| {
            let account = client.account();
            let generations = account.generations.iter().map(|generation| {
                let how = if generation.resumed {
                    "resumed"
                } else {
                    "fresh"
                };
                format!(
                    "{how} {:?} heard {}, {:?}",
                    generation.reason,
                    generation.heard.len(),
                    generation.ended
                )
            });
            let generations: Vec<_> = generations.collect();
            format!("  {}: {}", account.user, generations.join("; "))
        });
        let generations: Vec<_> = generations.collect();
        let rows: usize = ledger.logs.values().map(|log| log.rows.len()).sum();
        format!(
            "seed {}, {} violations in {rows} events:\n{}\n{}",
            self.seed,
            found.len(),
            few.join("\n"),
            generations.join("\n")
        )
    }

    fn summarise(&self, commands: &[IssuedCommand], marks: usize) {
        let done = commands
            .iter()
            .filter(|one| matches!(one.outcome, CommandOutcome::Done(_)));
        let unknown = commands
            .iter()
            .filter(|one| one.outcome == CommandOutcome::Unknown);
        let (done, unknown) = (done.count(), unknown.count());
        let heard: usize = self.clients.iter().map(|one| one.heard()).sum();
        let reconnects: usize = self.clients.iter().map(|one| one.generations() - 1).sum();
        println!(
            "{} clients: {} commands, {done} done, {unknown} unknown; {marks} read marks told; {heard} events heard, {reconnects} reconnects, afresh {:?}",
            self.clients.len(),
            commands.len(),
            self.afresh(),
        );
        assert!(done > 0 && heard > 0, "nothing happened");
    }
}

/// Asserts that clients without a load have what they are owed.
pub(crate) async fn assert_told(cluster: &Cluster, clients: &[HistoryClient]) {
    let ledger = read(cluster, true).await;
    let until = Instant::now() + ARRIVAL_TIMEOUT;
    loop {
        let found = clients.iter();
        let found = found.flat_map(|client| check::told(&ledger, &client.account()));
        let found: Vec<_> = found.collect();
        if found.is_empty() {
            return;
        }
        let is_over = Instant::now() >= until || !found.iter().all(check::Violation::is_late);
        assert!(!is_over, "{found:#?}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn read(cluster: &Cluster, is_final: bool) -> Ledger {
    eventually("Postgres tells what it has", WAIT_TIMEOUT, async || {
        Ledger::read(&cluster.store, is_final).await.ok()
    })
    .await
}

/// A moment of at most so many milliseconds, and of at least a quarter of them.
pub(super) fn moment(rng: &mut StdRng, most: u64) -> Duration {
    Duration::from_millis(rng.random_range(most / 4..=most))
}
