//! What the limits are set to.

use std::num::NonZeroU32;
use std::str::FromStr;

use axum::http::HeaderValue;

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// Tokens that come back in a second.
    pub(super) per_second: NonZeroU32,
    /// Tokens of a full bucket.
    pub(super) burst: NonZeroU32,
}

impl Rate {
    pub(super) fn new(per_second: u32, burst: u32) -> Option<Self> {
        Some(Self {
            per_second: NonZeroU32::new(per_second)?,
            burst: NonZeroU32::new(burst)?,
        })
    }
}

/// The limits by user, device and address; one that is not set does not limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimit {
    pub(super) user: Option<Rate>,
    pub(super) device: Option<Rate>,
    pub(super) address: Option<Rate>,
}

/// A text that names no limits.
#[derive(Debug, thiserror::Error)]
#[error(
    "must be off, lenient, strict or one to three of user=R/B, device=R/B, address=R/B: R requests a second (1 to 1000000), B at once"
)]
pub struct BadRateLimit;

impl RateLimit {
    /// The limits as `RateLimit-Policy` names them; none when nothing is limited.
    pub(super) fn policy(&self) -> Option<HeaderValue> {
        let all = [
            ("user", self.user),
            ("device", self.device),
            ("address", self.address),
        ];
        let policies = all.into_iter().filter_map(|(name, rate)| {
            let rate = rate?;
            let window = rate.burst.get().div_ceil(rate.per_second.get());
            Some(format!("\"{name}\";q={};w={window}", rate.burst))
        });
        let text = policies.collect::<Vec<_>>().join(", ");
        HeaderValue::from_str(&text)
            .ok()
            .filter(|policy| !policy.is_empty())
    }
}

impl FromStr for RateLimit {
    type Err = BadRateLimit;

    fn from_str(text: &str) -> Result<Self, BadRateLimit> {
        match text {
            "off" => Ok(Self::default()),
            // A device may come back and read 2,000 conversations over HTTP. An address may be that of a proxy nobody named: it may do what
            // all clients of a gateway do that come back at once.
            "lenient" | "" => "user=200/4000,device=100/2000,address=5000/50000".parse(),
            "strict" => "user=10/40,device=5/20,address=20/80".parse(),
            numbers => read(numbers).ok_or(BadRateLimit),
        }
    }
}

fn read(text: &str) -> Option<RateLimit> {
    let mut limits = RateLimit::default();
    for one in text.split(',') {
        let (name, rate) = one.trim().split_once('=')?;
        let (per_second, burst) = rate.split_once('/')?;
        let place = match name {
            "user" => &mut limits.user,
            "device" => &mut limits.device,
            "address" => &mut limits.address,
            _ => return None,
        };
        let number = |text: &str| text.parse().ok().filter(|number| *number <= 1_000_000);
        let rate = Rate::new(number(per_second)?, number(burst)?)?;
        if place.replace(rate).is_some() {
            return None;
        }
    }
    Some(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Option<String> {
        let limits = text.parse::<RateLimit>().unwrap();
        limits
            .policy()
            .map(|policy| policy.to_str().unwrap().to_owned())
    }

    #[test]
    fn limits_are_named_or_numbered() {
        assert_eq!(policy("off"), None);
        assert_eq!(
            policy("lenient").as_deref(),
            Some(r#""user";q=4000;w=20, "device";q=2000;w=20, "address";q=50000;w=10"#)
        );
        assert_eq!(
            policy("strict").as_deref(),
            Some(r#""user";q=40;w=4, "device";q=20;w=4, "address";q=80;w=4"#)
        );
        assert_eq!(
            policy("user=3/10, address=1/1").as_deref(),
            Some(r#""user";q=10;w=4, "address";q=1;w=1"#)
        );
    }

    #[test]
    fn what_names_no_limits_is_refused() {
        for bad in [
            "none",
            "user",
            "user=1",
            "user=0/1",
            "user=1/0",
            "user=1/1000001",
            "user=-1/1",
            "user=1/1,user=2/2",
            "user=1/1,",
            "king=1/1",
        ] {
            assert!(bad.parse::<RateLimit>().is_err(), "{bad}");
        }
    }
}
