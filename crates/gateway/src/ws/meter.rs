//! What a connection may ask for: every frame has a price, which its user and its device pay.

use std::time::Duration;

use confab_auth::Caller;
use confab_protocol::error::Failure;
use confab_protocol::frame::ClientFrame;
use tokio::time::Instant;

use super::codec::Decoded;
use crate::limits::{Limits, PLAIN_PRICE, Violations, price_of, price_of_bytes};

/// Frames refused within [`REFUSALS_PERIOD`] that end the connection: who goes on so does not listen.
const MAX_REFUSALS: usize = 100;
const REFUSALS_PERIOD: Duration = Duration::from_secs(60);

/// Counts one connection's frames.
#[derive(Debug)]
pub(super) struct FrameLimiter {
    limits: Limits,
    strikes: Violations,
    /// Pings of the gateway's that were not answered yet: their pongs cost nothing.
    pongs_due: u32,
}

/// A frame that was refused.
#[derive(Debug)]
pub(super) struct FrameRefusal {
    /// The frame's id.
    pub(super) id: Option<String>,
    /// What it is answered with.
    pub(super) failure: Failure,
    /// Whether the connection ends with it.
    pub(super) ends: bool,
}

impl FrameLimiter {
    /// A meter of a connection whose welcome was pinged.
    pub(super) const fn new(limits: Limits) -> Self {
        Self {
            limits,
            strikes: Violations::new(MAX_REFUSALS, REFUSALS_PERIOD),
            pongs_due: 1,
        }
    }

    /// Takes what a message of so many bytes costs.
    ///
    /// # Errors
    /// When there is nothing left.
    pub(super) fn charge(
        &mut self,
        caller: &Caller,
        decoded: &Decoded,
        bytes: usize,
    ) -> Result<(), FrameRefusal> {
        let price = match decoded {
            Decoded::Frame(frame) => price_of(frame),
            Decoded::Bad(_) | Decoded::WrongKind => PLAIN_PRICE,
        };
        if price == 0 {
            return Ok(());
        }
        self.take(caller, price.saturating_add(price_of_bytes(bytes)), || {
            id(decoded)
        })
    }

    /// Takes what a ping of the client's costs.
    ///
    /// # Errors
    /// When there is nothing left.
    pub(super) fn charge_ping(&mut self, caller: &Caller) -> Result<(), FrameRefusal> {
        self.take(caller, PLAIN_PRICE, || None)
    }

    /// Takes what a pong costs that no ping asked for.
    ///
    /// # Errors
    /// When there is nothing left.
    pub(super) fn charge_pong(&mut self, caller: &Caller) -> Result<(), FrameRefusal> {
        if self.pongs_due > 0 {
            self.pongs_due -= 1;
            return Ok(());
        }
        self.take(caller, PLAIN_PRICE, || None)
    }

    /// The client is pinged.
    pub(super) const fn pinged(&mut self) {
        self.pongs_due = self.pongs_due.saturating_add(1);
    }

    fn take(
        &mut self,
        caller: &Caller,
        price: u32,
        id: impl FnOnce() -> Option<String>,
    ) -> Result<(), FrameRefusal> {
        let charged = self.limits.charge_frame(caller, price);
        charged.map_err(|failure| FrameRefusal {
            id: id(),
            failure,
            ends: self.strikes.count(Instant::now()),
        })
    }
}

fn id(decoded: &Decoded) -> Option<String> {
    let frame = match decoded {
        Decoded::Frame(frame) => frame,
        Decoded::Bad(bad) => return bad.id.clone(),
        Decoded::WrongKind => return None,
    };
    match frame {
        ClientFrame::Send(send) => Some(send.id.as_str().to_owned()),
        ClientFrame::Edit(edit) => edit.id.clone(),
        ClientFrame::Delete(delete) => delete.id.clone(),
        ClientFrame::Read(read) => read.id.clone(),
        ClientFrame::Typing(typing) => typing.id.clone(),
        ClientFrame::Presence(presence) => presence.id.clone(),
        ClientFrame::Hello(hello) => hello.id.clone(),
        ClientFrame::Seen(seen) => seen.id.clone(),
        ClientFrame::Auth(auth) => auth.id.clone(),
        ClientFrame::Bye(plain) | ClientFrame::Ping(plain) => plain.id.clone(),
    }
}

#[cfg(test)]
mod tests {
    use confab_auth::Scope;
    use confab_protocol::frame::Plain;
    use prometheus_client::registry::Registry;
    use time::OffsetDateTime;

    use super::*;
    use crate::metrics::LimitMetrics;

    fn caller() -> Caller {
        Caller {
            tenant: "t".parse().unwrap(),
            user: "ann".parse().unwrap(),
            device: "phone".to_owned(),
            login_session: "1".to_owned(),
            issued_at: OffsetDateTime::UNIX_EPOCH,
            expires_at: OffsetDateTime::UNIX_EPOCH,
            scope: Scope::parse(""),
        }
    }

    fn meter(limits: &str) -> FrameLimiter {
        let metrics = LimitMetrics::new(&mut Registry::default());
        FrameLimiter::new(Limits::new(&limits.parse().unwrap(), 0, metrics))
    }

    #[test]
    fn pong_is_free_once_for_each_ping() {
        let (mut meter, caller) = (meter("user=1/1"), caller());
        assert!(meter.charge_ping(&caller).is_ok());
        assert!(meter.charge_ping(&caller).is_err(), "nothing is left");
        assert!(meter.charge_pong(&caller).is_ok(), "the welcome's");
        assert!(meter.charge_pong(&caller).is_err());
        meter.pinged();
        assert!(meter.charge_pong(&caller).is_ok());
    }

    #[test]
    fn bye_is_never_refused() {
        let (mut meter, caller) = (meter("user=1/1"), caller());
        let ping = Decoded::Frame(ClientFrame::Ping(Plain {
            id: Some("7".to_owned()),
        }));
        assert!(meter.charge(&caller, &ping, 20).is_ok());
        let refused = meter.charge(&caller, &ping, 20).unwrap_err();
        assert_eq!((refused.id.as_deref(), refused.ends), (Some("7"), false));
        let bye = Decoded::Frame(ClientFrame::Bye(Plain::default()));
        assert!(meter.charge(&caller, &bye, 20).is_ok());
    }
}
