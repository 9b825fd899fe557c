use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use rand::RngExt;

use crate::Error;

/// Below what systems hand out for outgoing connections, so that a server restarted on its port finds it free.
const PORT_RANGE: std::ops::Range<u16> = 15_000..32_000;

/// Those that this process was given: a server that is down for a while finds its port again, and two that begin at once have two.
static GIVEN_PORTS: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port of 127.0.0.1 that nobody listens on, and that was not given before.
///
/// # Errors
/// When none is found in a thousand tries.
pub fn free_port() -> Result<u16, Error> {
    let mut random = rand::rng();
    let tried = (0..1000)
        .map(|_| random.random_range(PORT_RANGE))
        .find(|port| is_free(*port) && is_new(*port));
    tried.ok_or_else(|| {
        Error::Misuse("no free port on 127.0.0.1: end some of the servers that run here".to_owned())
    })
}

fn is_new(port: u16) -> bool {
    let mut given = GIVEN_PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    given.insert(port)
}

/// Returns true if a server could listen on this port of 127.0.0.1 now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
