//! Pages of this machine, which an entry of the allowlist of origins lets in whatever their port: for development.

/// The entry for them.
pub(crate) const LOCALHOST_NAME: &str = "localhost";

/// Whether an entry of the allowlist lets in pages of an origin.
pub(crate) fn admits(entry: &str, origin: &str) -> bool {
    match entry {
        "*" => true,
        LOCALHOST_NAME => is_local(origin),
        listed => listed.eq_ignore_ascii_case(origin),
    }
}

/// Whether an origin is of pages of this machine, by http or https: by a name that no resolver is asked about (RFC 6761, section 6.3), or its
/// address.
fn is_local(origin: &str) -> bool {
    let origin = origin.to_ascii_lowercase();
    let authority = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    let is_port = |rest: &str| {
        let port = rest.strip_prefix(':');
        rest.is_empty() || port.is_some_and(|port| port.parse::<u16>().is_ok())
    };
    authority.is_some_and(|authority| {
        ["localhost", "127.0.0.1", "[::1]"]
            .iter()
            .any(|host| authority.strip_prefix(host).is_some_and(is_port))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_admits_pages_of_this_machine_alone() {
        for local in [
            "http://localhost",
            "https://localhost",
            "http://localhost:5173",
            "https://LOCALHOST:8443",
            "http://127.0.0.1:3000",
            "https://[::1]:3000",
        ] {
            assert!(admits(LOCALHOST_NAME, local), "{local}");
            assert!(!admits("https://app.example", local), "{local}");
        }
        for other in [
            "null",
            "localhost",
            "*",
            "http://localhost.evil.example",
            "http://localhost:3000.evil.example",
            "http://evil.example:3000",
            "http://localhost@evil.example",
            "http://localhost:",
            "http://127.0.0.10",
            "http://[::1].evil.example",
            "http://[::2]:3000",
            "capacitor://localhost",
            "http://localhost:3000/",
        ] {
            assert!(!admits(LOCALHOST_NAME, other), "{other}");
        }
    }

    #[test]
    fn other_entries_are_compared_without_case() {
        assert!(admits("https://app.example", "HTTPS://App.Example"));
        assert!(!admits("https://app.example", "http://app.example"));
        assert!(admits("*", "null"));
    }
}
