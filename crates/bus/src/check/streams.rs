//! The streams that are there: their replicas, room and age, and the server's clock.

use confab_protocol::check::{Check, clock};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Role;
use super::account::ApiError;
use super::probes::{Answer, Probed, stream_info, stream_of};
use crate::connection::Settings;
use crate::subjects::{EVENTS_STREAM, REVOCATIONS_BUCKET, SESSIONS_BUCKET};

/// JetStream's error code for a stream that does not exist.
const NO_STREAM: u64 = 10_059;
/// The part of the bucket of sessions, in percent, above which it takes no new ones.
const FULL_PERCENT: u64 = 90;

/// A stream that was looked at.
pub(super) struct Looked {
    pub(super) name: String,
    /// Whether it is still to be made.
    pub(super) is_absent: bool,
    pub(super) check: Check,
}

/// What `$JS.API.STREAM.INFO` says (nats-server, `JSApiStreamInfoResponse`).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamInfo {
    config: Config,
    state: State,
    cluster: Option<Cluster>,
    /// The server's time.
    ts: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    max_bytes: i64,
    /// In nanoseconds; 0 for ever.
    max_age: u64,
    num_replicas: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    bytes: u64,
    messages: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cluster {
    leader: Option<String>,
    replicas: Vec<Replica>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Replica {
    name: String,
    offline: bool,
}

/// The streams of a role, and the clock of the server where one of them tells it.
pub(super) fn check(
    probed: &Probed,
    settings: &Settings,
    role: Role,
    address: &str,
) -> (Vec<Looked>, Option<Check>) {
    let mut names = vec![EVENTS_STREAM.to_owned(), stream_of(REVOCATIONS_BUCKET)];
    if matches!(role, Role::Gateway { .. }) {
        names.push(stream_of(SESSIONS_BUCKET));
    }
    let mut server_time = None;
    let looked = names.into_iter().filter_map(|name| {
        let place = format!("{name} at {address}");
        let looked = look(probed, &name, &place, settings);
        let (is_absent, check, time) = looked?;
        server_time = server_time.or(time);
        Some(Looked {
            name,
            is_absent,
            check,
        })
    });
    let looked = looked.collect();
    let clock = server_time.map(|time| {
        let ahead = (time - OffsetDateTime::now_utc()).as_seconds_f64();
        clock("nats.clock", "NATS", address, ahead)
    });
    (looked, clock)
}

/// Whether the stream is absent, its check, and the server's time; none where the permission to look is missing.
fn look(
    probed: &Probed,
    name: &str,
    place: &str,
    settings: &Settings,
) -> Option<(bool, Check, Option<OffsetDateTime>)> {
    const NAME: &str = "nats.stream";
    let subject = stream_info(name);
    let silent = "see that more than half of the stream's servers run and are connected (`nats stream info`); a nats-server 2.15.1 \
                  whose store was full leaves the stream in error until it is restarted: restart nats-server";
    let answer = match probed.answer(&subject) {
        Some(Answer::Json(answer)) => answer,
        None if probed.is_refused(&subject) => return None,
        Some(Answer::NoResponders) | None => {
            let check = Check::fail(
                NAME,
                place,
                "JetStream does not tell about the stream",
                silent,
            );
            return Some((false, check, None));
        }
    };
    match ApiError::of(answer) {
        Some(error) if error.err_code == NO_STREAM => {
            let found = "the stream is not there yet; the first role that starts makes it";
            return Some((true, Check::ok(NAME, place, found), None));
        }
        Some(error) => {
            let check = Check::fail(NAME, place, "the stream is in error", silent);
            return Some((false, check.caused_by(error.cause()), None));
        }
        None => {}
    }
    let info = StreamInfo::deserialize(answer).unwrap_or_default();
    let time = info.ts.as_deref();
    let time = time.and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok());
    Some((false, of_info(name, place, &info, settings), time))
}

