//! The hub against a model: random logs, feeds that reorder, repeat and break, answers that are old or fail, sessions that
//! come and go. Whatever the interleaving, every session hears exactly what it is owed (docs/architecture.md, promise 4).

use confab_protocol::event::EventType;
use confab_protocol::ids::EventId;
use confab_protocol::json::JsonText;
use confab_protocol::query::EncodedEvent;
use confab_protocol::signal::{Signal, SignalKind};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::delivery::encoding::Encoding;

mod cases;
mod client;
mod log;
mod openings;
mod scale;
mod step;
mod worker;

use client::Client;
use log::Log;
use step::{Step, step};

/// The first byte of a ping.
const PING_OPCODE: u8 = 0x89;
const CONVERSATION_COUNT: usize = 2;
const USER_COUNT: usize = 3;

enum Question {
    Read(Read),
    MembershipQuery(MembershipQuery),
}

enum Arriving {
    Read(Read, Vec<EncodedEvent>),
    MembershipQuery(MembershipQuery, Vec<UserMemberships>),
}

struct World {
    hub: Hub,
    logs: Vec<Log>,
    feed: Vec<FeedEvent>,
    questions: Vec<Question>,
    arriving: Vec<Arriving>,
    retries: Vec<Retry>,
    clients: Vec<Client>,
    /// Events that may be replayed; as many as there are where some session opened without a worker's word.
    most: u64,
    /// What a socket holds at most, in bytes.
    capacity: usize,
    keys: u64,
    now: Instant,
}

fn conversation(c: usize) -> ConversationId {
    ConversationId(Uuid::from_u128(c as u128 + 1))
}

fn index(id: ConversationId) -> usize {
    usize::try_from(id.0.as_u128() - 1).unwrap()
}

fn number(user: &confab_protocol::ids::UserId) -> usize {
    user.as_str().trim_start_matches('u').parse().unwrap()
}

impl World {
    fn new(window: usize, limits: ReplayLimits, capacity: usize) -> Self {
        Self::of(Shards::SINGLE, window, limits, capacity)
    }

    /// With so many shards; what is on its way between them and the coordinator waits.
    fn waiting(shards: usize, window: usize, limits: ReplayLimits, capacity: usize) -> Self {
        let mut world = Self::of(Shards::of(shards), window, limits, capacity);
        world.hub.waits();
        world
    }

    fn of(shards: Shards, window: usize, limits: ReplayLimits, capacity: usize) -> Self {
        let bounds = Bounds {
            age: Duration::from_secs(3600),
            bytes: window,
        };
        Self {
            hub: Hub::new(shards, bounds, limits, Instant::now()),
            most: limits.events,
            capacity,
            logs: vec![Log::default(); CONVERSATION_COUNT],
            feed: vec![],
            questions: vec![],
            arriving: vec![],
            retries: vec![],
            clients: vec![],
            keys: 0,
            now: Instant::now(),
        }
    }

