//! Checks of one issuer's keys: whether its set is reached, can be read, and has keys of the accepted algorithms.

use std::time::Duration;

use confab_protocol::check::{Check, clock};
use time::OffsetDateTime;

use super::Keys;
use super::fetch::{FetchError, Remote};
use super::set::{KeySet, SetRefused};
use crate::algorithm::Algorithm;

/// Time that a fetch may take before the check says so; a gateway may wait longer.
const FETCH_TIMEOUT: Duration = Duration::from_millis(1900);

impl Keys {
    /// Checks the keys against the algorithms that the issuer may use; fetches a key set once.
    pub(crate) async fn check(&self, accepted: &[Algorithm]) -> Vec<Check> {
        let Some(remote) = &self.remote else {
            let found = "the public key of the settings is in use";
            return vec![Check::ok("keys", &self.issuer, found)];
        };
        let address = format!("{} of {}", remote.address(), self.issuer);
        let timeout = FETCH_TIMEOUT.min(self.pace.timeout);
        match remote.fetch_within(timeout).await {
            Ok((set, date)) => {
                let date = date.map(|date| {
                    let ahead = (date - OffsetDateTime::now_utc()).as_seconds_f64();
                    clock("keys.clock", "the provider", &address, ahead)
                });
                [algorithms(&set, accepted, &address)]
                    .into_iter()
                    .chain(date)
                    .collect()
            }
            Err(FetchError::Slow(waited)) if waited < self.pace.timeout => {
                vec![self.slow(waited, &address)]
            }
            Err(error) => vec![refused(&error, remote, &address)],
        }
    }

    fn slow(&self, waited: Duration, address: &str) -> Check {
        let found = format!(
            "the key set has not come within {waited:?}; gateways wait for {:?}",
            self.pace.timeout
        );
        let remedy = "see that the gateways may reach the address (DNS, firewall, proxy); a slow provider may want CONFAB_JWT_JWKS_TIMEOUT";
        Check::warn("keys", address, found, remedy)
    }
}

fn algorithms(set: &KeySet, accepted: &[Algorithm], address: &str) -> Check {
    let list = |algorithms: &[Algorithm]| {
        let names: Vec<_> = algorithms.iter().map(|one| one.name()).collect();
        names.join(", ")
    };
    let found = set.algorithms();
    let keys = set.len();
    if found.iter().any(|algorithm| accepted.contains(algorithm)) {
        let found = format!("the key set has {keys} keys of use, for {}", list(&found));
        return Check::ok("keys", address, found);
    }
    let (has, wants) = (list(&found), list(accepted));
    let found = format!("the keys of the set are for {has}, and accepted is only {wants}");
    let remedy = format!(
        "set CONFAB_JWT_ALGORITHMS (or algorithms in the file of issuers) to {has}, if the provider signs with that"
    );
    Check::fail("keys", address, found, remedy)
}

/// Why a fetch gave no set, with what to do.
fn refused(error: &FetchError, remote: &Remote, address: &str) -> Check {
    let remedy = match error {
        FetchError::Http(_) | FetchError::Slow(_) => {
            "see that the provider runs and gateways may reach the address (DNS, firewall, proxy, certificates), or correct jwks-url"
                .to_owned()
        }
        FetchError::Status(status) if status.is_redirection() => {
            "set jwks-url to the address that it leads to: redirects are not followed".to_owned()
        }
        FetchError::Status(status) if status.is_server_error() => {
            "the provider itself fails: see its status".to_owned()
        }
        FetchError::Status(_) => {
            "correct jwks-url: the provider's /.well-known/openid-configuration has it as jwks_uri".to_owned()
        }
        FetchError::TooLarge | FetchError::Set(SetRefused::Broken(_)) => format!(
            "set jwks-url to the key set itself, not to a page or to the discovery document: open {} and look for {{\"keys\": […]}}",
            remote.address()
        ),
        FetchError::Set(SetRefused::Empty(_)) => {
            "have the provider sign with RS256, ES256 or EdDSA: the set has no public key for one of these".to_owned()
        }
        FetchError::Set(SetRefused::Ambiguous(_)) => {
            "have the provider publish each key once: with two of one id and algorithm nobody knows which is meant".to_owned()
        }
    };
    let found = "the key set cannot be used: tokens of the issuer are refused until it can";
    Check::fail("keys", address, found, remedy).because(error)
}

