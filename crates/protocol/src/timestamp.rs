//! Points in time as they stand on the wire: RFC 3339, UTC, milliseconds.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::FormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::{datetime, format_description};

const MILLISECONDS: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// What four digits of a year can say.
const FIRST: OffsetDateTime = datetime!(0000-01-01 00:00 UTC);
const LAST: OffsetDateTime = datetime!(9999-12-31 23:59:59.999 UTC);

/// A point in time with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(OffsetDateTime);

impl Timestamp {
    /// The point in time `at`, cut to its millisecond; one whose year in UTC has no four digits stands at the nearest that has.
    #[must_use]
    pub fn new(at: OffsetDateTime) -> Self {
        let at = match at.checked_to_offset(time::UtcOffset::UTC) {
            Some(at) => at.clamp(FIRST, LAST),
            None if at.year() > 0 => LAST,
            None => FIRST,
        };
        Self(at.replace_millisecond(at.millisecond()).unwrap_or(at))
    }

    /// The same for calculations.
    #[must_use]
    pub const fn to_datetime(self) -> OffsetDateTime {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            &self
                .0
                .format(MILLISECONDS)
                .map_err(|_unprintable| fmt::Error)?,
        )
    }
}

impl std::str::FromStr for Timestamp {
    type Err = time::error::Parse;
    fn from_str(text: &str) -> Result<Self, time::error::Parse> {
        OffsetDateTime::parse(text, &Rfc3339).map(Self::new)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_has_three_digits_and_z() {
        let at: Timestamp = "2026-11-23T10:20:30.1239+01:00".parse().unwrap();
        assert_eq!(at.to_string(), "2026-11-23T09:20:30.123Z");
        assert_eq!(at.to_string().parse::<Timestamp>().unwrap(), at);
    }

    #[test]
    fn a_time_beyond_four_digits_of_a_year_in_utc_is_the_nearest_within() {
        let read = |text: &str| text.parse::<Timestamp>().unwrap().to_string();
        assert_eq!(
            read("9999-12-31T23:59:59-23:00"),
            "9999-12-31T23:59:59.999Z"
        );
        assert_eq!(
            read("0000-01-01T00:00:00+23:00"),
            "0000-01-01T00:00:00.000Z"
        );
    }
}