    fn json(&self, c: usize, seq: Seq) -> String {
        let event = self.logs[c].at(seq);
        format!(r#"{{"c":{c},"seq":{seq},"data":{}}}"#, event.data)
    }

    fn publish(&mut self, c: usize, seq: Option<Seq>) {
        let Some(seq) = seq else { return };
        self.feed.push(FeedEvent {
            tenant: "t".parse().unwrap(),
            conversation: conversation(c),
            seq,
            id: EventId(Uuid::from_u128(u128::from(seq))),
            r#type: self.logs[c].at(seq).r#type,
            target_seq: self.logs[c].at(seq).target,
            json: self.json(c, seq).into(),
        });
    }

    fn ended(&self) -> u64 {
        let memberships = self.logs.iter().flat_map(|log| log.memberships.values());
        let ended = memberships.flatten().filter(|(_, left)| left.is_some());
        ended.count() as u64
    }

    fn heads(&self) -> Vec<Seq> {
        self.logs.iter().map(Log::head).collect()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Create(c, user) if self.logs[c].events.is_empty() => {
                let data = format!(
                    r#"{{"conversation":{{}},"participants":[{{"userId":"u{user}","role":"admin"}}]}}"#
                );
                let seq = self.logs[c].append(EventType::ConversationCreated, data);
                self.logs[c]
                    .memberships
                    .entry(user)
                    .or_default()
                    .push((seq, None));
                self.publish(c, Some(seq));
            }
            Step::Say(c) if !self.logs[c].events.is_empty() && !self.logs[c].is_deleted => {
                let seq = self.logs[c].append(EventType::MessageCreated, "{}".into());
                self.publish(c, Some(seq));
            }
            Step::Delete(c, back) => {
                let seq = self.logs[c].delete(back);
                self.publish(c, seq);
            }
            Step::Add(c, user) => {
                let seq = self.logs[c].add(user);
                self.publish(c, seq);
            }
            Step::Remove(c, user) => {
                let seq = self.logs[c].remove(user);
                self.publish(c, seq);
            }
            Step::End(c) => self.end(c),
            Step::Open(user) => self.open(user),
            Step::Close(n) if n < self.clients.len() => self.disconnect(n, true),
            Step::Kill(n) if n < self.clients.len() => self.disconnect(n, false),
            Step::Record(n) if n < self.clients.len() => {
                let client = &self.clients[n];
                if let Some(key) = client.key.filter(|_| client.is_open) {
                    self.hub.ask_positions(key);
                }
            }
            Step::Resume(n) if n < self.clients.len() && self.clients[n].key.is_none() => {
                self.resume(n);
            }
            Step::RemovedWhileOpening(n, c) if n < self.clients.len() => {
                self.is_removed_while_opening(n, c);
            }
            Step::Take(n, bytes) if n < self.clients.len() => self.client_takes(n, bytes),
            Step::Pong(n) if n < self.clients.len() => self.clients[n].pong(),
            Step::Seen(n) if n < self.clients.len() => self.says_seen(n),
            Step::Forget(n, c, seq) if n < self.clients.len() => self.clients[n].loses(c, seq),
            Step::ReadOver(n) if n < self.clients.len() => self.read_over(n),
            Step::Push => self.hub.push_on(),
            Step::Work(n, fails) if n < self.questions.len() => {
                let question = self.questions.remove(n);
                self.work(question, fails);
            }
            Step::Arrive(n) if n < self.arriving.len() => match self.arriving.remove(n) {
                Arriving::Read(read, events) => self.hub.events_read(&read, events),
                Arriving::MembershipQuery(ask, answers) => self.hub.memberships(ask, answers),
            },
            Step::Retry(n) if n < self.retries.len() => {
                let retry = self.retries.remove(n);
                if matches!(retry, Retry::OpenWithout(_)) {
                    self.most = u64::MAX;
                }
                self.hub.retry(retry);
            }
            on_its_way => self.move_on(on_its_way),
        }
        self.carry_out();
        self.check_named();
    }

    /// What the feed and the hub's own queues do.
    fn move_on(&mut self, step: Step) {
        match step {
            Step::Feed(n, again) if n < self.feed.len() => {
                let event = self.feed.remove(n);
                self.hub.heard(&event);
                if again {
                    self.feed.push(event);
                }
            }
            Step::Announce(c) => {
                self.feed
                    .retain(|event| event.conversation != conversation(c));
                self.hub.announced(&self.logs[c].announced(conversation(c)));
            }
            Step::Recheck(seconds) => {
                self.now += Duration::from_secs(seconds);
                self.hub.recheck(self.now);
            }
            Step::Break => {
                self.feed.clear();
                self.hub.breaks(None);
            }
            Step::BreakOf(c) => {
                let shard = self.hub.shard_of(conversation(c));
                let is_other = |event: &FeedEvent| self.hub.shard_of(event.conversation) != shard;
                self.feed.retain(is_other);
                self.hub.breaks(Some(shard));
            }
            Step::Move(n) => {
                self.hub.advance(n);
            }
            _ => {}
        }
    }

    fn end(&mut self, c: usize) {
        let seq = self.logs[c].end();
        self.publish(c, seq);
    }

    fn open(&mut self, user: usize) {
        let client = Client::new(user, self.clients.len().is_multiple_of(2), self.heads());
        self.clients.push(client);
        self.connect(self.clients.len() - 1, Start::default());
    }

    fn resume(&mut self, n: usize) {
        let client = &self.clients[n];
        let seen = client.has.iter().map(|(c, seq)| (conversation(*c), *seq));
        let start = Start {
            resumed: true,
            positions: client.record.clone(),
            seen: seen.filter(|_| client.says_seen).collect(),
            presence: None,
        };
        self.connect(n, start);
    }

    /// What was said while the client was away is too much for one answer of a worker; its removal is heard before that answer.
    fn is_removed_while_opening(&mut self, n: usize, c: usize) {
        let user = self.clients[n].user;
        self.take(Step::Close(n));
        if n >= self.clients.len() || self.clients[n].key.is_some() {
            return;
        }
        for _ in 0..5 {
            self.take(Step::Say(c));
        }
        self.take(Step::Resume(n));
        while !self.questions.is_empty() {
            self.take(Step::Work(0, false));
        }
        self.take(Step::Remove(c, user));
        self.take(Step::Say(c));
        for _ in 0..self.feed.len() {
            self.take(Step::Feed(0, false));
        }
    }

