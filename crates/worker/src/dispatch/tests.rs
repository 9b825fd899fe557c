//! A task that dies takes nothing with it but what it carried out: its ticket, its slot or its turn is free again. A worker that leaves
//! loses nothing that was sent to it.

use confab_bus::rpc::{Inbox, Target, Token, WorkerId};
use confab_protocol::command::{MarkRead, SendAnswer, SendMessage};
use confab_protocol::ids::{ConversationId, EventId};
use confab_protocol::json::JsonText;
use confab_protocol::query::{Query, QueryRequest};
use confab_protocol::resource::ConversationType;
use confab_protocol::{command, query};
use confab_stack::{Nats, NatsSettings, free_port};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::time::timeout;
use uuid::Uuid;

use super::*;
use crate::query_queue::Next;
use crate::testing::{self, Fixture, caller, eventually, programs, settings};

mod locks;

/// A command's budget, in milliseconds.
const BUDGET_MS: u32 = 20_000;
/// How long anything may take, on a machine that does other things.
const DEADLINE: Duration = Duration::from_secs(20);

/// A worker's loop, which the test turns by hand, and a gateway's side of it.
struct Part {
    dispatch: Dispatch,
    gateway: Bus,
    inbox: Inbox,
    asking: JoinSet<()>,
    fixture: Fixture,
    /// When the worker began, about.
    began: Instant,
    registry: Registry,
    _nats: Nats,
    _folder: TempDir,
}

impl Part {
    async fn begin() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let nats = NatsSettings {
            folder: folder.path().join("nats"),
            port: free_port().unwrap(),
            monitor: None,
        };
        let nats = Nats::start(&programs(), nats).await.unwrap();
        let fixture = Fixture::new().await;
        let mut settings = settings(&fixture.url);
        settings.nats.nats_url = vec![nats.url()];
        let connect = async || Bus::connect(&settings.nats, "test").await.unwrap();
        let (bus, gateway) = (connect().await, connect().await);
        for bus in [&bus, &gateway] {
            eventually("NATS is connected", async || {
                bus.is_connected().then_some(())
            })
            .await;
        }
        let began = Instant::now();
        let service = Service::start(&bus, WorkerId(Uuid::now_v7()), "0.0.0");
        let service = service.await.unwrap();
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        // Nothing here is published.
        let (publisher, _committed) = Publisher::new(metrics.clone());
        let dispatch = Dispatch::new(
            (bus, service),
            fixture.committer.clone(),
            publisher,
            fixture.connections.clone(),
            &settings,
            metrics,
        );
        let part = Self {
            dispatch,
            inbox: Inbox::open(&gateway).await.unwrap(),
            gateway,
            asking: JoinSet::new(),
            fixture,
            began,
            registry,
            _nats: nats,
            _folder: folder,
        };
        // The worker's subscriptions stand.
        part.all_has_come().await;
        part
    }

    /// A gateway asks for a command.
    async fn asks(&self, command: Command) {
        self.asks_within(command, BUDGET_MS).await;
    }

    async fn asks_within(&self, command: Command, budget_ms: u32) {
        let request = testing::request("alice", command);
        let batch = Batch {
            version: command::COMMAND_VERSION,
            budget_ms,
            sent: None,
            requests: vec![&request],
        };
        let sender = self.inbox.sender();
        let sent = sender.send(Token(0), Target::Any, &batch).await;
        sent.unwrap();
    }

    /// A gateway asks for a command; the worker takes it.
    async fn takes(&mut self, command: Command) {
        self.asks(command).await;
        self.takes_next().await;
    }

    async fn takes_next(&mut self) {
        let incoming = timeout(DEADLINE, self.dispatch.service.next()).await;
        let incoming = incoming.expect("something asked").unwrap();
        self.dispatch.take(incoming);
    }

    /// The same, with so much of its budget left. Who does not say when it sent may have done so as soon as the worker began.
    async fn takes_within(&mut self, command: Command, left: Duration) {
        let budget = self.began.elapsed() + left;
        let budget_ms = u32::try_from(budget.as_millis()).unwrap();
        self.asks_within(command, budget_ms).await;
        self.takes_next().await;
    }

    /// Turns the loop until nothing runs or waits.
    async fn works_off(&mut self) {
        let dispatch = &mut self.dispatch;
        let work = async {
            dispatch.start();
            while !dispatch.tasks.is_empty() || dispatch.next_retry().is_some() {
                let next_retry = dispatch.next_retry();
                tokio::select! {
                    Some(ended) = dispatch.tasks.join_next_with_id() => dispatch.ended(ended),
                    () = until(next_retry) => {}
                }
                dispatch.start();
            }
        };
        Box::pin(timeout(DEADLINE, work)).await.expect("an end");
    }

    /// What a metric says.
    fn count(&self, name: &str) -> u64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no {name}"));
        value.parse().unwrap()
    }

    /// Waits until all that was sent so far has come: what NATS answers to a connection comes behind it.
    async fn all_has_come(&self) {
        for bus in [&self.gateway, &self.dispatch.bus] {
            // There is a stream or not: an answer all the same.
            drop(bus.stream_state().await);
        }
    }

    /// A task that carries this out dies.
    async fn dies(&mut self, running: Running) {
        let dying = async { panic!("a task of a test dies") };
        self.dispatch.spawn(running, dying);
        let ended = self.dispatch.tasks.join_next_with_id().await.unwrap();
        assert!(ended.is_err());
        self.dispatch.ended(ended);
        assert!(self.dispatch.running.is_empty());
    }
}

