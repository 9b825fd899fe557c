//! Every subject and stream name, in one place.

use confab_protocol::event::EventType;
use confab_protocol::ids::{ConversationId, TenantId};

use crate::gateways::GatewayId;
use crate::rpc::WorkerId;

/// The stream that carries the feed.
pub const EVENTS_STREAM: &str = "CONFAB_EVENTS";
/// All events: `confab.v1.event.<lane>.<tenant>.<conversation>.<type>`.
pub(crate) const EVENTS_FILTER: &str = "confab.v1.event.>";
/// Commands to any worker: the number is that of `command::COMMAND_VERSION`, so that a gateway reaches only workers that answer as it reads.
pub(crate) const COMMAND_SUBJECT: &str = "confab.v2.command";
/// Queries to any worker.
pub(crate) const QUERY_SUBJECT: &str = "confab.v1.query";
/// Workers say here that they live.
pub(crate) const WORKER_HEARTBEAT_SUBJECT: &str = "confab.v1.workers";
/// Workers say here that they leave.
pub(crate) const WORKER_LEAVING_SUBJECT: &str = "confab.v1.workers.leaving";
/// Gateways say here that they live.
pub(crate) const GATEWAY_HEARTBEAT_SUBJECT: &str = "confab.v1.gateways";
/// All signals: `confab.v1.signal.<tenant>.<conversation>`, and below
/// `confab.v1.signal.<tenant>.presence`.
pub(crate) const SIGNALS_FILTER: &str = "confab.v1.signal.>";
/// The last level of subjects that nobody uses: a check publishes there, to see whether it may.
pub(crate) const UNUSED_TOKEN: &str = "check";
/// Of those, the one that whoever hears signals hears.
pub(crate) const UNUSED_SIGNAL_SUBJECT: &str = "confab.v1.signal.check";
/// The subject on which a found discontinuity of the feed is announced.
pub(crate) const DISCONTINUITY_SUBJECT: &str = "confab.v1.break";
/// Workers announce here what is committed and not in the stream.
pub(crate) const LINGERING_SUBJECT: &str = "confab.v1.lingering";
/// The subject on which a revocation is announced.
pub(crate) const REVOCATION_SUBJECT: &str = "confab.v1.revocation";
/// Gateways are asked here for the sessions of a user.
pub(crate) const SESSIONS_QUERY_SUBJECT: &str = "confab.v1.sessions";
/// The bucket of what was revoked.
pub(crate) const REVOCATIONS_BUCKET: &str = "confab_revocations";
/// Every gateway is asked here whether it holds a session's record.
pub(crate) const RECORD_QUERY_SUBJECT: &str = "confab.v1.record";
/// The bucket of the sessions' records.
pub(crate) const SESSIONS_BUCKET: &str = "confab_sessions";
/// The micro service of the workers.
pub(crate) const SERVICE_NAME: &str = "confab-worker";
/// The queue group that spreads requests over the workers.
pub(crate) const QUEUE_GROUP: &str = "workers";

const GATEWAY_PREFIX: &str = "confab.v1.gateway.";
const EVENT_PREFIX: &str = "confab.v1.event.";
const SIGNAL_PREFIX: &str = "confab.v1.signal.";
const PRESENCE_TOKEN: &str = "presence";
const PRESENCE_QUERY_TOKEN: &str = "presence.ask";

/// The prefix of JetStream's API.
pub(crate) const JETSTREAM_API: &str = "$JS.API";

/// The same in a domain.
pub(crate) fn api_of(domain: &str) -> String {
    format!("$JS.{domain}.API")
}

/// Commands to one worker.
pub(crate) fn command_of(worker: WorkerId) -> String {
    format!("{COMMAND_SUBJECT}.{}", worker.0.simple())
}

/// Queries to one worker.
pub(crate) fn query_of(worker: WorkerId) -> String {
    format!("{QUERY_SUBJECT}.{}", worker.0.simple())
}

/// One gateway is told here that a session was taken over.
pub(crate) fn fence(gateway: GatewayId) -> String {
    format!("{GATEWAY_PREFIX}{gateway}.fence")
}

/// One gateway is asked here to let a session go.
pub(crate) fn take_over(gateway: GatewayId) -> String {
    format!("{GATEWAY_PREFIX}{gateway}.takeover")
}

/// Returns where an event is published; the lane is 0 until lanes are needed.
pub(crate) fn event(
    tenant: &TenantId,
    conversation: ConversationId,
    event_type: EventType,
) -> String {
    format!(
        "{EVENT_PREFIX}0.{tenant}.{conversation}.{}",
        event_type.as_str()
    )
}

/// Returns what an event's subject says.
pub(crate) fn parse_event(subject: &str) -> Option<(TenantId, ConversationId, EventType)> {
    let mut levels = subject.strip_prefix(EVENT_PREFIX)?.splitn(4, '.');
    let _lane: u32 = levels.next()?.parse().ok()?;
    let tenant = levels.next()?.parse().ok()?;
    let conversation = levels.next()?.parse().ok()?;
    Some((tenant, conversation, levels.next()?.parse().ok()?))
}

/// Returns where signals about a conversation are published.
pub(crate) fn signal(tenant: &TenantId, conversation: ConversationId) -> String {
    format!("{SIGNAL_PREFIX}{tenant}.{conversation}")
}

/// Returns where news of the presence of a tenant's users are published.
pub(crate) fn presence(tenant: &TenantId) -> String {
    format!("{SIGNAL_PREFIX}{tenant}.{PRESENCE_TOKEN}")
}

/// Returns where all gateways are asked about the presence of a tenant's users.
pub(crate) fn presence_question(tenant: &TenantId) -> String {
    format!("{SIGNAL_PREFIX}{tenant}.{PRESENCE_QUERY_TOKEN}")
}

/// The parsed subject of a signal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SignalSubject {
    Presence(TenantId),
    PresenceQuestion(TenantId),
    Conversation(TenantId, ConversationId),
}

/// Returns what a signal's subject says.
pub(crate) fn parse_signal(subject: &str) -> Option<SignalSubject> {
    let (tenant, about) = subject.strip_prefix(SIGNAL_PREFIX)?.split_once('.')?;
    let tenant = tenant.parse().ok()?;
    Some(match about {
        PRESENCE_TOKEN => SignalSubject::Presence(tenant),
        PRESENCE_QUERY_TOKEN => SignalSubject::PresenceQuestion(tenant),
        _ => SignalSubject::Conversation(tenant, about.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_events_subject_says_what_it_is_about() {
        let tenant: TenantId = "acme".parse().unwrap();
        let conversation = ConversationId(uuid::Uuid::now_v7());
        let subject = event(&tenant, conversation, EventType::MessageCreated);
        assert!(subject.ends_with(".message.created"));
        assert_eq!(
            parse_event(&subject),
            Some((tenant, conversation, EventType::MessageCreated))
        );
        for junk in [
            "",
            "confab.v1.event.0.acme",
            "confab.v1.event.x.acme.y.message.created",
            "other",
        ] {
            assert_eq!(parse_event(junk), None, "{junk}");
        }
    }
}
