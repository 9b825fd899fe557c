//! What the tests of this module share.

use confab_auth::{Caller, Scope};
use confab_bus::GatewayId;
use confab_bus::records::{Ownership, Record, TokenHash};
use confab_protocol::signal::PresenceStatus;
use time::OffsetDateTime;
use uuid::Uuid;

pub(super) fn hash(n: u8) -> TokenHash {
    TokenHash([n; 32])
}

pub(super) fn caller(user: &str, device: &str) -> Caller {
    Caller {
        tenant: "t".parse().unwrap(),
        user: user.parse().unwrap(),
        device: device.to_owned(),
        login_session: "login".to_owned(),
        issued_at: OffsetDateTime::UNIX_EPOCH,
        expires_at: OffsetDateTime::UNIX_EPOCH,
        scope: Scope::parse(""),
    }
}

pub(super) fn owner(generation: u64) -> Ownership {
    Ownership {
        generation,
        take_over: Uuid::from_u128(generation.into()),
    }
}

pub(super) fn record(user: &str, device: &str, token: TokenHash) -> Record {
    Record {
        tenant: "t".parse().unwrap(),
        user: user.parse().unwrap(),
        device: device.to_owned(),
        login_session: "login".to_owned(),
        token,
        former: None,
        owner: owner(1),
        gateway: GatewayId(Uuid::from_u128(1)),
        presence: PresenceStatus::Online,
        positions: Vec::new(),
    }
}