#[cfg(test)]
mod tests {
    use confab_protocol::check::CheckStatus;

    use super::*;
    use crate::mint::{Key, jwks};
    use crate::testing::server::{KeyServer, ServerAnswer};
    use crate::testing::settings;

    async fn checked(url: &str, more: &[&str]) -> Vec<Check> {
        let base = [
            "--jwt-jwks-url",
            url,
            "--jwt-any-issuer",
            "--jwt-any-audience",
        ];
        let settings = settings(&[&base, more].concat()).unwrap();
        crate::check_keys(&settings).await
    }

    #[tokio::test]
    async fn set_of_accepted_keys_is_fine() {
        let keys = [Key::generate().unwrap(), Key::generate().unwrap()];
        let body = jwks(keys.iter());
        let date = "Tue, 15 Nov 1994 08:12:31 GMT";
        let length = body.len();
        let raw =
            format!("HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: {length}\r\n\r\n{body}");
        let server = KeyServer::start(ServerAnswer::Raw(raw)).await;
        let checks = checked(&server.url, &[]).await;
        let [keys, clock] = checks.as_slice() else {
            panic!("{checks:?}");
        };
        assert_eq!(keys.status, CheckStatus::Ok);
        assert_eq!(keys.found, "the key set has 2 keys of use, for ES256");
        assert_eq!(clock.status, CheckStatus::Warn);
    }

    #[tokio::test]
    async fn each_way_to_no_keys_has_its_remedy() {
        let server = KeyServer::start(ServerAnswer::Stall).await;
        let rsa = Key::generate_rsa().unwrap();
        let twice = [&rsa, &rsa];
        for (answer, cause, remedy) in [
            (
                ServerAnswer::Raw("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned()),
                "answered 404 Not Found",
                "openid-configuration",
            ),
            (
                ServerAnswer::Raw("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".to_owned()),
                "answered 302 Found",
                "redirects are not followed",
            ),
            (
                ServerAnswer::Body("<!doctype html><title>Sign in</title>".to_owned()),
                "not a key set: expected value at line 1 column 1",
                "not to a page",
            ),
            (
                ServerAnswer::Body("{\"keys\": []}".to_owned()),
                "no key of use among 0",
                "RS256",
            ),
            (
                ServerAnswer::Body(jwks(twice)),
                "ambiguous: two keys",
                "each key once",
            ),
        ] {
            server.answer(answer);
            let checks = checked(&server.url, &["--jwt-algorithms", "RS256"]).await;
            let [check] = checks.as_slice() else {
                panic!("{checks:?}");
            };
            assert_eq!(check.status, CheckStatus::Fail);
            assert!(check.cause().contains(cause), "{check:?}");
            assert!(check.remedy.as_ref().unwrap().contains(remedy), "{check:?}");
        }
    }

    #[tokio::test]
    async fn silent_and_absent_servers_are_told() {
        let server = KeyServer::start(ServerAnswer::Stall).await;
        let checks = checked(&server.url, &[]).await;
        assert_eq!(checks[0].status, CheckStatus::Warn, "{checks:?}");
        let checks = checked("http://127.0.0.1:1/keys?secret=hidden", &[]).await;
        assert_eq!(checks[0].status, CheckStatus::Fail);
        assert!(
            checks[0].cause().contains("refused (os error 111)"),
            "{checks:?}"
        );
        assert!(!format!("{checks:?}").contains("hidden"), "{checks:?}");
    }

    #[tokio::test]
    async fn keys_of_other_algorithms_are_told() {
        let key = Key::generate_rsa().unwrap();
        let server = KeyServer::start(ServerAnswer::Body(jwks([&key]))).await;
        let checks = checked(&server.url, &["--jwt-algorithms", "ES256"]).await;
        assert_eq!(checks[0].status, CheckStatus::Fail);
        assert!(checks[0].found.contains("are for RS256"), "{checks:?}");
    }
}
