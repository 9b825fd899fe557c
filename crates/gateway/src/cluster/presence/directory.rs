//! Who is there, asked of all gateways, this one among them: each answers from its memory.

use confab_bus::{Bus, Gateways, PresenceAnswers};
use confab_protocol::chain::chain;
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{TenantId, UserId};
use confab_protocol::signal::{PresenceQuestion, PresenceStatus};
use rustc_hash::FxHashMap;
use tracing::debug;

/// The way to what all gateways know of presence. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct PresenceDirectory {
    bus: Bus,
    gateways: Gateways,
}

impl PresenceDirectory {
    pub(crate) const fn new(bus: Bus, gateways: Gateways) -> Self {
        Self { bus, gateways }
    }

    /// Asks all gateways.
    ///
    /// # Errors
    /// `UNAVAILABLE` when they cannot be asked.
    pub(crate) async fn ask(
        &self,
        tenant: &TenantId,
        question: &PresenceQuestion,
    ) -> Result<PresenceAnswers, Failure> {
        let alive = self.gateways.all_alive().unwrap_or_default();
        let asked = self.bus.presence_of(tenant, question, &alive).await;
        asked.map_err(|error| {
            debug!(error = %chain(&error), "the gateways cannot be asked for presence");
            let away = "the other gateways cannot be reached";
            Failure::new(Code::Unavailable, away).retry_after(1000)
        })
    }

    /// What all gateways say of users together, in the order asked, and whether all of them answered.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn statuses(
        &self,
        tenant: &TenantId,
        users: Vec<UserId>,
    ) -> Result<(Vec<(UserId, PresenceStatus)>, bool), Failure> {
        let question = PresenceQuestion {
            users,
            conversations: Vec::new(),
        };
        let PresenceAnswers { answers, is_whole } = self.ask(tenant, &question).await?;
        let is_whole = is_whole && answers.iter().all(|answer| answer.is_whole);
        let mut highest: FxHashMap<UserId, PresenceStatus> = FxHashMap::default();
        for word in answers.into_iter().flat_map(|answer| answer.words) {
            let status = highest.entry(word.user).or_insert(word.status);
            *status = word.status.max(*status);
        }
        let told = question.users.into_iter().map(|user| {
            let status = highest.get(&user).copied();
            (user, status.unwrap_or(PresenceStatus::Offline))
        });
        Ok((told.collect(), is_whole))
    }
}