fn send(group: ConversationId) -> Command {
    Command::SendMessage(SendMessage {
        conversation: group,
        message: EventId(Uuid::now_v7()),
        client_id: testing::key(),
        payload: JsonText::trusted(r#"{"kind":"text","content":1,"metadata":{}}"#.to_owned()),
        reply_to: None,
        answer: SendAnswer::Ack,
    })
}

#[tokio::test]
async fn dead_batch_gives_its_lane_and_conversation_back() {
    let mut part = Box::pin(Part::begin()).await;
    let group = part.fixture.group(&["alice"]).await;
    for _ in 0..3 {
        part.takes(send(group)).await;
        let next = part.dispatch.planner.next(Instant::now());
        let Some(Work::Batch(ticket, _)) = next else {
            panic!("the conversation is not free");
        };
        part.dies(Running::Work(ticket)).await;
        assert!(part.dispatch.planner.is_idle());
    }
}

#[tokio::test]
async fn dead_single_command_gives_its_slot_back() {
    let mut part = Box::pin(Part::begin()).await;
    for _ in 0..8 {
        let creation = testing::creation(
            &Uuid::now_v7().to_string(),
            ConversationType::Group,
            &["alice"],
        );
        part.takes(creation).await;
        let Some(Work::Alone(ticket, _)) = part.dispatch.planner.next(Instant::now()) else {
            panic!("no slot is free");
        };
        part.dies(Running::Work(ticket)).await;
        assert!(part.dispatch.planner.is_idle());
    }
}

#[tokio::test]
async fn dead_statement_of_marks_lets_next_one_run() {
    let mut part = Box::pin(Part::begin()).await;
    let group = part.fixture.group(&["alice"]).await;
    for _ in 0..3 {
        let mark = MarkRead::UpTo {
            conversation: group,
            seq: 1,
        };
        part.takes(Command::MarkRead(mark)).await;
        let together = part.dispatch.marks.next(Instant::now());
        assert_eq!(together.expect("a turn").due.len(), 1);
        part.dies(Running::Marks).await;
    }
}

#[tokio::test]
async fn dead_query_gives_its_slot_back() {
    let mut part = Box::pin(Part::begin()).await;
    let conversation = part.fixture.group(&["alice"]).await;
    let kind = QueryKind::Page;
    for _ in 0..20 {
        let request = QueryRequest {
            version: query::QUERY_VERSION,
            budget_ms: BUDGET_MS,
            request_id: "test".to_owned(),
            traceparent: None,
            query: Query::GetConversation {
                caller: caller("alice"),
                conversation,
            },
        };
        let gateway = part.gateway.clone();
        // Nobody answers.
        part.asking
            .spawn(async move { drop(gateway.query(Target::Any, &request, DEADLINE).await) });
        part.takes_next().await;
        let next = part.dispatch.queries.of(kind).next(Instant::now());
        let Some(Next::Run(slot, ..)) = next else {
            panic!("no slot is free");
        };
        part.dies(Running::Query(kind, slot)).await;
        assert_eq!(part.dispatch.queries.of(kind).running(), 0);
    }
}

/// Gateways go on sending until they have heard that it leaves.
#[tokio::test]
async fn command_that_came_before_worker_left_is_carried_out() {
    let part = Box::pin(Part::begin()).await;
    let group = part.fixture.group(&["alice"]).await;
    part.asks(send(group)).await;
    part.all_has_come().await;
    let Part {
        dispatch,
        mut inbox,
        _nats,
        _folder,
        ..
    } = part;
    Box::pin(dispatch.finish(DEADLINE)).await;
    let answer = timeout(DEADLINE, inbox.next()).await.expect("an answer");
    let (_, answer) = answer.unwrap();
    let (place, outcome) = answer.unwrap().outcomes.remove(0);
    assert_eq!((place, testing::sent(outcome).seq), (0, 2));
}
