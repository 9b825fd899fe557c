use std::time::Duration;

use confab_protocol::command::{Caller, Command, MarkRead, Outcome};
use tokio::time::timeout;
use uuid::Uuid;

use super::*;
use crate::rpc::{CommandIncoming, Incoming, Service, WorkerId};
use crate::testing::{NatsServer, TEST_TIMEOUT};

/// A worker's service, whose subscriptions NATS has.
async fn service(worker: &Bus, id: WorkerId) -> Service {
    let service = Service::start(worker, id, "0.0.0").await.unwrap();
    // What comes behind them on the same connection is answered.
    let ping = worker.client.request("$SRV.PING.confab-worker", "".into());
    timeout(TEST_TIMEOUT, ping).await.unwrap().unwrap();
    service
}

fn request() -> Request {
    Request {
        request_id: String::new(),
        traceparent: None,
        event: None,
        caller: Caller {
            tenant: "t".parse().unwrap(),
            user: "u".parse().unwrap(),
            admin: false,
        },
        command: Command::MarkRead(MarkRead::Messages(Vec::new())),
    }
}

async fn send(inbox: &Inbox, token: u64, target: Target) -> Result<(), RpcError> {
    let request = request();
    let batch = Batch {
        version: COMMAND_VERSION,
        budget_ms: 1000,
        sent: None,
        requests: vec![&request; 2],
    };
    inbox.sender().send(Token(token), target, &batch).await
}

async fn next(inbox: &mut Inbox) -> (Token, Result<Part, RpcError>) {
    timeout(TEST_TIMEOUT, inbox.next()).await.unwrap().unwrap()
}

async fn incoming(service: &mut Service) -> CommandIncoming {
    match timeout(TEST_TIMEOUT, service.next()).await.unwrap() {
        Some(Incoming::Command(incoming)) => incoming,
        other => panic!("{other:?}"),
    }
}

/// Part of the answer, with the outcomes of some places.
fn part(worker: WorkerId, places: &[u32]) -> Vec<u8> {
    let done = |place: &u32| (*place, Ok(Outcome::Read(Vec::new())));
    let part = Part {
        version: COMMAND_VERSION,
        worker: worker.0,
        outcomes: places.iter().map(done).collect(),
        waiting: Vec::new(),
    };
    wire::encode(&part).unwrap()
}

