//! Rate limits: token buckets by user, by device and by address, and what one user may have at once. They are this gateway's own: a
//! user at three gateways may do three times as much.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use confab_auth::Caller;
use confab_protocol::error::{Code, Failure};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::metrics::LimitMetrics;

mod address;
mod buckets;
pub(crate) mod connects;
pub(crate) mod parsing;
pub(crate) mod permits;
mod price;
mod rates;
pub(crate) mod refusals;
mod requests;
mod settings;
pub(crate) mod slots;
mod strikes;
pub(crate) mod turns;
mod users;

pub(crate) use settings::LimitSettings;

pub(crate) use address::{Peer, of as address_of};
pub(crate) use price::{
    ASK_ALL_PRICE, CONNECT_PRICE, PLAIN_PRICE, price_of, price_of_bytes, price_of_positions,
};
pub use rates::{BadRateLimit, RateLimit};
pub(crate) use requests::{RequestShare, UserRequests};
pub(crate) use strikes::Violations;
pub(crate) use users::{OpeningPermit, UserConnection, Users};

use buckets::Buckets;
use rates::Rate;

/// `RateLimit` of draft-ietf-httpapi-ratelimit-headers.
const RATELIMIT_HEADER: HeaderName = HeaderName::from_static("ratelimit");
/// `RateLimit-Policy` of the same.
const RATELIMIT_POLICY_HEADER: HeaderName = HeaderName::from_static("ratelimit-policy");
/// How often buckets that are full again are forgotten.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// A tenant's user's, on all its devices.
    User,
    /// One device's of a user.
    Device,
    /// An address's.
    Address,
    /// A tenant's user's, for resume tokens that resumed nothing.
    ResumeTokens,
}

impl Scope {
    const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Device => "device",
            Self::Address => "address",
            Self::ResumeTokens => "resume_tokens",
        }
    }
}

/// What is left in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateLimitState {
    scope: Scope,
    rate: Rate,
    remaining: u32,
}

impl RateLimitState {
    /// The one of which the smaller share is left.
    fn tighter(self, other: Self) -> Self {
        let share = |one: Self, of: Self| u64::from(one.remaining) * u64::from(of.rate.burst.get());
        if share(other, self) < share(self, other) {
            other
        } else {
            self
        }
    }

    /// Seconds until the bucket is full again.
    fn reset(self) -> u32 {
        (self.rate.burst.get() - self.remaining).div_ceil(self.rate.per_second.get())
    }
}

/// A bucket was empty.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    standing: RateLimitState,
    wait: Duration,
}

impl Refusal {
    fn failure(self) -> Failure {
        let wait = u64::try_from(self.wait.as_millis()).unwrap_or(u64::MAX);
        let detail = match self.standing.scope {
            Scope::User => "too many requests of this user",
            Scope::Device => "too many requests of this device",
            Scope::Address => "too many requests of this address",
            Scope::ResumeTokens => "too many resume tokens of this user resumed nothing",
        };
        Failure::new(Code::RateLimited, detail).retry_after(wait.max(1))
    }
}

/// The tightest limit that a request met, for its answer's headers. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestUsage(Arc<Mutex<Option<RateLimitState>>>);

impl RequestUsage {
    fn note(&self, standing: RateLimitState) {
        let mut tightest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *tightest = Some(tightest.map_or(standing, |other| other.tighter(standing)));
    }

    fn tightest(&self) -> Option<RateLimitState> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The limits of this gateway. Clones share their buckets; switched off there are none.
#[derive(Debug, Clone)]
pub(crate) struct Limits(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    user: Option<Buckets>,
    device: Option<Buckets>,
    address: Option<Buckets>,
    trusted_proxies: usize,
    policy: HeaderValue,
    metrics: LimitMetrics,
}

impl Limits {
    /// Limits as set; behind `trusted_proxies` a request's address is the one that the outermost of them saw.
    pub(crate) fn new(rates: &RateLimit, trusted_proxies: usize, metrics: LimitMetrics) -> Self {
        let policy = rates.policy();
        let begin = Instant::now();
        let buckets = |scope, rate: Option<Rate>| rate.map(|rate| Buckets::new(scope, rate, begin));
        let inner = policy.map(|policy| Inner {
            user: buckets(Scope::User, rates.user),
            device: buckets(Scope::Device, rates.device),
            address: buckets(Scope::Address, rates.address),
            trusted_proxies,
            policy,
            metrics,
        });
        Self(inner.map(Arc::new))
    }

    /// Whether anything is limited.
    pub(crate) const fn are_on(&self) -> bool {
        self.0.is_some()
    }

