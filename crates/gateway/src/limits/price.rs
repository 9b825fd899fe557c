//! What a frame or a connection costs, in tokens: by what it makes the gateway and the workers do.

use confab_protocol::frame::ClientFrame;

/// A connection, once it is known whose it is: a signature, a question for memberships, a replay and two writes of its record.
pub(crate) const CONNECT_PRICE: u32 = 5;
/// A frame that cannot be read, and a ping or pong of the WebSocket's own that nothing asked for.
pub(crate) const PLAIN_PRICE: u32 = 1;
/// A request for which every gateway is asked.
pub(crate) const ASK_ALL_PRICE: u32 = 5;
/// A fresh token: a signature.
const AUTH_PRICE: u32 = 2;
/// Positions in a `seen` that cost one token.
const POSITIONS_PER_TOKEN: usize = 100;
/// Bytes of a frame that cost one token more.
const BYTES_PER_TOKEN: usize = 64 * 1024;

/// What positions cost that a client names.
pub(crate) fn price_of_positions(positions: usize) -> u32 {
    tokens(positions, POSITIONS_PER_TOKEN)
}

/// What the length of a message costs.
pub(crate) fn price_of_bytes(bytes: usize) -> u32 {
    tokens(bytes, BYTES_PER_TOKEN)
}

/// What a frame costs beside its length. `bye` costs nothing: it ends what a connection has paid for.
pub(crate) fn price_of(frame: &ClientFrame) -> u32 {
    match frame {
        ClientFrame::Send(_)
        | ClientFrame::Edit(_)
        | ClientFrame::Delete(_)
        | ClientFrame::Read(_)
        | ClientFrame::Typing(_)
        | ClientFrame::Presence(_)
        | ClientFrame::Ping(_)
        | ClientFrame::Hello(_) => PLAIN_PRICE,
        ClientFrame::Auth(_) => AUTH_PRICE,
        ClientFrame::Seen(seen) => PLAIN_PRICE + price_of_positions(seen.positions.len()),
        ClientFrame::Bye(_) => 0,
    }
}

fn tokens(amount: usize, per_token: usize) -> u32 {
    u32::try_from(amount / per_token).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use confab_protocol::frame::{Auth, Plain, Seen};
    use confab_protocol::ids::ConversationId;
    use uuid::Uuid;

    use super::*;

    fn seen(positions: u128) -> ClientFrame {
        let ids = (0..positions).map(|n| ConversationId(Uuid::from_u128(n)));
        ClientFrame::Seen(Seen {
            id: None,
            positions: ids.map(|id| (id, 1)).collect(),
        })
    }

    #[test]
    fn every_frame_but_bye_has_a_price() {
        let auth = Auth {
            id: None,
            token: "t".to_owned(),
        };
        assert_eq!(price_of(&ClientFrame::Ping(Plain::default())), 1);
        assert_eq!(price_of(&ClientFrame::Auth(auth)), 2);
        assert_eq!(price_of(&ClientFrame::Bye(Plain::default())), 0);
    }

    #[test]
    fn large_seen_costs_by_its_count() {
        let prices = [0, 99, 100, 10_000].map(|positions| price_of(&seen(positions)));
        assert_eq!(prices, [1, 1, 2, 101]);
        assert_eq!(price_of_bytes(512 * 1024), 8);
    }
}