fn places(part: Result<Part, RpcError>) -> Vec<u32> {
    let outcomes = part.unwrap().outcomes.into_iter();
    outcomes.map(|(place, _)| place).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_several_batches_are_told_apart() {
    let server = NatsServer::start().await;
    let (gateway, worker) = (server.connect().await, server.connect().await);
    let id = WorkerId(Uuid::now_v7());
    let mut service = service(&worker, id).await;
    let mut inbox = Inbox::open(&gateway).await.unwrap();
    for token in [7, 8] {
        send(&inbox, token, Target::Worker(id)).await.unwrap();
    }
    let first = incoming(&mut service).await;
    let second = incoming(&mut service).await;
    for (batch, place) in [(&second, 1), (&first, 0), (&first, 1)] {
        let part = part(batch.reply.worker(), &[place]);
        batch.reply.send_part(part.into()).await.unwrap();
    }
    let last = part(id, &[0]);
    second.reply.send_last_part(last.into()).await.unwrap();
    let mut heard = Vec::new();
    for _ in 0..4 {
        let (token, part) = next(&mut inbox).await;
        heard.push((token, places(part)));
    }
    let wanted = [(8, 1), (7, 0), (7, 1), (8, 0)];
    assert_eq!(
        heard,
        wanted.map(|(token, place)| (Token(token), vec![place]))
    );
    // The service's statistics count a message once, however many parts it is answered in.
    let stats = gateway
        .client
        .request("$SRV.STATS.confab-worker", "".into());
    let stats = timeout(TEST_TIMEOUT, stats).await.unwrap().unwrap();
    let stats: serde_json::Value = serde_json::from_slice(&stats.payload).unwrap();
    let endpoints = stats["endpoints"].as_array().unwrap();
    let counted = endpoints.iter().find(|one| one["name"] == "command-direct");
    assert_eq!(counted.unwrap()["num_requests"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_without_listener_fails_at_once() {
    let server = NatsServer::start().await;
    let gateway = server.connect().await;
    let mut inbox = Inbox::open(&gateway).await.unwrap();
    let nobody = WorkerId(Uuid::now_v7());
    send(&inbox, 3, Target::Worker(nobody)).await.unwrap();
    let (token, told) = next(&mut inbox).await;
    assert_eq!(token, Token(3));
    assert!(matches!(told, Err(RpcError::NoResponders)), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_of_another_version_is_refused_as_undone() {
    let server = NatsServer::start().await;
    let (gateway, worker) = (server.connect().await, server.connect().await);
    let id = WorkerId(Uuid::now_v7());
    let mut service = service(&worker, id).await;
    let mut inbox = Inbox::open(&gateway).await.unwrap();
    let batch = Batch {
        version: COMMAND_VERSION + 1,
        budget_ms: 1000,
        sent: None,
        requests: Vec::new(),
    };
    let sent = inbox.sender().send(Token(1), Target::Any, &batch).await;
    sent.unwrap();
    let refused = timeout(TEST_TIMEOUT, service.next()).await.unwrap();
    assert!(matches!(refused, Some(Incoming::Malformed)));
    let (_, told) = next(&mut inbox).await;
    let error = told.unwrap_err();
    assert!(error.not_handed_over(), "{error}");
    assert!(matches!(error, RpcError::Refused(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inbox_hears_answers_again_after_a_reconnect() {
    let mut server = NatsServer::start().await;
    let (gateway, worker) = (server.connect().await, server.connect().await);
    let id = WorkerId(Uuid::now_v7());
    let mut service = service(&worker, id).await;
    let mut inbox = Inbox::open(&gateway).await.unwrap();
    server.nats.restart().await.unwrap();
    // Until both are there again, a batch may have nobody who hears of it.
    let heard = async {
        let mut token = 0;
        loop {
            token += 1;
            let sent = send(&inbox, token, Target::Worker(id)).await;
            let wait = Duration::from_millis(100);
            if sent.is_ok()
                && let Ok(Some(Incoming::Command(incoming))) = timeout(wait, service.next()).await
            {
                let last = part(id, &[0, 1]).into();
                incoming.reply.send_last_part(last).await.unwrap();
                if let Ok(Some((_, Ok(part)))) = timeout(wait, inbox.next()).await {
                    return part;
                }
            }
        }
    };
    let part = timeout(TEST_TIMEOUT, heard).await.unwrap();
    assert_eq!(places(Ok(part)), [0, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_gathers_its_parts_in_order() {
    let server = NatsServer::start().await;
    let (gateway, worker) = (server.connect().await, server.connect().await);
    let id = WorkerId(Uuid::now_v7());
    let mut service = service(&worker, id).await;
    let request = request();
    let batch = Batch {
        version: COMMAND_VERSION,
        budget_ms: 1000,
        sent: None,
        requests: vec![&request; 3],
    };
    let answers = async {
        let CommandIncoming { reply, .. } = incoming(&mut service).await;
        reply.send_part(part(id, &[2]).into()).await.unwrap();
        reply.send_part(part(id, &[0, 2, 9]).into()).await.unwrap();
        reply.send_last_part(part(id, &[1]).into()).await.unwrap();
    };
    let (outcomes, ()) = tokio::join!(gateway.command(Target::Any, &batch, TEST_TIMEOUT), answers);
    assert_eq!(outcomes.unwrap().len(), 3);
    // Where a part is missing, the time ends it.
    let silent = async {
        let CommandIncoming { reply, .. } = incoming(&mut service).await;
        reply.send_part(part(id, &[0, 1]).into()).await.unwrap();
    };
    let short = Duration::from_millis(300);
    let (outcomes, ()) = tokio::join!(gateway.command(Target::Any, &batch, short), silent);
    assert!(matches!(outcomes, Err(RpcError::Timeout)), "{outcomes:?}");
}
