//! Carrying out what the planner gives: answer first, then publish.

use std::time::{Duration, Instant};

use confab_bus::Bus;
use confab_protocol::chain::chain;
use confab_protocol::command::{Command, Outcome, Request};
use confab_protocol::error::{Code, Failure};
use confab_protocol::fair::Owner;
use confab_protocol::ids::ConversationId;
use confab_protocol::revocation::Revocation;
use tracing::warn;

use super::Pending;
use super::answering::{Parts, Slot};
use crate::commit::{CommandOutcome, Committer, Fate, Item};
use crate::fault;
use crate::messages::{self, Append};
use crate::metrics::Metrics;
use crate::origin::{Origin, span_of};
use crate::outbox::{Committed, Publisher};
use crate::planner::{Done, Item as Waiting, Kind, Locking, Open, Refused, Ticket};

/// How long NATS is waited for to take a revocation.
const ANNOUNCING: Duration = Duration::from_secs(1);

/// Commits a batch of messages; the senders are answered first, then the events are published. Messages whose conversation was locked are
/// given back.
pub(super) async fn batch(
    committer: &Committer,
    publisher: &Publisher,
    metrics: &Metrics,
    ticket: Ticket,
    waiting: Vec<Waiting<Pending>>,
) -> Done<Pending> {
    let began = Instant::now();
    let dies = waiting
        .iter()
        .any(|item| fault::exits_before_answer(&item.job.request));
    let mut parts = Parts::default();
    let (mut items, mut senders) = (Vec::new(), Vec::new());
    for item in waiting {
        if let Some((item, sender)) = prepare(item, metrics, &mut parts) {
            items.push(item);
            senders.push(sender);
        }
    }
    let locking = ticket.locking;
    let end = committer.batch(&items, locking).await;
    let took = began.elapsed();
    // Only where something was committed: the repeat of a command whose worker died finds it done.
    if dies && !end.committed.is_empty() {
        std::process::abort();
    }
    let dies = fault::exits_after_commit() && !end.committed.is_empty();
    let dies = dies && items.iter().any(is_fault);
    let (mut skipped, mut refused) = (Vec::new(), Vec::new());
    for ((item, sender), fate) in items.into_iter().zip(senders).zip(end.fates) {
        match fate {
            Fate::Decided(outcome) => {
                let conversation = Some(item.append.message.conversation);
                refused.extend(undone(&sender.owner, conversation, &outcome));
                sender.answer(outcome, metrics, &mut parts);
            }
            Fate::Locked(open) => skipped.push(sender.wait(item, open, &mut parts)),
        }
    }
    metrics.locked(locking, skipped.len(), took);
    if locking == Locking::Wait
        && let Some(first) = skipped.first()
    {
        span_of(&first.job.request).in_scope(|| warn_of_lock(first, took));
    }
    parts.send().await;
    if dies {
        std::process::abort();
    }
    publish(publisher, end.committed);
    Done {
        ticket,
        took,
        skipped,
        refused,
    }
}

/// A command of which nothing was done because Postgres was away.
fn undone(
    owner: &Owner,
    conversation: Option<ConversationId>,
    outcome: &CommandOutcome,
) -> Option<Refused> {
    let failure = outcome.as_ref().err()?;
    (failure.code == Code::Unavailable).then_some(Refused {
        owner: owner.clone(),
        conversation: conversation?,
        failure: failure.clone(),
    })
}

/// Who waits for the outcome of a send.
struct Sender {
    slot: Slot,
    received: Instant,
    bytes: usize,
    owner: Owner,
}

/// What is to be stored of a send, and who waits for it; one that is refused at once is answered.
fn prepare(
    waiting: Waiting<Pending>,
    metrics: &Metrics,
    parts: &mut Parts,
) -> Option<(Item, Sender)> {
    let Request {
        request_id,
        traceparent,
        caller,
        command,
        event: _,
    } = *waiting.job.request;
    let Command::SendMessage(message) = command else {
        return None;
    };
    let sender = Sender {
        slot: waiting.job.slot,
        received: waiting.job.received,
        bytes: waiting.bytes,
        owner: waiting.owner,
    };
    match messages::send(caller, message) {
        Ok(append) => {
            let item = Item {
                append,
                deadline: waiting.deadline,
                open: waiting.open,
                origin: Origin {
                    request_id,
                    traceparent,
                },
            };
            Some((item, sender))
        }
        Err(failure) => {
            sender.answer(Err(failure), metrics, parts);
            None
        }
    }
}

