//! Tests of the checker with planted presence violations.

use confab_protocol::signal::PresenceStatus::{self, Away, Offline, Online};

use super::super::presence;
use super::super::record::{Millis, Presence, Saying};
use super::*;

fn of(name: &str, status: PresenceStatus, at: Millis) -> Presence {
    let user = user(name);
    Presence { user, status, at }
}

fn told(name: &str, status: PresenceStatus, at: Millis) -> ReceivedItem {
    ReceivedItem::Presence(of(name, status, at))
}

fn snapshot(users: &[(&str, PresenceStatus)], at: Millis) -> ReceivedItem {
    let users = users.iter().map(|(name, status)| of(name, *status, at));
    ReceivedItem::Snapshot {
        users: users.collect(),
        is_complete: true,
        at,
    }
}

fn generation(welcomed_at: Millis, heard: Vec<ReceivedItem>) -> Generation {
    Generation {
        welcomed_at,
        ..first(heard)
    }
}

/// A client that says so at these times.
fn saying(account: ClientAccount, said: &[(PresenceStatus, Millis)]) -> ClientAccount {
    let said = said.iter().map(|(status, at)| Saying {
        status: *status,
        at: *at,
    });
    ClientAccount {
        said: said.collect(),
        ..account
    }
}

/// What is wrong with what one client heard of presence.
fn alone(ledger: &Ledger, name: &str, heard: Vec<ReceivedItem>) -> Vec<Violation> {
    let at = match heard.first() {
        Some(ReceivedItem::Snapshot { at, .. }) => *at,
        _ => 0,
    };
    alone_in(ledger, name, generation(at, heard))
}

fn alone_in(ledger: &Ledger, name: &str, generation: Generation) -> Vec<Violation> {
    let mut found = Vec::new();
    presence::check(ledger, &account(name, vec![generation]), &mut found);
    found
}

/// What is wrong with what alice was told of the others.
fn together(alice: Vec<Generation>, others: &[ClientAccount]) -> Vec<Violation> {
    let alice = account("alice", alice);
    let accounts: Vec<_> = [&alice].into_iter().chain(others).collect();
    let mut found = check::together(&ledger(), &accounts);
    found.retain(|violation| match violation {
        Violation::NoSnapshot(watcher)
        | Violation::OldPresence(watcher, _)
        | Violation::WrongPresence(watcher, ..) => *watcher == alice.user,
        other => panic!("{other:?}"),
    });
    found
}

#[test]
fn user_outside_of_shared_membership_is_found() {
    let stranger = |watcher: &str, name: &str| [Violation::Stranger(user(watcher), user(name))];
    // Carol is there from 40,000 to 70,000 and from 90,000 on; what is late may come for a while.
    for at in [40_000, 69_000, 85_000, 90_000] {
        assert_eq!(alone(&ledger(), "bob", vec![told("carol", Online, at)]), []);
        assert_eq!(
            alone(&ledger(), "carol", vec![snapshot(&[("bob", Away)], at)]),
            []
        );
    }
    let before = alone(&ledger(), "bob", vec![told("carol", Offline, 39_999)]);
    assert_eq!(before, stranger("bob", "carol"));
    let end = alone(&ledger(), "bob", vec![told("carol", Offline, 89_999)]);
    assert_eq!(end, [], "where she was told to be there");
    for at in [39_999, 85_001, 89_999] {
        let found = alone(&ledger(), "bob", vec![told("carol", Online, at)]);
        assert_eq!(found, stranger("bob", "carol"), "{at}");
        let found = alone(&ledger(), "carol", vec![snapshot(&[("bob", Away)], at)]);
        assert_eq!(found, stranger("carol", "bob"), "{at}");
    }
    let read_late = generation(85_000, vec![snapshot(&[("bob", Away)], 89_000)]);
    assert_eq!(alone_in(&ledger(), "carol", read_late), []);
    // Of the sixth event, which comes behind it, she was still a member.
    let behind = |seq| {
        generation(
            50_000,
            vec![
                told("bob", Away, 89_000),
                ReceivedItem::Event(super::told(seq)),
            ],
        )
    };
    assert_eq!(alone_in(&ledger(), "carol", behind(6)), []);
    let found = alone_in(&ledger(), "carol", behind(9));
    assert_eq!(found, stranger("carol", "bob"));
    let found = alone(&ledger(), "bob", vec![told("dave", Online, 50_000)]);
    assert_eq!(found, stranger("bob", "dave"));
    let found = alone(&ledger(), "bob", vec![told("bob", Online, 50_000)]);
    assert_eq!(found, stranger("bob", "bob"));
    // What is stored later may make them members.
    let growing = Ledger {
        is_final: false,
        ..ledger()
    };
    assert_eq!(
        alone(&growing, "bob", vec![told("dave", Online, 50_000)]),
        []
    );
}

