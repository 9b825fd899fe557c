//! Neighbours with little load, which measure their delays and check their logs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use confab_client::{Options, Session};
use confab_protocol::ids::ConversationId;
use confab_stack::get;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::user_of;
use crate::support::{Cluster, Member, User, eventually, soak, text};

/// Between two things that one of them does.
const SEND_INTERVAL: Duration = Duration::from_millis(200);
/// How many times as long as alone the hundredth part of things may take beside the worst, in an optimised build: in another the processor is
/// what they lack.
const MAX_RATIO: usize = 10;
/// What they take alone at least: less is luck, of which the next second has none.
const LEAST_P99: Duration = Duration::from_millis(10);
/// How long is waited for what may be lost.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Something that one of them did.
#[derive(Debug, Clone)]
struct Sample {
    /// By whom: none by who asks whether the gateway lives.
    who: Option<usize>,
    what: &'static str,
    took: Duration,
    problem: Option<String>,
}

/// Users of another tenant, and others of the loud one, a hundred things a second together (fewer by default).
pub(super) struct Quiet {
    stop: watch::Sender<bool>,
    tasks: JoinSet<QuietAccount>,
    probes: JoinSet<()>,
    samples: Arc<Mutex<Vec<Sample>>>,
    p99: Duration,
    /// Their own, so that none waits for what the loud one's client does.
    runtime: OwnRuntime,
}

/// A runtime that may be dropped where others run.
struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    fn new() -> Self {
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build();
        Self(Some(runtime.unwrap()))
    }

    fn handle(&self) -> &Handle {
        self.0.as_ref().unwrap().handle()
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What one of them was told: its conversation, and its words with their seqs, in the order sent.
struct QuietAccount {
    conversation: ConversationId,
    acknowledged: Vec<(String, u64)>,
    /// The seqs of messages that were edited: they have other words, if the edit was carried out.
    edited: BTreeSet<u64>,
}

impl Quiet {
    /// As [`Self::start`], beside a gateway's worst: what they send they are to hear as well, and the gateway is asked whether it lives.
    pub(super) async fn start_at_gateway(cluster: &Cluster) -> Self {
        let quiet = Self::begin(cluster, Hearing::Awaited).await;
        quiet.alone().await
    }

    /// They begin, and are alone at first.
    pub(super) async fn start(cluster: &Cluster) -> Self {
        let quiet = Self::begin(cluster, Hearing::Ignored).await;
        quiet.alone().await
    }

    async fn begin(cluster: &Cluster, hearing: Hearing) -> Self {
        let mut quiet = Self {
            stop: watch::Sender::new(false),
            tasks: JoinSet::new(),
            probes: JoinSet::new(),
            samples: Arc::default(),
            p99: Duration::ZERO,
            runtime: OwnRuntime::new(),
        };
        let count = soak(20, 8);
        let mut beginning = JoinSet::new();
        for number in 0..count {
            let tenant = if number % 2 == 0 { "quiet" } else { "loud" };
            let user = user_of(cluster, &format!("neighbour-{number}"), tenant);
            let samples = Arc::clone(&quiet.samples);
            let begins = Neighbour::begin(number, user, hearing, samples);
            beginning.spawn_on(begins, quiet.runtime.handle());
        }
        let neighbours = beginning.join_all().await;
        let begun = Instant::now();
        for neighbour in neighbours {
            let share = u32::try_from(neighbour.number).unwrap();
            let first = begun + SEND_INTERVAL * share / u32::try_from(count).unwrap();
            let running = neighbour.run(first, quiet.stop.subscribe());
            quiet.tasks.spawn_on(running, quiet.runtime.handle());
        }
        if hearing == Hearing::Awaited {
            let port = cluster.gateways[0].port();
            let samples = Arc::clone(&quiet.samples);
            let probing = probe(port, samples, quiet.stop.subscribe());
            quiet.probes.spawn_on(probing, quiet.runtime.handle());
        }
        quiet
    }

    async fn alone(mut self) -> Self {
        // The measure of what follows, which only full counts are held to.
        sleep_until(Instant::now() + Duration::from_secs(soak(4, 1) as u64)).await;
        let alone = self.take();
        self.p99 = Stats::of(&alone).p99.max(LEAST_P99);
        println!("alone: {}", Stats::of(&alone));
        self
    }

    /// Lets the worst happen beside them, and says what they felt of it.
    ///
    /// # Panics
    /// When anything was refused, or took longer than `most`.
    pub(super) async fn beside(&self, what: &str, most: Duration, worst: impl Future<Output = ()>) {
        drop(self.take());
        worst.await;
        let mut samples = self.take();
        samples.extend(self.settled().await);
        let stats = Stats::of(&samples);
        let ratio = stats.p99.as_secs_f64() / self.p99.as_secs_f64();
        println!("beside {what}: {stats}, p99 {ratio:.1} times that alone");
        println!("  {}", by_kind(&samples));
        let failed: Vec<_> = samples.iter().filter(|one| one.problem.is_some()).collect();
        let few: Vec<_> = failed.iter().take(5).collect();
        assert!(
            failed.is_empty(),
            "{what}: {} of {} failed: {few:#?}",
            failed.len(),
            samples.len()
        );
        assert!(stats.longest.0 < most, "{what}: {stats}");
        let goal = if cfg!(debug_assertions) {
            f64::INFINITY
        } else {
            soak(MAX_RATIO, usize::MAX) as f64
        };
        assert!(
            ratio <= goal,
            "{what}: {stats}, p99 {ratio:.1} times that alone"
        );
    }

    /// What ends until everybody has ended what was begun before: whoever is held up is held up by what just went on.
    async fn settled(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        eventually("everybody goes on", 2 * ARRIVAL_TIMEOUT, async || {
            samples.extend(self.take());
            let everybody = (0..self.tasks.len()).all(|number| {
                let own = samples.iter().filter(|one| one.who == Some(number));
                // A send and its hearing count as one thing.
                own.filter(|one| one.what != "hear").count() > 1
            });
            everybody.then_some(())
        })
        .await;
        samples
    }

    /// Ends them, and looks whether what was acknowledged is stored once, in the order sent.
    pub(super) async fn end(mut self, cluster: &Cluster) {
        self.stop.send_replace(true);
        while let Some(probes) = self.probes.join_next().await {
            probes.unwrap();
        }
        while let Some(account) = self.tasks.join_next().await {
            account.unwrap().check(cluster).await;
        }
    }

    fn take(&self) -> Vec<Sample> {
        std::mem::take(&mut self.samples.lock().unwrap())
    }
}

impl QuietAccount {
    async fn check(self, cluster: &Cluster) {
        let stored = "select seq, payload from events where conversation_id = $1 and type = 'message.created' order by seq";
        let stored: Vec<(i64, String)> = sqlx::query_as(stored)
            .bind(self.conversation.0)
            .fetch_all(&cluster.store)
            .await
            .unwrap();
        let mut seqs = BTreeMap::new();
        for (seq, payload) in stored {
            let payload: Value = serde_json::from_str(&payload).unwrap();
            // Edited, a message has other words.
            if let Some(words) = payload["content"]["text"].as_str() {
                assert_eq!(
                    seqs.insert(words.to_owned(), seq.unsigned_abs()),
                    None,
                    "twice: {words}"
                );
            }
        }
        let mut before = 0;
        for (words, seq) in self.acknowledged {
            assert!(seq > before, "{words} has seq {seq}, behind {before}");
            before = seq;
            let found = seqs.get(&words).copied();
            let is_edited = found.is_none() && self.edited.contains(&seq);
            assert!(
                is_edited || found == Some(seq),
                "{words}: {found:?}, not {seq}"
            );
        }
    }
}

/// Whether a neighbour waits until it has heard what it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hearing {
    Awaited,
    Ignored,
}

