//! What waits for a socket, in which order, and what is dropped.

use futures_util::FutureExt as _;
use uuid::Uuid;

use super::*;

fn event(send_queue: &SendQueue, text: &'static str) -> bool {
    let place = Place {
        conversation: ConversationId(Uuid::nil()),
        joined: 1,
        seq: 1,
    };
    send_queue.push_event(place, &Broadcast::new(text.as_bytes()))
}

fn welcome_ping() -> Frame {
    Frame::ping(&1_u64.to_be_bytes())
}

#[test]
fn welcome_and_ping_precede_earlier_events() {
    let send_queue = SendQueue::new(Encoding::Json, 1000);
    event(&send_queue, "1");
    send_queue.start(Frame::text(b"welcome"));
    let frames = send_queue.taken(1000).unwrap();
    let due = [Frame::text(b"welcome"), welcome_ping(), Frame::text(b"1")];
    assert_eq!(frames, due);
    assert_eq!(send_queue.answer_bytes(), 0);
    assert!(send_queue.acked(&1_u64.to_be_bytes()));
}

#[test]
fn events_beyond_capacity_wait_for_room() {
    let send_queue = SendQueue::new(Encoding::Json, 16);
    assert!(event(&send_queue, "a long one finds room alone"));
    assert!(!event(&send_queue, "1"));
    assert!(!send_queue.wants_more(), "no room yet");
    send_queue.start(Frame::text(b"w"));
    assert_eq!(send_queue.taken(1000).unwrap().len(), 3);
    assert!(send_queue.wants_more());
    assert!(!send_queue.wants_more(), "once");
    assert!(event(&send_queue, "1234") && send_queue.is_pressed());
    send_queue.taken(1000).unwrap();
    assert!(send_queue.wants_more() && event(&send_queue, "1"));
    assert_eq!(send_queue.unacked().len(), 1);
}

fn signal(send_queue: &SendQueue, user: usize, text: String) {
    let key = SignalKey::Presence(format!("u{user}").parse().unwrap());
    send_queue.push_signal(&key, &Broadcast::new(text.as_bytes()));
}

fn typing(send_queue: &SendQueue, user: usize, text: String) {
    let user = format!("u{user}").parse().unwrap();
    let key = SignalKey::Typing(ConversationId(Uuid::nil()), user);
    send_queue.push_signal(&key, &Broadcast::new(text.as_bytes()));
}

#[test]
fn typing_takes_no_place_of_presence() {
    let send_queue = SendQueue::new(Encoding::Json, 8);
    send_queue.start(Frame::text(b"w"));
    send_queue.taken(1000).unwrap();
    for user in 0..2 * MAX_QUEUED_PRESENCES {
        signal(&send_queue, user, format!("here {user}"));
    }
    for user in 0..2 * MAX_QUEUED_SIGNALS {
        typing(&send_queue, user, format!("types {user}"));
    }
    let frames = send_queue.taken(1_000_000).unwrap();
    assert_eq!(frames.len(), MAX_QUEUED_SIGNALS + MAX_QUEUED_PRESENCES);
    let first = format!("here {MAX_QUEUED_PRESENCES}");
    assert_eq!(frames[MAX_QUEUED_SIGNALS], Frame::text(first.as_bytes()));
}

#[test]
fn signals_come_last_and_newest_wins() {
    let send_queue = SendQueue::new(Encoding::Json, 8);
    send_queue.start(Frame::text(b"w"));
    for user in 0..2 * MAX_QUEUED_SIGNALS {
        typing(&send_queue, user, format!("old {user}"));
    }
    typing(&send_queue, 2 * MAX_QUEUED_SIGNALS - 1, "new".to_owned());
    event(&send_queue, "1");
    send_queue.push_answer(Frame::text(b"a"));
    assert_eq!(
        send_queue.taken(17).unwrap().len(),
        4,
        "no signal among them"
    );
    let frames = send_queue.taken(10_000).unwrap();
    assert_eq!(frames.len(), MAX_QUEUED_SIGNALS);
    assert_eq!(
        frames[0],
        Frame::text(format!("old {MAX_QUEUED_SIGNALS}").as_bytes())
    );
    assert_eq!(frames[MAX_QUEUED_SIGNALS - 1], Frame::text(b"new"));
    assert_eq!(send_queue.taken(10_000).unwrap(), []);
}