#[test]
fn presence_in_too_large_conversation_is_found() {
    let names: Vec<String> = (0..101).map(|number| format!("u{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (many, last) = names.split_at(100);
    let added = LogAction::Add(vec![user(last[0])]);
    let mut log = ConversationLog {
        rows: vec![
            row(1, EventType::ConversationCreated, LogAction::Create, many),
            row(2, EventType::ParticipantAdded, added, last),
        ],
        ..ConversationLog::default()
    };
    log.memberships = log.derived();
    let large = Ledger {
        logs: [(CHAT_ID, log)].into(),
        is_final: true,
    };
    for (status, at) in [(Online, 19_000), (Online, 35_000), (Offline, 36_000)] {
        assert_eq!(alone(&large, "u0", vec![told("u1", status, at)]), []);
    }
    for status in [Online, Away] {
        let found = alone(&large, "u0", vec![told("u1", status, 36_000)]);
        assert_eq!(found, [Violation::Stranger(user("u0"), user("u1"))]);
    }
}

#[test]
fn unsound_snapshot_is_found() {
    let sound = snapshot(&[("alice", Online), ("carol", Away)], 50_000);
    assert_eq!(alone(&ledger(), "bob", vec![sound.clone()]), []);
    let twice = snapshot(&[("alice", Online), ("alice", Away)], 50_000);
    let gone = snapshot(&[("alice", Offline)], 50_000);
    for heard in [vec![sound.clone(), sound], vec![twice], vec![gone]] {
        let found = alone(&ledger(), "bob", heard);
        assert_eq!(found, [Violation::Snapshot(user("bob"))]);
    }
    let crowd: Vec<String> = (0..1_001).map(|number| format!("u{number}")).collect();
    let crowd: Vec<_> = crowd.iter().map(|name| (name.as_str(), Online)).collect();
    let mut ledger = ledger();
    ledger.is_final = false;
    assert_eq!(
        alone(&ledger, "bob", vec![snapshot(&crowd[..1_000], 50_000)]),
        []
    );
    let found = alone(&ledger, "bob", vec![snapshot(&crowd, 50_000)]);
    assert_eq!(found, [Violation::Snapshot(user("bob"))]);
}

/// Bob, online at first, and from 105,000 on another connection.
fn bob_says() -> ClientAccount {
    let generations = vec![generation(10_000, vec![]), generation(105_000, vec![])];
    saying(
        account("bob", generations),
        &[(Away, 60_000), (Online, 70_000), (Away, 80_000)],
    )
}

fn order(generations: Vec<Generation>) -> Vec<Violation> {
    let mut found = together(generations, &[bob_says()]);
    found.retain(|violation| matches!(violation, Violation::OldPresence(..)));
    found
}

#[test]
fn older_presence_behind_newer_is_found() {
    let old = |status, at| [Violation::OldPresence(user("alice"), of("bob", status, at))];
    let hears = |all: &[(PresenceStatus, Millis)]| {
        let heard = all.iter().map(|(status, at)| told("bob", *status, *at));
        order(vec![first(heard.collect())])
    };
    let all = [
        (Online, 30_000),
        (Away, 61_000),
        (Online, 71_000),
        (Away, 99_000),
    ];
    assert_eq!(hears(&all), []);
    assert_eq!(hears(&[(Away, 99_000)]), []);
    assert_eq!(
        hears(&[(Away, 61_000), (Offline, 65_000), (Away, 66_000)]),
        []
    );
    let back = [
        (Away, 61_000),
        (Online, 71_000),
        (Away, 81_000),
        (Online, 82_000),
    ];
    assert_eq!(hears(&back), old(Online, 82_000));
    assert_eq!(hears(&[(Away, 59_000)]), old(Away, 59_000));
    assert_eq!(hears(&[(Online, 95_000)]), []);
    assert_eq!(hears(&[(Online, 95_001)]), old(Online, 95_001));
    // It may open already, with what its record says.
    assert_eq!(hears(&[(Online, 100_000)]), []);
    // The gateway that a session left may be believed for a while.
    assert_eq!(hears(&[(Away, 24_000), (Online, 119_000)]), []);
    assert_eq!(hears(&[(Online, 120_000)]), old(Online, 120_000));
}

#[test]
fn older_presence_on_further_connection_is_found() {
    let generations = |heard: ReceivedItem| {
        let before = vec![told("bob", Away, 86_000)];
        vec![first(before), generation(90_000, vec![heard])]
    };
    let older = snapshot(&[("bob", Online)], 91_000);
    let found = Violation::OldPresence(user("alice"), of("bob", Online, 91_000));
    assert_eq!(order(generations(older.clone())), [found]);
    assert_eq!(order(generations(snapshot(&[("bob", Away)], 91_000))), []);
    // What is not whole may be old.
    let ReceivedItem::Snapshot { users, at, .. } = older else {
        panic!("no snapshot")
    };
    let part = ReceivedItem::Snapshot {
        users,
        is_complete: false,
        at,
    };
    assert_eq!(order(generations(part)), []);
}

#[test]
fn wrong_presence_in_the_end_is_found() {
    let wrong = |name: &str, believed, is| {
        let violation = Violation::WrongPresence(user("alice"), user(name), believed, is);
        assert!(violation.is_late());
        [violation]
    };
    let ends = |heard: Vec<ReceivedItem>, others: &[ClientAccount]| {
        together(vec![generation(99_000, heard)], others)
    };
    let bob = || account("bob", vec![generation(10_000, vec![])]);
    let online = || snapshot(&[("bob", Online)], 100_000);
    assert_eq!(ends(vec![online()], &[bob()]), []);
    let away = saying(bob(), &[(Away, 101_000)]);
    let found = ends(vec![online()], std::slice::from_ref(&away));
    assert_eq!(found, wrong("bob", Online, Away));
    // The highest of what his devices say counts.
    assert_eq!(ends(vec![online()], &[away, bob()]), []);

    let mut gone = bob();
    gone.has_left = true;
    let gone = std::slice::from_ref(&gone);
    assert_eq!(ends(vec![online()], gone), wrong("bob", Online, Offline));
    assert_eq!(
        ends(vec![online(), told("bob", Offline, 110_000)], gone),
        []
    );
    let mut lost = bob();
    lost.generations[0].ended = Some("cut off".to_owned());
    assert_eq!(ends(vec![online()], &[lost]), []);

    // Who is not named is offline, but who joined just before.
    let found = ends(vec![snapshot(&[], 100_000)], &[bob()]);
    assert_eq!(found, wrong("bob", Offline, Online));
    let carol = [account("carol", vec![generation(10_000, vec![])])];
    assert_eq!(ends(vec![snapshot(&[], 104_000)], &carol), []);
    let found = ends(vec![snapshot(&[], 105_000)], &carol);
    assert_eq!(found, wrong("carol", Offline, Online));
    // Of those with whom nothing is shared any more nothing is told.
    let dave = [account("dave", vec![generation(10_000, vec![])])];
    assert_eq!(
        ends(
            vec![told("dave", Offline, 104_000), snapshot(&[], 104_000)],
            &dave
        ),
        []
    );
}

#[test]
fn snapshot_that_never_comes_is_found() {
    let silent = together(vec![generation(100_000, vec![])], &[]);
    assert_eq!(silent, [Violation::NoSnapshot(user("alice"))]);
    assert!(silent[0].is_late());
    assert_eq!(
        together(vec![generation(100_000, vec![snapshot(&[], 100_000)])], &[]),
        []
    );
}