    fn connect(&mut self, n: usize, start: Start) {
        self.keys += 1;
        let key = SessionKey(self.keys);
        let send_queue = Arc::new(SendQueue::new(Encoding::Json, self.capacity));
        let client = &mut self.clients[n];
        client.connected(key, Arc::clone(&send_queue));
        let account = Account {
            tenant: "t".parse().unwrap(),
            user: format!("u{}", client.user).parse().unwrap(),
        };
        self.hub.open(Opening {
            key,
            account,
            send_queue,
            start,
        });
    }

    /// A connection ends. One that never was welcomed had no session.
    fn disconnect(&mut self, n: usize, in_order: bool) {
        let Some(key) = self.clients[n].key else {
            return;
        };
        self.hub.close(key);
        let client = &mut self.clients[n];
        client.disconnected(in_order);
        if client.told.is_none() {
            self.clients.remove(n);
        }
    }

    fn client_takes(&mut self, n: usize, bytes: usize) {
        let client = &mut self.clients[n];
        if let Some(key) = client.key.filter(|_| client.is_open)
            && client.take(bytes)
        {
            self.hub.drained(key);
        }
    }

    fn read_over(&mut self, n: usize) {
        let client = &mut self.clients[n];
        if client.is_open && client.read_over() && client.says_seen {
            self.says_seen(n);
        }
    }

    fn says_seen(&mut self, n: usize) {
        let client = &self.clients[n];
        if let Some(key) = client.key.filter(|_| client.is_open) {
            let seen = client.has.iter();
            let seen: Vec<_> = seen.map(|(c, seq)| (conversation(*c), *seq)).collect();
            self.hub.seen(key, seen);
        }
    }

    fn carry_out(&mut self) {
        for effect in self.hub.effects() {
            match effect {
                Effect::Read(read) => self.questions.push(Question::Read(read)),
                Effect::MembershipQuery(ask) => self.questions.push(Question::MembershipQuery(ask)),
                Effect::Later(_, retry) => self.retries.push(retry),
                Effect::Opened(key, opened) => {
                    // Of memberships that ended only the end is replayed, whatever is allowed.
                    let most = self.most.saturating_add(self.ended());
                    assert!(opened.replayed <= most, "{opened:?}, of {most}");
                    let now = self.heads();
                    let client = self.clients.iter_mut().find(|c| c.key == Some(key));
                    if client.is_some_and(|client| client.opens(opened, now)) {
                        self.hub.ask_positions(key);
                    }
                }
                Effect::Reconciled | Effect::Shards(..) => {}
            }
        }
        for (key, is_last, positions) in self.hub.take_gathered() {
            let is_of = |client: &&mut Client| client.is_recorded(key, is_last);
            if let Some(client) = self.clients.iter_mut().find(is_of) {
                client.recorded(positions);
            }
        }
    }

    /// Everything that waits happens, until nothing does.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            if self.hub.advance(0) {
                self.carry_out();
            } else if !self.arriving.is_empty() {
                self.take(Step::Arrive(0));
            } else if !self.questions.is_empty() {
                self.take(Step::Work(0, false));
            } else if self.hub.is_pushing() {
                self.take(Step::Push);
            } else if !self.feed.is_empty() {
                self.take(Step::Feed(0, false));
            } else if !self.retries.is_empty() {
                self.take(Step::Retry(0));
            } else {
                return;
            }
        }
        panic!("the hub does not come to rest");
    }

    /// Every client comes back, and takes all that it is owed.
    fn settle_all(&mut self) {
        for _ in 0..4 {
            self.settle();
            for n in 0..self.clients.len() {
                self.take(Step::Resume(n));
            }
            self.settle();
            for n in 0..self.clients.len() {
                for _ in 0..10_000 {
                    self.take(Step::Take(n, 10_000));
                    self.take(Step::Pong(n));
                    self.settle();
                    if self.clients[n].has_all() {
                        break;
                    }
                }
                self.take(Step::ReadOver(n));
            }
        }
    }

    fn check(&mut self) {
        for client in &self.clients {
            for (c, log) in self.logs.iter().enumerate() {
                client.check(c, log);
            }
        }
        for c in 0..self.logs.len() {
            self.check_signals(c);
        }
    }

    /// Whoever counts as a member was one up to where the order has come.
    fn check_named(&self) {
        for (c, log) in self.logs.iter().enumerate() {
            for (user, joined, as_of) in self.hub.listeners(conversation(c)) {
                let memberships = &log.memberships[&number(&user)];
                let (_, left) = memberships.iter().find(|(seq, _)| *seq == joined).unwrap();
                let lasts = left.is_none_or(|left| as_of < left);
                assert!(lasts, "{user:?} from {joined} as of {as_of} in {log:?}");
            }
        }
    }

    /// A signal reaches the sessions of present members and no other, and members are counted right.
    fn check_signals(&mut self, c: usize) {
        let log = &self.logs[c];
        let id = conversation(c);
        // Who comes back, or reads up to an end, skips events that nobody else may have read either: then counts are only
        // about right.
        let is_exact = self.clients.iter().all(Client::never_left) && log.nobody_left();
        if let Some(hosted) = self.hub.conversation(id).filter(|_| is_exact) {
            assert_eq!(hosted.members.count(), log.members(), "in {log:?}");
        }
        let sender = "u0".parse().unwrap();
        self.hub.signal(&Signal {
            tenant: "t".parse().unwrap(),
            conversation: id,
            user: sender,
            kind: SignalKind::Typing(true),
            gateway: None,
        });
        for client in &self.clients {
            let frames = client.send_queue().taken(usize::MAX).unwrap();
            let told = frames
                .iter()
                .any(|frame| frame.as_bytes()[0] != PING_OPCODE);
            let member = log.is_member(client.user);
            assert_eq!(told, member && client.user != 0, "u{}", client.user);
            let standing = self.hub.standing(client.key.unwrap(), id);
            let is_known = matches!(standing, Some(MembershipLookup::Member(n)) if !is_exact || n == log.members());
            assert_eq!(is_known, member);
        }
    }
}

