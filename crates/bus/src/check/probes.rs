//! Publishes and subscriptions as a role makes them, on subjects and in forms that change nothing: the server says which it forbids.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, StatusCode, Subscriber};
use confab_protocol::check::Check;
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::{Connected, Role, ServerErrors};
use crate::subjects::{
    COMMAND_SUBJECT, DISCONTINUITY_SUBJECT, EVENTS_STREAM, GATEWAY_HEARTBEAT_SUBJECT,
    JETSTREAM_API, LINGERING_SUBJECT, QUERY_SUBJECT, RECORD_QUERY_SUBJECT, REVOCATION_SUBJECT,
    REVOCATIONS_BUCKET, SESSIONS_BUCKET, SESSIONS_QUERY_SUBJECT, SIGNALS_FILTER, UNUSED_TOKEN,
    WORKER_HEARTBEAT_SUBJECT, WORKER_LEAVING_SUBJECT, api_of,
};

/// Interval at which it is looked whether what was not answered is forbidden.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Time that the library may take to hand on what the server said before the last answer.
const HANDOVER_TIME: Duration = Duration::from_millis(60);
/// By this header a stream of another name refuses a message (NATS ADR-8).
const EXPECTED_STREAM: &str = "Nats-Expected-Stream";
/// The configuration of another stream than the subject names, which JetStream refuses.
const OTHER_STREAM: &str = r#"{"name":"confab-check"}"#;
/// The same for a consumer.
const OTHER_CONSUMER: &str = r#"{"stream_name":"confab-check","config":{}}"#;
/// No question, which JetStream refuses.
const NO_REQUEST: &str = "";
/// A purge that JetStream refuses: both numbers are given, and no message has the subject.
const NO_PURGE: &str = r#"{"filter":"confab.check","seq":1,"keep":1}"#;

/// JetStream's answer about the account.
pub(super) const ACCOUNT_INFO_SUBJECT: &str = "$JS.API.INFO";

/// A message that a role is to be permitted.
struct Probe {
    /// As it is without a domain.
    subject: String,
    payload: &'static str,
    kind: ProbeKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProbeKind {
    /// JetStream answers it.
    Api,
    /// A stream would store it, and refuses it by a header.
    Stored,
    /// Nobody answers it.
    Core,
}

/// The server's answers to the probes.
#[derive(Debug, Default)]
pub(super) struct Probed {
    /// The domain of JetStream, where it is another than the server's.
    domain: Option<String>,
    /// By their subjects without a domain.
    answers: HashMap<String, ProbeAnswer>,
    refused: Vec<RefusedProbe>,
}

/// An answer of JetStream.
#[derive(Debug, Clone)]
pub(super) enum ProbeAnswer {
    /// JSON of its API.
    Json(Value),
    /// Nobody serves the subject.
    NoResponders,
}

/// A probe that the server refused the connection's user.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RefusedProbe {
    verb: &'static str,
    subject: String,
    text: String,
}

impl Probed {
    /// Returns what JetStream answered on a subject of its API; none without an answer.
    pub(super) fn answer(&self, subject: &str) -> Option<&ProbeAnswer> {
        self.answers.get(subject)
    }

    pub(super) fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// Returns true if a publish to this subject is forbidden.
    pub(super) fn is_refused(&self, subject: &str) -> bool {
        let subject = in_domain(subject, self.domain());
        let mut refused = self.refused.iter();
        refused.any(|one| one.verb == "publish" && one.subject == subject)
    }

    /// Returns true if no answer can be heard.
    pub(super) fn is_deaf(&self) -> bool {
        let mut refused = self.refused.iter();
        refused.any(|one| one.subject.starts_with("_INBOX"))
    }

    #[cfg(test)]
    pub(super) fn with_answer(mut self, subject: &str, answer: Value) -> Self {
        self.answers
            .insert(subject.to_owned(), ProbeAnswer::Json(answer));
        self
    }

    #[cfg(test)]
    pub(super) fn without_responders(mut self, subject: &str) -> Self {
        self.answers
            .insert(subject.to_owned(), ProbeAnswer::NoResponders);
        self
    }
}

