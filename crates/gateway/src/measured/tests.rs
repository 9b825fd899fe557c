//! Delivering an event costs allocations for the event, and none for those who hear it.

use allocation_counter::measure;

use super::*;

const EVENT_JSON: &[u8] = br#"{"type":"message.created","data":{"content":"hello"}}"#;

/// Allocations of `events` deliveries to so many sessions that have been there for a while; `between` comes before each.
fn allocations(sessions: u64, events: u64, between: fn(&mut Delivery)) -> u64 {
    let mut delivery = Delivery::to(sessions, Bytes::from_static(EVENT_JSON)).unwrap();
    for _ in 0..200 {
        delivery.deliver();
    }
    // What grows with the number of events is full now, and each has been through every state.
    for _ in 0..3 {
        between(&mut delivery);
        delivery.deliver();
    }
    let before = delivery.written();
    let mut counted = 0;
    for _ in 0..events {
        between(&mut delivery);
        counted += measure(|| delivery.deliver()).count_total;
    }
    let taken = delivery.written() - before;
    assert!(
        taken >= sessions * events * EVENT_JSON.len() as u64,
        "{taken}"
    );
    counted
}

#[test]
fn delivery_allocates_nothing_per_recipient() {
    let steady = |sessions| allocations(sessions, 32, |_| ());
    assert!(steady(1) > 0);
    assert_eq!(steady(2), steady(1));
    // To many it comes by and by: what is on its way is kept, once for all of them.
    let many = steady(10);
    for sessions in [100, 1000] {
        assert_eq!(steady(sessions), many, "{sessions}");
    }
}

#[test]
fn first_event_after_ping_allocates_nothing() {
    let pinged = |sessions| allocations(sessions, 32, Delivery::beat);
    assert_eq!(pinged(2), pinged(1));
    assert_eq!(pinged(500), pinged(10));
}

#[test]
fn what_is_measured_is_what_happens() {
    let json = Bytes::from_static(EVENT_JSON);
    let mut delivery = Delivery::to(3, json.clone()).unwrap();
    delivery.deliver();
    delivery.deliver();
    assert_eq!(delivery.stands(), (Some(1), 3));
    delivery.beat();
    assert_eq!(delivery.stands(), (Some(3), 3));
    let window = ReplayWindow::of(50, json.clone()).unwrap();
    assert_eq!(
        (window.events(), window.look_up(20)),
        (50, 20 * EVENT_JSON.len())
    );
    assert_eq!(window.weigh(20), Some(20 * EVENT_JSON.len()));
    let mut resume = Resume::behind(20, json.clone()).unwrap();
    assert_eq!(resume.resume(), Ok(Some(20)));
    assert_eq!(resume.resume(), Ok(Some(20)));
    let event = message(1, json).unwrap();
    assert!(Codec::JSON.frame(&event) > EVENT_JSON.len());
    assert!(Codec::MSGPACK.frame(&event) < EVENT_JSON.len());
}
