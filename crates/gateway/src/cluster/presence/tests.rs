//! The machine in steps.

use uuid::Uuid;

use super::*;

mod answers;

mod model;

const GRACE_PERIOD: Duration = Duration::from_secs(10);
const ROOM_ID: ConversationId = ConversationId(Uuid::from_u128(1));
const IN_ROOM: MemberOf = MemberOf {
    conversation: ROOM_ID,
    as_of: 1,
};

fn gateway(n: u128) -> GatewayId {
    GatewayId(Uuid::from_u128(n))
}

fn account(name: &str) -> Arc<Account> {
    Arc::new(Account {
        tenant: "t".parse().unwrap(),
        user: name.parse().unwrap(),
    })
}

fn word(name: &str, status: PresenceStatus) -> Presence {
    let elsewhere = MemberOf {
        conversation: ConversationId(Uuid::from_u128(99)),
        as_of: 1,
    };
    let (tenant, user) = ("t".parse().unwrap(), name.parse().unwrap());
    Presence::new(tenant, user, status, [IN_ROOM, elsewhere])
}

/// One gateway's machine, with its clock.
struct Here {
    presences: Presences,
    start: Instant,
}

impl Here {
    fn new() -> Self {
        Self {
            presences: Presences::new(gateway(0), GRACE_PERIOD),
            start: Instant::now(),
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn hears(&mut self, from: u128, name: &str, status: PresenceStatus, kind: UpdateKind, ms: u64) {
        let now = self.at(ms);
        let word = word(name, status);
        self.presences
            .heard((gateway(from), 0), &word, kind, now, |id| {
                (id == ROOM_ID).then_some(true)
            });
    }

    fn told(&mut self, ms: u64) -> Vec<(String, PresenceStatus)> {
        let told = self.presences.told(self.at(ms)).into_iter();
        told.map(|presence| {
            assert_eq!(presence.conversations, [ROOM_ID]);
            (presence.user.as_str().to_owned(), presence.status)
        })
        .collect()
    }

    fn opens(&mut self, key: SessionKey, account: &Arc<Account>) {
        self.presences.opened_with(key, account, Online);
    }

    fn says(&mut self, ms: u64) -> PresenceUpdates {
        self.presences
            .say(self.at(ms), |_| Some(vec![IN_ROOM]), |_| false)
    }
}

fn one(name: &str, status: PresenceStatus) -> Vec<(String, PresenceStatus)> {
    vec![(name.to_owned(), status)]
}

use PresenceStatus::{Away, Offline, Online};

#[test]
fn offline_is_told_after_grace_period() {
    let mut here = Here::new();
    here.hears(1, "alice", Online, UpdateKind::Change, 0);
    here.hears(2, "alice", Away, UpdateKind::Change, 0);
    assert_eq!(here.told(0), one("alice", Online));
    here.hears(1, "alice", Offline, UpdateKind::Change, 100);
    assert_eq!(here.told(100), one("alice", Away), "at the other gateway");
    here.hears(2, "alice", Offline, UpdateKind::Change, 200);
    assert_eq!(here.told(10_199), []);
    assert_eq!(here.told(10_200), one("alice", Offline));
    here.presences.sweep(here.at(610_200), |_| true);
    assert!(here.presences.known.is_empty());
}

#[test]
fn repeat_is_told_to_who_was_told_offline() {
    let mut here = Here::new();
    here.hears(1, "alice", Online, UpdateKind::Change, 0);
    here.told(0);
    here.hears(1, "alice", Offline, UpdateKind::Change, 100);
    assert_eq!(here.told(10_100), one("alice", Offline));
    // Its gateway did not know where to tell it when the user came.
    here.hears(1, "alice", Online, UpdateKind::Repeat, 20_000);
    assert_eq!(here.told(20_000), one("alice", Online));
}

#[test]
fn return_within_grace_is_not_told() {
    let mut here = Here::new();
    here.hears(1, "alice", Online, UpdateKind::Change, 0);
    here.told(0);
    here.hears(1, "alice", Offline, UpdateKind::Change, 100);
    here.hears(2, "alice", Online, UpdateKind::Change, 9000);
    here.hears(2, "alice", Offline, UpdateKind::Change, 9500);
    assert_eq!(here.told(19_499), []);
    assert_eq!(here.told(19_500), one("alice", Offline));
}

#[test]
fn a_dead_gateways_words_end_with_it() {
    let mut here = Here::new();
    here.hears(1, "alice", Online, UpdateKind::Change, 0);
    here.hears(1, "bob", Online, UpdateKind::Change, 0);
    here.hears(2, "bob", Away, UpdateKind::Change, 0);
    here.told(0);
    let (now, both) = (here.at(1000), [gateway(0), gateway(1), gateway(2)]);
    assert!(!here.presences.alive(&both, now));
    let now = here.at(4000);
    here.presences.alive(&[gateway(0)], now);
    assert_eq!(here.told(4000), [], "it spoke a moment ago");
    let now = here.at(6000);
    here.presences.alive(&[gateway(0), gateway(2)], now);
    assert_eq!(here.told(6000), one("bob", Away));
    assert_eq!(here.told(16_000), one("alice", Offline));
    let now = here.at(17_000);
    assert!(here.presences.alive(&both, now), "it was only cut off");
    assert!(!here.presences.alive(&both, now));
}

#[test]
fn user_of_returned_gateway_is_told_online() {
    let mut here = Here::new();
    here.hears(1, "alice", Online, UpdateKind::Change, 0);
    here.hears(2, "alice", Away, UpdateKind::Change, 0);
    here.hears(2, "alice", Offline, UpdateKind::Change, 1000);
    assert_eq!(here.told(1000), one("alice", Online));
    let now = here.at(6000);
    here.presences.alive(&[gateway(0), gateway(2)], now);
    assert_eq!(here.told(16_000), one("alice", Offline));
    here.hears(1, "alice", Online, UpdateKind::Repeat, 17_000);
    assert_eq!(here.told(17_000), one("alice", Online));
}

#[test]
fn users_of_dead_gateway_are_forgotten() {
    let mut here = Here::new();
    here.hears(1, "alice", Online, UpdateKind::Change, 0);
    assert_eq!(here.told(0), one("alice", Online));
    let now = here.at(6000);
    here.presences.alive(&[gateway(0)], now);
    assert_eq!(here.told(16_000), one("alice", Offline));
    assert_eq!(here.told(17_000), []);
    for (at, kept) in [(6000, 1), (605_999, 1), (606_000, 0)] {
        let now = here.at(at);
        here.presences.sweep(now, |_| true);
        assert_eq!(here.presences.known.len(), kept, "{at}");
    }
}

#[test]
fn end_is_repeated_after_break() {
    let mut here = Here::new();
    let (alice, key) = (account("alice"), SessionKey(1));
    here.opens(key, &alice);
    here.says(0);
    here.presences.closed(key);
    assert_eq!(here.says(2000).changes[0].status, Offline);
    assert_eq!(here.says(9999).repeats, []);
    let again = here.says(10_000).repeats;
    assert_eq!((again.len(), again[0].status), (1, Offline));
    assert_eq!(here.says(20_000).repeats, []);
    here.presences.repeat_all();
    assert_eq!(
        here.says(20_250).repeats,
        again,
        "whoever missed it hears it"
    );
    here.opens(SessionKey(2), &alice);
    here.presences.repeat_all();
    let said = here.says(30_000);
    assert!(said.repeats.iter().all(|word| word.status == Online));
    here.presences.repeat_all();
    let now = here.at(700_000);
    assert_eq!(here.presences.said_twice.len(), 1);
    here.presences.say(now, |_| Some(vec![IN_ROOM]), |_| false);
    assert!(
        here.presences.said_twice.is_empty(),
        "nothing is kept for long"
    );
}

#[test]
fn repeat_is_learned_and_not_told() {
    let mut here = Here::new();
    here.hears(1, "alice", Online, UpdateKind::Repeat, 0);
    assert_eq!(here.told(0), []);
    here.hears(1, "alice", Away, UpdateKind::Repeat, 10);
    assert_eq!(here.told(10), one("alice", Away), "its change was missed");
    let now = here.at(6000);
    here.presences.alive(&[gateway(0)], now);
    assert_eq!(here.told(16_000), one("alice", Offline));
}

#[test]
fn gateway_announces_merged_status_once_a_second() {
    let mut here = Here::new();
    let alice = account("alice");
    let (phone, laptop) = (SessionKey(1), SessionKey(2));
    here.opens(phone, &alice);
    here.opens(laptop, &alice);
    let said = here.says(0);
    assert_eq!(said.changes.len(), 1);
    assert_eq!(said.changes[0].status, Online);
    assert_eq!(here.told(0), one("alice", Online));
    here.presences.set(phone, Away);
    assert_eq!(
        here.says(1000),
        PresenceUpdates::default(),
        "the laptop is online"
    );
    for status in [Away, Online, Away] {
        here.presences.set(laptop, status);
    }
    assert_eq!(here.says(1001).changes[0].status, Away);
    here.presences.set(laptop, Online);
    assert_eq!(here.says(1500), PresenceUpdates::default());
    assert_eq!(here.says(2001).changes[0].status, Online);
    here.presences.closed(phone);
    here.presences.closed(laptop);
    assert_eq!(here.says(3001).changes[0].status, Offline);
    assert_eq!(here.says(4001), PresenceUpdates::default());
    assert!(here.presences.locals.is_empty() && here.presences.unsaid.is_empty());
    here.told(3001);
    assert_eq!(here.told(13_001), one("alice", Offline));
}

#[test]
fn gateway_corrects_false_offline() {
    let mut here = Here::new();
    here.opens(SessionKey(1), &account("alice"));
    here.says(0);
    here.hears(1, "alice", Offline, UpdateKind::Change, 2000);
    let said = here.says(2000);
    assert_eq!((said.changes.len(), said.repeats.len()), (0, 1));
    assert_eq!(said.repeats[0].status, Online);
    here.presences.repeat_all();
    assert_eq!(here.says(3000).repeats.len(), 1);
}

#[test]
fn earlier_change_is_not_told_in_conversation() {
    let (mut here, mut there) = (Here::new(), Here::new());
    there.presences.own = gateway(1);
    let (alice, key) = (account("alice"), SessionKey(1));
    here.presences.opened_with(key, &alice, Online);
    // The room begins before the gateway has said that she came.
    here.presences.joined(&alice, ROOM_ID);
    let said = here.says(100);
    assert_eq!(said.changes[0].conversations, []);
    let tell = |there: &mut Here, said: &PresenceUpdates, ms| {
        for (words, kind) in [
            (&said.changes, UpdateKind::Change),
            (&said.repeats, UpdateKind::Repeat),
        ] {
            for word in words {
                let now = there.at(ms);
                there
                    .presences
                    .heard((gateway(0), 0), word, kind, now, |_| Some(true));
            }
        }
        there.told(ms)
    };
    assert_eq!(tell(&mut there, &said, 100), []);
    let said = here.says(1100);
    assert_eq!((said.changes.len(), said.repeats.len()), (0, 1));
    assert_eq!(said.repeats[0].conversations, [ROOM_ID]);
    assert_eq!(tell(&mut there, &said, 1100), []);
    here.presences.set(key, Away);
    let said = here.says(2100);
    assert_eq!(tell(&mut there, &said, 2100), one("alice", Away));
    assert_eq!(here.told(2100), one("alice", Away));
}

#[test]
fn change_behind_new_conversation_is_told_there() {
    let mut here = Here::new();
    let (alice, key) = (account("alice"), SessionKey(1));
    here.presences.opened_with(key, &alice, Online);
    here.presences.joined(&alice, ROOM_ID);
    here.presences.set(key, Online);
    here.presences.set(key, Away);
    let said = here.says(100);
    assert_eq!(said.changes[0].conversations, [ROOM_ID]);
    assert_eq!(here.told(100), one("alice", Away));
}

#[test]
fn what_nobody_could_be_told_is_news_later() {
    let mut here = Here::new();
    let (alice, key) = (account("alice"), SessionKey(1));
    here.opens(key, &alice);
    let nowhere = here
        .presences
        .say(here.at(0), |_| Some(Vec::new()), |_| false);
    assert_eq!(nowhere.changes[0].conversations, []);
    here.presences.counted(&alice);
    let said = here.says(1000);
    assert_eq!((said.changes.len(), said.repeats.len()), (0, 0));
    assert_eq!(said.unheard[0].conversations, [ROOM_ID]);
    assert_eq!(here.told(1000), one("alice", Online));
    // Who is gone by then is no news.
    here.presences.counted(&alice);
    here.presences.closed(key);
    assert_eq!(here.says(2000).changes[0].status, Offline);
    assert_eq!(here.says(3000), PresenceUpdates::default());
}

#[test]
fn presence_of_many_is_said_in_steps() {
    let mut here = Here::new();
    let users = 5;
    for n in 0..users {
        here.opens(SessionKey(n), &account(&format!("u{n}")));
    }
    let (mut steps, mut said) = (0, 0);
    while steps == 0 || here.presences.is_saying() {
        let now = here.at(100);
        let next = here.presences.to_say(now, 2);
        let conversations = |one: &Account| {
            let asked = next.iter().any(|next| **next == *one);
            asked.then(|| vec![IN_ROOM])
        };
        said += here
            .presences
            .say(now, conversations, |_| false)
            .changes
            .len();
        steps += 1;
    }
    assert_eq!((steps, said), (3, 5));
}

#[test]
fn moved_session_keeps_its_status() {
    for fenced_first in [true, false] {
        let (mut here, alice) = (Here::new(), account("alice"));
        here.hears(1, "alice", Away, UpdateKind::Change, 0);
        assert_eq!(here.told(0), one("alice", Away));
        if fenced_first {
            here.hears(1, "alice", Offline, UpdateKind::Change, 5000);
        }
        here.presences.opened_with(SessionKey(1), &alice, Away);
        assert_eq!(here.says(5500).changes[0].status, Away);
        here.hears(1, "alice", Offline, UpdateKind::Change, 6000);
        assert_eq!(here.told(60_000), []);
    }
}

#[test]
fn users_without_shared_conversation_are_not_kept() {
    let mut here = Here::new();
    let stranger = Presence {
        conversations: vec![ConversationId(Uuid::from_u128(99))],
        ..word("eve", Online)
    };
    let now = here.at(0);
    here.presences
        .heard((gateway(1), 0), &stranger, UpdateKind::Change, now, |id| {
            (id == ROOM_ID).then_some(true)
        });
    here.hears(1, "alice", Online, UpdateKind::Change, 0);
    assert_eq!(here.told(0), one("alice", Online));
    here.presences.sweep(now, |_| true);
    assert_eq!(here.presences.known.len(), 1);
    here.presences.sweep(now, |_| false);
    assert!(here.presences.known.is_empty() && here.presences.swept.is_empty());
}

#[test]
fn end_is_told_when_gateway_stops_naming() {
    for (moves_on, carries) in [(false, false), (true, false), (true, true)] {
        let mut here = Here::new();
        here.hears(1, "alice", Online, UpdateKind::Change, 0);
        assert_eq!(here.told(0), one("alice", Online));
        if moves_on {
            // Her gateway names the room no more: it carries no signals, or may not have her any more.
            let (now, away) = (
                here.at(1000),
                Presence {
                    conversations: vec![],
                    ..word("alice", Away)
                },
            );
            let carries = |id| (id == ROOM_ID).then_some(carries);
            here.presences
                .heard((gateway(1), 2), &away, UpdateKind::Change, now, carries);
            assert_eq!(here.presences.told(now)[0].conversations, []);
        }
        let now = here.at(1000);
        here.presences.sweep(now, |id| id == ROOM_ID);
        here.hears(1, "alice", Offline, UpdateKind::Change, 2000);
        assert_eq!(here.told(12_000), one("alice", Offline));
    }
}
