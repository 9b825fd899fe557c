//! What is sent is kept until it has its answer.

use confab_protocol::error::{Code, Failure};

use super::*;
use crate::testing::{ack, body};

/// The id of the send that is heard next, and what it says.
async fn hears_send(server: &mut TestGateway) -> (ClientId, MessageBody) {
    loop {
        match server.hears().await {
            ClientFrame::Send(send) => return (send.id.key(), send.body),
            ClientFrame::Seen(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn unanswered_send_repeats_with_id_before_later_sends() {
    let gateways = Gateways::new(2).await;
    let (mut server, resuming, _changes) = gateways.open(gateways.options()).await;
    let here = conversation();
    let ids = [ClientId(Uuid::now_v7()), ClientId(Uuid::now_v7())];
    let first = resuming.submit(ids[0], here, body("one")).await.unwrap();
    let second = resuming.submit(ids[1], here, body("two")).await.unwrap();
    assert_eq!(hears_send(&mut server).await, (ids[0], body("one")));
    drop(server);

    let (mut server, _hello) = gateways.resumes(1).await;
    assert_eq!(hears_send(&mut server).await, (ids[0], body("one")));
    server.says(ack(ids[0], here, 1)).await;
    assert_eq!(first.ack().await.unwrap().seq, 1);
    assert_eq!(hears_send(&mut server).await, (ids[1], body("two")));
    let failure = Failure::of(Code::Unavailable).retry_after(30);
    let refusal = ErrorFrame::new(Some(ids[1].to_string()), failure, "r".into());
    server.says(said(ServerFrame::Error(refusal))).await;
    assert_eq!(hears_send(&mut server).await, (ids[1], body("two")));
    server.says(ack(ids[1], here, 2)).await;
    assert_eq!(second.ack().await.unwrap().seq, 2);
}

#[tokio::test]
async fn deletion_without_answer_is_repeated_with_its_id() {
    let gateways = Gateways::new(2).await;
    let (mut server, resuming, _changes) = gateways.open(gateways.options()).await;
    let (here, message) = (conversation(), EventId(Uuid::now_v7()));
    let serve = async {
        let lost = server.hears().await;
        drop(server);
        let (mut server, _hello) = gateways.resumes(1).await;
        let again = server.hears().await;
        assert_eq!(again, lost);
        let ClientFrame::Delete(deletion) = again else {
            panic!("not a deletion")
        };
        assert_eq!(deletion.message_id, message);
        let id = deletion.id.unwrap().parse().unwrap();
        server.says(ack(id, here, 9)).await;
    };
    let (deleted, ()) = tokio::join!(resuming.delete(here, message), serve);
    assert_eq!(deleted.unwrap().seq, 9);
}

#[tokio::test]
async fn presence_said_without_connection_is_said_at_resume() {
    let gateways = Gateways::new(1).await;
    let (server, resuming, mut changes) = gateways.open(gateways.options()).await;
    drop(server);
    let lost = told(&mut changes).await;
    assert!(matches!(lost, Change::Disconnected(_)), "{lost:?}");
    resuming.presence(PresenceStatus::Away).await;
    let (mut server, _hello) = gateways.resumes(0).await;
    let away = SetPresence {
        id: None,
        status: PresenceStatus::Away,
    };
    assert_eq!(server.hears().await, ClientFrame::Presence(away));
}

#[tokio::test]
async fn oversized_frame_is_refused_and_session_continues() {
    let gateways = Gateways::new(1).await;
    let (mut server, resuming, _changes) = gateways.open(gateways.options()).await;
    let here = conversation();
    let large = resuming
        .send(here, body(&"x".repeat(limits::MAX_FRAME_BYTES)))
        .await;
    assert!(
        matches!(&large, Err(SendError::Refused(error)) if error.code == Code::PayloadTooLarge),
        "{large:?}"
    );
    let serve = async {
        let (id, _) = hears_send(&mut server).await;
        server.says(ack(id, here, 1)).await;
    };
    let (small, ()) = tokio::join!(resuming.send(here, body("x")), serve);
    assert_eq!(small.unwrap().seq, 1);
}

#[tokio::test]
async fn unanswered_send_expires_and_presence_is_repeated() {
    let gateways = Gateways::new(1).await;
    let mut options = gateways.options();
    options.patience = Duration::from_millis(200);
    let (mut server, resuming, _changes) = gateways.open(options).await;
    resuming.presence(PresenceStatus::Away).await;
    assert!(matches!(server.hears().await, ClientFrame::Presence(_)));
    let sent = resuming.send(conversation(), body("lost")).await;
    assert_eq!(sent, Err(SendError::Timeout));
    drop(server);
    let mut server = gateways.accept(0).await;
    server.welcomes().await;
    assert!(matches!(server.hears().await, ClientFrame::Presence(_)));
}
