//! Slots for connections, and who gives one up when all are taken: a connection that asks for nothing, or one whose request is still
//! coming; never one that waits for an answer.
//!
//! So clients that connect and say nothing keep nobody out, nor do those that send bodies slowly: a newcomer takes the slot of the one that
//! is silent for longest, of those of the address that has most of them; where none is silent, or the bodies of one address take more
//! than a quarter of all slots, of the body that comes for longest, of the address with most of those.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::metrics::ConnectionMetrics;

/// The slots of one kind of connections. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Slots(Arc<SharedSlots>);

#[derive(Debug)]
struct SharedSlots {
    capacity: usize,
    table: Mutex<SlotTable>,
    metrics: ConnectionMetrics,
}

#[derive(Debug, Default)]
struct SlotTable {
    /// Connections that are open, those included that were evicted and have not ended yet.
    open: usize,
    silent: Evictable,
    /// Those whose request is still coming.
    receiving: Evictable,
    /// Grows with every connection that becomes silent or begins to send a request.
    tickets: u64,
}

/// Connections that may have to give up their slots, by address, the longest listed first.
#[derive(Debug, Default)]
struct Evictable {
    by_address: BTreeMap<IpAddr, BTreeMap<u64, CancellationToken>>,
    /// How many each address has.
    counts: BTreeSet<(usize, IpAddr)>,
}

/// A connection's slot. It is silent at first.
#[derive(Debug)]
pub(crate) struct Slot {
    // In this order: what is not listed any more is not open either.
    place: EvictionPlace,
    kept: KeptSlot,
}

/// A slot that is not given up before it is dropped.
#[derive(Debug)]
pub(crate) struct KeptSlot(Arc<SharedSlots>);

/// A connection's place among those that may have to give up theirs.
#[derive(Debug)]
struct EvictionPlace {
    shared: Arc<SharedSlots>,
    address: IpAddr,
    /// What it is listed under; 0 while it is not. Changed only under the lock.
    since: AtomicU64,
    evicted: CancellationToken,
}

impl Slots {
    /// So many slots, all free.
    pub(crate) fn new(capacity: usize, metrics: ConnectionMetrics) -> Self {
        Self(Arc::new(SharedSlots {
            capacity,
            table: Mutex::default(),
            metrics,
        }))
    }

    /// Takes a slot for a connection of this address, that of another where none is free; none where all wait for answers.
    pub(crate) fn take(&self, address: IpAddr) -> Option<Slot> {
        let mut table = self.0.lock();
        if table.open >= self.0.capacity {
            table.evict(self.0.capacity)?.cancel();
            self.0.metrics.evicted();
        }
        table.open += 1;
        let evicted = CancellationToken::new();
        let since = table.ticket();
        table.silent.add(since, address, evicted.clone());
        drop(table);
        self.0.metrics.opened();
        Some(Slot {
            place: EvictionPlace {
                shared: Arc::clone(&self.0),
                address,
                since: since.into(),
                evicted,
            },
            kept: KeptSlot(Arc::clone(&self.0)),
        })
    }
}

impl Slot {
    /// The connection asks for something, and keeps its slot until [`Self::silent`]. Says whether it still has one.
    pub(crate) fn asks(&self) -> bool {
        self.place.asks()
    }

    /// The connection begins to ask for something, which is still coming until [`Self::asks`]. Says whether it still has its slot.
    pub(crate) fn receives(&self) -> bool {
        self.place.list(|table| &mut table.receiving)
    }

    /// The connection asks for nothing again.
    pub(crate) fn silent(&self) {
        self.place.list(|table| &mut table.silent);
    }

    /// Comes when another connection was given the slot. Cancel-safe.
    pub(crate) async fn evicted(&self) {
        self.place.evicted.cancelled().await;
    }

    /// Keeps the slot for the connection's life; nothing when another was given it.
    pub(crate) fn keep(self) -> Option<KeptSlot> {
        let Self { place, kept } = self;
        place.asks().then_some(kept)
    }
}

