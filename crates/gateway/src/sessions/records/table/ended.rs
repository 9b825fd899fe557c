//! The sessions that ended here, with the bounds of how many are kept.

use std::collections::BTreeSet;
use std::time::Instant;

use confab_bus::records::{Position, Record};
use confab_protocol::ids::{SessionId, TenantId, UserId};
use rustc_hash::FxHashMap;

/// Sessions of one user that ended, at most.
const OF_USER: usize = 50;
/// Bytes of all that ended, at most.
const MAX_ENDED_BYTES: usize = 128 * 1024 * 1024;
/// What a record takes beside its positions, about.
const RECORD_OVERHEAD_BYTES: usize = 512;

/// The sessions that ended here.
#[derive(Debug, Default)]
pub(super) struct EndedSessions {
    by_time: BTreeSet<(Instant, SessionId)>,
    /// The oldest first, each with its device.
    of_users: FxHashMap<(TenantId, UserId), Vec<(SessionId, String)>>,
    sizes: FxHashMap<SessionId, usize>,
    bytes: usize,
}

fn size(record: &Record) -> usize {
    RECORD_OVERHEAD_BYTES + record.device.len() + record.positions.len() * size_of::<Position>()
}

fn user(record: &Record) -> (TenantId, UserId) {
    (record.tenant.clone(), record.user.clone())
}

impl EndedSessions {
    pub(super) fn len(&self) -> usize {
        self.by_time.len()
    }

    /// Adds one; gives those that there is no more room for.
    pub(super) fn add(
        &mut self,
        session: SessionId,
        record: &Record,
        at: Instant,
    ) -> Vec<SessionId> {
        let size = size(record);
        self.by_time.insert((at, session));
        self.sizes.insert(session, size);
        self.bytes += size;
        let own = self.of_users.entry(user(record)).or_default();
        own.push((session, record.device.clone()));
        let mut dropped = Vec::new();
        if own.len() > OF_USER {
            let older = own.iter().take(OF_USER);
            let same = older.filter(|(_, device)| *device == record.device);
            dropped.extend(same.chain(own.iter()).map(|(id, _)| *id).next());
        }
        if self.bytes > MAX_ENDED_BYTES {
            dropped.extend(self.oldest(self.bytes - MAX_ENDED_BYTES));
        }
        dropped.dedup();
        dropped
    }

    pub(super) fn remove(&mut self, session: SessionId, record: &Record, at: Instant) {
        self.by_time.remove(&(at, session));
        self.bytes -= self.sizes.remove(&session).unwrap_or_default();
        let user = user(record);
        if let Some(own) = self.of_users.get_mut(&user) {
            own.retain(|(one, _)| *one != session);
            if own.is_empty() {
                self.of_users.remove(&user);
            }
        }
    }

    /// The oldest ones that have so many bytes together.
    fn oldest(&self, bytes: usize) -> Vec<SessionId> {
        let mut freed = 0;
        let sessions = self.by_time.iter().map(|(_, session)| *session);
        sessions
            .take_while(|session| {
                let is_needed = freed < bytes;
                freed += self.sizes.get(session).copied().unwrap_or_default();
                is_needed
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::super::super::testing::{hash, record};
    use super::*;

    fn id(n: usize) -> SessionId {
        SessionId(Uuid::from_u128(n.try_into().unwrap()))
    }

    #[test]
    fn oldest_of_same_device_goes_first() {
        let mut ended = EndedSessions::default();
        let start = Instant::now();
        let at = |n: usize| start + Duration::from_secs(n.try_into().unwrap());
        let laptop = record("alice", "laptop", hash(1));
        let phone = record("alice", "phone", hash(1));
        assert_eq!(ended.add(id(0), &laptop, at(0)), []);
        for n in 1..OF_USER {
            assert_eq!(ended.add(id(n), &phone, at(n)), []);
        }
        assert_eq!(
            ended.add(id(100), &record("bob", "phone", hash(1)), at(100)),
            []
        );
        assert_eq!(ended.add(id(OF_USER), &phone, at(OF_USER)), [id(1)]);
        ended.remove(id(1), &phone, at(1));
        let tablet = record("alice", "tablet", hash(1));
        assert_eq!(ended.add(id(60), &tablet, at(60)), [id(0)]);
        ended.remove(id(0), &laptop, at(0));
        assert_eq!(ended.len(), OF_USER + 1);
    }

    #[test]
    fn ended_sessions_are_bounded_in_bytes() {
        let mut ended = EndedSessions::default();
        let start = Instant::now();
        let position = Position {
            conversation: confab_protocol::ids::ConversationId(Uuid::nil()),
            joined: 1,
            seq: 1,
        };
        let mut large = record("user", "phone", hash(1));
        large.positions = vec![position; 100_000];
        let mut dropped = 0;
        for n in 0..100 {
            large.user = format!("user{n}").parse().unwrap();
            let at = start + Duration::from_secs(n);
            for gone in ended.add(id(n.try_into().unwrap()), &large, at) {
                assert_eq!(gone, id(dropped));
                large.user = format!("user{dropped}").parse().unwrap();
                let then = start + Duration::from_secs(dropped.try_into().unwrap());
                ended.remove(gone, &large, then);
                dropped += 1;
            }
            assert!(ended.bytes <= MAX_ENDED_BYTES);
        }
        assert!(dropped > 0);
        for n in dropped..100 {
            large.user = format!("user{n}").parse().unwrap();
            let at = start + Duration::from_secs(n.try_into().unwrap());
            ended.remove(id(n), &large, at);
        }
        assert_eq!((ended.bytes, ended.len(), ended.of_users.len()), (0, 0, 0));
    }
}
