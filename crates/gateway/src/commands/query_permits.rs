//! Permits for queries on their way to workers: each kind has its own, and of those no tenant more than half.

use std::sync::{Arc, Mutex, PoisonError};

use confab_protocol::ids::TenantId;
use confab_protocol::query::{Query, QueryKind};
use rustc_hash::FxHashMap;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Queries of a kind on their way at once.
const MAX_IN_FLIGHT: usize = 256;
/// The same of one tenant.
const MAX_IN_FLIGHT_OF_TENANT: usize = MAX_IN_FLIGHT / 2;
/// Tenants that are remembered before those without queries are forgotten.
const MAX_IDLE_TENANTS: usize = 1024;

/// All permits.
#[derive(Debug, Default)]
pub(crate) struct QueryPermits {
    pages: OfKind,
    sessions: OfKind,
}

#[derive(Debug)]
struct OfKind {
    all: Arc<Semaphore>,
    tenants: Mutex<FxHashMap<TenantId, Arc<Semaphore>>>,
}

/// A query's place among those on their way, until it is dropped.
#[derive(Debug)]
pub(crate) struct QueryPermit {
    _of_tenant: Option<OwnedSemaphorePermit>,
    _of_kind: OwnedSemaphorePermit,
}

impl Default for OfKind {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            tenants: Mutex::default(),
        }
    }
}

impl QueryPermits {
    /// Waits for a permit: first for one of the tenant's, so that those who wait for the kind's are few of each.
    pub(crate) async fn acquire(&self, query: &Query) -> Result<QueryPermit, AcquireError> {
        let of_kind = match query.kind() {
            QueryKind::Page => &self.pages,
            QueryKind::Session => &self.sessions,
        };
        let of_tenant = match query.share() {
            Some(share) => Some(of_kind.tenant(share.tenant).acquire_owned().await?),
            None => None,
        };
        Ok(QueryPermit {
            _of_tenant: of_tenant,
            _of_kind: Arc::clone(&of_kind.all).acquire_owned().await?,
        })
    }
}

impl OfKind {
    fn tenant(&self, tenant: TenantId) -> Arc<Semaphore> {
        let tenants = self.tenants.lock();
        let mut tenants = tenants.unwrap_or_else(PoisonError::into_inner);
        if tenants.len() >= MAX_IDLE_TENANTS {
            // Whoever waits or has a permit holds the semaphore as well.
            tenants.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        }
        let of_tenant = tenants
            .entry(tenant)
            .or_insert_with(|| Arc::new(Semaphore::new(MAX_IN_FLIGHT_OF_TENANT)));
        Arc::clone(of_tenant)
    }
}

#[cfg(test)]
mod tests {
    use confab_protocol::ids::{ConversationId, Seq};
    use confab_protocol::query::{MembershipsOf, ReadEvents};
    use futures_util::FutureExt as _;
    use uuid::Uuid;

    use super::*;

    fn gap(tenant: &str) -> Query {
        Query::ReadEvents(ReadEvents {
            tenant: tenant.parse().unwrap(),
            conversation: ConversationId(Uuid::nil()),
            after: 0,
            up_to: Seq::MAX,
        })
    }

    /// The permit, where it is to be had at once.
    fn at_once(permits: &QueryPermits, query: &Query) -> Option<QueryPermit> {
        permits.acquire(query).now_or_never()?.ok()
    }

    #[test]
    fn no_tenant_has_more_than_half() {
        let permits = QueryPermits::default();
        let mut held = Vec::new();
        while let Some(permit) = at_once(&permits, &gap("one")) {
            held.push(permit);
        }
        assert_eq!(held.len(), MAX_IN_FLIGHT_OF_TENANT);
        assert!(at_once(&permits, &gap("two")).is_some());
        held.pop();
        assert!(at_once(&permits, &gap("one")).is_some());
    }

    #[test]
    fn kinds_do_not_wait_for_each_other() {
        let permits = QueryPermits::default();
        let mut held = Vec::new();
        for tenant in ["one", "two"] {
            while let Some(permit) = at_once(&permits, &gap(tenant)) {
                held.push(permit);
            }
        }
        assert_eq!(held.len(), MAX_IN_FLIGHT);
        assert!(at_once(&permits, &gap("three")).is_none());
        let caller = confab_protocol::command::Caller {
            tenant: "one".parse().unwrap(),
            user: "alice".parse().unwrap(),
            admin: false,
        };
        let page = Query::GetConversation {
            caller,
            conversation: ConversationId(Uuid::nil()),
        };
        assert!(at_once(&permits, &page).is_some());
    }

    #[test]
    fn tenants_without_queries_are_forgotten() {
        let permits = QueryPermits::default();
        for n in 0..MAX_IDLE_TENANTS * 3 {
            let question = MembershipsOf {
                tenant: format!("t{n}").parse().unwrap(),
                user: "alice".parse().unwrap(),
                only: None,
                held: Vec::new(),
                after: None,
            };
            assert!(at_once(&permits, &Query::Memberships(vec![question])).is_some());
        }
        assert!(permits.sessions.tenants.lock().unwrap().len() <= MAX_IDLE_TENANTS);
    }
}
