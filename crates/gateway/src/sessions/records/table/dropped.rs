//! Records that are kept no more: what stands of them in the bucket is to be deleted.

use std::collections::VecDeque;

use confab_protocol::ids::SessionId;
use rustc_hash::FxHashSet;

/// Records that wait to be deleted, and those that were being written when they were given up; of more, the oldest expire by
/// themselves.
const MAX_WAITING: usize = 16_384;

/// Records that are to be deleted.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    waiting: VecDeque<(SessionId, u64)>,
    writing: FxHashSet<SessionId>,
}

impl Dropped {
    /// A session is kept no more, which stands under `revision`; of one that is being written the write is waited for.
    pub(super) fn add(&mut self, session: SessionId, revision: u64, is_writing: bool) {
        if is_writing {
            if self.writing.len() < MAX_WAITING {
                self.writing.insert(session);
            }
        } else if revision > 0 {
            self.waiting.push_back((session, revision));
            if self.waiting.len() > MAX_WAITING {
                self.waiting.pop_front();
            }
        }
    }

    /// A write has ended of a session that is not held, under `revision` where it stands.
    pub(super) fn written(&mut self, session: SessionId, revision: Option<u64>) {
        if self.writing.remove(&session)
            && let Some(revision) = revision
        {
            self.add(session, revision, false);
        }
    }

    pub(super) fn take(&mut self) -> Option<(SessionId, u64)> {
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn written_record_is_deleted_by_its_revision() {
        let id = |n| SessionId(Uuid::from_u128(n));
        let mut dropped = Dropped::default();
        dropped.add(id(1), 0, false);
        dropped.add(id(2), 5, true);
        dropped.add(id(3), 6, true);
        assert_eq!(dropped.take(), None, "nothing stands, or not yet");
        dropped.written(id(2), Some(9));
        dropped.written(id(3), None);
        dropped.written(id(4), Some(7));
        assert_eq!(dropped.take(), Some((id(2), 9)));
        assert_eq!(dropped.take(), None);
        for n in 0..=MAX_WAITING as u128 {
            dropped.add(id(n), 1, false);
        }
        assert_eq!(dropped.take(), Some((id(1), 1)), "the oldest one expires");
    }
}