    /// Takes one token of the address that a request came from.
    ///
    /// # Errors
    /// `RATE_LIMITED` when there is none.
    pub(crate) fn charge_address(
        &self,
        extensions: &Extensions,
        headers: &HeaderMap,
    ) -> Result<(), Failure> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let address = address::of(extensions, headers, inner.trusted_proxies);
        inner.charge(inner.address.as_ref(), &address, 1, extensions)
    }

    /// Takes a price of a caller's device and of the user. The device comes first: one that asks too much must not use up what the
    /// user's other devices may have.
    ///
    /// # Errors
    /// `RATE_LIMITED` when either has nothing left.
    pub(crate) fn charge_caller(
        &self,
        caller: &Caller,
        price: u32,
        extensions: &Extensions,
    ) -> Result<(), Failure> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let (user, device) = keys(caller);
        inner.charge(inner.device.as_ref(), &device, price, extensions)?;
        inner.charge(inner.user.as_ref(), &user, price, extensions)
    }

    /// As [`Self::charge_caller`], of a frame.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn charge_frame(&self, caller: &Caller, price: u32) -> Result<(), Failure> {
        self.charge_caller(caller, price, &Extensions::new())
    }

    /// Takes a price of what was let in already, whatever is left: what comes next waits for it.
    pub(crate) fn take(&self, caller: &Caller, price: u32) {
        let Some(inner) = &self.0 else { return };
        let (user, device) = keys(caller);
        let now = Instant::now();
        if let Some(buckets) = &inner.device {
            buckets.take(&device, price, now);
        }
        if let Some(buckets) = &inner.user {
            buckets.take(&user, price, now);
        }
    }

    /// Tells the limits, and where the request stands in the tightest of them.
    pub(crate) fn tell(&self, tally: &RequestUsage, headers: &mut HeaderMap) {
        let Some(inner) = &self.0 else { return };
        headers.insert(RATELIMIT_POLICY_HEADER, inner.policy.clone());
        let standing = tally.tightest().and_then(|standing| {
            let scope = standing.scope.as_str();
            let (remaining, reset) = (standing.remaining, standing.reset());
            HeaderValue::from_str(&format!("\"{scope}\";r={remaining};t={reset}")).ok()
        });
        headers.extend(standing.map(|standing| (RATELIMIT_HEADER, standing)));
    }

    /// Forgets buckets that are full again, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let Some(inner) = self.0 else {
            return stop.cancelled().await;
        };
        let mut tick = tokio::time::interval(SWEEP_PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let all = [&inner.user, &inner.device, &inner.address];
            for buckets in all.into_iter().flatten() {
                inner
                    .metrics
                    .buckets(buckets.scope().as_str(), buckets.sweep(Instant::now()));
            }
        }
    }
}

impl Inner {
    fn charge(
        &self,
        buckets: Option<&Buckets>,
        key: &impl std::hash::Hash,
        price: u32,
        extensions: &Extensions,
    ) -> Result<(), Failure> {
        let Some(buckets) = buckets else {
            return Ok(());
        };
        let charged = buckets.charge(key, price, Instant::now());
        let (Ok(standing) | Err(Refusal { standing, .. })) = charged;
        if let Some(tally) = extensions.get::<RequestUsage>() {
            tally.note(standing);
        }
        charged.map(|_standing| ()).map_err(|refusal| {
            self.metrics.refused(standing.scope.as_str());
            refusal.failure()
        })
    }
}

/// Whose buckets a caller's requests are counted in: the user's, and the device's.
fn keys(caller: &Caller) -> ((&str, &str), (&str, &str, &str)) {
    let (tenant, user) = (caller.tenant.as_str(), caller.user.as_str());
    ((tenant, user), (tenant, user, caller.device.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(scope: Scope, per_second: u32, burst: u32, remaining: u32) -> RateLimitState {
        RateLimitState {
            scope,
            rate: Rate::new(per_second, burst).unwrap(),
            remaining,
        }
    }

    #[test]
    fn limit_with_least_share_left_is_told() {
        let user = standing(Scope::User, 50, 200, 100);
        let device = standing(Scope::Device, 25, 100, 60);
        let address = standing(Scope::Address, 100, 400, 0);
        assert_eq!(user.tighter(device), user);
        assert_eq!(device.tighter(user), user);
        assert_eq!(user.tighter(address), address);
        let reset = [user, device, address].map(RateLimitState::reset);
        assert_eq!(reset, [2, 2, 4]);
    }

    #[test]
    fn a_refusal_says_when_to_come_again() {
        let refusal = Refusal {
            standing: standing(Scope::Device, 1, 1, 0),
            wait: Duration::from_micros(1_500_300),
        };
        let failure = refusal.failure();
        assert_eq!(failure.code, Code::RateLimited);
        assert_eq!(failure.retry_after_ms, Some(1500));
        assert_eq!(failure.detail, "too many requests of this device");
    }
}
