//! The streams that are there: their replicas, room and age, and the server's clock.

use confab_protocol::check::{Check, CheckStatus, clock};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Role;
use super::account::ApiError;
use super::probes::{ProbeAnswer, Probed, probe_of, stream_info, stream_of};
use crate::connection::Settings;
use crate::subjects::{EVENTS_FILTER, EVENTS_STREAM, REVOCATIONS_BUCKET, SESSIONS_BUCKET};

/// JetStream's error code for a stream that does not exist.
const NO_STREAM: u64 = 10_059;
/// The part of the bucket of sessions, in percent, above which it takes no new ones.
const FULL_PERCENT: u64 = 90;

/// A stream that was looked at.
pub(super) struct Looked {
    pub(super) name: String,
    /// True if it is still to be made.
    pub(super) is_absent: bool,
    pub(super) check: Check,
}

/// The answer of `$JS.API.STREAM.INFO` (nats-server, `JSApiStreamInfoResponse`).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamInfo {
    config: StreamConfig,
    state: StreamCounts,
    cluster: Option<Cluster>,
    /// The server's time.
    ts: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamConfig {
    subjects: Vec<String>,
    retention: String,
    discard: String,
    max_msgs: i64,
    sealed: bool,
    no_ack: bool,
    allow_direct: bool,
    max_bytes: i64,
    /// In nanoseconds; 0 for ever.
    max_age: u64,
    num_replicas: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamCounts {
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

/// Returns whether the stream is absent, its check, and the server's time; none where the permission to look is missing.
fn look(
    probed: &Probed,
    name: &str,
    place: &str,
    settings: &Settings,
) -> Option<(bool, Check, Option<OffsetDateTime>)> {
    const CHECK_NAME: &str = "nats.stream";
    let subject = stream_info(name);
    let silent = "see that more than half of the stream's servers run and are connected (`nats stream info`); a nats-server 2.15.1 \
                  whose store was full leaves the stream in error until it is restarted: restart nats-server";
    let answer = match probed.answer(&subject) {
        Some(ProbeAnswer::Json(answer)) => answer,
        None if probed.is_refused(&subject) => return None,
        Some(ProbeAnswer::NoResponders) | None => {
            let check = Check::fail(
                CHECK_NAME,
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
            return Some((true, Check::ok(CHECK_NAME, place, found), None));
        }
        Some(error) => {
            let check = Check::fail(CHECK_NAME, place, "the stream is in error", silent);
            return Some((false, check.caused_by(error.cause()), None));
        }
        None => {}
    }
    let info = StreamInfo::deserialize(answer).unwrap_or_default();
    let time = info.ts.as_deref();
    let time = time.and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok());
    let check = of_info(name, place, &info, settings);
    let published = probe_of(name);
    let is_reached = !matches!(probed.answer(&published), Some(ProbeAnswer::NoResponders));
    if check.status == CheckStatus::Fail || is_reached {
        return Some((false, check, time));
    }
    let found = format!("what is published to {published} reaches no stream");
    let remedy = "let the leaf nodes and accounts between here and the stream's servers pass confab.v1.event.> and the domain's API on";
    Some((false, Check::fail(CHECK_NAME, place, found, remedy), time))
}

fn of_info(name: &str, place: &str, info: &StreamInfo, settings: &Settings) -> Check {
    const CHECK_NAME: &str = "nats.stream";
    let (bytes, most) = (info.state.bytes, info.config.max_bytes);
    let has_no_leader =
        |cluster: &Cluster| cluster.leader.as_deref().unwrap_or_default().is_empty();
    if info.cluster.as_ref().is_some_and(has_no_leader) {
        let found = "the stream has no leader: nothing can be stored";
        let remedy = "start the servers of the cluster that are down: more than half of the stream's must run; a server whose \
                      store was full leaves the stream in error until nats-server is restarted";
        return Check::fail(CHECK_NAME, place, found, remedy);
    }
    if let Some((found, remedy)) = unfit(name, info) {
        return Check::fail(CHECK_NAME, place, found, remedy);
    }
    let replicas = info.cluster.iter().flat_map(|cluster| &cluster.replicas);
    let offline = replicas
        .filter(|one| one.offline)
        .map(|one| one.name.as_str());
    let offline: Vec<_> = offline.collect();
    if !offline.is_empty() {
        let found = format!("replicas of the stream are offline: {}", offline.join(", "));
        let remedy = "start those servers: when more than half of the replicas are offline, nothing can be stored";
        return Check::warn(CHECK_NAME, place, found, remedy);
    }
    let (has, wanted) = (info.config.num_replicas, settings.nats_replicas);
    if has < wanted {
        let found =
            format!("the stream has {has} replicas, and CONFAB_NATS_REPLICAS says {wanted}");
        let remedy = format!(
            "`nats stream edit {name} --replicas {wanted}`: a stream that is there is left as it is"
        );
        return Check::warn(CHECK_NAME, place, found, remedy);
    }
    let age = info.config.max_age / 1_000_000_000;
    if name == EVENTS_STREAM && age > 0 && age < settings.events_max_age {
        let wanted = settings.events_max_age;
        let found =
            format!("the stream keeps events for {age} s, and CONFAB_EVENTS_MAX_AGE says {wanted}");
        let remedy = format!(
            "`nats stream edit {name} --max-age {wanted}s`: a stream that is there is left as it is"
        );
        return Check::warn(CHECK_NAME, place, found, remedy);
    }
    if name == EVENTS_STREAM && info.config.discard == "new" {
        let found = "the stream refuses events when it is full, and does not drop the oldest";
        let remedy = format!("`nats stream edit {name} --discard old`");
        return Check::warn(CHECK_NAME, place, found, remedy);
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
        return Check::warn(CHECK_NAME, place, found, remedy);
    }
    let messages = info.state.messages;
    Check::ok(
        CHECK_NAME,
        place,
        format!("{messages} messages, {bytes} bytes"),
    )
}

/// Returns what makes a stream, as its operator has set it, useless to confab, with the remedy.
fn unfit(name: &str, info: &StreamInfo) -> Option<(String, String)> {
    let config = &info.config;
    let edit = |flags: &str| {
        format!("`nats stream edit {name} {flags}`: a stream that is there is left as it is")
    };
    let anew = || {
        format!(
            "`nats stream rm {name}`: the roles make it anew within seconds, and nothing that was committed is lost"
        )
    };
    let wanted = match name.strip_prefix("KV_") {
        Some(bucket) => format!("$KV.{bucket}.>"),
        None => EVENTS_FILTER.to_owned(),
    };
    if !config
        .subjects
        .iter()
        .any(|subject| covers(subject, &wanted))
    {
        let has = config.subjects.join(", ");
        let found = format!("the stream does not take {wanted}: its subjects are {has:?}");
        return Some((found, edit(&format!("--subjects '{wanted}'"))));
    }
    if config.sealed {
        return Some(("the stream is sealed: it takes nothing".to_owned(), anew()));
    }
    if config.retention != "limits" {
        let found = format!(
            "the stream's retention is {:?}: it drops what gateways have still to read",
            config.retention
        );
        return Some((found, anew()));
    }
    if config.no_ack {
        let found = "the stream acknowledges nothing: nothing counts as published".to_owned();
        return Some((found, edit("--ack")));
    }
    if name == stream_of(SESSIONS_BUCKET) && !config.allow_direct {
        let found = "records cannot be read from the stream (allow_direct is off)".to_owned();
        return Some((found, edit("--allow-direct")));
    }
    let bytes = i64::try_from(info.state.bytes).unwrap_or(i64::MAX);
    let messages = i64::try_from(info.state.messages).unwrap_or(i64::MAX);
    let is_full = |has: i64, most: i64| most > 0 && has >= most;
    let is_at_limit = is_full(messages, config.max_msgs) || is_full(bytes, config.max_bytes);
    (name == EVENTS_STREAM && config.discard == "new" && is_at_limit).then(|| {
        let found =
            format!("the stream is full and refuses events ({messages} messages, {bytes} bytes)");
        (found, edit("--discard old"))
    })
}

/// Returns true if a stream's subject takes all of another, which ends with `>`.
fn covers(subject: &str, wanted: &str) -> bool {
    let above = subject.strip_suffix('>');
    subject == wanted || above.is_some_and(|prefix| wanted.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::check::tests::settings;

    fn checked(name: &str, answer: Value) -> Check {
        let probed = Probed::default().with_answer(&stream_info(name), answer);
        let settings = settings("nats://127.0.0.1:1");
        let (_, check, _) = look(&probed, name, "here", &settings).unwrap();
        check
    }

    /// A stream as confab makes it, but for some settings.
    fn with(name: &str, config: Value) -> Check {
        let subject = match name.strip_prefix("KV_") {
            None => "confab.v1.event.>".to_owned(),
            Some(bucket) => format!("$KV.{bucket}.>"),
        };
        let mut all = json!({
            "subjects": [subject], "retention": "limits", "discard": "old", "num_replicas": 1, "max_bytes": 100,
            "allow_direct": true,
        });
        let config = config.as_object().unwrap().clone();
        all.as_object_mut().unwrap().extend(config);
        let answer = json!({"config": all, "state": {"bytes": 90, "messages": 7}});
        checked(name, answer)
    }

    #[test]
    fn streams_tell_what_is_wrong_with_them() {
        assert_eq!(with("CONFAB_EVENTS", json!({})).status, CheckStatus::Ok);
        let full = with("KV_confab_sessions", json!({}));
        assert!(full.found.contains("full (90 of 100"), "{}", full.found);
        let short = with("CONFAB_EVENTS", json!({"max_age": 5_000_000_000_u64}));
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
        let fine = json!({"subjects": ["confab.>"], "retention": "limits", "num_replicas": 3});
        let offline = json!({"config": fine, "cluster": {"leader": "a", "replicas": [{"name": "b", "offline": true}]}});
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

    #[test]
    fn streams_with_other_settings_are_told() {
        let events = "CONFAB_EVENTS";
        for (name, config, found, remedy) in [
            (
                events,
                json!({"subjects": ["orders.>"]}),
                "its subjects are \"orders.>\"",
                "--subjects 'confab.v1.event.>'",
            ),
            (
                "KV_confab_revocations",
                json!({"subjects": []}),
                "does not take $KV.confab_revocations.>",
                "--subjects",
            ),
            (events, json!({"sealed": true}), "sealed", "stream rm"),
            (
                events,
                json!({"retention": "workqueue"}),
                "\"workqueue\"",
                "stream rm",
            ),
            (
                events,
                json!({"no_ack": true}),
                "acknowledges nothing",
                "--ack",
            ),
            (
                "KV_confab_sessions",
                json!({"allow_direct": false}),
                "allow_direct is off",
                "--allow-direct",
            ),
            (
                events,
                json!({"discard": "new", "max_msgs": 7}),
                "full and refuses",
                "--discard old",
            ),
        ] {
            let check = with(name, config);
            assert_eq!(check.status, CheckStatus::Fail, "{check:?}");
            assert!(check.found.contains(found), "{check:?}");
            assert!(check.remedy.as_ref().unwrap().contains(remedy), "{check:?}");
        }
        let risk = with(events, json!({"discard": "new"}));
        assert_eq!(risk.status, CheckStatus::Warn, "{risk:?}");
        let wider = with(events, json!({"subjects": ["a", "confab.>"]}));
        assert_eq!(wider.status, CheckStatus::Ok, "{wider:?}");
    }

    #[test]
    fn stream_that_nothing_reaches_is_told() {
        let name = "CONFAB_EVENTS";
        let fine =
            json!({"config": {"subjects": ["confab.>"], "retention": "limits", "num_replicas": 1}});
        let probed = Probed::default()
            .with_answer(&stream_info(name), fine)
            .without_responders(&probe_of(name));
        let settings = settings("nats://127.0.0.1:1");
        let (_, check, _) = look(&probed, name, "here", &settings).unwrap();
        assert_eq!(check.status, CheckStatus::Fail);
        assert!(check.found.contains("reaches no stream"), "{check:?}");
    }
}
