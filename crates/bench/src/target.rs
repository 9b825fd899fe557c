//! What is measured: a confab started for it, or one that runs.

use std::path::PathBuf;

use url::Url;

use crate::Error;
use crate::processes::Usage;
use crate::stack::{Places, Stack, StackShape};
use crate::tokens::Tokens;

/// Which confab is measured.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Which {
    #[command(flatten)]
    pub(crate) places: Places,
    /// Gateways to start.
    #[arg(long, env = "CONFAB_BENCH_GATEWAYS", default_value_t = 2)]
    pub(crate) gateways: usize,
    /// Workers to start.
    #[arg(long, env = "CONFAB_BENCH_WORKERS", default_value_t = 1)]
    pub(crate) workers: usize,
    /// A gateway that runs, by URL, in place of a stack of the bench's own; may be given more than once. Then nothing is known of
    /// what its processes use.
    #[arg(
        long = "gateway",
        env = "CONFAB_BENCH_GATEWAY",
        value_delimiter = ',',
        requires = "key"
    )]
    pub(crate) gateway: Vec<String>,
    /// A file with the private key that the running gateways' tokens are signed with, in PEM. Never one of production.
    #[arg(long, env = "CONFAB_BENCH_KEY")]
    pub(crate) key: Option<PathBuf>,
    /// The tokens' issuer there.
    #[arg(long, env = "CONFAB_BENCH_ISSUER", default_value = "confab-dev")]
    pub(crate) issuer: String,
    /// The tokens' audience there.
    #[arg(long, env = "CONFAB_BENCH_AUDIENCE", default_value = "confab")]
    pub(crate) audience: String,
}

/// Takes the flags of an installation that runs, in scenarios that cannot be put on one, to say so.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct OwnOnly {
    #[arg(
        long = "gateway",
        env = "CONFAB_BENCH_GATEWAY",
        value_delimiter = ',',
        hide = true
    )]
    gateway: Vec<String>,
    #[arg(long, env = "CONFAB_BENCH_KEY", hide = true)]
    key: Option<PathBuf>,
}

impl OwnOnly {
    /// Refuses an installation that runs.
    pub(crate) fn check(&self, scenario: &str) -> Result<(), Error> {
        if self.gateway.is_empty() {
            return Ok(());
        }
        Err(Error::Failed(format!(
            "`{scenario}` measures servers that it starts itself: it cannot be put on an installation that runs (--gateway), \
             as `send` and `fanout` can"
        )))
    }
}

/// A confab under load.
#[derive(Debug)]
pub(crate) enum Target {
    /// Started for the measurement.
    Own(Box<Stack>),
    /// One that runs.
    Running {
        /// Where its gateways are.
        urls: Vec<String>,
        /// Whose tokens it takes.
        tokens: Tokens,
    },
}

impl Target {
    /// Starts a confab, or takes the one that runs.
    pub(crate) async fn start(which: &Which) -> Result<Self, Error> {
        if let Some(key) = &which.key
            && !which.gateway.is_empty()
        {
            let tokens = Tokens::read(key, &which.issuer, &which.audience)?;
            let urls = which.gateway.iter().map(|url| base(url));
            let urls = urls.collect::<Result<_, _>>()?;
            return Ok(Self::Running { urls, tokens });
        }
        let shape = StackShape {
            gateways: which.gateways,
            workers: which.workers,
            ..StackShape::default()
        };
        let stack = Stack::start(&which.places, &shape).await?;
        Ok(Self::Own(Box::new(stack)))
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        match self {
            Self::Own(stack) => stack.urls(),
            Self::Running { urls, .. } => urls.clone(),
        }
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        match self {
            Self::Own(stack) => &stack.tokens,
            Self::Running { tokens, .. } => tokens,
        }
    }

    /// Processors' time by part, where it can be known.
    pub(crate) fn usage(&mut self) -> Result<Option<Usage>, Error> {
        match self {
            Self::Own(stack) => stack.usage().map(Some),
            Self::Running { .. } => Ok(None),
        }
    }

    pub(crate) async fn stop(self) -> Result<(), Error> {
        match self {
            Self::Own(stack) => stack.stop().await,
            Self::Running { .. } => Ok(()),
        }
    }
}

/// The URL of a gateway, to which paths are added.
fn base(url: &str) -> Result<String, Error> {
    let scheme = Url::parse(url).map(|url| url.scheme().to_owned());
    if scheme.as_deref() == Ok("http") {
        Ok(url.trim_end_matches('/').to_owned())
    } else {
        let why = "the load is put on gateways themselves, by URLs that begin with http://";
        Err(Error::Failed(format!("{url}: {why}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_target_must_be_http_url() {
        let taken = base("http://127.0.0.1:8080/").unwrap();
        assert_eq!(taken, "http://127.0.0.1:8080");
        assert_eq!(base("http://host/confab").unwrap(), "http://host/confab");
        for other in ["https://host", "127.0.0.1:8080", "host", ""] {
            assert!(base(other).is_err(), "{other}");
        }
    }
}