/// Asks a gateway whether it lives.
async fn probe(port: u16, samples: Arc<Mutex<Vec<Sample>>>, stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        let began = Instant::now();
        let answer = get(port, "/health", ARRIVAL_TIMEOUT).await;
        let problem = match answer {
            Ok((200, _)) => None,
            other => Some(format!("{other:?}")),
        };
        let sample = Sample {
            who: None,
            what: "health",
            took: began.elapsed(),
            problem,
        };
        samples.lock().unwrap().push(sample);
        sleep_until(began + SEND_INTERVAL).await;
    }
}

struct Neighbour {
    number: usize,
    user: User,
    member: Member,
    conversation: ConversationId,
    hearing: Hearing,
    samples: Arc<Mutex<Vec<Sample>>>,
    acknowledged: Vec<(String, u64)>,
    edited: BTreeSet<u64>,
    /// The last message's id and seq.
    last: Option<(String, u64)>,
}

impl Neighbour {
    async fn begin(
        number: usize,
        user: User,
        hearing: Hearing,
        samples: Arc<Mutex<Vec<Sample>>>,
    ) -> Self {
        let member = user.on(0).await;
        let conversation = member.create_group(&["friend".parse().unwrap()]).await;
        Self {
            number,
            user,
            member,
            conversation,
            hearing,
            samples,
            acknowledged: Vec::new(),
            edited: BTreeSet::new(),
            last: None,
        }
    }

