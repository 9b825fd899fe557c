use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::ws::codec::Broadcast;

const AGE: Duration = Duration::from_secs(60);

fn id(n: u128) -> ConversationId {
    ConversationId(Uuid::from_u128(n))
}

fn event(seq: Seq, r#type: EventType, target: Option<Seq>) -> LogEvent {
    LogEvent {
        seq,
        r#type,
        target,
        body: Arc::new(Broadcast::new(format!("{seq:0>100}").as_bytes())),
    }
}

fn said(seq: Seq) -> LogEvent {
    event(seq, EventType::MessageCreated, None)
}

fn window(bytes: usize) -> Window {
    Window::new(Bounds { age: AGE, bytes })
}

fn seqs(window: &Window, after: Seq) -> Vec<Seq> {
    window.behind(id(1), after).map(|event| event.seq).collect()
}

#[test]
fn a_hole_ends_what_is_told_and_closes_when_the_event_comes() {
    let (mut window, now) = (window(1 << 20), Instant::now());
    for seq in [3, 5, 6, 5] {
        window.note(id(1), &said(seq), now);
    }
    assert_eq!((seqs(&window, 2), seqs(&window, 3)), (vec![3], vec![]));
    assert_eq!(window.weight(id(1), 2, 6), None);
    window.note(id(1), &said(4), now);
    assert_eq!(seqs(&window, 2), [3, 4, 5, 6]);
    assert_eq!(window.weight(id(1), 3, 5), Some(200));
    assert_eq!((window.highest(id(1)), window.highest(id(2))), (6, 0));
    assert_eq!(window.events(), 4);
}

#[test]
fn what_is_too_old_or_too_much_is_forgotten_with_all_that_it_cost() {
    let (mut window, start) = (window(3 * 300), Instant::now());
    for seq in 1..=10 {
        window.note(id(1), &said(seq), start);
    }
    assert_eq!(seqs(&window, 7), [8, 9, 10]);
    assert!(window.bytes() <= 900);
    window.expire(start + AGE);
    assert_eq!(window.events(), 3);
    window.expire(start + AGE + Duration::from_millis(1));
    assert_eq!((window.events(), window.bytes()), (0, 0));
    assert!(window.conversations.is_empty() && window.arrived.is_empty());
}

/// A relay that read a message before its deletion publishes it behind that, with its content.
#[test]
fn stale_creation_behind_its_deletion_is_not_kept() {
    let (mut window, now) = (window(1 << 20), Instant::now());
    window.note(id(1), &event(2, EventType::MessageDeleted, Some(1)), now);
    window.note(id(1), &said(1), now);
    assert_eq!((seqs(&window, 0), seqs(&window, 1)), (vec![], vec![2]));
    // A stale edit behind the deletion neither.
    window.note(id(1), &event(4, EventType::MessageDeleted, Some(1)), now);
    window.note(id(1), &event(3, EventType::MessageEdited, Some(1)), now);
    assert!(!seqs(&window, 1).contains(&3));
}

#[test]
fn one_that_is_off_holds_nothing() {
    let mut window = window(0);
    window.note(id(1), &said(1), Instant::now());
    assert!(window.is_off() && window.conversations.is_empty() && window.arrived.is_empty());
}

proptest! {
    /// In whatever order a message, its edits and its deletion come: once all came, only the last content is held.
    #[test]
    fn what_was_edited_or_deleted_away_is_not_held(
        order in Just((1..=6_usize).collect::<Vec<_>>()).prop_shuffle(),
        deleted in any::<bool>(),
    ) {
        let now = Instant::now();
        let mut window = window(1 << 20);
        let last = if deleted { EventType::MessageDeleted } else { EventType::MessageEdited };
        let log = [
            said(1),
            event(2, EventType::MessageEdited, Some(1)),
            said(3),
            event(4, EventType::MessageEdited, Some(1)),
            event(5, last, Some(1)),
            said(6),
        ];
        for n in order {
            window.note(id(1), &log[n - 1], now);
            let held: Vec<_> = (0..6).flat_map(|after| seqs(&window, after).into_iter().take(1)).collect();
            let changed = held.iter().filter(|seq| [2, 4, 5].contains(*seq)).max();
            prop_assert!(changed.is_none() || !held.contains(&1));
        }
        let held: Vec<_> = (0..6).flat_map(|after| seqs(&window, after).into_iter().take(1)).collect();
        prop_assert_eq!(held, [3, 5, 6]);
        let costs: usize = log.iter().filter(|event| [3, 5, 6].contains(&event.seq)).map(cost).sum();
        prop_assert_eq!(window.bytes(), costs);
    }
}