/// Returns where a message goes for JetStream in a domain: what is its own stands below the prefix of the domain's API.
fn in_domain(subject: &str, domain: Option<&str>) -> String {
    let Some(domain) = domain else {
        return subject.to_owned();
    };
    let api = api_of(domain);
    match subject.strip_prefix(JETSTREAM_API) {
        Some(rest) => format!("{api}{rest}"),
        None if subject.starts_with("$KV.") => format!("{api}.{subject}"),
        None => subject.to_owned(),
    }
}

/// Makes the probes of a role, and waits for answers until `deadline`.
pub(super) async fn run(
    connected: &Connected,
    domain: Option<&str>,
    role: Role,
    deadline: Instant,
) -> Probed {
    let Connected { client, errors, .. } = connected;
    let mut probed = Probed {
        domain: domain.map(str::to_owned),
        ..Probed::default()
    };
    let probes = publishes(role);
    if send(client, &probes, &mut probed, (errors, role, deadline))
        .await
        .is_none()
    {
        // The connection is closed: what was not answered is told as that.
        return probed;
    }
    probed.refused = refusals(&errors.all());
    probed
}

/// Sends the probes and hears their answers; none when the connection is closed.
async fn send(
    client: &Client,
    probes: &[Probe],
    probed: &mut Probed,
    (errors, role, deadline): (&ServerErrors, Role, Instant),
) -> Option<()> {
    // They are held to the end: nobody reads them, and what comes beyond their capacity is dropped.
    let mut subscriptions = Vec::new();
    for subject in subscribes(role) {
        subscriptions.push(client.subscribe(subject).await);
    }
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(format!("{inbox}.*")).await.ok()?;
    for (number, probe) in probes.iter().enumerate() {
        let mut headers = HeaderMap::new();
        if probe.kind == ProbeKind::Stored {
            headers.insert(EXPECTED_STREAM, "confab-check");
        }
        let subject = in_domain(&probe.subject, probed.domain());
        let reply = format!("{inbox}.{number}");
        let sent =
            client.publish_with_reply_and_headers(subject, reply, headers, probe.payload.into());
        sent.await.ok()?;
    }
    // The server handles one message after the other: behind this one it has said what it forbids.
    let ended = client.publish(format!("{inbox}.end"), "".into()).await;
    ended.ok()?;
    collect_answers(&mut answers, probes, errors, deadline, probed).await;
    drop(subscriptions);
    Some(())
}

/// Takes answers until all have come that will come.
async fn collect_answers(
    answers: &mut Subscriber,
    probes: &[Probe],
    errors: &ServerErrors,
    deadline: Instant,
    probed: &mut Probed,
) {
    let mut ended = None;
    loop {
        let until = deadline.min(Instant::now() + POLL_INTERVAL);
        if let Ok(Some(message)) = timeout_at(until, answers.next()).await {
            let last = message.subject.rsplit('.').next().unwrap_or_default();
            match last.parse::<usize>() {
                Ok(number) => {
                    if let Some(probe) = probes.get(number) {
                        let answer = read(&message);
                        probed.answers.insert(probe.subject.clone(), answer);
                    }
                }
                Err(_no_number) => ended = Some(Instant::now() + HANDOVER_TIME),
            }
            continue;
        }
        let now = Instant::now();
        if now >= deadline {
            return;
        }
        probed.refused = refusals(&errors.all());
        let is_open = |probe: &Probe| {
            probe.kind != ProbeKind::Core
                && probed.answer(&probe.subject).is_none()
                && !probed.is_refused(&probe.subject)
        };
        if ended.is_some_and(|ended| now >= ended) && !probes.iter().any(is_open) {
            return;
        }
    }
}

fn read(message: &Message) -> ProbeAnswer {
    match message.status {
        Some(StatusCode::NO_RESPONDERS) => ProbeAnswer::NoResponders,
        _ => ProbeAnswer::Json(serde_json::from_slice(&message.payload).unwrap_or_default()),
    }
}