fn play(mut world: World, steps: Vec<Step>) {
    for step in steps {
        world.take(step);
    }
    world.settle_all();
    world.check();
}

/// Nobody but its client proved the end: the record names it as over all the same, also when no worker says so.
#[test]
fn seen_removal_ends_delivery() {
    for comes_back in [false, true] {
        let mut world = World::new(1 << 20, NO_LIMITS, usize::MAX);
        let mut take = |steps: &[Step]| {
            for step in steps {
                world.take(*step);
                world.settle();
            }
        };
        take(&[Step::Create(0, 0), Step::Add(0, 1), Step::Open(0)]);
        take(&[Step::Open(1), Step::Take(1, 1000), Step::Remove(0, 1)]);
        take(&[Step::Take(1, 1000), Step::Seen(1)]);
        if comes_back {
            take(&[Step::Say(0), Step::Add(0, 1)]);
        }
        take(&[Step::Close(1), Step::Say(0)]);
        world.take(Step::Resume(1));
        world.take(Step::Work(0, true));
        assert!(world.clients[1].is_open, "by its record");
        world.settle_all();
        world.check();
    }
}

const NO_LIMITS: ReplayLimits = ReplayLimits {
    events: u64::MAX,
    bytes: usize::MAX,
};

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..150)
}

/// A window that is off, one that soon forgets, and one that holds all.
fn window() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0), Just(1000), Just(1 << 20)]
}

/// Fewer where the whole run is to be short.
fn cases() -> u32 {
    let is_soak = std::env::var_os("CONFAB_TEST_SOAK").is_some_and(|value| value == "1");
    if is_soak { 2000 } else { 500 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]
    #[test]
    fn every_session_hears_exactly_what_it_is_owed(steps in steps(), window in window()) {
        play(World::new(window, NO_LIMITS, usize::MAX), steps);
    }

    #[test]
    fn a_slow_client_misses_nothing(steps in steps(), window in window(), capacity in 1..300_usize) {
        play(World::new(window, NO_LIMITS, capacity), steps);
    }

    #[test]
    fn what_is_too_much_is_named(
        steps in steps(),
        window in window(),
        events in 0..6_u64,
        bytes in 0..300_usize,
    ) {
        let limits = ReplayLimits { events, bytes };
        play(World::new(window, limits, 200), steps);
    }

    #[test]
    fn removal_behind_snapshot_is_heard_whatever_budget_remains(
        before in prop::collection::vec(step(), 0..20),
        after in prop::collection::vec(step(), 0..40),
        window in window(),
        bytes in 0..300_usize,
        capacity in prop_oneof![Just(200), Just(usize::MAX)],
    ) {
        let limits = ReplayLimits { events: u64::MAX, bytes };
        let mut world = World::new(window, limits, capacity);
        for step in [Step::Create(0, 0), Step::Open(0), Step::Add(0, 1), Step::Open(1)] {
            world.take(step);
        }
        world.settle();
        for step in before {
            world.take(step);
        }
        world.take(Step::RemovedWhileOpening(1, 0));
        play(world, after);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]
    #[test]
    fn late_shards_deliver_exactly_what_is_due(
        shards in 1..4_usize,
        steps in prop::collection::vec(step(), 1..250),
        window in window(),
        (events, bytes) in prop_oneof![Just((u64::MAX, usize::MAX)), (0..6_u64, 0..300_usize)],
        capacity in prop_oneof![Just(usize::MAX), 1..300_usize],
        forgets in any::<bool>(),
    ) {
        let limits = ReplayLimits { events, bytes };
        let mut world = World::waiting(shards, window, limits, capacity);
        if forgets {
            world.hub.remembers(0);
        }
        play(world, steps);
    }
}
