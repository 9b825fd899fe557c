//! Where a request comes from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue};

/// The other end of the connection, as the accept loop saw it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

impl Peer {
    /// Who a request came from.
    pub(crate) fn of(extensions: &Extensions) -> Self {
        let peer = extensions.get::<Self>().copied();
        peer.unwrap_or(Self(Ipv4Addr::UNSPECIFIED.into()))
    }

    /// Its address, or the network that one host has.
    pub(crate) fn network(self) -> IpAddr {
        network(self.0)
    }
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address that a request is counted for: the peer's, or, behind trusted proxies, the one that the outermost of them
/// wrote into `X-Forwarded-For`: the `trusted_proxies`-th from the right, for what stands left of it is the client's word.
/// Where that is none, the request did not come through them all, and is its peer's. One host has a whole /64 of IPv6.
pub(crate) fn of(extensions: &Extensions, headers: &HeaderMap, trusted_proxies: usize) -> IpAddr {
    let peer = extensions
        .get::<Peer>()
        .map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0);
    let forwarded = trusted_proxies
        .checked_sub(1)
        .and_then(|behind| forwarded(headers, behind));
    network(forwarded.unwrap_or(peer))
}

/// The `behind`-th entry from the right. What stands left of it is the client's own and may be any bytes: it is passed over, and read as
/// nothing else.
fn forwarded(headers: &HeaderMap, behind: usize) -> Option<IpAddr> {
    let lines = headers.get_all(X_FORWARDED_FOR).iter();
    let mut lines: Vec<&[u8]> = lines.map(HeaderValue::as_bytes).collect();
    lines.reverse();
    let mut entries = lines
        .into_iter()
        .flat_map(|line| line.rsplit(|byte| *byte == b','));
    let entry = std::str::from_utf8(entries.nth(behind)?.trim_ascii()).ok()?;
    // Some proxies write brackets around IPv6, as before a port, and some the port as well.
    let bare = entry
        .strip_prefix('[')
        .and_then(|entry| entry.strip_suffix(']'));
    let address = bare.unwrap_or(entry).parse::<IpAddr>().ok();
    address.or_else(|| entry.parse::<SocketAddr>().ok().map(|with| with.ip()))
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(peer: &str, forwarded: &[&'static str], trusted_proxies: usize) -> String {
        let lines: Vec<_> = forwarded.iter().map(|line| line.as_bytes()).collect();
        address_of(peer, &lines, trusted_proxies)
    }

    fn address_of(peer: &str, forwarded: &[&[u8]], trusted_proxies: usize) -> String {
        let mut extensions = Extensions::new();
        extensions.insert(Peer(peer.parse().unwrap()));
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(value).unwrap());
        }
        of(&extensions, &headers, trusted_proxies).to_string()
    }

    #[test]
    fn only_trusted_proxies_name_client_address() {
        let said = ["6.6.6.6, 1.1.1.1", "2.2.2.2"];
        assert_eq!(address("9.9.9.9", &said, 0), "9.9.9.9");
        assert_eq!(address("9.9.9.9", &said, 1), "2.2.2.2");
        assert_eq!(address("9.9.9.9", &said, 2), "1.1.1.1");
        assert_eq!(address("9.9.9.9", &said, 4), "9.9.9.9", "not through all");
        assert_eq!(address("9.9.9.9", &[], 1), "9.9.9.9");
        assert_eq!(address("9.9.9.9", &["unknown"], 1), "9.9.9.9");
        assert_eq!(address("9.9.9.9", &["1.1.1.1:4711"], 1), "1.1.1.1");
    }

    #[test]
    fn bytes_before_the_proxys_entry_change_nothing() {
        for said in [
            &b"\xe9, 2.2.2.2"[..],
            b"\xff\xfe,2.2.2.2",
            b"3.3.3.3, \xc3\x28 , 2.2.2.2",
        ] {
            assert_eq!(address_of("9.9.9.9", &[said], 1), "2.2.2.2", "{said:?}");
            let lines = [said, b"4.4.4.4"];
            assert_eq!(address_of("9.9.9.9", &lines, 2), "2.2.2.2", "{said:?}");
        }
        assert_eq!(address_of("9.9.9.9", &[b"1.1.1.1, \xe9"], 1), "9.9.9.9");
    }

    #[test]
    fn one_host_has_a_network_of_ipv6() {
        assert_eq!(address("2001:db8:1:2:3:4:5:6", &[], 0), "2001:db8:1:2::");
        assert_eq!(address("::ffff:1.2.3.4", &[], 0), "1.2.3.4");
        for said in [
            "[2001:db8:1:2::9]:443",
            "[2001:db8:1:2::9]",
            "2001:db8:1:2::9",
        ] {
            assert_eq!(address("::1", &[said], 1), "2001:db8:1:2::", "{said}");
        }
    }
}