/// Returns what the server's errors say of permissions.
fn refusals(errors: &[String]) -> Vec<RefusedProbe> {
    let mut refusals: Vec<RefusedProbe> = Vec::new();
    for refused in errors.iter().filter_map(|text| refusal(text)) {
        if !refusals.contains(&refused) {
            refusals.push(refused);
        }
    }
    refusals
}

/// `Permissions Violation for Publish to "subject"`, or `… for Subscription to "subject"`, as nats-server writes it.
fn refusal(text: &str) -> Option<RefusedProbe> {
    let (_, what) = text.split_once("ermissions Violation for ")?;
    let verb = match what.split_once(' ')?.0.to_ascii_lowercase().as_str() {
        "publish" => "publish",
        "subscription" => "subscribe",
        _ => return None,
    };
    let subject = what.split('"').nth(1)?.to_owned();
    Some(RefusedProbe {
        verb,
        subject,
        text: text.to_owned(),
    })
}

/// The check of what the user of the connection may do.
pub(super) fn permissions(probed: &Probed, address: &str) -> Check {
    const CHECK_NAME: &str = "nats.permissions";
    let Some(first) = probed.refused.first() else {
        return Check::ok(
            CHECK_NAME,
            address,
            "the role may publish and subscribe what it needs",
        );
    };
    let list: Vec<_> = probed
        .refused
        .iter()
        .map(|refused| format!("{} {}", refused.verb, refused.subject))
        .collect();
    let found = format!("NATS does not permit the role to: {}", list.join(", "));
    let remedy = "give the role's user at NATS the permissions of deploy/nats-permissions.conf";
    Check::fail(CHECK_NAME, address, found, remedy).caused_by(first.text.clone())
}

fn api(subject: String, payload: &'static str) -> Probe {
    Probe {
        subject,
        payload,
        kind: ProbeKind::Api,
    }
}

fn stored(subject: String) -> Probe {
    Probe {
        subject,
        payload: "",
        kind: ProbeKind::Stored,
    }
}

/// On a subject below one that is in use, which nobody listens to.
fn core(prefix: &str) -> Probe {
    Probe {
        subject: format!("{prefix}.{UNUSED_TOKEN}"),
        payload: "",
        kind: ProbeKind::Core,
    }
}

/// The subject on which JetStream tells about a stream.
pub(super) fn stream_info(stream: &str) -> String {
    format!("$JS.API.STREAM.INFO.{stream}")
}

/// Returns where a stream would store a message that nobody needs.
pub(super) fn probe_of(stream: &str) -> String {
    match stream.strip_prefix("KV_") {
        Some(bucket) => format!("$KV.{bucket}.{UNUSED_TOKEN}"),
        None => format!("confab.v1.event.{UNUSED_TOKEN}"),
    }
}