impl EvictionPlace {
    fn asks(&self) -> bool {
        let mut table = self.shared.lock();
        self.unlist(&mut table);
        drop(table);
        !self.evicted.is_cancelled()
    }

    /// Lists it anew, unless its slot is another's; says whether it has it.
    fn list(&self, of: impl Fn(&mut SlotTable) -> &mut Evictable) -> bool {
        let mut table = self.shared.lock();
        if self.evicted.is_cancelled() {
            return false;
        }
        self.unlist(&mut table);
        let ticket = table.ticket();
        of(&mut table).add(ticket, self.address, self.evicted.clone());
        self.since.store(ticket, Ordering::Relaxed);
        true
    }

    fn unlist(&self, table: &mut SlotTable) {
        let since = self.since.swap(0, Ordering::Relaxed);
        if since != 0 && table.silent.remove(self.address, since).is_none() {
            table.receiving.remove(self.address, since);
        }
    }
}

impl SlotTable {
    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// Takes out the one that gives up its slot.
    fn evict(&mut self, capacity: usize) -> Option<CancellationToken> {
        let receiving = self.receiving.most();
        if receiving > capacity / 4 && receiving > self.silent.most() {
            return self.receiving.evict();
        }
        self.silent.evict().or_else(|| self.receiving.evict())
    }
}

impl Drop for EvictionPlace {
    fn drop(&mut self) {
        self.asks();
    }
}

impl Drop for KeptSlot {
    fn drop(&mut self) {
        self.0.lock().open -= 1;
        self.0.metrics.ended();
    }
}

impl SharedSlots {
    fn lock(&self) -> MutexGuard<'_, SlotTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Evictable {
    fn add(&mut self, ticket: u64, address: IpAddr, evicted: CancellationToken) {
        let of_address = self.by_address.entry(address).or_default();
        self.counts.remove(&(of_address.len(), address));
        of_address.insert(ticket, evicted);
        self.counts.insert((of_address.len(), address));
    }

    /// How many the address has that has most.
    fn most(&self) -> usize {
        self.counts.last().map_or(0, |(count, _)| *count)
    }

    fn remove(&mut self, address: IpAddr, since: u64) -> Option<CancellationToken> {
        let of_address = self.by_address.get_mut(&address)?;
        let before = of_address.len();
        let removed = of_address.remove(&since)?;
        let left = of_address.len();
        self.counts.remove(&(before, address));
        if left == 0 {
            self.by_address.remove(&address);
        } else {
            self.counts.insert((left, address));
        }
        Some(removed)
    }