    async fn run(mut self, mut next: Instant, stop: watch::Receiver<bool>) -> QuietAccount {
        let mut number = 0;
        while !*stop.borrow() {
            sleep_until(next).await;
            let began = Instant::now();
            let (what, done) = self.act(number).await;
            self.took(what, began, done);
            if what == "send" && self.hearing == Hearing::Awaited {
                let heard = self.hear().await;
                self.took("hear", began, heard);
            }
            number += 1;
            next = (next + SEND_INTERVAL).max(Instant::now());
        }
        QuietAccount {
            conversation: self.conversation,
            acknowledged: self.acknowledged,
            edited: self.edited,
        }
    }

    fn took(&self, what: &'static str, began: Instant, done: Result<(), String>) {
        let sample = Sample {
            who: Some(self.number),
            what,
            took: began.elapsed(),
            problem: done.err(),
        };
        self.samples.lock().unwrap().push(sample);
    }

    /// Waits until it has heard all that it has sent, and nothing is missing before.
    async fn hear(&self) -> Result<(), String> {
        let Some((_, seq)) = self.last else {
            return Ok(());
        };
        let mut record = self.member.record.clone();
        let heard = record.wait_for(|record| record.last(self.conversation) >= seq);
        let heard = timeout(ARRIVAL_TIMEOUT, heard).await;
        let heard = heard.map_err(|_late| format!("{seq} was not heard"))?;
        let heard = heard.map_err(|error| error.to_string())?;
        let seqs: Vec<_> = heard.events[&self.conversation]
            .iter()
            .map(|event| event.seq)
            .collect();
        let gapless = seqs.windows(2).all(|two| two[1] == two[0] + 1);
        gapless
            .then_some(())
            .ok_or_else(|| format!("heard {seqs:?}"))
    }

    async fn act(&mut self, number: usize) -> (&'static str, Result<(), String>) {
        let last = self.last.clone();
        match (number % 10, last) {
            (6, Some((id, seq))) => {
                self.edited.insert(seq);
                let edit = json!({"content": {"edited": number}});
                (
                    "edit",
                    self.call("PATCH", &format!("/v1/messages/{id}"), Some(edit))
                        .await,
                )
            }
            (7, Some((_, seq))) => {
                let mark = json!({"conversationId": self.conversation, "upToSeq": seq});
                (
                    "mark",
                    self.call("POST", "/v1/messages/read", Some(mark)).await,
                )
            }
            (8, _) => ("list", self.call("GET", "/v1/conversations", None).await),
            (9, _) => ("open", self.open().await),
            _ => ("send", self.send(number).await),
        }
    }

    async fn send(&mut self, number: usize) -> Result<(), String> {
        let words = format!("{number}");
        let sent = self
            .member
            .session
            .send(self.conversation, text(&words))
            .await;
        let sent = sent.map_err(|error| error.to_string())?;
        self.last = Some((sent.message_id.to_string(), sent.seq));
        self.acknowledged.push((words, sent.seq));
        Ok(())
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Result<(), String> {
        let answer = self.user.call(0, method, path, &[], body).await;
        match answer.status {
            200..300 => Ok(()),
            status => Err(format!("{status} {}", answer.body)),
        }
    }

    async fn open(&self) -> Result<(), String> {
        let opened = Session::open(self.user.url(0), Options::bearer(&self.user.token)).await;
        opened.map(drop).map_err(|error| format!("{error:?}"))
    }
}

/// How long things took.
struct Stats {
    count: usize,
    p50: Duration,
    p99: Duration,
    longest: (Duration, &'static str),
}

impl Stats {
    fn of(samples: &[Sample]) -> Self {
        let mut all: Vec<_> = samples.iter().map(|one| (one.took, one.what)).collect();
        all.sort_unstable();
        let at =
            |percent: usize| all.get((all.len() * percent / 100).min(all.len().saturating_sub(1)));
        let took = |percent| at(percent).map_or(Duration::ZERO, |(took, _)| *took);
        Self {
            count: all.len(),
            p50: took(50),
            p99: took(99),
            longest: all.last().copied().unwrap_or_default(),
        }
    }
}

/// How long each kind of thing took: its p50 and p99.
fn by_kind(samples: &[Sample]) -> String {
    let mut kinds: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for one in samples {
        kinds
            .entry(one.what)
            .or_default()
            .push(one.took.as_millis());
    }
    let lines = kinds.into_iter().map(|(what, mut took)| {
        took.sort_unstable();
        let (p50, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
        format!("{what} {p50}, {p99} ms")
    });
    lines.collect::<Vec<_>>().join("; ")
}

impl std::fmt::Display for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |took: Duration| took.as_millis();
        let (longest, what) = self.longest;
        write!(
            f,
            "{} things, p50 {} ms, p99 {} ms, longest {} ms ({what})",
            self.count,
            ms(self.p50),
            ms(self.p99),
            ms(longest)
        )
    }
}
