//! When who comes may come in. No IO; the time is a value.
//!
//! Whoever comes is given its turn at once, so that nobody is woken or looked at again before it: a line is two times,
//! however many stand in it.

use std::time::Duration;

use super::{Kind, Rates};

/// How long one who comes may wait; with the rate this also bounds how many do.
const PATIENCE: Duration = Duration::from_secs(3);
/// Turns that nobody took are kept for so long: who comes a little unevenly does not wait.
const LEEWAY: Duration = Duration::from_millis(100);
/// The longest time after which anyone is told to come again.
const AGAIN: Duration = Duration::from_secs(60);

/// What one who comes is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It comes in after this.
    In(Duration),
    /// It would wait too long; it may come again after this.
    Again(Duration),
}

/// The gate, with a line for each kind. Times are counted from the gate's beginning.
#[derive(Debug)]
pub(super) struct Gate {
    resumes: Line,
    fresh: Line,
}

#[derive(Debug)]
struct Line {
    /// Between one turn and the next.
    pace: Duration,
    /// The next turn that nobody has.
    next: Duration,
    /// When the next one may come again that is sent away.
    again: Duration,
}

impl Line {
    fn new(rate: u32) -> Self {
        Self {
            pace: Duration::from_secs(1) / rate.max(1),
            next: Duration::ZERO,
            again: Duration::ZERO,
        }
    }

    /// The next turn, which may lie behind by the leeway.
    fn turn(&self, now: Duration) -> Duration {
        self.next.max(now.saturating_sub(LEEWAY))
    }

    /// Gives away a turn.
    fn take(&mut self, turn: Duration, now: Duration) -> Turn {
        self.next = turn + self.pace;
        Turn::In(turn.saturating_sub(now))
    }

    /// Sends one away so that those who were sent away come back at the line's pace, behind those who wait.
    fn send_away(&mut self, turn: Duration, now: Duration, chance: f64) -> Turn {
        let again = self.again.max(turn);
        let wait = again - now;
        if wait <= AGAIN {
            self.again = again + self.pace;
        }
        Turn::Again(wait.min(AGAIN).mul_f64(0.75 + chance / 2.0))
    }
}

impl Gate {
    pub(super) fn new(rates: Rates) -> Self {
        Self {
            resumes: Line::new(rates.resumes),
            fresh: Line::new(rates.fresh),
        }
    }

    /// One comes at `now`; `chance` is in 0..1 and spreads those who are sent away.
    pub(super) fn arrive(&mut self, kind: Kind, now: Duration, chance: f64) -> Turn {
        let (line, turn) = match kind {
            Kind::Resume => {
                let turn = self.resumes.turn(now);
                (&mut self.resumes, turn)
            }
            // Behind all who wait to resume.
            Kind::Fresh => {
                let resumes = self.resumes.next;
                let behind = if resumes > now {
                    resumes
                } else {
                    Duration::ZERO
                };
                let turn = self.fresh.turn(now).max(behind);
                (&mut self.fresh, turn)
            }
        };
        if turn > now + PATIENCE {
            line.send_away(turn, now, chance)
        } else {
            line.take(turn, now)
        }
    }
}

#[cfg(test)]
mod tests;
