//! What is hot, set up so that it can be run alone, again and again: for benchmarks. None of it is in what ships.

use std::time::{Duration, Instant};

use confab_protocol::fair::Owner;
use confab_protocol::ids::{ClientId, ConversationId, IdError, UserId};
use uuid::Uuid;

use crate::planner::{Caps, Done, Item, Kind, Open, Planner, Work};

/// As large as no settings limit.
const ROOM: usize = usize::MAX;
/// When nobody waits any more.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Sends that come, are batched, and are done: group commit without the commit.
#[derive(Debug)]
pub struct Batching {
    planner: Planner<()>,
    /// Those that are to come.
    sends: Vec<Item<()>>,
    now: Instant,
}

impl Batching {
    /// So many sends, spread evenly over so many conversations, in batches of at most `cap`.
    ///
    /// # Errors
    /// Never.
    pub fn of(sends: u32, conversations: u32, cap: usize) -> Result<Self, IdError> {
        let now = Instant::now();
        let caps = Caps {
            batch_events: cap,
            batch_bytes: ROOM,
            lanes: 1,
            slots: 1,
            places: 1,
            queue_events: ROOM,
            queue_bytes: ROOM,
        };
        let send = |n: u32| {
            let of = u128::from(n % conversations) + 1;
            let user: UserId = format!("user-{}", n % 100).parse()?;
            Ok(Item {
                owner: Owner {
                    tenant: "default".parse()?,
                    user: user.clone(),
                },
                conversation: Some(ConversationId(Uuid::from_u128(of << 64 | of))),
                kind: Kind::Send(user, ClientId(Uuid::from_u128(u128::from(n)))),
                bytes: 400,
                deadline: now + PATIENCE,
                open: Open::default(),
                job: (),
            })
        };
        let sends = (0..sends).map(send).collect::<Result<_, _>>()?;
        Ok(Self {
            planner: Planner::new(caps),
            sends,
            now,
        })
    }

    /// All sends come at once, and are taken batch after batch; says how many batches they made. Can be run again.
    pub fn run(&mut self) -> usize {
        for send in self.sends.drain(..) {
            self.planner.push(send);
        }
        let mut batches = 0;
        while let Some(work) = self.planner.next(self.now) {
            let Work::Batch(ticket, mut items) = work else {
                continue;
            };
            batches += 1;
            let done = Done {
                ticket,
                took: Duration::from_millis(2),
                skipped: Vec::new(),
                refused: Vec::new(),
            };
            self.planner.finish(done, self.now);
            self.sends.append(&mut items);
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sends_are_batched_as_often_as_it_is_run() {
        let mut batching = Batching::of(400, 50, 200).unwrap();
        for _ in 0..3 {
            assert_eq!(batching.run(), 2);
            assert_eq!(batching.sends.len(), 400);
            assert!(batching.planner.is_idle());
        }
    }
}
