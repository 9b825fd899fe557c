//! `history --prepare`: the large database alone.

use serde::Serialize;
use sqlx::{Connection as _, PgConnection};

use super::installation::prepare;
use crate::Error;
use crate::output::{Progress, row};
use crate::seed::Seed;
use crate::stack::Places;

/// A database that was made, or found made.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PrebuiltDatabase {
    #[serde(flatten)]
    pub(super) seed: Seed,
    /// Seconds that it took; none where it was there.
    pub(super) seconds: Option<f64>,
    /// Bytes of the database.
    pub(super) bytes: i64,
}

/// Makes it where it is not there, and keeps it.
pub(super) async fn prepare_only(
    places: &Places,
    seed: Seed,
    progress: &Progress,
) -> Result<PrebuiltDatabase, Error> {
    let (mut servers, took) = prepare(places, seed, progress).await?;
    let mut postgres = PgConnection::connect(&servers.database).await?;
    let bytes = sqlx::query_scalar("select pg_database_size(current_database())");
    let bytes = bytes.fetch_one(&mut postgres).await?;
    postgres.close().await?;
    servers.stop().await?;
    Ok(PrebuiltDatabase {
        seed,
        seconds: took.map(|took| took.as_secs_f64()),
        bytes,
    })
}

impl PrebuiltDatabase {
    pub(super) fn rows(&self) -> Vec<(String, String)> {
        let events = self.seed.events;
        let made = self.seconds.map_or_else(
            || "was there".to_owned(),
            |seconds| {
                let rate = events as f64 / seconds;
                format!("made in {seconds:.1} s, {rate:.0} events a second")
            },
        );
        vec![
            row("events", events.to_string()),
            row("conversations", self.seed.conversations.to_string()),
            row("the database", made),
            row("its size", format!("{} MiB", self.bytes >> 20)),
        ]
    }
}