    /// Takes out the one that is listed for longest, of the address that has most.
    fn evict(&mut self) -> Option<CancellationToken> {
        let (_, address) = *self.counts.last()?;
        let since = *self.by_address.get(&address)?.first_key_value()?.0;
        self.remove(address, since)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use prometheus_client::registry::Registry;
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::AllConnectionMetrics;

    fn slots(capacity: usize) -> Slots {
        let metrics = AllConnectionMetrics::new(&mut Registry::default());
        Slots::new(capacity, metrics.of("http"))
    }

    fn address(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    fn is_evicted(slot: &Slot) -> bool {
        slot.place.evicted.is_cancelled()
    }

    #[test]
    fn newcomer_takes_slot_of_longest_silent() {
        let slots = slots(2);
        let (first, second) = (
            slots.take(address(1)).unwrap(),
            slots.take(address(1)).unwrap(),
        );
        let _third = slots.take(address(1)).unwrap();
        assert!(is_evicted(&first) && !is_evicted(&second));
        assert!(!first.asks(), "it has no slot any more");
        assert!(first.keep().is_none());
        assert!(second.keep().is_some());
    }

    #[test]
    fn connection_that_asks_keeps_its_slot() {
        let slots = slots(1);
        let slot = slots.take(address(1)).unwrap();
        assert!(slot.asks());
        assert!(slots.take(address(2)).is_none());
        slot.silent();
        let kept = slots.take(address(2)).unwrap().keep().unwrap();
        assert!(is_evicted(&slot));
        drop(slot);
        assert!(slots.take(address(3)).is_none(), "one is kept");
        drop(kept);
        assert!(slots.take(address(3)).is_some());
    }

    #[test]
    fn address_with_most_silent_gives_up_its_own() {
        let slots = slots(4);
        let quiet = slots.take(address(1)).unwrap();
        let mut loud: VecDeque<_> = (0..3).map(|_| slots.take(address(2)).unwrap()).collect();
        for _ in 0..100 {
            loud.push_back(slots.take(address(2)).unwrap());
            assert!(is_evicted(&loud.pop_front().unwrap()));
        }
        assert!(!is_evicted(&quiet));
    }

    #[test]
    fn slow_bodies_of_an_address_give_way() {
        let slots = slots(8);
        let quiet: Vec<_> = (0..2).map(|_| slots.take(address(1)).unwrap()).collect();
        let slow: VecDeque<_> = (0..6).map(|_| slots.take(address(2)).unwrap()).collect();
        for slot in &slow {
            assert!(slot.receives());
        }
        let mut newcomers: Vec<_> = (3..7)
            .map(|n| slots.take(address(n)).expect("a body gives way"))
            .collect();
        let evicted: Vec<_> = slow.iter().map(is_evicted).collect();
        // Down to a quarter of the slots; then who is silent comes first.
        assert_eq!(evicted, [true, true, true, true, false, false]);
        assert!(!slow[0].asks(), "its body came to an end too late");
        assert!(!quiet.iter().any(is_evicted));
        newcomers.push(slots.take(address(7)).unwrap());
        assert!(!is_evicted(&slow[4]));
        assert!(slow[4].asks(), "its body came in time");
    }

    #[test]
    fn slowest_body_gives_way_where_none_is_silent() {
        let slots = slots(4);
        let asking: Vec<_> = (0..4).map(|n| slots.take(address(n)).unwrap()).collect();
        for slot in &asking {
            assert!(slot.receives());
        }
        assert!(asking[0].asks(), "it waits for an answer now");
        let newcomer = slots.take(address(9)).unwrap();
        assert!(newcomer.asks());
        let evicted = asking.iter().filter(|slot| is_evicted(slot)).count();
        assert_eq!((evicted, is_evicted(&asking[0])), (1, false));
    }

    proptest! {
        /// Whatever comes in whatever order: no more are kept or asked for than there are slots, and what is listed is what asks for nothing yet.
        #[test]
        fn table_holds_what_is_open_and_listed(steps in prop::collection::vec((0..6_u8, 0..3_u8, 0..8_usize), 1..200)) {
            let slots = slots(4);
            let (mut held, mut kept): (Vec<Slot>, Vec<KeptSlot>) = (Vec::new(), Vec::new());
            for (step, from, at) in steps {
                match step {
                    0 => held.extend(slots.take(address(from))),
                    1 => { held.get(at).map(Slot::asks); }
                    2 => { held.get(at).map(Slot::silent); }
                    5 => { held.get(at).map(Slot::receives); }
                    3 if at < held.len() => { kept.extend(held.swap_remove(at).keep()); }
                    _ if at < held.len() => drop(held.swap_remove(at)),
                    _ => drop(kept.pop()),
                }
                let table = slots.0.lock();
                prop_assert_eq!(table.open, held.len() + kept.len());
                let alive = held.iter().filter(|slot| !is_evicted(slot)).count();
                prop_assert!(alive + kept.len() <= 4);
                let listed = held.iter().filter(|slot| slot.place.since.load(Ordering::Relaxed) != 0 && !is_evicted(slot)).count();
                let lists = [&table.silent, &table.receiving];
                prop_assert_eq!(lists.iter().flat_map(|list| list.by_address.values()).map(BTreeMap::len).sum::<usize>(), listed);
                prop_assert_eq!(lists.iter().flat_map(|list| &list.counts).map(|(count, _)| count).sum::<usize>(), listed);
            }
            drop((held, kept));
            let table = slots.0.lock();
            prop_assert_eq!(table.open, 0);
            for list in [&table.silent, &table.receiving] {
                prop_assert!(list.by_address.is_empty() && list.counts.is_empty());
            }
        }
    }
}
