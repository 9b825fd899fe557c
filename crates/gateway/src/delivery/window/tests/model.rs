//! The window against present content: whatever happens in whatever order, a range that is served up to a known head, or up
//! to the highest seq heard, tells of each message what it was at that head or became since.

use std::collections::VecDeque;

use super::*;

const CONVERSATION_COUNT: usize = 2;

#[derive(Debug, Clone, Copy)]
enum Step {
    Say(usize),
    /// A change of the last message but so many.
    Edit(usize, usize),
    Delete(usize, usize),
    /// An event is encoded to be published, as its message is now; it may be the second time.
    Encode(usize, usize),
    /// One of the encoded events comes through the stream, and may come again.
    Publish(usize, bool),
    /// The next event of the stream's past; the end of the past.
    Fill,
    Filled,
    /// A worker reads events above a seq, as they are now; one of its answers comes.
    Read(usize, Seq),
    Arrive(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (c, n) = (0..CONVERSATION_COUNT, 0..6_usize);
    prop_oneof![
        4 => c.clone().prop_map(Step::Say),
        3 => (c.clone(), n.clone()).prop_map(|(c, n)| Step::Edit(c, n)),
        2 => (c.clone(), n.clone()).prop_map(|(c, n)| Step::Delete(c, n)),
        1 => (c.clone(), n.clone()).prop_map(|(c, n)| Step::Encode(c, n)),
        9 => (n.clone(), prop::bool::weighted(0.5)).prop_map(|(n, again)| Step::Publish(n, again)),
        6 => Just(Step::Fill),
        1 => Just(Step::Filled),
        2 => (c, 0..12_u64).prop_map(|(c, after)| Step::Read(c, after)),
        3 => n.prop_map(Step::Arrive),
        2 => (0..90_u64).prop_map(Step::Pass),
    ]
}

/// One event of a log; of one that tells of a message, which.
#[derive(Debug, Clone, Copy)]
struct Logged {
    r#type: EventType,
    target: Option<Seq>,
}

impl Logged {
    /// The message whose content is told with the event.
    const fn message(self, seq: Seq) -> Option<Seq> {
        match self.r#type {
            EventType::MessageCreated => Some(seq),
            EventType::MessageEdited => self.target,
            _ => None,
        }
    }
}

type Encoded = (usize, LogEvent);

#[derive(Debug)]
struct World {
    window: Window,
    now: Instant,
    logs: [Vec<Logged>; CONVERSATION_COUNT],
    encoded: VecDeque<Encoded>,
    /// What the stream holds of before the gateway began.
    past: VecDeque<Encoded>,
    has_begun: bool,
    arriving: VecDeque<Vec<Encoded>>,
}

impl World {
    fn new(bytes: usize) -> Self {
        Self {
            window: window(bytes),
            now: Instant::now(),
            logs: Default::default(),
            encoded: VecDeque::new(),
            past: VecDeque::new(),
            has_begun: false,
            arriving: VecDeque::new(),
        }
    }

    fn head(&self, c: usize) -> Seq {
        self.logs[c].len() as Seq
    }