/// The stream below a bucket.
pub(super) fn stream_of(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// Returns what every role asks of a stream: to see it, and to make it where there is none.
fn stream_probes(stream: &str) -> [Probe; 2] {
    [
        api(stream_info(stream), ""),
        api(format!("$JS.API.STREAM.CREATE.{stream}"), OTHER_STREAM),
    ]
}

fn publishes(role: Role) -> Vec<Probe> {
    let mut probes = vec![api(ACCOUNT_INFO_SUBJECT.to_owned(), "")];
    probes.extend(stream_probes(EVENTS_STREAM));
    probes.push(api(
        format!("$JS.API.STREAM.MSG.GET.{EVENTS_STREAM}"),
        NO_REQUEST,
    ));
    let revocations = stream_of(REVOCATIONS_BUCKET);
    probes.extend(stream_probes(&revocations));
    probes.push(core(DISCONTINUITY_SUBJECT));
    match role {
        Role::Worker => {
            probes.push(stored(probe_of(EVENTS_STREAM)));
            probes.push(stored(probe_of(&revocations)));
            probes.extend(
                [
                    WORKER_HEARTBEAT_SUBJECT,
                    WORKER_LEAVING_SUBJECT,
                    REVOCATION_SUBJECT,
                    LINGERING_SUBJECT,
                ]
                .map(core),
            );
        }
        Role::Gateway { .. } => {
            let sessions = stream_of(SESSIONS_BUCKET);
            probes.extend(stream_probes(&sessions));
            for stream in [EVENTS_STREAM, revocations.as_str()] {
                let create = format!("$JS.API.CONSUMER.CREATE.{stream}");
                probes.push(api(format!("{create}.{UNUSED_TOKEN}"), OTHER_CONSUMER));
                // Of a consumer that nobody has.
                let delete = format!("$JS.API.CONSUMER.DELETE.{stream}");
                probes.push(api(format!("{delete}.{UNUSED_TOKEN}"), ""));
            }
            probes.extend([
                api(format!("$JS.API.STREAM.UPDATE.{sessions}"), OTHER_STREAM),
                api(format!("$JS.API.STREAM.MSG.GET.{sessions}"), NO_REQUEST),
                api(format!("$JS.API.STREAM.PURGE.{sessions}"), NO_PURGE),
                api(format!("$JS.API.DIRECT.GET.{sessions}"), NO_REQUEST),
            ]);
            probes.push(stored(probe_of(&sessions)));
            let next = format!("$JS.API.CONSUMER.MSG.NEXT.{EVENTS_STREAM}.{UNUSED_TOKEN}");
            probes.push(api(next, NO_REQUEST));
            probes.extend(
                [
                    COMMAND_SUBJECT,
                    QUERY_SUBJECT,
                    GATEWAY_HEARTBEAT_SUBJECT,
                    SESSIONS_QUERY_SUBJECT,
                    RECORD_QUERY_SUBJECT,
                ]
                .map(core),
            );
            probes.push(core("confab.v1.gateway"));
            probes.push(core("confab.v1.signal"));
            probes.push(core("$JS.FC"));
        }
    }
    probes
}

/// Returns what a role subscribes: where requests are spread over a queue group, a subject of one's own below, so that none is taken.
fn subscribes(role: Role) -> Vec<String> {
    let own = Uuid::now_v7().simple();
    match role {
        Role::Worker => vec![
            format!("{COMMAND_SUBJECT}.{own}"),
            format!("{QUERY_SUBJECT}.{own}"),
            format!("$SRV.PING.{UNUSED_TOKEN}.{own}"),
        ],
        Role::Gateway { .. } => vec![
            format!("confab.v1.gateway.{own}.fence"),
            WORKER_HEARTBEAT_SUBJECT.to_owned(),
            WORKER_LEAVING_SUBJECT.to_owned(),
            GATEWAY_HEARTBEAT_SUBJECT.to_owned(),
            SIGNALS_FILTER.to_owned(),
            DISCONTINUITY_SUBJECT.to_owned(),
            LINGERING_SUBJECT.to_owned(),
            REVOCATION_SUBJECT.to_owned(),
            SESSIONS_QUERY_SUBJECT.to_owned(),
            RECORD_QUERY_SUBJECT.to_owned(),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_have_their_own_api() {
        for (subject, there) in [
            ("$JS.API.INFO", "$JS.hub.API.INFO"),
            ("$KV.b.check", "$JS.hub.API.$KV.b.check"),
            ("confab.v1.event.check", "confab.v1.event.check"),
            ("$JS.FC.check", "$JS.FC.check"),
        ] {
            assert_eq!(in_domain(subject, Some("hub")), there);
            assert_eq!(in_domain(subject, None), subject);
        }
    }

    #[test]
    fn refusals_are_read_from_the_servers_words() {
        let errors = [
            "Permissions Violation for Publish to \"confab.v1.workers.check\"",
            "Permissions Violation for Subscription to \"$SRV.PING\" using queue \"q\"",
            "Permissions Violation for Publish to \"confab.v1.workers.check\"",
            "Maximum Payload Violation",
        ]
        .map(str::to_owned);
        let found = refusals(&errors);
        let found: Vec<_> = found.iter().map(|r| (r.verb, r.subject.as_str())).collect();
        let wanted = [
            ("publish", "confab.v1.workers.check"),
            ("subscribe", "$SRV.PING"),
        ];
        assert_eq!(found, wanted);
    }
}
