//! Records for tests.

use confab_protocol::ids::ConversationId;
use confab_protocol::signal::PresenceStatus;
use uuid::Uuid;

use super::{Ownership, Position, Record, TokenHash};
use crate::gateways::GatewayId;

/// A record of this generation.
pub(super) fn record(generation: u64) -> Record {
    Record {
        tenant: "acme".parse().unwrap(),
        user: "alice".parse().unwrap(),
        device: "phone".to_owned(),
        login_session: "login".to_owned(),
        token: TokenHash([1; 32]),
        former: None,
        owner: Ownership {
            generation,
            take_over: Uuid::from_u128(1),
        },
        gateway: GatewayId(Uuid::from_u128(9)),
        presence: PresenceStatus::Online,
        positions: vec![Position {
            conversation: ConversationId(Uuid::from_u128(5)),
            joined: 3,
            seq: 7,
        }],
    }
}
