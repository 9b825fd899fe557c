//! Users who are connected, and their conversations: what several loads are put on, one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use confab_client::Http;
use confab_protocol::frame::Hello;
use memchr::memmem::Finder;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::sending::{SendTransport, SenderPlace, SenderTask, Timing};
use super::{SendLoad, SendOutcome};
use crate::Error;
use crate::load::{Connection, Hearing, Latencies, LoadUsers, Pace, SendTimes, Timer, connect_all};
use crate::output::Progress;
use crate::target::Target;

/// How long the last answers and events may take after the end.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that are ready to send.
#[derive(Debug)]
pub(crate) struct Prebuilt {
    users: LoadUsers,
    senders: Vec<SenderPlace>,
    connections: Vec<Arc<Connection>>,
    /// A connection's room for messages on the way, where as many are sent as are taken.
    rooms: Vec<Arc<Semaphore>>,
    sent: Arc<SendTimes>,
    heard: Arc<HeardTotals>,
}

/// What connections hear, added up.
#[derive(Debug, Default)]
pub(super) struct HeardTotals {
    /// How long the messages that count took.
    pub(super) acknowledged: Latencies,
    pub(super) events: Latencies,
    pub(super) late: Latencies,
    /// All answers and events, for what comes in a second.
    pub(super) answers: AtomicU64,
    pub(super) copies: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl HeardTotals {
    fn clear(&self) {
        for latencies in [&self.acknowledged, &self.events, &self.late] {
            latencies.take();
        }
    }

    fn counts(&self) -> (u64, u64) {
        let (answers, copies) = (&self.answers, &self.copies);
        (
            answers.load(Ordering::Relaxed),
            copies.load(Ordering::Relaxed),
        )
    }
}

/// When a load begins, and from when until when it is measured.
#[derive(Debug, Clone, Copy)]
struct Times {
    start: Instant,
    from: Instant,
    until: Instant,
}

impl Times {
    fn of(load: &SendLoad) -> Self {
        let start = Instant::now() + Duration::from_millis(100);
        let from = start + Duration::from_secs(load.warm_up);
        let until = from + Duration::from_secs(load.seconds);
        Self { start, from, until }
    }
}

impl Prebuilt {
    /// As many users, conversations and connections as the load says.
    pub(crate) async fn new(
        target: &Target,
        load: &SendLoad,
        progress: &Progress,
    ) -> Result<Self, Error> {
        progress.say("making users and conversations");
        let prefix = format!("sender-{:08x}", rand::random::<u32>());
        let users = LoadUsers::new(target.tokens(), &target.urls(), &prefix, load.connections)?;
        let senders = senders(load, &users).await?;
        progress.say("connecting");
        let (sent, heard) = (Arc::new(SendTimes::new()), Arc::new(HeardTotals::default()));
        let rooms: Vec<_> = (0..load.connections)
            .map(|_| Arc::new(Semaphore::new(0)))
            .collect();
        let hearings = rooms
            .iter()
            .map(|room| hearing(Arc::clone(&sent), Arc::clone(&heard), Arc::clone(room)));
        let connections = connect_all(&users, Hello::default(), hearings).await?;
        Ok(Self {
            connections: connections.into_iter().map(Arc::new).collect(),
            users,
            senders,
            rooms,
            sent,
            heard,
        })
    }

    /// Puts a load on what is prepared, which must have been prepared for it.
    pub(crate) async fn put(
        &self,
        target: &mut Target,
        load: &SendLoad,
        progress: &Progress,
    ) -> Result<SendOutcome, Error> {
        for room in &self.rooms {
            // At a pace answers make room that nobody takes.
            room.forget_permits(Semaphore::MAX_PERMITS);
            room.add_permits(load.in_flight);
        }
        let times = Times::of(load);
        // Before any message that counts: an answer may come before this task has its turn.
        self.heard.clear();
        self.sent.count_only(times.from, times.until);
        let mut sending = self.send(load, times)?;
        progress.say("warming up");
        sleep_until(times.from).await;
        let outcome = self.watch(target, load, times, progress).await?;
        while let Some(ended) = sending.try_join_next() {
            ended.map_err(|error| Error::Failed(error.to_string()))??;
        }
        if self.connections.iter().all(|one| one.is_open()) {
            Ok(outcome)
        } else {
            let broke = "a connection broke under the load";
            Err(Error::Failed(broke.to_owned()))
        }
    }

    fn send(&self, load: &SendLoad, times: Times) -> Result<JoinSet<Result<(), Error>>, Error> {
        let mut sending = JoinSet::new();
        for (part, sender) in self.senders.iter().enumerate() {
            let (Some(connection), Some(room), Some(user)) = (
                self.connections.get(sender.place),
                self.rooms.get(sender.place),
                self.users.0.get(sender.place),
            ) else {
                return Err(Error::Failed("more senders than connections".to_owned()));
            };
            let timing = if load.max {
                Timing::AsTaken(Arc::clone(room))
            } else {
                let pace = Pace::new(times.start, load.rate, part, self.senders.len());
                Timing::AtPace(pace, Timer::new()?)
            };
            let way = if load.http {
                SendTransport::Http(Http::new(&user.url, &user.token)?)
            } else {
                SendTransport::Socket(Arc::clone(connection))
            };
            let one = SenderTask {
                way,
                sent: Arc::clone(&self.sent),
                heard: Arc::clone(&self.heard),
                text: "x".repeat(load.text),
                until: times.until,
            };
            sending.spawn(one.run(sender.conversations.clone(), timing));
        }
        Ok(sending)
    }

