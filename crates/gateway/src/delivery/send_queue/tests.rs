//! What waits for a socket, in which order, and what is dropped.

use futures_util::FutureExt as _;
use uuid::Uuid;

use super::*;

fn event(outbox: &Outbox, text: &'static str) -> bool {
    let place = Place {
        conversation: ConversationId(Uuid::nil()),
        joined: 1,
        seq: 1,
    };
    outbox.push_event(place, &Broadcast::new(text.as_bytes()))
}

fn welcome_ping() -> Frame {
    Frame::ping(&1_u64.to_be_bytes())
}

#[test]
fn the_welcome_and_its_ping_stand_before_events_that_came_first() {
    let outbox = Outbox::new(Encoding::Json, 1000);
    event(&outbox, "1");
    outbox.start(Frame::text(b"welcome"));
    let frames = outbox.taken(1000).unwrap();
    let due = [Frame::text(b"welcome"), welcome_ping(), Frame::text(b"1")];
    assert_eq!(frames, due);
    assert_eq!(outbox.answer_bytes(), 0);
    assert!(outbox.proven(&1_u64.to_be_bytes()));
}

#[test]
fn events_beyond_the_capacity_are_held_back_until_there_is_room() {
    let outbox = Outbox::new(Encoding::Json, 16);
    assert!(event(&outbox, "a long one finds room alone"));
    assert!(!event(&outbox, "1"));
    assert!(!outbox.wants_more(), "no room yet");
    outbox.start(Frame::text(b"w"));
    assert_eq!(outbox.taken(1000).unwrap().len(), 3);
    assert!(outbox.wants_more());
    assert!(!outbox.wants_more(), "once");
    assert!(event(&outbox, "1234") && outbox.is_pressed());
    outbox.taken(1000).unwrap();
    assert!(outbox.wants_more() && event(&outbox, "1"));
    assert_eq!(outbox.unproven().len(), 1);
}

fn signal(outbox: &Outbox, user: usize, text: String) {
    let key = SignalKey::Presence(format!("u{user}").parse().unwrap());
    outbox.push_signal(&key, &Broadcast::new(text.as_bytes()));
}

fn typing(outbox: &Outbox, user: usize, text: String) {
    let user = format!("u{user}").parse().unwrap();
    let key = SignalKey::Typing(ConversationId(Uuid::nil()), user);
    outbox.push_signal(&key, &Broadcast::new(text.as_bytes()));
}

#[test]
fn typing_takes_no_place_of_presence() {
    let outbox = Outbox::new(Encoding::Json, 8);
    outbox.start(Frame::text(b"w"));
    outbox.taken(1000).unwrap();
    for user in 0..2 * PRESENCES {
        signal(&outbox, user, format!("here {user}"));
    }
    for user in 0..2 * SIGNALS {
        typing(&outbox, user, format!("types {user}"));
    }
    let frames = outbox.taken(1_000_000).unwrap();
    assert_eq!(frames.len(), SIGNALS + PRESENCES);
    let first = format!("here {PRESENCES}");
    assert_eq!(frames[SIGNALS], Frame::text(first.as_bytes()));
}

#[test]
fn signals_stand_behind_all_else_the_newest_of_each_and_never_end_a_session() {
    let outbox = Outbox::new(Encoding::Json, 8);
    outbox.start(Frame::text(b"w"));
    for user in 0..2 * SIGNALS {
        typing(&outbox, user, format!("old {user}"));
    }
    typing(&outbox, 2 * SIGNALS - 1, "new".to_owned());
    event(&outbox, "1");
    outbox.push_answer(Frame::text(b"a"));
    assert_eq!(outbox.taken(17).unwrap().len(), 4, "no signal among them");
    let frames = outbox.taken(10_000).unwrap();
    assert_eq!(frames.len(), SIGNALS);
    assert_eq!(frames[0], Frame::text(format!("old {SIGNALS}").as_bytes()));
    assert_eq!(frames[SIGNALS - 1], Frame::text(b"new"));
    assert_eq!(outbox.taken(10_000).unwrap(), []);
}

