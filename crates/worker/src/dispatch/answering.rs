//! The answers to gateways' batches: outcomes go back in parts, as they come to be known.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use confab_bus::rpc::Reply;
use confab_protocol::chain::chain;
use confab_protocol::command::{COMMAND_VERSION, Part};
use confab_protocol::error::{Code, Failure};
use confab_protocol::{limits, wire};
use rustc_hash::FxHashMap;
use tracing::{debug, error, warn};

use crate::commit::CommandOutcome;
use crate::metrics::Metrics;

/// How long NATS is waited for to take answers.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a command's outcome goes: its place in the answer to its batch.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    answering: Arc<Answering>,
    place: u32,
}

/// The answer to a batch of a gateway's.
#[derive(Debug)]
struct Answering {
    reply: Reply,
    places: Mutex<Places>,
    metrics: Metrics,
}

/// Which places of an answer were given an outcome.
#[derive(Debug)]
struct Places {
    answered: Vec<bool>,
    missing: usize,
}

/// Outcomes on their way to gateways, gathered by message.
#[derive(Debug, Default)]
pub(super) struct Parts(FxHashMap<usize, Gathered>);

/// What is told of one gateway's batch.
#[derive(Debug)]
struct Gathered {
    answering: Arc<Answering>,
    outcomes: Vec<(u32, CommandOutcome)>,
    waiting: Vec<u32>,
}

impl Slot {
    /// The places of an answer with so many outcomes.
    pub(super) fn each(
        count: usize,
        reply: Reply,
        metrics: &Metrics,
    ) -> impl Iterator<Item = Self> + use<> {
        let places = Places {
            answered: vec![false; count],
            missing: count,
        };
        let answering = Arc::new(Answering {
            reply,
            places: Mutex::new(places),
            metrics: metrics.clone(),
        });
        let places = 0..u32::try_from(count).unwrap_or(u32::MAX);
        places.map(move |place| Self {
            answering: Arc::clone(&answering),
            place,
        })
    }
}

impl Parts {
    /// Adds a command's outcome. One for a place that already has an outcome is ignored.
    pub(super) fn add(&mut self, slot: Slot, outcome: CommandOutcome) {
        let gathered = self.gathered(&slot);
        gathered.outcomes.push((slot.place, outcome));
    }

    /// Adds that a command waits for a lock: its outcome follows by itself.
    pub(super) fn add_waiting(&mut self, slot: &Slot) {
        self.gathered(slot).waiting.push(slot.place);
    }

    /// Whether there is nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends everything, one part for each batch, and more where that is too large for a message. A gateway that does not get it asks
    /// again.
    pub(super) async fn send(self) {
        let mut left = self.0.into_values();
        let send = async {
            for gathered in left.by_ref() {
                gathered.send().await;
            }
        };
        if tokio::time::timeout(SEND_TIMEOUT, send).await.is_err() {
            for gathered in left {
                gathered.answering.metrics.unsent();
                gathered.answering.reply.was_given_up();
            }
        }
    }

    fn gathered(&mut self, slot: &Slot) -> &mut Gathered {
        let message = Arc::as_ptr(&slot.answering).addr();
        self.0.entry(message).or_insert_with(|| Gathered {
            answering: Arc::clone(&slot.answering),
            outcomes: Vec::new(),
            waiting: Vec::new(),
        })
    }
}

impl Gathered {
    async fn send(mut self) {
        let is_last = self.take_places();
        if self.outcomes.is_empty() && self.waiting.is_empty() {
            return;
        }
        let reply = &self.answering.reply;
        let part = Part {
            version: COMMAND_VERSION,
            worker: reply.worker().0,
            outcomes: self.outcomes,
            waiting: self.waiting,
        };
        let (parts, too_large) = split(part, limits::MAX_RPC_BYTES);
        for _ in 0..too_large {
            self.answering.metrics.unsent();
        }
        let mut parts = parts.into_iter().peekable();
        while let Some(part) = parts.next() {
            let sent = if is_last && parts.peek().is_none() {
                reply.send_last_part(part.into()).await
            } else {
                reply.send_part(part.into()).await
            };
            if let Err(error) = sent {
                self.answering.metrics.unsent();
                debug!(error = %chain(&error), "commands could not be answered");
            }
        }
    }

    /// Leaves out the places that were answered before, and takes the others. Returns whether none is left then.
    fn take_places(&mut self) -> bool {
        let answering = &self.answering;
        let mut places = answering
            .places
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Places { answered, missing } = &mut *places;
        self.outcomes.retain(|(place, _)| {
            let answered = answered.get_mut(*place as usize);
            let is_new = answered.is_some_and(|answered| !std::mem::replace(answered, true));
            *missing -= usize::from(is_new);
            is_new
        });
        self.waiting
            .retain(|place| answered.get(*place as usize) == Some(&false));
        *missing == 0
    }
}

