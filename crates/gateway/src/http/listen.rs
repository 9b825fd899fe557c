//! Where a process listens: one address, or every address of its host.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use confab_protocol::chain::chain;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tracing::info;

/// Connections that the system may have made before they are accepted; the system bounds it by its own limit (`net.core.somaxconn`).
const ACCEPT_BACKLOG: i32 = 4096;

/// Where a process listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenAddress {
    /// `:8080`: the port on every address of the host, IPv6 and IPv4; without IPv6, on those of IPv4.
    Every(u16),
    /// `127.0.0.1:8080`, `[::1]:8080`: one address; `0.0.0.0:8080` is every one of IPv4.
    One(SocketAddr),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let address = match text.strip_prefix(':') {
            Some(port) => port.parse().ok().map(Self::Every),
            None => text.parse().ok().map(Self::One),
        };
        address.ok_or_else(|| {
            "must be a port or an address with one: `:8080`, `127.0.0.1:8080` or `[::1]:8080`"
                .to_owned()
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(port) => write!(f, ":{port}"),
            Self::One(address) => write!(f, "{address}"),
        }
    }
}

impl ListenAddress {
    /// The port.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Every(port) => port,
            Self::One(address) => address.port(),
        }
    }

    /// Listens.
    ///
    /// # Errors
    /// When the port is taken, or the address is not this host's.
    pub async fn bind(self) -> io::Result<TcpListener> {
        match self {
            Self::One(address) => TcpListener::bind(address).await,
            Self::Every(port) => match dual_stack(port) {
                Err(error) if is_without_ipv6(&error) => {
                    info!(error = %chain(&error), "no IPv6 here: it is listened on IPv4 alone");
                    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
                }
                listening => listening,
            },
        }
    }
}

/// A socket that takes connections by IPv6 and, from addresses mapped into it (RFC 4291, section 2.5.5.2), by IPv4, whatever the system's
/// default says.
fn dual_stack(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    // As tokio has it: a restarted process is not to wait for the ends of its predecessor's connections.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Whether the host was built or started without IPv6.
fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    ) || error.raw_os_error() == Some(ADDRESS_FAMILY_UNSUPPORTED)
}

/// EAFNOSUPPORT, which [`io::ErrorKind`] has no name for.
#[cfg(target_os = "linux")]
const ADDRESS_FAMILY_UNSUPPORTED: i32 = 97;
#[cfg(not(target_os = "linux"))]
const ADDRESS_FAMILY_UNSUPPORTED: i32 = 47;

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn port_alone_is_an_address() {
        let parsed = |text: &str| text.parse::<ListenAddress>().map(|it| it.to_string());
        for good in [
            ":8080",
            ":0",
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::]:80",
            "0.0.0.0:1",
        ] {
            assert_eq!(parsed(good).as_deref(), Ok(good));
        }
        for bad in ["", "8080", ":", ":65536", "::1:8080", "[::1]", "localhost"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn every_address_is_ipv6_and_ipv4() {
        let listener = ListenAddress::Every(0).bind().await.unwrap();
        let address = listener.local_addr().unwrap();
        let by_ipv4 = TcpStream::connect((Ipv4Addr::LOCALHOST, address.port())).await;
        by_ipv4.unwrap();
        if address.is_ipv4() {
            eprintln!("no IPv6 on this machine");
            return;
        }
        let by_ipv6 = TcpStream::connect((Ipv6Addr::LOCALHOST, address.port())).await;
        by_ipv6.unwrap();
    }

    #[tokio::test]
    async fn taken_port_is_no_missing_ipv6() {
        let taken = ListenAddress::Every(0).bind().await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = ListenAddress::Every(port).bind().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
