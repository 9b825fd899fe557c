//! Revocations, told to every gateway at once.

use confab_protocol::revocation::Revocation;
use confab_protocol::wire;

use crate::connection::Bus;
use crate::error::BusError;

/// Whoever revoked something says so here.
const REVOCATIONS: &str = "confab.v1.revocation";

impl Bus {
    /// Tells every gateway of a revocation.
    ///
    /// # Errors
    /// When NATS is away: then gateways read it from a worker.
    pub async fn announce_revocation(&self, revocation: &Revocation) -> Result<(), BusError> {
        if !self.is_connected() {
            return Err(BusError::Disconnected);
        }
        let payload = wire::encode(revocation)?;
        self.client
            .publish(REVOCATIONS, payload.into())
            .await
            .map_err(BusError::nats("announce a revocation"))
    }
}
