//! What is measured: a confab started for it, or one that runs.

use std::path::PathBuf;

use crate::Error;
use crate::processes::Usage;
use crate::stack::{Places, Shape, Stack};
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
            let urls = which.gateway.clone();
            return Ok(Self::Running { urls, tokens });
        }
        let shape = Shape {
            gateways: which.gateways,
            workers: which.workers,
            ..Shape::default()
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
