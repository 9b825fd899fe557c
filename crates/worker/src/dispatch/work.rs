//! Carrying out what the planner gives: answer first, then publish.

use std::time::{Duration, Instant};

use confab_bus::Bus;
use confab_protocol::command::{Command, Outcome};
use confab_protocol::error::{Code, Failure};
use confab_protocol::revocation::Revocation;
use tracing::warn;

use super::Pending;
use super::answering::Parts;
use crate::commit::{Committer, Item};
use crate::fault;
use crate::messages;
use crate::metrics::Metrics;
use crate::outbox::{Committed, Publisher};
use crate::planner::{Done, Item as Waiting};

/// How long NATS is waited for to take a revocation.
const ANNOUNCING: Duration = Duration::from_secs(1);

/// Commits a batch of messages; the senders are answered first, then the events are published.
pub(super) async fn batch(
    committer: &Committer,
    publisher: &Publisher,
    metrics: &Metrics,
    waiting: Vec<Waiting<Pending>>,
) -> Done {
    let (began, count) = (Instant::now(), waiting.len());
    let mut conversations: Vec<_> = waiting
        .iter()
        .filter_map(|item| item.conversation)
        .collect();
    conversations.sort_unstable();
    conversations.dedup();
    let dies = waiting
        .iter()
        .any(|item| fault::exits_before_answer(&item.job.request));
    let (mut items, mut slots, mut done) = (Vec::new(), Vec::new(), Vec::new());
    for Waiting {
        deadline,
        bytes,
        job: Pending {
            request,
            received,
            slot,
        },
        ..
    } in waiting
    {
        let Command::SendMessage(message) = request.command else {
            continue;
        };
        let slot = (slot, received, bytes);
        match messages::send(request.caller, message) {
            Ok(append) => {
                items.push(Item { append, deadline });
                slots.push(slot);
            }
            Err(failure) => done.push((slot, Err(failure))),
        }
    }
    let end = committer.batch(&items).await;
    let took = began.elapsed();
    // Only where something was committed: the repeat of a command whose worker died finds it done.
    if dies && !end.committed.is_empty() {
        std::process::abort();
    }
    done.extend(slots.into_iter().zip(end.outcomes));
    let mut parts = Parts::default();
    for ((slot, received, bytes), outcome) in done {
        metrics.command("send_message", code(&outcome), received.elapsed(), bytes);
        parts.add(slot, outcome);
    }
    parts.send().await;
    if fault::exits_after_commit() && !end.committed.is_empty() && items.iter().any(is_fault) {
        std::process::abort();
    }
    publish(publisher, end.committed);
    Done::Batch(conversations, count, took)
}

/// Carries out a command that goes alone.
pub(super) async fn alone(
    committer: &Committer,
    publisher: &Publisher,
    bus: &Bus,
    metrics: &Metrics,
    item: Waiting<Pending>,
) -> Done {
    let Waiting {
        deadline,
        bytes,
        conversation,
        job: Pending {
            request,
            received,
            slot,
        },
        ..
    } = item;
    let (outcome, committed) = committer.alone(&request, deadline).await;
    if committed.is_some() && fault::exits_before_answer(&request) {
        std::process::abort();
    }
    let name = request.command.name();
    metrics.command(name, code(&outcome), received.elapsed(), bytes);
    let revoked = match &outcome {
        Ok(Outcome::Revoked(revocation)) => Some(revocation.clone()),
        _ => None,
    };
    let mut parts = Parts::default();
    parts.add(slot, outcome);
    parts.send().await;
    publish(publisher, committed);
    if let Some(revocation) = revoked {
        announce(bus, &revocation).await;
    }
    Done::Alone(conversation)
}

/// Tells gateways of a revocation at once. It stands in Postgres, where they look for it every few seconds all the same.
async fn announce(bus: &Bus, revocation: &Revocation) {
    match tokio::time::timeout(ANNOUNCING, bus.announce_revocation(revocation)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "gateways learn of a revocation later"),
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
