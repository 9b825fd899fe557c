use std::sync::Arc;

use confab_protocol::event::EventType;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::delivery::broadcast::Broadcast;

mod model;

const MAX_AGE: Duration = Duration::from_secs(60);

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

fn deleted(seq: Seq, target: Seq) -> LogEvent {
    event(seq, EventType::MessageDeleted, Some(target))
}

fn window(bytes: usize) -> Window {
    Window::new(
        Bounds {
            age: MAX_AGE,
            bytes,
        },
        Instant::now(),
    )
}

/// What the window serves behind `after`, up to `head`.
fn served(window: &Window, after: Seq, head: Seq) -> Option<Vec<Seq>> {
    let events = window.behind(id(1), after, head)?;
    Some(events.map(|event| event.seq).collect())
}

#[test]
fn range_with_hole_is_served_once_filled() {
    let (mut window, now) = (window(1 << 20), Instant::now());
    for seq in [3, 5, 6, 5] {
        window.note(id(1), &said(seq), now);
    }
    assert_eq!((served(&window, 2, 6), served(&window, 2, 3)), (None, None));
    assert_eq!(served(&window, 4, 6), Some(vec![5, 6]));
    assert_eq!(
        (served(&window, 4, 7), window.weight(id(1), 2, 6)),
        (None, None)
    );
    assert_eq!(window.held_from(id(1), 6), Some(5));
    window.note(id(1), &said(4), now);
    assert_eq!(served(&window, 2, 6), Some(vec![3, 4, 5, 6]));
    assert_eq!(window.weight(id(1), 3, 5), Some(200));
    assert_eq!(window.held_from(id(1), 6), Some(3));
    assert_eq!((window.highest(id(1)), window.highest(id(2))), (6, 0));
    assert_eq!(window.events(), 4);
}

#[test]
fn old_and_excess_events_are_forgotten() {
    let (mut window, start) = (window(3 * 400), Instant::now());
    for seq in 1..=10 {
        window.note(id(1), &said(seq), start);
    }
    assert_eq!(served(&window, 7, 10), Some(vec![8, 9, 10]));
    assert_eq!(served(&window, 6, 10), None);
    assert!(window.bytes() <= 1200);
    window.expire(start + MAX_AGE);
    assert_eq!(window.events(), 3);
    window.expire(start + MAX_AGE + Duration::from_millis(1));
    assert_eq!((window.events(), window.bytes()), (0, 0));
    assert!(window.conversations.is_empty() && window.arrived.is_empty());
    assert_eq!(window.highest(id(1)), 10, "it is remembered");
}

/// A relay that read a message before its deletion publishes it behind that, with its content.
#[test]
fn stale_creation_behind_its_deletion_is_not_kept() {
    let (mut window, now) = (window(1 << 20), Instant::now());
    window.note(id(1), &deleted(2, 1), now);
    window.note(id(1), &said(1), now);
    assert_eq!(
        (served(&window, 0, 2), served(&window, 1, 2)),
        (None, Some(vec![2]))
    );
    // A stale edit behind the deletion neither.
    window.note(id(1), &deleted(4, 1), now);
    window.note(id(1), &event(3, EventType::MessageEdited, Some(1)), now);
    assert_eq!(
        (served(&window, 1, 4), served(&window, 3, 4)),
        (None, Some(vec![4]))
    );
    assert_eq!(window.events(), 1);
}

/// The stream's past comes behind what is new: at the bound in bytes it is given up first, and so is no deletion before the
/// message that it deletes has come.
#[test]
fn past_message_is_not_served_without_its_deletion() {
    let (mut window, now) = (window(5 * 400), Instant::now());
    window.note(id(1), &deleted(9, 8), now);
    for seq in 1..=20 {
        window.note(id(2), &said(seq), now);
    }
    assert_eq!(window.highest(id(1)), 9, "the deletion is given up");
    window.fill(id(1), &said(7), now);
    window.fill(id(1), &said(8), now);
    assert_eq!(window.behind(id(1), 7, 8).map(Iterator::count), None);
    assert_eq!(window.highest(id(1)), 9);
    window.filled();
    // As late as it may come.
    window.note(id(1), &said(8), now + MAX_AGE);
    assert_eq!(window.behind(id(1), 7, 8).map(Iterator::count), None);
}

#[test]
fn past_is_given_up_before_what_is_new() {
    let (mut window, now) = (window(4 * 400), Instant::now());
    window.note(id(1), &said(101), now);
    window.note(id(1), &said(102), now);
    for seq in 1..=100 {
        window.fill(id(1), &said(seq), now);
    }
    assert_eq!(served(&window, 98, 102), Some(vec![99, 100, 101, 102]));
    window.filled();
    window.fill(id(2), &said(1), now);
    assert_eq!(window.highest(id(2)), 0, "the past has ended");
}

#[test]
fn too_much_remembered_while_filling_ends_the_filling() {
    let (mut window, now) = (window(400), Instant::now());
    for n in 0..=MAX_REMEMBERED as u128 + 1 {
        window.note(id(n + 10), &said(1), now);
    }
    window.fill(id(1), &said(1), now);
    assert_eq!(window.highest(id(1)), 0);
}

/// What edits replace costs nothing more, however old it could have become.
#[test]
fn replaced_events_leave_no_trace() {
    let (mut window, now) = (window(1 << 20), Instant::now());
    window.note(id(1), &said(1), now);
    for seq in 2..=10_000 {
        let edit = event(seq, EventType::MessageEdited, Some(1));
        window.note(id(1), &edit, now);
    }
    assert_eq!((window.arrived.len(), window.events()), (1, 1));
    assert_eq!(window.bytes(), cost(&said(1)));
    for seq in 10_001..=10_100 {
        window.note(id(1), &said(seq), now);
    }
    assert_eq!(window.events(), 101);
    // An edit of the last one leaves nothing before it that can be served.
    for seq in 10_101..=10_120 {
        let edit = event(seq, EventType::MessageEdited, Some(10_100));
        window.note(id(1), &edit, now);
    }
    assert_eq!((window.arrived.len(), window.events()), (1, 1));
}

#[test]
fn one_that_is_off_holds_nothing() {
    let mut window = window(0);
    window.note(id(1), &said(1), Instant::now());
    window.fill(id(1), &said(2), Instant::now());
    assert!(window.is_off() && window.conversations.is_empty() && window.arrived.is_empty());
}

proptest! {
    /// In whatever order a message, its edits and its deletion come: once all came, only the last content is served.
    #[test]
    fn edited_or_deleted_content_is_not_served(
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
        }
        let served = |after| served(&window, after, 6);
        prop_assert_eq!([served(0), served(3)], [None, None]);
        prop_assert_eq!(served(4), Some(vec![5, 6]));
        prop_assert!(window.bytes() <= 4 * cost(&said(1)));
    }
}