    fn append(&mut self, c: usize, r#type: EventType, target: Option<Seq>) {
        self.logs[c].push(Logged { r#type, target });
        let seq = self.head(c);
        self.encode(c, seq);
    }

    /// The changes of a message up to a head: its version then.
    fn version(&self, c: usize, message: Seq, head: Seq) -> usize {
        let log = &self.logs[c][..usize::try_from(head).unwrap()];
        log.iter().filter(|one| one.target == Some(message)).count()
    }

    fn event(&self, c: usize, seq: Seq) -> LogEvent {
        let logged = self.logs[c][usize::try_from(seq).unwrap() - 1];
        let version = logged
            .message(seq)
            .map_or(0, |message| self.version(c, message, self.head(c)));
        LogEvent {
            body: Arc::new(Broadcast::new(format!("{version:0>100}").as_bytes())),
            ..event(seq, logged.r#type, logged.target)
        }
    }

    fn encode(&mut self, c: usize, seq: Seq) {
        let event = self.event(c, seq);
        self.encoded.push_back((c, event));
    }

    fn message(&self, c: usize, back: usize) -> Option<Seq> {
        let mut messages = (1..=self.head(c)).rev().filter(|seq| {
            let logged = self.logs[c][usize::try_from(*seq).unwrap() - 1];
            logged.r#type == EventType::MessageCreated
        });
        messages.nth(back)
    }

    fn is_deleted(&self, c: usize, message: Seq) -> bool {
        let mut log = self.logs[c].iter();
        log.any(|one| one.target == Some(message) && one.r#type == EventType::MessageDeleted)
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Say(c) => self.append(c, EventType::MessageCreated, None),
            Step::Edit(c, back) => {
                let message = self.message(c, back);
                if let Some(message) = message.filter(|message| !self.is_deleted(c, *message)) {
                    self.append(c, EventType::MessageEdited, Some(message));
                }
            }
            Step::Delete(c, back) => {
                if let Some(message) = self.message(c, back) {
                    self.append(c, EventType::MessageDeleted, Some(message));
                }
            }
            Step::Encode(c, back) => {
                if let Some(seq) = self.head(c).checked_sub(back as Seq).filter(|seq| *seq > 0) {
                    self.encode(c, seq);
                }
            }
            Step::Publish(n, again) => {
                if let Some((c, event)) = self.encoded.remove(n) {
                    if again {
                        self.encoded.push_back((c, event.clone()));
                    }
                    self.published(c, event);
                }
            }
            Step::Fill if self.has_begun => {
                if let Some((c, event)) = self.past.pop_front() {
                    self.window.fill(id(c as u128), &event, self.now);
                }
            }
            Step::Filled if self.has_begun && self.past.is_empty() => self.window.filled(),
            Step::Fill | Step::Filled => {}
            Step::Read(c, after) => {
                let up_to = self.head(c).min(after + 4);
                let events = (after + 1..=up_to).map(|seq| (c, self.event(c, seq)));
                self.arriving.push_back(events.collect());
            }
            Step::Arrive(n) => {
                for (c, event) in self.arriving.remove(n).into_iter().flatten() {
                    self.note(c, &event);
                }
            }
            Step::Pass(seconds) => {
                self.now += Duration::from_secs(seconds);
                self.window.expire(self.now);
            }
        }
    }

    fn published(&mut self, c: usize, event: LogEvent) {
        if self.has_begun {
            self.note(c, &event);
        } else {
            self.past.push_back((c, event));
        }
    }

    fn note(&mut self, c: usize, event: &LogEvent) {
        self.window.note(id(c as u128), event, self.now);
    }

    fn check(&self) {
        for c in 0..CONVERSATION_COUNT {
            let highest = self.window.highest(id(c as u128));
            for head in [highest, self.head(c), self.head(c) / 2] {
                for after in 0..head {
                    self.check_range(c, after, head);
                }
            }
        }
        assert!(self.window.bytes() <= self.window.bounds.bytes);
        let held = self.window.conversations.len();
        assert!(held <= self.window.events(), "nothing empty is kept");
    }

    fn check_range(&self, c: usize, after: Seq, head: Seq) {
        let Some(events) = self.window.behind(id(c as u128), after, head) else {
            return;
        };
        let highest = self.window.highest(id(c as u128));
        let mut due = after + 1;
        for event in events {
            assert_eq!(event.seq, due, "a hole behind {after} up to {head}");
            due += 1;
            let logged = self.logs[c][usize::try_from(event.seq).unwrap() - 1];
            let Some(message) = logged.message(event.seq) else {
                continue;
            };
            let told: usize = std::str::from_utf8(event.body.json())
                .unwrap()
                .parse()
                .unwrap();
            let present = self.version(c, message, head.max(highest));
            assert!(
                told >= present,
                "{message} is told as {told} of {present} behind {after} at {head}"
            );
        }
        assert!(due > head.max(highest), "it ends before the head {head}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn served_ranges_tell_present_content(
        before in prop::collection::vec(step(), 0..60),
        after in prop::collection::vec(step(), 1..120),
        bytes in prop_oneof![0..5_000_usize, Just(1 << 20)],
    ) {
        let mut world = World::new(bytes);
        for step in before {
            world.take(step);
        }
        world.has_begun = true;
        for step in after {
            world.take(step);
            world.check();
        }
    }
}
