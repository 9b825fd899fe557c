//! The hub against a model: random logs, feeds that reorder, repeat and break, answers that are old or fail, sessions that
//! come and go. Whatever the interleaving, every session hears exactly what it is owed (DESIGN.md, promise 4).

use std::collections::BTreeMap;

use confab_protocol::event::EventType;
use confab_protocol::ids::EventId;
use confab_protocol::json::JsonText;
use confab_protocol::query::EncodedEvent;
use confab_protocol::signal::{Signal, SignalKind};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::ws::frames::Frame;
use crate::ws::upgrade::Encoding;

const CONVERSATIONS: usize = 2;
const USERS: usize = 3;

#[derive(Debug, Clone)]
struct Logged {
    r#type: EventType,
    data: String,
}

/// One conversation as Postgres has it.
#[derive(Debug, Default, Clone)]
struct Log {
    events: Vec<Logged>,
    /// By user: each membership's first and last seq.
    memberships: BTreeMap<usize, Vec<(Seq, Option<Seq>)>>,
}

impl Log {
    fn head(&self) -> Seq {
        self.events.len() as Seq
    }

    fn at(&self, seq: Seq) -> &Logged {
        &self.events[usize::try_from(seq).unwrap() - 1]
    }

    fn append(&mut self, r#type: EventType, data: String) -> Seq {
        self.events.push(Logged { r#type, data });
        self.head()
    }

    fn is_member(&self, user: usize) -> bool {
        self.memberships
            .get(&user)
            .and_then(|all| all.last())
            .is_some_and(|(_, left)| left.is_none())
    }

    fn members(&self) -> u64 {
        let users = self.memberships.keys();
        users.filter(|user| self.is_member(**user)).count() as u64
    }

    fn add(&mut self, user: usize) -> Option<Seq> {
        if self.is_member(user) || self.events.is_empty() {
            return None;
        }
        let data = format!(r#"{{"participants":[{{"userId":"u{user}","role":"member"}}]}}"#);
        let seq = self.append(EventType::ParticipantAdded, data);
        self.memberships.entry(user).or_default().push((seq, None));
        Some(seq)
    }

    fn remove(&mut self, user: usize) -> Option<Seq> {
        if !self.is_member(user) {
            return None;
        }
        let seq = self.append(
            EventType::ParticipantRemoved,
            format!(r#"{{"userId":"u{user}","reason":"left"}}"#),
        );
        self.memberships.get_mut(&user)?.last_mut()?.1 = Some(seq);
        Some(seq)
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Create(usize, usize),
    Say(usize),
    Add(usize, usize),
    Remove(usize, usize),
    Open(usize),
    Close(usize),
    /// The feed gives one of its next events, and may give it again later.
    Feed(usize, bool),
    /// The feed loses what waits in it, and begins anew.
    Break,
    /// A worker reads for one of the questions, or its answer arrives, or is lost.
    Work(usize, bool),
    Arrive(usize),
    /// A wait is over.
    Retry(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (c, u, n) = (0..CONVERSATIONS, 0..USERS, 0..8_usize);
    prop_oneof![
        1 => (c.clone(), u.clone()).prop_map(|(c, u)| Step::Create(c, u)),
        5 => c.clone().prop_map(Step::Say),
        2 => (c.clone(), u.clone()).prop_map(|(c, u)| Step::Add(c, u)),
        2 => (c, u.clone()).prop_map(|(c, u)| Step::Remove(c, u)),
        2 => u.prop_map(Step::Open),
        1 => n.clone().prop_map(Step::Close),
        8 => (n.clone(), prop::bool::weighted(0.2)).prop_map(|(n, again)| Step::Feed(n, again)),
        1 => Just(Step::Break),
        4 => (n.clone(), prop::bool::weighted(0.1)).prop_map(|(n, fails)| Step::Work(n, fails)),
        4 => n.clone().prop_map(Step::Arrive),
        3 => n.prop_map(Step::Retry),
    ]
}

enum Question {
    Read(Read),
    Ask(Ask),
}

enum Arriving {
    Read(Read, Vec<EncodedEvent>),
    Ask(Ask, Vec<UserMemberships>),
}

struct Client {
    key: SessionKey,
    user: usize,
    outbox: Arc<Outbox>,
    /// The heads when the session was noted, and, once it is open, those it was told and those there were.
    noted: Vec<Seq>,
    opened: Option<(BTreeMap<usize, Seq>, Vec<Seq>)>,
}

struct World {
    hub: Hub,
    logs: Vec<Log>,
    feed: Vec<FeedEvent>,
    questions: Vec<Question>,
    arriving: Vec<Arriving>,
    retries: Vec<Retry>,
    clients: Vec<Client>,
    keys: u64,
}

fn conversation(c: usize) -> ConversationId {
    ConversationId(Uuid::from_u128(c as u128 + 1))
}

fn index(id: ConversationId) -> usize {
    usize::try_from(id.0.as_u128() - 1).unwrap()
}

fn number(user: &UserId) -> usize {
    user.as_str().trim_start_matches('u').parse().unwrap()
}

impl World {
    fn new() -> Self {
        Self {
            hub: Hub::new(Instant::now()),
            logs: vec![Log::default(); CONVERSATIONS],
            feed: vec![],
            questions: vec![],
            arriving: vec![],
            retries: vec![],
            clients: vec![],
            keys: 0,
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
            target_seq: None,
            json: self.json(c, seq).into(),
        });
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
            Step::Say(c) if !self.logs[c].events.is_empty() => {
                let seq = self.logs[c].append(EventType::MessageCreated, "{}".into());
                self.publish(c, Some(seq));
            }
            Step::Add(c, user) => {
                let seq = self.logs[c].add(user);
                self.publish(c, seq);
            }
            Step::Remove(c, user) => {
                let seq = self.logs[c].remove(user);
                self.publish(c, seq);
            }
            Step::Open(user) => self.open(user),
            Step::Close(n) if n < self.clients.len() => {
                let client = self.clients.remove(n);
                self.hub.close(client.key);
            }
            Step::Feed(n, again) if n < self.feed.len() => {
                let event = self.feed.remove(n);
                self.hub.heard(&event);
                if again {
                    self.feed.push(event);
                }
            }
            Step::Break => {
                self.feed.clear();
                self.hub.reconcile();
            }
            Step::Work(n, fails) if n < self.questions.len() => {
                let question = self.questions.remove(n);
                self.work(question, fails);
            }
            Step::Arrive(n) if n < self.arriving.len() => match self.arriving.remove(n) {
                Arriving::Read(read, events) => self.hub.events_read(&read, events),
                Arriving::Ask(ask, answers) => self.hub.memberships(ask, answers),
            },
            Step::Retry(n) if n < self.retries.len() => {
                let retry = self.retries.remove(n);
                self.hub.retry(retry);
            }
            _ => {}
        }
        self.carry_out();
    }

    fn open(&mut self, user: usize) {
        self.keys += 1;
        let key = SessionKey(self.keys);
        let outbox = Arc::new(Outbox::new(Encoding::Json, usize::MAX));
        let account = Account {
            tenant: "t".parse().unwrap(),
            user: format!("u{user}").parse().unwrap(),
        };
        self.hub.open(Opening {
            key,
            account,
            outbox: Arc::clone(&outbox),
            start: Start::default(),
        });
        self.clients.push(Client {
            key,
            user,
            outbox,
            noted: self.heads(),
            opened: None,
        });
    }

    fn work(&mut self, question: Question, fails: bool) {
        match question {
            Question::Read(read) if fails => self.hub.read_failed(&read),
            Question::Ask(ask) if fails => self.hub.ask_failed(ask),
            Question::Read(read) => {
                let c = index(read.conversation);
                // A worker may answer with fewer events than were asked for.
                let up_to = read.up_to.min(read.after + 3).min(self.logs[c].head());
                let event = |seq| EncodedEvent {
                    seq,
                    id: EventId(Uuid::nil()),
                    r#type: self.logs[c].at(seq).r#type,
                    json: JsonText::trusted(self.json(c, seq)),
                };
                let events = (read.after + 1..=up_to).map(event).collect();
                self.arriving.push(Arriving::Read(read, events));
            }
            Question::Ask(ask) => {
                let answers = ask.of.iter().map(|of| self.memberships(of)).collect();
                self.arriving.push(Arriving::Ask(ask, answers));
            }
        }
    }

    /// As a worker answers: present memberships, and of what is held those that ended above the position.
    fn memberships(&self, of: &MembershipsOf) -> UserMemberships {
        let mut memberships = Vec::new();
        for (c, log) in self.logs.iter().enumerate() {
            let id = conversation(c);
            let held = of
                .held
                .iter()
                .find(|(held, _)| *held == id)
                .map(|(_, position)| *position);
            for (joined, left) in log
                .memberships
                .get(&number(&of.user))
                .into_iter()
                .flatten()
                .copied()
            {
                let present =
                    left.is_none() && of.only.as_ref().is_none_or(|only| only.contains(&id));
                let ended = left.is_some_and(|left| held.is_some_and(|position| left > position));
                if (present || ended) && of.after.is_none_or(|after| id > after) {
                    memberships.push(Membership {
                        conversation: id,
                        joined,
                        left,
                        head: log.head(),
                        members: log.members(),
                    });
                }
            }
        }
        let mut ended = Vec::new();
        for (c, log) in self.logs.iter().enumerate().filter(|(c, _)| {
            let only = of.only.as_ref();
            only.is_none_or(|only| only.contains(&conversation(*c)))
        }) {
            for (joined, left) in log
                .memberships
                .get(&number(&of.user))
                .into_iter()
                .flatten()
                .copied()
            {
                let membership = Membership {
                    conversation: conversation(c),
                    joined,
                    left,
                    head: log.head(),
                    members: log.members(),
                };
                ended.extend(left.is_some().then_some(membership));
            }
        }
        // One conversation a page.
        let first = memberships.first().map(|m| m.conversation);
        let next = first.filter(|id| memberships.iter().any(|m| m.conversation != *id));
        memberships.retain(|m| Some(m.conversation) == first);
        if of.after.is_some() && next.is_some() {
            ended.clear();
        }
        UserMemberships {
            memberships,
            next,
            ended,
        }
    }

    fn carry_out(&mut self) {
        for effect in self.hub.effects() {
            match effect {
                Effect::Read(read) => self.questions.push(Question::Read(read)),
                Effect::Ask(ask) => self.questions.push(Question::Ask(ask)),
                Effect::Later(_, retry) => self.retries.push(retry),
                Effect::Opened(key, heads) => {
                    let now = self.heads();
                    if let Some(client) = self.clients.iter_mut().find(|client| client.key == key) {
                        client.outbox.start(Frame::text(b"{}"));
                        let told = heads
                            .heads
                            .into_iter()
                            .map(|(id, head)| (index(id), head))
                            .collect();
                        client.opened = Some((told, now));
                    }
                }
                Effect::Reconciled => {}
            }
        }
    }

    /// Everything that waits happens, until nothing does.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.arriving.is_empty() {
                self.take(Step::Arrive(0));
            } else if !self.questions.is_empty() {
                self.take(Step::Work(0, false));
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

    fn check(&self) {
        for client in &self.clients {
            let (told, opened) = client.opened.as_ref().expect("every session opens");
            let heard = heard(&client.outbox);
            for (c, opened) in opened.iter().copied().enumerate() {
                let heard = heard.get(&c).cloned().unwrap_or_default();
                self.check_conversation(client, c, told.get(&c).copied(), opened, &heard);
            }
        }
        for (c, log) in self.logs.iter().enumerate() {
            self.check_signals(c, log);
        }
    }

    /// A signal reaches the sessions of present members and no other, and members are counted right.
    fn check_signals(&self, c: usize, log: &Log) {
        let id = conversation(c);
        if let Some(hosted) = self.hub.conversations.get(&id) {
            assert_eq!(hosted.members.count(), log.members(), "in {log:?}");
        }
        let sender = "u0".parse().unwrap();
        self.hub.signal(&Signal {
            tenant: "t".parse().unwrap(),
            conversation: id,
            user: sender,
            kind: SignalKind::Typing(true),
        });
        for client in &self.clients {
            let told = !client.outbox.take(usize::MAX).unwrap().is_empty();
            let member = log.is_member(client.user);
            assert_eq!(told, member && client.user != 0, "u{}", client.user);
            let standing = self.hub.standing(client.key, id);
            let is_known = matches!(standing, Some(Standing::Member(n)) if n == log.members());
            assert_eq!(is_known, member);
        }
    }

    fn check_conversation(
        &self,
        client: &Client,
        c: usize,
        told: Option<Seq>,
        opened: Seq,
        heard: &[Seq],
    ) {
        let log = &self.logs[c];
        let memberships = log
            .memberships
            .get(&client.user)
            .cloned()
            .unwrap_or_default();
        let mut owed = Vec::new();
        let mut allowed = Vec::new();
        for (joined, left) in memberships {
            let end = left.unwrap_or(log.head());
            let from = match told {
                Some(head) if joined <= head => head + 1,
                _ => joined,
            };
            let ended_before = left.is_some_and(|left| left <= told.unwrap_or(opened));
            if ended_before {
                // What began and ended while the session opened may be told or not; what was over before, not.
                if left.is_some_and(|left| left > client.noted[c]) {
                    allowed.extend(from..=end);
                }
            } else {
                owed.extend(from..=end);
            }
        }
        let rest: Vec<_> = heard
            .iter()
            .copied()
            .filter(|seq| !allowed.contains(seq) || owed.contains(seq))
            .collect();
        assert!(
            heard.is_sorted_by(|a, b| a < b),
            "out of order or twice: {heard:?}"
        );
        assert_eq!(
            rest, owed,
            "user {} in {c}, told {told:?}, log {log:?}",
            client.user
        );
    }
}

fn heard(outbox: &Outbox) -> BTreeMap<usize, Vec<Seq>> {
    #[derive(serde::Deserialize)]
    struct Event {
        c: usize,
        seq: Seq,
    }
    let mut heard = BTreeMap::<usize, Vec<Seq>>::new();
    for frame in outbox.take(usize::MAX).unwrap() {
        let bytes = frame.as_bytes();
        let json = &bytes[bytes.iter().position(|b| *b == b'{').unwrap()..];
        if let Ok(event) = serde_json::from_slice::<Event>(json) {
            heard.entry(event.c).or_default().push(event.seq);
        }
    }
    heard
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn every_session_hears_exactly_what_it_is_owed(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.settle();
        world.check();
    }
}
