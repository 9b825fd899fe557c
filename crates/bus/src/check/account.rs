//! The JetStream account: whether there is one, and whether what confab reserves fits its limits.

use std::collections::HashMap;

use confab_protocol::check::Check;
use serde::Deserialize;
use serde_json::Value;

use super::Role;
use super::probes::{ACCOUNT_INFO_SUBJECT, ProbeAnswer, Probed};
use super::streams::Looked;
use crate::connection::Settings;
use crate::revocations::REQUIRED_MAX_BYTES;
use crate::subjects::{EVENTS_STREAM, REVOCATIONS_BUCKET, SESSIONS_BUCKET};

/// JetStream's error codes for a server and for an account without it.
const NOT_ENABLED: [u64; 2] = [10_076, 10_039];

/// The answer of `$JS.API.INFO` (nats-server, `JSApiAccountInfoResponse`).
#[derive(Debug, Default, Deserialize)]
pub(super) struct AccountInfo {
    #[serde(flatten)]
    usage: Usage,
    /// Limits by the number of replicas, as `R1` and `R3`; empty where one limit is for all.
    #[serde(default)]
    tiers: HashMap<String, Usage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Usage {
    storage: i64,
    reserved_storage: i64,
    streams: i64,
    limits: AccountLimits,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct AccountLimits {
    max_storage: i64,
    max_streams: i64,
    max_bytes_required: bool,
    storage_max_stream_bytes: i64,
}

impl Default for AccountLimits {
    fn default() -> Self {
        Self {
            max_storage: -1,
            max_streams: -1,
            max_bytes_required: false,
            storage_max_stream_bytes: -1,
        }
    }
}

/// A refusal of JetStream's API.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiError {
    pub(super) err_code: u64,
    pub(super) description: String,
}

impl ApiError {
    pub(super) fn of(answer: &Value) -> Option<Self> {
        let error = answer.get("error")?;
        Some(Self::deserialize(error).unwrap_or_default())
    }

