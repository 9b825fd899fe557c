//! How the commands of the terminal connect: they say whereto, and give up soon when nothing is there.

use std::io::Write as _;
use std::time::Duration;

use anyhow::anyhow;
use confab_client::{Changes, ResumeError, ResumeOptions, Resuming, WsError};

/// How long the first welcome may take, over all tries.
const OPENING_TIMEOUT: Duration = Duration::from_millis(4500);
/// How long one gateway may take to welcome.
const TRY_TIMEOUT: Duration = Duration::from_secs(3);

/// Opens a session, and says on standard error at which gateways.
///
/// # Errors
/// Why there is none, with the addresses and what to do.
pub(crate) async fn open(mut options: ResumeOptions) -> anyhow::Result<(Resuming, Changes)> {
    let urls: Vec<_> = options.urls.iter().map(|url| bare(url)).collect();
    let urls = urls.join(", ");
    // Whoever closed standard error wants no progress.
    drop(writeln!(std::io::stderr().lock(), "connecting to {urls}"));
    options.opening = OPENING_TIMEOUT;
    options.timeout = TRY_TIMEOUT;
    let opened = Resuming::open(options).await;
    opened.map_err(|error| {
        let remedy = remedy(&error);
        anyhow!(error).context(format!("no session at {urls}: {remedy}"))
    })
}

/// A URL without what may be secret: user and password, query and fragment.
fn bare(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    match scheme {
        "" => format!("{host}{path}"),
        scheme => format!("{scheme}://{host}{path}"),
    }
}

const fn remedy(error: &ResumeError) -> &'static str {
    match error {
        ResumeError::Ws(WsError::Refused(_) | WsError::Rejected { .. }) => {
            "a gateway answers and refuses; `confab token --check -` explains a token"
        }
        ResumeError::Ws(_) | ResumeError::Timeout(_) => {
            "see that a gateway runs there (`confab dev` starts one), or set --url or CONFAB_URL"
        }
        ResumeError::NoGateway => "set --url or CONFAB_URL",
        ResumeError::Token(_) => "set --token or CONFAB_TOKEN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_secrets() {
        for (url, shown) in [
            ("https://chat.example:8080/a", "https://chat.example:8080/a"),
            (
                "https://ann:p%40ss@chat.example/a?token=x#y",
                "https://chat.example/a",
            ),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("ann:p@chat.example", "chat.example"),
            ("https://chat.example/a@b", "https://chat.example/a@b"),
        ] {
            assert_eq!(bare(url), shown);
        }
    }
}
