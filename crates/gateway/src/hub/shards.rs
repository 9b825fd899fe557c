//! Which shard of the hub has a conversation.

use std::num::NonZeroUsize;

use confab_protocol::ids::ConversationId;

/// How many shards there are; each conversation is in one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shards(NonZeroUsize);

impl Shards {
    pub(crate) const SINGLE: Self = Self(NonZeroUsize::MIN);

    /// So many, one at least.
    pub(crate) fn of(count: usize) -> Self {
        Self(NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN))
    }

    pub(crate) const fn count(self) -> usize {
        self.0.get()
    }

    /// The shard of a conversation. The last bytes of ids are random (RFC 9562, section 5.7).
    pub(crate) fn shard_of(self, id: ConversationId) -> usize {
        let [.., a, b, c, d] = id.0.into_bytes();
        let random = u32::from_be_bytes([a, b, c, d]);
        usize::try_from(random).unwrap_or_default() % self.0
    }

    /// Puts what is about conversations in order of their shards; within one the order stays.
    pub(crate) fn split<T, C>(
        self,
        items: impl IntoIterator<Item = T>,
        id: impl Fn(&T) -> ConversationId,
    ) -> Vec<C>
    where
        C: Default + Extend<T> + FromIterator<T>,
    {
        if self == Self::SINGLE {
            return vec![items.into_iter().collect()];
        }
        let mut parts: Vec<C> = std::iter::repeat_with(C::default)
            .take(self.count())
            .collect();
        for item in items {
            if let Some(part) = parts.get_mut(self.shard_of(id(&item))) {
                part.extend([item]);
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn conversations_are_spread_evenly() {
        let shards = Shards::of(4);
        let ids = (0..4000).map(|_| ConversationId(Uuid::now_v7()));
        let parts: Vec<Vec<_>> = shards.split(ids, |id| *id);
        for part in &parts {
            assert!((800..1200).contains(&part.len()), "{}", part.len());
        }
        let whole: Vec<Vec<_>> = Shards::SINGLE.split(parts.concat(), |id| *id);
        assert_eq!(whole.len(), 1);
        assert_eq!(whole[0].len(), 4000);
    }
}