    /// Measures what comes for as long as the load says, and waits for what is owed then.
    async fn watch(
        &self,
        target: &mut Target,
        load: &SendLoad,
        times: Times,
        progress: &Progress,
    ) -> Result<SendOutcome, Error> {
        let (began, before) = (Instant::now(), target.usage()?);
        let (answers, copies) = self.heard.counts();
        self.heard.failed.store(0, Ordering::Relaxed);
        for second in 1..=load.seconds {
            sleep_until(times.from + Duration::from_secs(second)).await;
            let so_far = self.heard.counts().0 - answers;
            let rate = so_far as f64 / began.elapsed().as_secs_f64();
            progress.say(format!("{second} of {} s: {rate:.0} sends/s", load.seconds));
        }
        let (seconds, after) = (began.elapsed().as_secs_f64(), target.usage()?);
        let (all_answers, all_copies) = self.heard.counts();
        let answered = (all_answers - answers) as f64;
        progress.say("waiting for the last answers");
        self.rest(load).await;
        let used = before.zip(after).map(|(before, after)| after.since(before));
        let acknowledged = self.heard.acknowledged.take();
        let failed = self.heard.failed.load(Ordering::Relaxed);
        Ok(SendOutcome {
            sends: answered / seconds,
            events: (all_copies - copies) as f64 / seconds,
            processor: used.map(|used| used.micros_each(answered)),
            failed,
            unanswered: self
                .sent
                .count()
                .saturating_sub(acknowledged.count + failed),
            acknowledged,
            heard: self.heard.events.take(),
            late: self.heard.late.take(),
        })
    }

    /// Waits for what the messages that count are owed: a slow answer left out would make the others look like all.
    async fn rest(&self, load: &SendLoad) {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        let members = u64::try_from(load.members).unwrap_or(u64::MAX);
        while Instant::now() < deadline {
            let acknowledged = self.heard.acknowledged.count();
            let failed = self.heard.failed.load(Ordering::Relaxed);
            if acknowledged + failed >= self.sent.count()
                && self.heard.events.count() >= acknowledged.saturating_mul(members)
            {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Begins the conversations, and says who sends to which: each is sent to by its first member, or, where there are fewer of them than
/// senders, by all of its members that send.
async fn senders(load: &SendLoad, users: &LoadUsers) -> Result<Vec<SenderPlace>, Error> {
    let count = load
        .senders
        .unwrap_or(load.connections)
        .min(load.connections);
    if count == 0 || load.conversations == 0 || load.members > load.connections {
        return Err(Error::Failed(
            "a load needs senders, conversations, and a connection for each member".to_owned(),
        ));
    }
    let members =
        |number: usize| (0..load.members).map(move |n| (number % count + n) % load.connections);
    let groups = (0..load.conversations).map(|number| members(number).collect());
    let ids = users.begin(groups.collect()).await?;
    let sends_to = |place: usize, number: usize| {
        if load.conversations < count {
            members(number).any(|member| member == place)
        } else {
            number % count == place
        }
    };
    let of = |place: usize| {
        let own = ids.iter().enumerate();
        let own = own.filter(|(number, _)| sends_to(place, *number));
        SenderPlace {
            place,
            conversations: own.map(|(_, id)| *id).collect(),
        }
    };
    Ok((0..count)
        .map(of)
        .filter(|one| !one.conversations.is_empty())
        .collect())
}

fn hearing(sent: Arc<SendTimes>, heard: Arc<HeardTotals>, room: Arc<Semaphore>) -> Hearing {
    let (id, client_id) = (Finder::new(br#""id":""#), Finder::new(br#""clientId":""#));
    let (id, client_id) = (id.into_owned(), client_id.into_owned());
    Box::new(move |payload| {
        if payload.starts_with(br#"{"type":"message.created""#) {
            heard.copies.fetch_add(1, Ordering::Relaxed);
            if let Some(took) = sent.took_by(payload, &client_id) {
                heard.events.record(took);
            }
        } else if payload.starts_with(br#"{"type":"ack""#) {
            heard.answers.fetch_add(1, Ordering::Relaxed);
            if let Some(took) = sent.took_by(payload, &id) {
                heard.acknowledged.record(took);
            }
            room.add_permits(1);
        } else if payload.starts_with(br#"{"type":"error""#) {
            if sent.took_by(payload, &id).is_some() {
                heard.failed.fetch_add(1, Ordering::Relaxed);
            }
            room.add_permits(1);
        }
    })
}