    pub(super) fn cause(&self) -> String {
        format!("{} ({})", self.description, self.err_code)
    }
}

/// The account.
///
/// # Errors
/// The check that says what keeps it from being read; none where only the permission to ask or to hear is missing.
pub(super) fn read(probed: &Probed, address: &str) -> Result<AccountInfo, Option<Check>> {
    const CHECK_NAME: &str = "nats.jetstream";
    let fail = |found, remedy| Check::fail(CHECK_NAME, address, found, remedy);
    let answer = match probed.answer(ACCOUNT_INFO_SUBJECT) {
        Some(ProbeAnswer::Json(answer)) => answer,
        Some(ProbeAnswer::NoResponders) if probed.domain().is_some() => {
            return Err(Some(fail(
                "nobody serves the JetStream domain of CONFAB_NATS_JETSTREAM_DOMAIN",
                "correct the domain's name (`nats account info` tells it), or see that the leaf node's link to its servers stands",
            )));
        }
        Some(ProbeAnswer::NoResponders) => {
            return Err(Some(fail(
                "JetStream is not enabled on the NATS server",
                "add `jetstream { store_dir: \"/data\" }` to the configuration of nats-server (see deploy/nats.conf), and restart it",
            )));
        }
        None if probed.is_refused(ACCOUNT_INFO_SUBJECT) || probed.is_deaf() => return Err(None),
        None => {
            return Err(Some(fail(
                "JetStream does not answer",
                "in a cluster, see that more than half of its servers run and are connected (`nats server report jetstream`); else \
                 restart nats-server",
            )));
        }
    };
    match ApiError::of(answer) {
        None => {}
        Some(error) if NOT_ENABLED.contains(&error.err_code) => {
            let found = "JetStream is not enabled for the account of the NATS user";
            let remedy = "add `jetstream: enabled` to that account in the configuration of nats-server, and reload it";
            return Err(Some(fail(found, remedy).caused_by(error.cause())));
        }
        Some(error) => {
            let found = "JetStream does not serve";
            let remedy = "look into the log of nats-server for the cause; in a cluster, see that more than half of its servers run";
            return Err(Some(fail(found, remedy).caused_by(error.cause())));
        }
    }
    let account = AccountInfo::deserialize(answer);
    account.map_err(|error| {
        let found = "JetStream's answer about the account cannot be read";
        let remedy = "see that a nats-server answers there, and no proxy";
        Some(fail(found, remedy).because(&error))
    })
}

/// Returns whether what a role makes fits the account: only streams that are not there yet need room.
pub(super) fn limits(
    account: &AccountInfo,
    streams: &[Looked],
    settings: &Settings,
    role: Role,
    address: &str,
) -> Check {
    const CHECK_NAME: &str = "nats.limits";
    let tier = format!("R{}", settings.nats_replicas);
    let (usage, copies) = match (account.tiers.is_empty(), account.tiers.get(&tier)) {
        (true, _) => (&account.usage, replicas(settings)),
        (false, Some(usage)) => (usage, 1),
        (false, None) => {
            let found = format!(
                "the JetStream account has no limits for {tier}, which CONFAB_NATS_REPLICAS asks for"
            );
            let remedy =
                "give the account that tier, or set CONFAB_NATS_REPLICAS to one that it has";
            return Check::fail(CHECK_NAME, address, found, remedy);
        }
    };
    let wanted = wanted(streams, settings, role, usage.limits.max_bytes_required);
    let bytes = wanted.iter().fold(0_i64, |sum, (_, bytes)| {
        sum.saturating_add(bytes.saturating_mul(copies))
    });
    let limit = usage.limits.max_storage;
    let left = limit.saturating_sub(usage.reserved_storage.max(usage.storage));
    if limit >= 0 && left < bytes {
        let found = format!(
            "the JetStream account has {left} of {limit} bytes left, and confab reserves {bytes} more: {}",
            list(&wanted)
        );
        let remedy = "raise max_file of the account, or set CONFAB_EVENTS_MAX_BYTES and CONFAB_SESSIONS_MAX_BYTES to what fits";
        return Check::fail(CHECK_NAME, address, found, remedy);
    }
    let most = usage.limits.storage_max_stream_bytes;
    if let Some((stream, bytes)) = wanted.iter().find(|(_, bytes)| most > 0 && *bytes > most) {
        let found =
            format!("the account allows {most} bytes a stream, and {stream} is to have {bytes}");
        let remedy = "raise disk_max_stream_bytes of the account, or set CONFAB_EVENTS_MAX_BYTES and CONFAB_SESSIONS_MAX_BYTES to what fits";
        return Check::fail(CHECK_NAME, address, found, remedy);
    }
    let number = i64::try_from(wanted.len()).unwrap_or(i64::MAX);
    let allowed = usage.limits.max_streams;
    if allowed >= 0 && allowed.saturating_sub(usage.streams) < number {
        let used = usage.streams;
        let found = format!(
            "the account allows {allowed} streams, {used} are there, and confab needs {number} more"
        );
        return Check::fail(
            CHECK_NAME,
            address,
            found,
            "raise max_streams of the account",
        );
    }
    let bound = match limit {
        ..0 => "JetStream's storage has no limit for the account".to_owned(),
        _ => format!("the JetStream account has {left} of {limit} bytes left"),
    };
    Check::ok(
        CHECK_NAME,
        address,
        format!("{bound}; confab reserves {bytes} more"),
    )
}

fn replicas(settings: &Settings) -> i64 {
    i64::try_from(settings.nats_replicas)
        .unwrap_or(i64::MAX)
        .max(1)
}

/// The streams that reserve room, with their bytes.
fn list(wanted: &[(String, i64)]) -> String {
    let reserving = wanted.iter().filter(|(_, bytes)| *bytes > 0);
    let streams = reserving.map(|(name, bytes)| format!("{name} {bytes}"));
    streams.collect::<Vec<_>>().join(", ")
}

/// The streams that are to be made, with the bytes that each reserves.
fn wanted(
    streams: &[Looked],
    settings: &Settings,
    role: Role,
    is_bound_required: bool,
) -> Vec<(String, i64)> {
    let absent = streams.iter().filter(|stream| stream.is_absent);
    absent
        .map(|stream| {
            let bytes = match (stream.name.trim_start_matches("KV_"), role) {
                (EVENTS_STREAM, _) => settings.events_max_bytes,
                (SESSIONS_BUCKET, Role::Gateway { sessions_max_bytes }) => sessions_max_bytes,
                (REVOCATIONS_BUCKET, _) if is_bound_required => REQUIRED_MAX_BYTES,
                _ => 0,
            };
            (stream.name.clone(), bytes.max(0))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use confab_protocol::check::CheckStatus;
    use serde_json::json;

    use super::*;
    use crate::check::{streams, tests::settings};

    const GATEWAY_ROLE: Role = Role::Gateway {
        sessions_max_bytes: 500,
    };

    fn checked(account: Value, role: Role) -> Check {
        let absent =
            json!({"error": {"code": 404, "err_code": 10_059, "description": "stream not found"}});
        let mut probed = Probed::default().with_answer(ACCOUNT_INFO_SUBJECT, account);
        for stream in [
            "CONFAB_EVENTS",
            "KV_confab_revocations",
            "KV_confab_sessions",
        ] {
            let subject = format!("$JS.API.STREAM.INFO.{stream}");
            probed = probed.with_answer(&subject, absent.clone());
        }
        let settings = settings("nats://127.0.0.1:1");
        let (streams, _) = streams::check(&probed, &settings, role, "here");
        let account = read(&probed, "here").unwrap();
        limits(&account, &streams, &settings, role, "here")
    }

    fn account(limits: &Value) -> Value {
        json!({"storage": 10, "reserved_storage": 100, "streams": 1, "limits": limits})
    }

    #[test]
    fn room_is_what_is_not_reserved() {
        let enough = account(&json!({"max_storage": 1600}));
        assert_eq!(checked(enough, GATEWAY_ROLE).status, CheckStatus::Ok);
        let little = account(&json!({"max_storage": 1599}));
        let check = checked(little.clone(), GATEWAY_ROLE);
        assert_eq!(check.status, CheckStatus::Fail);
        let words = "1499 of 1599 bytes left, and confab reserves 1500 more: CONFAB_EVENTS 1000";
        assert!(check.found.contains(words), "{}", check.found);
        assert!(check.remedy.unwrap().contains("CONFAB_EVENTS_MAX_BYTES"));
        assert_eq!(checked(little, Role::Worker).status, CheckStatus::Ok);
        let unlimited = account(&json!({"max_storage": -1}));
        assert_eq!(checked(unlimited, GATEWAY_ROLE).status, CheckStatus::Ok);
    }

    #[test]
    fn other_limits_of_accounts_are_told() {
        let failed = |limits: Value| {
            let check = checked(account(&limits), GATEWAY_ROLE);
            assert_eq!(check.status, CheckStatus::Fail, "{check:?}");
            check.found
        };
        assert!(failed(json!({"max_streams": 3})).contains("allows 3 streams"));
        let found = failed(json!({"storage_max_stream_bytes": 999}));
        assert!(found.contains("999 bytes a stream"), "{found}");
        let bounded = json!({"max_storage": 1700, "max_bytes_required": true});
        assert!(failed(bounded).contains("KV_confab_revocations 67108864"));
        let tiers = json!({"tiers": {"R3": {}}, "limits": {}});
        let check = checked(tiers, GATEWAY_ROLE);
        assert!(check.found.contains("no limits for R1"), "{}", check.found);
    }

    #[test]
    fn jetstream_that_is_off_is_told_with_remedy() {
        let disabled = json!({"error": {"code": 503, "err_code": 10_039, "description": "JetStream not enabled for account"}});
        let probed = Probed::default().with_answer(ACCOUNT_INFO_SUBJECT, disabled);
        let check = read(&probed, "here").unwrap_err().unwrap();
        assert_eq!(check.name, "nats.jetstream");
        assert!(check.cause().contains("(10039)"), "{}", check.cause());
        assert!(check.remedy.unwrap().contains("jetstream: enabled"));
        let silent = read(&Probed::default(), "here").unwrap_err().unwrap();
        assert!(silent.found.contains("does not answer"));
    }
}