/// A send queue whose client has its welcome and one signal.
fn behind_first_signal() -> SendQueue {
    let send_queue = SendQueue::new(Encoding::Json, 1000);
    send_queue.start(Frame::text(b"w"));
    send_queue.taken(1000).unwrap();
    signal(&send_queue, 0, "first".to_owned());
    assert!(send_queue.ready().now_or_never().is_some());
    send_queue.taken(1000).unwrap();
    send_queue
}

#[tokio::test(start_paused = true)]
async fn signals_behind_the_first_go_together() {
    let send_queue = behind_first_signal();
    let began = Instant::now();
    signal(&send_queue, 1, "1".to_owned());
    let mut ready = Box::pin(send_queue.ready());
    assert!(ready.as_mut().now_or_never().is_none());
    signal(&send_queue, 2, "2".to_owned());
    ready.await;
    assert!(began.elapsed() >= PRESENCE_PAUSE);
    assert_eq!(send_queue.taken(1000).unwrap().len(), 2);
    tokio::time::advance(PRESENCE_PAUSE).await;
    signal(&send_queue, 3, "3".to_owned());
    assert!(
        send_queue.ready().now_or_never().is_some(),
        "a lone one waits for nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn pause_of_signals_holds_up_nothing_else() {
    let send_queue = behind_first_signal();
    signal(&send_queue, 1, "1".to_owned());
    assert!(send_queue.ready().now_or_never().is_none());
    event(&send_queue, "1");
    assert!(send_queue.ready().now_or_never().is_some());
    assert_eq!(send_queue.taken(1000).unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn typing_ends_pause_of_presence() {
    let send_queue = behind_first_signal();
    let began = Instant::now();
    signal(&send_queue, 1, "1".to_owned());
    let mut ready = Box::pin(send_queue.ready());
    assert!(ready.as_mut().now_or_never().is_none());
    typing(&send_queue, 1, "t".to_owned());
    ready.await;
    let waited = began.elapsed();
    assert!(
        (SIGNAL_PAUSE..PRESENCE_PAUSE).contains(&waited),
        "{waited:?}"
    );
    assert_eq!(send_queue.taken(1000).unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn many_signals_wait_for_no_pause() {
    let send_queue = behind_first_signal();
    let mut ready = Box::pin(send_queue.ready());
    for user in 1..SIGNALS_WITHOUT_PAUSE {
        signal(&send_queue, user, "s".to_owned());
        assert!(ready.as_mut().now_or_never().is_none());
    }
    signal(&send_queue, MAX_QUEUED_SIGNALS, "s".to_owned());
    assert!(ready.now_or_never().is_some());
}

#[test]
fn events_behind_end_are_never_acked() {
    let send_queue = SendQueue::new(Encoding::Json, 1000);
    send_queue.start(Frame::text(b"w"));
    send_queue.close(Code::InvalidToken);
    assert!(event(&send_queue, "1"), "nobody is to wait for room");
    assert_eq!(send_queue.unacked().len(), 1);
}

#[test]
fn only_answers_precede_welcome() {
    let send_queue = SendQueue::new(Encoding::Json, 1000);
    event(&send_queue, "1");
    signal(&send_queue, 1, "s".to_owned());
    send_queue.push_answer(Frame::text(b"refused"));
    assert_eq!(
        send_queue.taken(usize::MAX),
        Ok(vec![Frame::text(b"refused")])
    );
}

#[test]
fn small_answers_count_with_what_they_take() {
    let send_queue = SendQueue::new(Encoding::Json, 1000);
    send_queue.start(Frame::text(b"w"));
    send_queue.taken(1000).unwrap();
    for _ in 0..100 {
        send_queue.push_answer(Frame::pong(b""));
    }
    assert!(send_queue.answer_bytes() >= 100 * FRAME_OVERHEAD_BYTES);
    send_queue.taken(1000).unwrap();
    assert_eq!(send_queue.answer_bytes(), 0);
}

#[test]
fn what_is_taken_is_bounded() {
    let send_queue = SendQueue::new(Encoding::Json, 1000);
    send_queue.start(Frame::text(b"w"));
    for _ in 0..10 {
        event(&send_queue, "12345678");
    }
    assert_eq!(send_queue.taken(23).unwrap().len(), 3);
    assert_eq!(send_queue.taken(1000).unwrap().len(), 9);
}
