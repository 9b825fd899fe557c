//! What a connection may ask for: each command and signal costs one of its user and one of its device.

use std::time::Duration;

use confab_auth::Caller;
use confab_protocol::error::Failure;
use confab_protocol::frame::ClientFrame;
use tokio::time::Instant;

use crate::limits::{Limits, Strikes};

/// Frames refused within [`WITHIN`] that end the connection: who goes on so does not listen.
const REFUSALS: usize = 100;
const WITHIN: Duration = Duration::from_secs(60);

/// Counts one connection's frames.
#[derive(Debug)]
pub(super) struct Meter {
    limits: Limits,
    strikes: Strikes,
}

/// A frame that was refused.
#[derive(Debug)]
pub(super) struct Refused {
    /// The frame's id.
    pub(super) id: Option<String>,
    /// What it is answered with.
    pub(super) failure: Failure,
    /// Whether the connection ends with it.
    pub(super) ends: bool,
}

impl Meter {
    pub(super) const fn new(limits: Limits) -> Self {
        let strikes = Strikes::new(REFUSALS, WITHIN);
        Self { limits, strikes }
    }

    /// Takes what a frame costs.
    ///
    /// # Errors
    /// When there is not that much left.
    pub(super) fn charge(&mut self, caller: &Caller, frame: &ClientFrame) -> Result<(), Refused> {
        if !self.limits.are_on() || !costs(frame) {
            return Ok(());
        }
        self.limits.charge_frame(caller).map_err(|failure| Refused {
            id: id(frame),
            failure,
            ends: self.strikes.count(Instant::now()),
        })
    }
}

const fn costs(frame: &ClientFrame) -> bool {
    match frame {
        ClientFrame::Send(_)
        | ClientFrame::Edit(_)
        | ClientFrame::Delete(_)
        | ClientFrame::Read(_)
        | ClientFrame::Typing(_)
        | ClientFrame::Presence(_) => true,
        ClientFrame::Hello(_)
        | ClientFrame::Seen(_)
        | ClientFrame::Bye(_)
        | ClientFrame::Auth(_)
        | ClientFrame::Ping(_) => false,
    }
}

fn id(frame: &ClientFrame) -> Option<String> {
    match frame {
        ClientFrame::Send(send) => Some(send.id.to_string()),
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