/// An outbox whose client has its welcome and one signal.
fn behind_first_signal() -> Outbox {
    let outbox = Outbox::new(Encoding::Json, 1000);
    outbox.start(Frame::text(b"w"));
    outbox.taken(1000).unwrap();
    signal(&outbox, 0, "first".to_owned());
    assert!(outbox.ready().now_or_never().is_some());
    outbox.taken(1000).unwrap();
    outbox
}

#[tokio::test(start_paused = true)]
async fn signals_behind_the_first_go_together() {
    let outbox = behind_first_signal();
    let began = Instant::now();
    signal(&outbox, 1, "1".to_owned());
    let mut ready = Box::pin(outbox.ready());
    assert!(ready.as_mut().now_or_never().is_none());
    signal(&outbox, 2, "2".to_owned());
    ready.await;
    assert!(began.elapsed() >= PRESENCE_PAUSE);
    assert_eq!(outbox.taken(1000).unwrap().len(), 2);
    tokio::time::advance(PRESENCE_PAUSE).await;
    signal(&outbox, 3, "3".to_owned());
    assert!(
        outbox.ready().now_or_never().is_some(),
        "a lone one waits for nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn pause_of_signals_holds_up_nothing_else() {
    let outbox = behind_first_signal();
    signal(&outbox, 1, "1".to_owned());
    assert!(outbox.ready().now_or_never().is_none());
    event(&outbox, "1");
    assert!(outbox.ready().now_or_never().is_some());
    assert_eq!(outbox.taken(1000).unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn typing_ends_pause_of_presence() {
    let outbox = behind_first_signal();
    let began = Instant::now();
    signal(&outbox, 1, "1".to_owned());
    let mut ready = Box::pin(outbox.ready());
    assert!(ready.as_mut().now_or_never().is_none());
    typing(&outbox, 1, "t".to_owned());
    ready.await;
    let waited = began.elapsed();
    assert!(
        (SIGNAL_PAUSE..PRESENCE_PAUSE).contains(&waited),
        "{waited:?}"
    );
    assert_eq!(outbox.taken(1000).unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn many_signals_wait_for_no_pause() {
    let outbox = behind_first_signal();
    let mut ready = Box::pin(outbox.ready());
    for user in 1..SIGNALS_WITHOUT_PAUSE {
        signal(&outbox, user, "s".to_owned());
        assert!(ready.as_mut().now_or_never().is_none());
    }
    signal(&outbox, SIGNALS, "s".to_owned());
    assert!(ready.now_or_never().is_some());
}

#[test]
fn what_comes_behind_the_end_is_not_proven_to_have_come() {
    let outbox = Outbox::new(Encoding::Json, 1000);
    outbox.start(Frame::text(b"w"));
    outbox.close(Code::InvalidToken);
    assert!(event(&outbox, "1"), "nobody is to wait for room");
    assert_eq!(outbox.unproven().len(), 1);
}

#[test]
fn without_a_welcome_there_are_answers_and_nothing_else() {
    let outbox = Outbox::new(Encoding::Json, 1000);
    event(&outbox, "1");
    signal(&outbox, 1, "s".to_owned());
    outbox.push_answer(Frame::text(b"refused"));
    assert_eq!(outbox.taken(usize::MAX), Ok(vec![Frame::text(b"refused")]));
}

#[test]
fn small_answers_count_with_what_they_take() {
    let outbox = Outbox::new(Encoding::Json, 1000);
    outbox.start(Frame::text(b"w"));
    outbox.taken(1000).unwrap();
    for _ in 0..100 {
        outbox.push_answer(Frame::pong(b""));
    }
    assert!(outbox.answer_bytes() >= 100 * FRAME_OVERHEAD_BYTES);
    outbox.taken(1000).unwrap();
    assert_eq!(outbox.answer_bytes(), 0);
}

#[test]
fn what_is_taken_is_bounded() {
    let outbox = Outbox::new(Encoding::Json, 1000);
    outbox.start(Frame::text(b"w"));
    for _ in 0..10 {
        event(&outbox, "12345678");
    }
    assert_eq!(outbox.taken(23).unwrap().len(), 3);
    assert_eq!(outbox.taken(1000).unwrap().len(), 9);
}