/// Encodes a part, in as many as it takes for none to be larger than `limit`, and counts the outcomes that fit none.
fn split(part: Part, limit: usize) -> (Vec<Vec<u8>>, usize) {
    let (mut todo, mut encoded, mut too_large) = (vec![part], Vec::new(), 0);
    while let Some(mut part) = todo.pop() {
        match wire::encode(&part) {
            Ok(bytes) if bytes.len() <= limit => {
                encoded.push(bytes);
                continue;
            }
            Ok(_) => {}
            Err(error) => error!(error = %chain(&error), "an answer cannot be encoded"),
        }
        let half = part.outcomes.split_off(part.outcomes.len() / 2);
        if part.outcomes.is_empty() {
            if let Some((place, outcome)) = half.into_iter().next()
                && let short = Err(shortened(&outcome))
                && outcome != short
            {
                too_large += 1;
                warn!(
                    place,
                    "an outcome does not fit a message: it is told as unknown"
                );
                part.outcomes.push((place, short));
                todo.push(part);
            }
            continue;
        }
        let rest = Part {
            outcomes: half,
            waiting: Vec::new(),
            ..part
        };
        todo.extend([rest, part]);
    }
    (encoded, too_large)
}

/// What is told instead of an outcome that fits no message. Of what was carried out nothing else may be said than that it is not known.
fn shortened(outcome: &CommandOutcome) -> Failure {
    Failure::of(match outcome {
        Ok(_) => Code::Timeout,
        Err(failure) => failure.code,
    })
}

#[cfg(test)]
mod tests {
    use confab_protocol::command::{Created, Outcome};
    use confab_protocol::ids::ConversationId;
    use confab_protocol::json::JsonText;
    use uuid::Uuid;

    use super::*;

    fn created(bytes: usize) -> CommandOutcome {
        Ok(Outcome::Created(Created {
            conversation: ConversationId(Uuid::nil()),
            body: JsonText::trusted("x".repeat(bytes)),
            replayed: false,
        }))
    }

    fn part(outcomes: Vec<CommandOutcome>, waiting: Vec<u32>) -> Part {
        Part {
            version: COMMAND_VERSION,
            worker: Uuid::max(),
            outcomes: (0..).zip(outcomes).collect(),
            waiting,
        }
    }

    fn decoded(parts: Vec<Vec<u8>>, limit: usize) -> Vec<Part> {
        let decode = |bytes: Vec<u8>| {
            assert!(bytes.len() <= limit, "{}", bytes.len());
            wire::decode(&bytes).unwrap()
        };
        parts.into_iter().map(decode).collect()
    }

    #[test]
    fn outcomes_that_fit_go_in_one_part() {
        let whole = part(vec![created(100), created(200)], vec![2]);
        let (parts, too_large) = split(whole.clone(), 2000);
        assert_eq!((decoded(parts, 2000), too_large), (vec![whole], 0));
    }

    #[test]
    fn outcomes_too_large_for_a_message_go_in_several() {
        let outcomes: Vec<_> = (0..100).map(|n| created(n * 10)).collect();
        let (parts, too_large) = split(part(outcomes.clone(), vec![100, 101]), 3000);
        let parts = decoded(parts, 3000);
        assert!(parts.len() > 20 && parts.len() < 100, "{}", parts.len());
        let told: Vec<_> = parts
            .iter()
            .flat_map(|part| part.outcomes.clone())
            .collect();
        assert_eq!(told, (0..).zip(outcomes).collect::<Vec<_>>());
        let waiting: Vec<_> = parts.iter().flat_map(|part| part.waiting.clone()).collect();
        assert_eq!((waiting, too_large), (vec![100, 101], 0));
    }

    #[test]
    fn outcome_too_large_by_itself_is_unknown_alone() {
        let refused = Err(Failure::new(Code::VersionConflict, "x".repeat(9000)));
        let (parts, too_large) =
            split(part(vec![created(9000), created(1), refused], vec![]), 3000);
        let mut told: Vec<_> = decoded(parts, 3000)
            .into_iter()
            .flat_map(|part| part.outcomes)
            .collect();
        told.sort_by_key(|(place, _)| *place);
        let wanted = [
            Err(Failure::of(Code::Timeout)),
            created(1),
            Err(Failure::of(Code::VersionConflict)),
        ];
        assert_eq!((told, too_large), ((0..).zip(wanted).collect(), 2));
    }
}
