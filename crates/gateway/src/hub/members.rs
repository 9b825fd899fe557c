//! How many members a conversation has: those above a bound carry no signals.

use confab_protocol::event::MembershipChange;
use confab_protocol::ids::Seq;

/// How many members a conversation has while no worker has said so: more than carries signals.
pub(super) const UNKNOWN_MEMBERS: u64 = u64::MAX / 4;

/// A conversation's member count, from a worker's snapshot and the events behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Members {
    /// As many as there were at this seq.
    known: u64,
    at: Seq,
    /// From behind here on, the order here tells. What lies between is read by whoever catches up.
    delivered_from: Seq,
    /// What the order here has told since.
    change: i64,
}

impl Members {
    /// As many as a snapshot with this head says; the order here begins behind `position`.
    pub(super) const fn at(count: u64, head: Seq, position: Seq) -> Self {
        Self {
            known: count,
            at: head,
            delivered_from: position,
            change: 0,
        }
    }

    pub(super) const fn count(&self) -> u64 {
        self.known.saturating_add_signed(self.change)
    }

    /// Whether a worker has said how many there are.
    pub(super) const fn is_known(&self) -> bool {
        self.known < UNKNOWN_MEMBERS / 2
    }

    /// A later snapshot. One that knows less than the order here has delivered fills at most what the order did not know.
    pub(super) const fn learn(&mut self, count: u64, head: Seq, position: Seq) {
        if head >= position && head >= self.delivered_from {
            *self = Self::at(count, head, head);
        } else if head >= self.at && head <= self.delivered_from {
            (self.known, self.at) = (count, head);
        }
    }

    /// The first snapshot, behind which the order here has delivered these events. Where some are missing, their changes are not counted: a
    /// count that is not known at all carries nothing.
    pub(super) fn begin(
        &mut self,
        count: u64,
        head: Seq,
        delivered: impl Iterator<Item = (Seq, Option<MembershipChange>)>,
    ) {
        *self = Self::at(count, head, head);
        for (seq, change) in delivered {
            self.delivered(seq, change.as_ref());
        }
    }

    /// The order here delivers an event.
    pub(super) fn delivered(&mut self, seq: Seq, change: Option<&MembershipChange>) {
        if seq > self.delivered_from {
            self.change += self.difference(change);
        }
    }

    /// Whether there are events that neither the snapshot nor the order knew.
    pub(super) const fn is_behind(&self) -> bool {
        self.at < self.delivered_from
    }

    /// Whether an event that is read to catch up is the next one which neither the snapshot nor the order knew.
    pub(super) const fn lacks(&self, seq: Seq) -> bool {
        seq == self.at + 1 && seq <= self.delivered_from
    }

    /// Takes the event that [`Self::lacks`].
    pub(super) fn fill(&mut self, change: Option<&MembershipChange>) {
        self.at += 1;
        self.known = self.known.saturating_add_signed(self.difference(change));
    }

    fn difference(&self, change: Option<&MembershipChange>) -> i64 {
        match change {
            Some(MembershipChange::Joined(users)) => i64::try_from(users.len()).unwrap_or(i64::MAX),
            Some(MembershipChange::Left(_)) => -1,
            Some(MembershipChange::Ended) => -self.count().cast_signed(),
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(n: usize) -> MembershipChange {
        MembershipChange::Joined(vec!["u".parse().unwrap(); n])
    }

    #[test]
    fn events_count_from_latest_snapshot() {
        let mut members = Members::at(3, 10, 10);
        members.delivered(11, Some(&joined(2)));
        members.delivered(12, None);
        members.delivered(13, Some(&MembershipChange::Left("u".parse().unwrap())));
        assert_eq!(members.count(), 4);
        members.learn(99, 12, 13);
        assert_eq!(members.count(), 4, "it knew less");
        members.learn(7, 15, 13);
        members.delivered(14, Some(&joined(1)));
        members.delivered(15, Some(&joined(1)));
        assert_eq!(members.count(), 7, "it knew these");
        members.delivered(16, Some(&joined(1)));
        assert_eq!(members.count(), 8);
        members.delivered(17, Some(&MembershipChange::Ended));
        assert_eq!(members.count(), 0);
    }

    #[test]
    fn unknown_change_counts_once() {
        let mut members = Members::at(3, 10, 13);
        members.delivered(14, Some(&joined(1)));
        let read = |members: &mut Members, seq| {
            if members.lacks(seq) {
                members.fill(Some(&joined(1)));
            }
        };
        for seq in [9, 10, 11, 11] {
            read(&mut members, seq);
        }
        assert_eq!(members.count(), 5);
        members.learn(5, 12, 14);
        assert_eq!(members.count(), 6);
        for seq in [12, 13, 13, 14] {
            read(&mut members, seq);
        }
        assert_eq!(members.count(), 7);
    }
}
