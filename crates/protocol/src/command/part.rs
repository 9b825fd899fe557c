//! A worker's answer to a batch, in parts.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Outcome;
use crate::error::Failure;

/// A part of a worker's answer to a [`Batch`](super::Batch). What is done is told at once, whatever else the batch has; the places
/// that no part tells of follow in another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// [`COMMAND_VERSION`](super::COMMAND_VERSION).
    pub version: u8,
    /// The worker that answers.
    pub worker: Uuid,
    /// Outcomes by their commands' places in the batch, the first 0.
    pub outcomes: Vec<(u32, Result<Outcome, Failure>)>,
    /// Places of commands that wait for a lock: their outcomes follow by themselves.
    pub waiting: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::COMMAND_VERSION;
    use crate::error::Code;
    use crate::wire::{decode, encode};

    #[test]
    fn part_has_this_form_on_the_wire() {
        let part = Part {
            version: COMMAND_VERSION,
            worker: Uuid::from_u128(7),
            outcomes: vec![
                (0, Ok(Outcome::Read(Vec::new()))),
                (2, Err(Failure::of(Code::Timeout))),
                (
                    3,
                    Err(Failure::field("/kind", "must be given").retry_after(5)),
                ),
            ],
            waiting: vec![1, 300],
        };
        let bytes = encode(&part).unwrap();
        insta::assert_snapshot!(bytes.escape_ascii());
        assert_eq!(decode::<Part>(&bytes).unwrap(), part);
    }
}
