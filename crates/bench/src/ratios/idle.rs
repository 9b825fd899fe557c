//! Connections that say nothing.

use super::Parts;
use crate::Error;
use crate::output::Progress;
use crate::scenario::idle::{self, IdleLoad};
use crate::stack::Places;

/// Measures a gateway's connections, and a bare server's.
pub(crate) async fn measure(
    places: &Places,
    parts: &mut Parts,
    progress: &Progress,
) -> Result<(), Error> {
    let outcome = idle::measure(places, &IdleLoad::default(), progress).await?;
    parts.put("idleKib", outcome.gateway.own / 1024.0);
    parts.put("bareIdleKib", outcome.bare.own / 1024.0);
    parts.put("idleResidentKib", outcome.gateway.resident / 1024.0);
    parts.put("idleOverAllKib", outcome.gateway.own_over_all / 1024.0);
    Ok(())
}
