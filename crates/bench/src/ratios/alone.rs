//! What the parts do alone.

use std::time::Duration;

use super::Parts;
use crate::Error;
use crate::limits::baseline::frame_costs;
use crate::limits::{self, IN_FLIGHT, PartMeasurement, jetstream, nats, postgres};
use crate::output::Progress;
use crate::stack::{Places, Servers};

/// How long each part is measured.
const MEASURE_TIME: Duration = Duration::from_secs(2);
/// Messages of a batch: about as many as a worker commits together at saturation, and an event costs no less in larger ones.
const BATCH_MESSAGES: u64 = 50;
/// A send of 200 characters, and its event: what comes in, and what goes out.
const SEND_BYTES: usize = 340;
const EVENT_BYTES: usize = 540;

/// Measures Postgres, NATS, and frames of a bare server.
pub(crate) async fn measure(
    places: &Places,
    parts: &mut Parts,
    progress: &Progress,
) -> Result<(), Error> {
    progress.say("parts alone: starting NATS and Postgres");
    let mut servers = limits::start(places).await?;
    stores(&mut servers, parts, progress).await?;
    servers.stop().await?;
    progress.say("frames of a bare server");
    let frames = frame_costs(places, SEND_BYTES, EVENT_BYTES, MEASURE_TIME).await?;
    parts.put("frameInMicros", frames.read);
    parts.put("frameOutMicros", frames.written);
    Ok(())
}

async fn stores(
    servers: &mut Servers,
    parts: &mut Parts,
    progress: &Progress,
) -> Result<(), Error> {
    progress.say("committing messages one by one, and in batches");
    let single = postgres::single(servers, MEASURE_TIME).await?;
    parts.put("commitP50Millis", single.latency.p50);
    let lanes = postgres::settings(servers)?.commit_lanes;
    let batches = postgres::batches(servers, BATCH_MESSAGES, lanes, MEASURE_TIME).await?;
    parts.put("batchEventMicros", both(&batches));
    progress.say("asking by NATS");
    let round_trip = nats::requests(servers, 1, MEASURE_TIME).await?;
    parts.put("roundTripP50Millis", round_trip.requester.latency.p50);
    let requests = nats::requests(servers, IN_FLIGHT, MEASURE_TIME).await?;
    parts.put("requestReplyMicros", requests.micros());
    progress.say("publishing into JetStream, and reading from it");
    let publish = jetstream::publish(servers, IN_FLIGHT, MEASURE_TIME).await?;
    parts.put("publishMicros", both(&publish));
    let live = jetstream::live(servers, IN_FLIGHT, &publish, MEASURE_TIME).await?;
    parts.put("feedDeliveryMicros", both(&live.delivery));
    Ok(())
}

/// Of the server and of its client: confab has both.
fn both(part: &PartMeasurement) -> f64 {
    part.server_micros + part.client_micros
}