impl Sender {
    fn answer(self, outcome: CommandOutcome, metrics: &Metrics, parts: &mut Parts) {
        let took = self.received.elapsed();
        metrics.command("send_message", code(&outcome), took, self.bytes);
        parts.add(self.slot, outcome);
    }

    /// The send as it waits again; its gateway is told so once.
    fn wait(self, item: Item, open: Open, parts: &mut Parts) -> Waiting<Pending> {
        if item.open.skipped.is_none() {
            parts.add_waiting(&self.slot);
        }
        let Append {
            caller, message, ..
        } = item.append;
        Waiting {
            owner: self.owner,
            conversation: Some(message.conversation),
            kind: Kind::Send(caller.user.clone(), message.client_id),
            bytes: self.bytes,
            deadline: item.deadline,
            open,
            job: Pending {
                request: Box::new(Request {
                    request_id: item.origin.request_id,
                    traceparent: item.origin.traceparent,
                    caller,
                    event: None,
                    command: Command::SendMessage(message),
                }),
                received: self.received,
                slot: self.slot,
            },
        }
    }
}

/// Carries out a command that goes alone. One that met a lock is given back.
pub(super) async fn alone(
    committer: &Committer,
    publisher: &Publisher,
    bus: &Bus,
    metrics: &Metrics,
    ticket: Ticket,
    mut item: Waiting<Pending>,
) -> Done<Pending> {
    let began = Instant::now();
    let request = &item.job.request;
    let (deadline, locking, open) = (item.deadline, ticket.locking, item.open.clone());
    let (fate, committed) = committer.alone(request, deadline, locking, open).await;
    let took = began.elapsed();
    let mut parts = Parts::default();
    let outcome = match fate {
        Fate::Decided(outcome) => outcome,
        Fate::Locked(open) => {
            if item.open.skipped.is_none() {
                parts.add_waiting(&item.job.slot);
                parts.send().await;
            }
            metrics.locked(locking, 1, took);
            if locking == Locking::Wait {
                warn_of_lock(&item, took);
            }
            item.open = open;
            return Done {
                ticket,
                took,
                skipped: vec![item],
                refused: Vec::new(),
            };
        }
    };
    if committed.is_some() && fault::exits_before_answer(request) {
        std::process::abort();
    }
    metrics.locked(locking, 0, took);
    let refused = undone(&item.owner, item.conversation, &outcome);
    let name = request.command.name();
    let received = item.job.received;
    metrics.command(name, code(&outcome), received.elapsed(), item.bytes);
    let revoked = match &outcome {
        Ok(Outcome::Revoked(revocation)) => Some(revocation.clone()),
        _ => None,
    };
    parts.add(item.job.slot, outcome);
    parts.send().await;
    publish(publisher, committed);
    if let Some(revocation) = revoked {
        announce(bus, &revocation).await;
    }
    Done {
        ticket,
        took,
        skipped: Vec::new(),
        refused: refused.into_iter().collect(),
    }
}

/// Says what a command waited for in vain: an operator looks for who holds it.
fn warn_of_lock(item: &Waiting<Pending>, took: Duration) {
    warn!(
        conversation.id = item.conversation.map(tracing::field::display),
        duration_ms = took.as_millis(),
        "another session of Postgres holds what a command waits for"
    );
}

/// Tells gateways of a revocation at once. It stands in Postgres, where they look for it every few seconds all the same.
async fn announce(bus: &Bus, revocation: &Revocation) {
    match tokio::time::timeout(ANNOUNCING, bus.announce_revocation(revocation)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(error = %chain(&error), "gateways learn of a revocation later"),
        Err(_late) => warn!("gateways learn of a revocation later: NATS takes nothing"),
    }
}

fn publish(publisher: &Publisher, committed: impl IntoIterator<Item = Committed>) {
    for committed in committed {
        publisher.publish(committed);
    }
}

/// Whether a message asks for a death between its commit and its publishing; heeded only where tests compiled that in.
fn is_fault(item: &Item) -> bool {
    item.append
        .message
        .payload
        .as_str()
        .starts_with(r#"{"kind":"x-fault""#)
}

/// The refusal of an outcome, for metrics.
pub(super) fn code<T>(outcome: &Result<T, Failure>) -> Option<Code> {
    outcome.as_ref().err().map(|failure| failure.code)
}