fn of_info(name: &str, place: &str, info: &StreamInfo, settings: &Settings) -> Check {
    const NAME: &str = "nats.stream";
    let (bytes, most) = (info.state.bytes, info.config.max_bytes);
    if let Some(cluster) = &info.cluster {
        if cluster.leader.as_deref().unwrap_or_default().is_empty() {
            let found = "the stream has no leader: nothing can be stored";
            let remedy = "start the servers of the cluster that are down: more than half of the stream's must run; a server whose \
                          store was full leaves the stream in error until nats-server is restarted";
            return Check::fail(NAME, place, found, remedy);
        }
        let offline: Vec<_> = cluster.replicas.iter().filter(|one| one.offline).collect();
        if !offline.is_empty() {
            let names: Vec<_> = offline.iter().map(|one| one.name.as_str()).collect();
            let found = format!("replicas of the stream are offline: {}", names.join(", "));
            let remedy = "start those servers: when more than half of the replicas are offline, nothing can be stored";
            return Check::warn(NAME, place, found, remedy);
        }
    }
    let (has, wanted) = (info.config.num_replicas, settings.nats_replicas);
    if has < wanted {
        let found =
            format!("the stream has {has} replicas, and CONFAB_NATS_REPLICAS says {wanted}");
        let remedy = format!(
            "`nats stream edit {name} --replicas {wanted}`: a stream that is there is left as it is"
        );
        return Check::warn(NAME, place, found, remedy);
    }
    let age = info.config.max_age / 1_000_000_000;
    if name == EVENTS_STREAM && age > 0 && age < settings.events_max_age {
        let wanted = settings.events_max_age;
        let found =
            format!("the stream keeps events for {age} s, and CONFAB_EVENTS_MAX_AGE says {wanted}");
        let remedy = format!(
            "`nats stream edit {name} --max-age {wanted}s`: a stream that is there is left as it is"
        );
        return Check::warn(NAME, place, found, remedy);
    }
    let bound = u64::try_from(most).unwrap_or_default();
    if name == stream_of(SESSIONS_BUCKET) && bound > 0 && bytes >= bound / 100 * FULL_PERCENT {
        let found = format!(
            "the bucket of sessions is full ({bytes} of {bound} bytes): new sessions cannot be resumed"
        );
        let remedy = format!(
            "`nats stream edit {name} --max-bytes {}`",
            bound.saturating_mul(2)
        );
        return Check::warn(NAME, place, found, remedy);
    }
    let messages = info.state.messages;
    Check::ok(NAME, place, format!("{messages} messages, {bytes} bytes"))
}

#[cfg(test)]
mod tests {
    use confab_protocol::check::CheckStatus;
    use serde_json::{Value, json};

    use super::*;
    use crate::check::tests::settings;

    fn checked(name: &str, answer: Value) -> Check {
        let probed = Probed::default().with_answer(&stream_info(name), answer);
        let settings = settings("nats://127.0.0.1:1");
        let (_, check, _) = look(&probed, name, "here", &settings).unwrap();
        check
    }

    #[test]
    fn streams_tell_what_is_wrong_with_them() {
        let fine = json!({"config": {"num_replicas": 1, "max_bytes": 100}, "state": {"bytes": 90}});
        assert_eq!(
            checked("CONFAB_EVENTS", fine.clone()).status,
            CheckStatus::Ok
        );
        let full = checked("KV_confab_sessions", fine);
        assert!(full.found.contains("full (90 of 100"), "{}", full.found);
        let short = json!({"config": {"num_replicas": 1, "max_age": 5_000_000_000_u64}});
        let short = checked("CONFAB_EVENTS", short);
        assert!(
            short.found.contains("keeps events for 5 s"),
            "{}",
            short.found
        );
        let leaderless = json!({"config": {"num_replicas": 3}, "cluster": {"replicas": []}});
        assert_eq!(
            checked("CONFAB_EVENTS", leaderless).status,
            CheckStatus::Fail
        );
        let offline = json!({"config": {"num_replicas": 3}, "cluster": {"leader": "a", "replicas": [{"name": "b", "offline": true}]}});
        assert!(
            checked("CONFAB_EVENTS", offline)
                .found
                .ends_with("offline: b")
        );
        let error = json!({"error": {"err_code": 10_008, "description": "JetStream system temporarily unavailable"}});
        let error = checked("CONFAB_EVENTS", error);
        assert_eq!(error.status, CheckStatus::Fail);
        assert!(error.remedy.unwrap().contains("restart nats-server"));
    }
}
