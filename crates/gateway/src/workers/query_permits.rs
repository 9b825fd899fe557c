//! Permits for queries on their way to workers: each kind has its own, which tenants and their users share.

use std::sync::Arc;

use confab_protocol::fair::Owner;
use confab_protocol::query::{Query, QueryKind, QueryShare};
use tokio::sync::oneshot::error::RecvError;

use crate::limits::permits::{FairPermit, FairPermits};

/// Queries of a kind on their way at once.
const MAX_IN_FLIGHT: usize = 256;

/// All permits.
#[derive(Debug)]
pub(crate) struct QueryPermits {
    pages: Arc<FairPermits>,
    sessions: Arc<FairPermits>,
}

/// A query's place among those on their way, until it is dropped. One that is for all tenants needs none.
pub(crate) type QueryPermit = Option<FairPermit>;

impl Default for QueryPermits {
    fn default() -> Self {
        Self {
            pages: FairPermits::new(MAX_IN_FLIGHT),
            sessions: FairPermits::new(MAX_IN_FLIGHT),
        }
    }
}

impl QueryPermits {
    /// Waits for a permit, in turn by tenant and user.
    pub(crate) async fn acquire(&self, query: &Query) -> Result<QueryPermit, RecvError> {
        let of_kind = match query.kind() {
            QueryKind::Page => &self.pages,
            QueryKind::Session => &self.sessions,
        };
        match query.share().and_then(owner) {
            Some(owner) => of_kind.acquire(&owner).await.map(Some),
            None => Ok(None),
        }
    }
}

fn owner(share: QueryShare) -> Option<Owner> {
    let QueryShare { tenant, user } = share;
    match user {
        Some(user) => Some(Owner { tenant, user }),
        None => Owner::of_tenant(&tenant),
    }
}

#[cfg(test)]
mod tests {
    use confab_protocol::ids::ConversationId;
    use confab_protocol::query::MembershipsOf;
    use futures_util::FutureExt as _;
    use uuid::Uuid;

    use super::*;

    fn memberships(tenant: &str, users: &[&str]) -> Query {
        let of = users.iter().map(|user| MembershipsOf {
            tenant: tenant.parse().unwrap(),
            user: user.parse().unwrap(),
            only: None,
            held: Vec::new(),
            after: None,
        });
        Query::Memberships(of.collect())
    }

    /// The permits that are to be had at once.
    fn all(permits: &QueryPermits, query: &Query) -> Vec<QueryPermit> {
        let at_once = || permits.acquire(query).now_or_never()?.ok();
        std::iter::from_fn(at_once).collect()
    }

    #[test]
    fn flood_of_one_user_leaves_permits_for_others() {
        let permits = QueryPermits::default();
        let flood = all(&permits, &memberships("one", &["loud", "loud"]));
        assert_eq!(flood.len(), 144);
        let opening = memberships("one", &["ann", "bob"]);
        assert_eq!(all(&permits, &opening).len(), 48);
        assert!(!all(&permits, &memberships("two", &["ann"])).is_empty());
    }

    #[test]
    fn kinds_do_not_wait_for_each_other() {
        let permits = QueryPermits::default();
        let _held = all(&permits, &memberships("one", &["ann"]));
        let caller = confab_protocol::command::Caller {
            tenant: "one".parse().unwrap(),
            user: "ann".parse().unwrap(),
            admin: false,
        };
        let page = Query::GetConversation {
            caller,
            conversation: ConversationId(Uuid::nil()),
        };
        assert!(!all(&permits, &page).is_empty());
    }
}
