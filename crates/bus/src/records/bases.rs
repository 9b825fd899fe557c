//! What the records of a user's sessions have in common: the positions of one of them, written once and never changed, named by
//! their hash.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use confab_protocol::ids::ConversationId;
use confab_protocol::wire;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{Position, Record};
use crate::error::BusError;

/// The first byte of a base; another is not read.
const BASE_VERSION: u8 = 1;
/// With fewer positions than this a record has them all itself.
pub(super) const MIN_POSITIONS: usize = 32;
/// A record that differs from a base in more than this part of that gets a base of its own.
const MAX_DIFFERENT_PART: usize = 4;
/// Bases of one user that are known: sessions may stand at different places.
const MAX_OF_USER: usize = 4;
/// Positions of all bases that are known, at most: beyond, those not used for longest are forgotten.
const MAX_POSITIONS: usize = 2_000_000;
/// Shortest delay after which a base that was read is put again: its first readers come together.
const MIN_RENEWAL: Duration = Duration::from_secs(10);

/// The name of a base, and of a user among those who have some: 128 bits of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct BaseName {
    pub(super) user: Uuid,
    pub(super) base: Uuid,
}

/// Positions in the order of their conversations.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Base(Vec<Position>);

/// The difference between a record and a base, in the order of conversations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Positions that the base has not, or otherwise.
    pub(super) differs: Vec<Position>,
    /// Conversations that only the base has.
    pub(super) gone: Vec<ConversationId>,
}

fn hash(bytes: &[u8]) -> Uuid {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    Uuid::from_bytes(half)
}

/// The user of a record, as bases are named by.
pub(super) fn user_of(record: &Record) -> Uuid {
    let (tenant, user) = (record.tenant.as_str(), record.user.as_str());
    hash(format!("{tenant}\0{user}").as_bytes())
}

impl Difference {
    fn len(&self) -> usize {
        self.differs.len() + self.gone.len()
    }
}

impl Base {
    /// The base with these positions.
    pub(super) fn of(positions: &[Position]) -> Self {
        let mut positions = positions.to_vec();
        positions.sort_unstable_by_key(|position| position.conversation);
        Self(positions)
    }

    /// Its bytes, and the hash that names it.
    ///
    /// # Errors
    /// When a value has no form.
    pub(super) fn encode(&self) -> Result<(Uuid, Bytes), BusError> {
        let mut bytes = vec![BASE_VERSION];
        bytes.extend(wire::encode_compact(&self.0)?);
        Ok((hash(&bytes), bytes.into()))
    }

    /// None when the bytes are not those that the hash names.
    pub(super) fn decode(name: Uuid, bytes: &[u8]) -> Option<Self> {
        match bytes.split_first() {
            Some((&BASE_VERSION, positions)) if hash(bytes) == name => {
                wire::decode_compact(positions).ok().map(Self)
            }
            _ => None,
        }
    }

    /// Returns what other positions, in the order of conversations, have beside it.
    fn difference(&self, other: &Self) -> Difference {
        let mut difference = Difference::default();
        let mut own = self.0.iter().peekable();
        for position in &other.0 {
            while let Some(gone) = own.next_if(|own| own.conversation < position.conversation) {
                difference.gone.push(gone.conversation);
            }
            let same = own.next_if(|own| own.conversation == position.conversation);
            if same != Some(position) {
                difference.differs.push(*position);
            }
        }
        let rest = own.map(|gone| gone.conversation);
        difference.gone.extend(rest);
        difference
    }

    /// The positions that have this difference from it.
    pub(super) fn with(&self, difference: Difference) -> Vec<Position> {
        let Difference { differs, gone } = difference;
        let mut all: HashMap<_, _> = self.0.iter().map(|one| (one.conversation, *one)).collect();
        for conversation in gone {
            all.remove(&conversation);
        }
        for position in differs {
            all.insert(position.conversation, position);
        }
        let mut positions: Vec<_> = all.into_values().collect();
        positions.sort_unstable_by_key(|position| position.conversation);
        positions
    }
}

/// A base that is known to be in the bucket, or is to be put there.
#[derive(Debug)]
struct KnownBase {
    name: Uuid,
    base: Arc<Base>,
    bytes: Bytes,
    /// From when on it is put again with the next record that names it.
    renew_at: Instant,
    used: Instant,
}

/// The plan to write a record.
#[derive(Debug)]
pub(super) struct BasePlan {
    pub(super) name: BaseName,
    pub(super) difference: Difference,
    /// The base's bytes, where it is to be put first.
    pub(super) put: Option<Bytes>,
    /// True if no record named it yet.
    pub(super) is_new: bool,
}

