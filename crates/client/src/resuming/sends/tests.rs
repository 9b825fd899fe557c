use confab_protocol::error::Failure;
use confab_protocol::frame::{Auth, Delete, Edit, Read, Send};
use confab_protocol::ids::{ClientId, EventId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::{MessageBody, MessageContent};
use tokio::sync::oneshot::error::TryRecvError;
use uuid::Uuid;

use super::*;
use crate::session::Pending;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

type Waits = tokio::sync::oneshot::Receiver<Result<Ack, SendError>>;

struct Desk {
    sends: Sends,
    now: Instant,
}

impl Desk {
    fn new() -> Self {
        Self {
            sends: Sends::new(ANSWER_TIMEOUT),
            now: Instant::now(),
        }
    }

    fn keep(&mut self, id: &str, frame: ClientFrame) -> Waits {
        let (answer, waits) = tokio::sync::oneshot::channel();
        let pending = PendingSend::new(id.to_owned(), frame, Some(answer), Room::default());
        self.sends.keep(pending, self.now);
        waits
    }

    fn send(&mut self, conversation: ConversationId) -> (String, Waits) {
        let id = ClientId(Uuid::now_v7());
        let frame = ClientFrame::Send(Send {
            id: id.into(),
            conversation_id: conversation,
            body: MessageBody {
                kind: "text".into(),
                content: Some(JsonText::empty_object()),
                encrypted_content: None,
                payload_size_bytes: None,
                reply_to: None,
                metadata: JsonText::empty_object(),
            },
        });
        let id = id.to_string();
        let waits = self.keep(&id, frame);
        (id, waits)
    }

    fn edit(&mut self, conversation: ConversationId) -> (String, Waits) {
        let id = Uuid::now_v7().to_string();
        let frame = ClientFrame::Edit(Edit {
            id: Some(id.clone()),
            conversation_id: conversation,
            message_id: EventId(Uuid::now_v7()),
            if_version: None,
            content: Some(MessageContent::default()),
            metadata: None,
        });
        let waits = self.keep(&id, frame);
        (id, waits)
    }

    fn renew(&mut self) -> (String, Waits) {
        let id = Uuid::now_v7().to_string();
        let frame = ClientFrame::Auth(Auth {
            id: Some(id.clone()),
            token: "secret".to_owned(),
        });
        let waits = self.keep(&id, frame);
        (id, waits)
    }

    fn delete(&mut self, conversation: ConversationId) -> (String, Waits) {
        let id = Uuid::now_v7().to_string();
        let frame = ClientFrame::Delete(Delete {
            id: Some(id.clone()),
            conversation_id: conversation,
            message_id: EventId(Uuid::now_v7()),
            if_version: None,
        });
        let waits = self.keep(&id, frame);
        (id, waits)
    }

    fn read(&mut self, conversation: ConversationId) -> (String, Waits) {
        let id = Uuid::now_v7().to_string();
        let frame = ClientFrame::Read(Read {
            id: Some(id.clone()),
            conversation_id: conversation,
            up_to_seq: 1,
        });
        let waits = self.keep(&id, frame);
        (id, waits)
    }

    /// The ids of all that may be written now.
    fn writes(&mut self) -> Vec<String> {
        let frames = std::iter::from_fn(|| self.sends.next());
        let ids = frames.map(|frame| match frame {
            ClientFrame::Send(send) => send.id.into_text(),
            ClientFrame::Edit(edit) => edit.id.unwrap(),
            ClientFrame::Delete(delete) => delete.id.unwrap(),
            ClientFrame::Auth(auth) => auth.id.unwrap(),
            ClientFrame::Read(read) => read.id.unwrap(),
            other => panic!("{other:?}"),
        });
        ids.collect()
    }

    fn refuse(&mut self, id: &str, code: Code, after_ms: u64) {
        let failure = Failure::of(code).retry_after(after_ms);
        let error = ErrorFrame::new(Some(id.to_owned()), failure, String::new());
        assert_eq!(self.sends.refuse(error, self.now), None);
    }

    fn acknowledge(&mut self, id: &str) {
        self.sends.acknowledge(Ack {
            id: Some(id.to_owned()),
            ..Ack::default()
        });
    }

    fn passes(&mut self, time: Duration) {
        self.now += time;
        self.sends.tick(self.now);
    }
}

fn conversation() -> ConversationId {
    ConversationId(Uuid::now_v7())
}

fn closed() -> Closed {
    Closed {
        code: None,
        reason: "lost".to_owned(),
    }
}

#[test]
fn each_conversation_has_one_send_in_flight() {
    let mut desk = Desk::new();
    let (here, there) = (conversation(), conversation());
    let (first, mut answered) = desk.send(here);
    let (second, _) = desk.send(here);
    let (other, _) = desk.send(there);
    assert_eq!(desk.writes(), [first.clone(), other]);
    desk.acknowledge(&first);
    assert!(matches!(answered.try_recv(), Ok(Ok(_))));
    assert!(desk.sends.is_ready());
    assert_eq!(desk.writes(), [second]);
}

#[test]
fn unacknowledged_sends_are_rewritten_in_order_after_reconnect() {
    let mut desk = Desk::new();
    let places = [conversation(), conversation(), conversation()];
    let ids: Vec<String> = places.map(|place| desk.send(place).0).into();
    let (behind, _) = desk.send(places[0]);
    assert_eq!(desk.writes(), ids);
    desk.sends.lost(&closed());
    assert_eq!(desk.writes(), ids, "with the same ids");
    desk.acknowledge(&ids[0]);
    assert_eq!(desk.writes(), [behind]);
}

#[test]
fn retryable_send_retries_later_and_blocks_its_conversation() {
    for code in [
        Code::Overloaded,
        Code::Unavailable,
        Code::Timeout,
        Code::RateLimited,
    ] {
        let mut desk = Desk::new();
        let here = conversation();
        let (first, mut answered) = desk.send(here);
        let (second, _) = desk.send(here);
        assert_eq!(desk.writes(), std::slice::from_ref(&first));
        desk.refuse(&first, code, 300);
        assert_eq!(
            desk.sends.due(),
            Some(desk.now + Duration::from_millis(300))
        );
        desk.passes(Duration::from_millis(299));
        assert!(desk.writes().is_empty());
        desk.passes(Duration::from_millis(1));
        assert_eq!(desk.writes(), std::slice::from_ref(&first));
        assert!(matches!(answered.try_recv(), Err(TryRecvError::Empty)));
        desk.acknowledge(&first);
        assert_eq!(desk.writes(), [second]);
    }
}

#[test]
fn permanently_refused_send_fails_and_next_goes() {
    let mut desk = Desk::new();
    let here = conversation();
    let (first, mut answered) = desk.send(here);
    let (second, _) = desk.send(here);
    desk.writes();
    desk.refuse(&first, Code::ConversationNotFound, 0);
    assert!(matches!(
        answered.try_recv(),
        Ok(Err(SendError::Refused(_)))
    ));
    assert_eq!(desk.writes(), [second]);
    let stray = ErrorFrame::new(None, Failure::of(Code::Validation), String::new());
    assert_eq!(desk.sends.refuse(stray.clone(), desk.now), Some(stray));
}

#[test]
fn command_with_key_is_rewritten_until_answered() {
    let mut desk = Desk::new();
    let (here, there) = (conversation(), conversation());
    let (edit, mut edited) = desk.edit(here);
    let (behind, _) = desk.edit(here);
    let (deletion, mut deleted) = desk.delete(there);
    let (mark, mut marked) = desk.read(there);
    let all = [edit.clone(), deletion.clone(), mark.clone()];
    assert_eq!(desk.writes(), all);
    desk.sends.lost(&closed());
    assert_eq!(desk.writes(), all, "with the same ids");
    desk.refuse(&deletion, Code::Timeout, 5);
    desk.sends.lost(&closed());
    assert_eq!(desk.writes(), [edit.clone(), mark]);
    desk.passes(Duration::from_millis(5));
    assert_eq!(desk.writes(), [deletion]);
    for waits in [&mut edited, &mut deleted, &mut marked] {
        assert_eq!(waits.try_recv(), Err(TryRecvError::Empty));
    }
    desk.acknowledge(&edit);
    assert!(matches!(edited.try_recv(), Ok(Ok(_))));
    assert_eq!(desk.writes(), [behind]);
}

#[test]
fn what_has_no_key_is_never_done_twice() {
    let mut desk = Desk::new();
    let (lost, mut unknown) = desk.renew();
    let (late, mut timeout) = desk.renew();
    let (pending, mut waits) = desk.renew();
    assert_eq!(desk.writes(), [lost]);
    desk.sends.lost(&closed());
    assert_eq!(unknown.try_recv(), Ok(Err(SendError::Closed(closed()))));
    assert_eq!(desk.writes(), std::slice::from_ref(&late));
    desk.refuse(&late, Code::Timeout, 5);
    assert!(matches!(timeout.try_recv(), Ok(Err(SendError::Refused(_)))));
    assert_eq!(desk.writes(), std::slice::from_ref(&pending));
    desk.refuse(&pending, Code::Overloaded, 5);
    desk.passes(Duration::from_millis(5));
    assert_eq!(desk.writes(), [pending], "who was refused knows");
    assert_eq!(waits.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn expired_send_is_given_up_anywhere() {
    let mut desk = Desk::new();
    let places = [conversation(), conversation(), conversation()];
    let (written, mut one) = desk.send(places[0]);
    let (_behind, mut two) = desk.send(places[0]);
    let (paused, mut three) = desk.send(places[1]);
    desk.writes();
    desk.refuse(&paused, Code::Unavailable, 120_000);
    let (_ready, mut four) = desk.send(places[2]);
    desk.passes(Duration::from_secs(1));
    let (young, _) = desk.send(places[1]);
    desk.passes(ANSWER_TIMEOUT.saturating_sub(Duration::from_secs(1)));
    for waits in [&mut one, &mut two, &mut three, &mut four] {
        assert_eq!(waits.try_recv(), Ok(Err(SendError::Timeout)));
    }
    assert_eq!(desk.writes(), [young]);
    desk.acknowledge(&written);
}

#[tokio::test]
async fn session_end_answers_all_pending_sends() {
    let mut desk = Desk::new();
    let (answer, pending) = Pending::within(ANSWER_TIMEOUT);
    let (id, frame) = (
        Uuid::now_v7().to_string(),
        ClientFrame::Bye(Default::default()),
    );
    desk.sends.keep(
        PendingSend::new(id, frame, Some(answer), Room::default()),
        desk.now,
    );
    desk.sends.end(&closed());
    assert_eq!(pending.ack().await, Err(SendError::Closed(closed())));
    assert_eq!(desk.sends.due(), None);
}
