//! Limits of clients: rates, connections, requests.

use super::connects::Rates;
use super::{Limits, RateLimit};
use crate::headings;
use crate::metrics::LimitMetrics;

/// Limits of clients: rates, connections, requests.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct LimitSettings {
    /// Rate limits: `off`, `lenient`, `strict`, or `user=R/B,device=R/B,address=R/B`.
    ///
    /// R requests and frames a second, B at once, at this gateway: gateways do not share them.
    #[arg(
        long,
        env = "CONFAB_RATE_LIMIT",
        value_name = "LIMITS",
        default_value = "lenient",
        help_heading = headings::LIMITS_HEADING
    )]
    pub rate_limit: RateLimit,
    /// Connections that one user may have at this gateway.
    #[arg(
        long,
        env = "CONFAB_USER_CONNECTIONS",
        value_name = "NUMBER",
        default_value_t = 100,
        help_heading = headings::LIMITS_HEADING
    )]
    pub user_connections: usize,
    /// HTTP requests of one user that may be on their way at this gateway at once.
    #[arg(
        long,
        env = "CONFAB_USER_REQUESTS",
        value_name = "NUMBER",
        default_value_t = 2_000,
        help_heading = headings::LIMITS_HEADING
    )]
    pub user_requests: usize,
    /// Connections at once, and as many sockets besides, as far as the limit of open files goes.
    ///
    /// When all are taken, one that says nothing is closed for each newcomer; where none is silent, newcomers are refused with OVERLOADED.
    #[arg(
        long,
        env = "CONFAB_MAX_CONNECTIONS",
        value_name = "NUMBER",
        default_value_t = 100_000,
        help_heading = headings::LIMITS_HEADING
    )]
    pub max_connections: usize,
    /// Sockets without a token in their header that may wait for their hello at once.
    ///
    /// Each with at most 24 KiB: beyond, the one that waits longest, of the address with most such, is closed for the newcomer.
    #[arg(
        long,
        env = "CONFAB_HELLO_CONNECTIONS",
        value_name = "NUMBER",
        default_value_t = 16_384,
        value_parser = at_least_one,
        help_heading = headings::LIMITS_HEADING
    )]
    pub hello_connections: usize,
    /// Resuming connections that are let in a second, before all others.
    ///
    /// Those who would wait for more than three seconds are told to come again.
    #[arg(
        long,
        env = "CONFAB_RESUME_RATE",
        value_name = "NUMBER",
        default_value_t = 5000,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = headings::LIMITS_HEADING
    )]
    pub resume_rate: u32,
    /// Other connections that are let in a second, likewise.
    #[arg(
        long,
        env = "CONFAB_CONNECT_RATE",
        value_name = "NUMBER",
        default_value_t = 2000,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = headings::LIMITS_HEADING
    )]
    pub connect_rate: u32,
}

impl LimitSettings {
    /// The limits of rates, behind so many proxies.
    pub(crate) fn limits(&self, trusted_proxies: usize, metrics: LimitMetrics) -> Limits {
        Limits::new(&self.rate_limit, trusted_proxies, metrics)
    }

    pub(crate) const fn connect_rates(&self) -> Rates {
        Rates {
            resumes: self.resume_rate,
            fresh: self.connect_rate,
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        Ok(_zero) => Err("must be at least 1".to_owned()),
        Err(error) => Err(format!("{error}")),
    }
}