#[derive(Debug, Default)]
struct KnownBases {
    users: HashMap<Uuid, Vec<KnownBase>>,
    /// Positions of all bases, those that gave way since this was last counted among them.
    positions: usize,
}

/// The bases that this process knows, by user.
#[derive(Debug)]
pub(super) struct Bases {
    state: Mutex<KnownBases>,
    /// A base is put again by the next record behind this time.
    period: Duration,
}

impl Bases {
    pub(super) fn new(period: Duration) -> Self {
        Self {
            state: Mutex::default(),
            period,
        }
    }

    /// Returns how a record with these positions is written: by the base that it differs least from, or a new one.
    ///
    /// # Errors
    /// When a value has no form.
    pub(super) fn plan(
        &self,
        user: Uuid,
        positions: &[Position],
        now: Instant,
    ) -> Result<BasePlan, BusError> {
        let wanted = Base::of(positions);
        let mut state = self.lock();
        let known = state.users.entry(user).or_default();
        let differences = known
            .iter_mut()
            .map(|one| (one.base.difference(&wanted), one));
        let nearest = differences.min_by_key(|(difference, _)| difference.len());
        if let Some((difference, one)) = nearest
            && difference.len() <= MIN_POSITIONS.max(wanted.0.len() / MAX_DIFFERENT_PART)
        {
            one.used = now;
            return Ok(BasePlan {
                name: BaseName {
                    user,
                    base: one.name,
                },
                difference,
                put: (one.renew_at <= now).then(|| one.bytes.clone()),
                is_new: false,
            });
        }
        let (name, bytes) = wanted.encode()?;
        let plan = BasePlan {
            name: BaseName { user, base: name },
            difference: Difference::default(),
            put: Some(bytes.clone()),
            is_new: true,
        };
        let known = KnownBase {
            name,
            base: Arc::new(wanted),
            bytes,
            renew_at: now,
            used: now,
        };
        state.insert(user, known);
        Ok(plan)
    }

    /// A base was put. `chance`, in 0..1, spreads the next time.
    pub(super) fn stored(&self, name: BaseName, now: Instant, chance: f64) {
        let after = self.period.mul_f64(0.5 + chance / 2.0);
        self.renew(name, now + after);
    }

    /// A base was read from the bucket: how long that keeps it is not known.
    pub(super) fn read(&self, name: BaseName, base: Base, bytes: Bytes, now: Instant) -> Arc<Base> {
        let base = Arc::new(base);
        let known = KnownBase {
            name: name.base,
            base: Arc::clone(&base),
            bytes,
            renew_at: now + MIN_RENEWAL.min(self.period),
            used: now,
        };
        self.lock().insert(name.user, known);
        base
    }

    pub(super) fn find(&self, name: BaseName) -> Option<Arc<Base>> {
        let state = self.lock();
        let known = state.users.get(&name.user)?;
        let found = known.iter().find(|one| one.name == name.base);
        found.map(|one| Arc::clone(&one.base))
    }

    /// The bucket may have lost them: each is put again.
    pub(super) fn lost(&self, now: Instant) {
        for known in self.lock().users.values_mut().flatten() {
            known.renew_at = now;
        }
    }

    fn renew(&self, name: BaseName, at: Instant) {
        let mut state = self.lock();
        let known = state.users.get_mut(&name.user).into_iter().flatten();
        for one in known.filter(|one| one.name == name.base) {
            one.renew_at = at;
        }
    }

    fn lock(&self) -> MutexGuard<'_, KnownBases> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KnownBases {
    /// Adds a base; of its user's the one not used for longest gives way.
    fn insert(&mut self, user: Uuid, one: KnownBase) {
        self.positions += one.base.0.len();
        let known = self.users.entry(user).or_default();
        known.retain(|other| other.name != one.name);
        if known.len() >= MAX_OF_USER
            && let Some(oldest) = known.iter().map(|other| other.used).min()
        {
            known.retain(|other| other.used != oldest);
        }
        known.push(one);
        if self.positions > MAX_POSITIONS {
            self.shrink();
        }
    }

    /// Forgets the half not used for longest, where they are too many.
    fn shrink(&mut self) {
        self.positions = self.count();
        if self.positions <= MAX_POSITIONS {
            return;
        }
        let mut used: Vec<_> = self.users.values().flatten().map(|one| one.used).collect();
        used.sort_unstable();
        if let Some(middle) = used.get(used.len() / 2).copied() {
            self.users.retain(|_, known| {
                known.retain(|one| one.used > middle);
                !known.is_empty()
            });
        }
        self.positions = self.count();
    }

    fn count(&self) -> usize {
        self.users
            .values()
            .flatten()
            .map(|one| one.base.0.len())
            .sum()
    }
}

#[cfg(test)]
mod tests;
