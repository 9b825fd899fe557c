//! Points in time as they stand on the wire: RFC 3339, UTC, milliseconds.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;

/// What four digits of a year can say.
const FIRST_TIME: OffsetDateTime = datetime!(0000-01-01 00:00 UTC);
const LAST_TIME: OffsetDateTime = datetime!(9999-12-31 23:59:59.999 UTC);

/// A point in time with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(OffsetDateTime);

impl Timestamp {
    /// The point in time `at`, cut to its millisecond; one whose year in UTC has no four digits stands at the nearest that has.
    #[must_use]
    pub fn new(at: OffsetDateTime) -> Self {
        let at = match at.checked_to_offset(time::UtcOffset::UTC) {
            Some(at) => at.clamp(FIRST_TIME, LAST_TIME),
            None if at.year() > 0 => LAST_TIME,
            None => FIRST_TIME,
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
    /// By hand: it stands twice in every event, and with the general formatter these two took some 30 % of encoding it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, time) = (self.0.date(), self.0.time());
        let mut text = *b"0000-00-00T00:00:00.000Z";
        put(&mut text[..4], date.year().unsigned_abs());
        put(&mut text[5..7], u8::from(date.month()).into());
        put(&mut text[8..10], date.day().into());
        put(&mut text[11..13], time.hour().into());
        put(&mut text[14..16], time.minute().into());
        put(&mut text[17..19], time.second().into());
        put(&mut text[20..23], time.millisecond().into());
        f.write_str(str::from_utf8(&text).map_err(|_no_digits| fmt::Error)?)
    }
}

/// Writes the last digits of a number, as many as there are places.
fn put(places: &mut [u8], mut number: u32) {
    for place in places.iter_mut().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
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
    use proptest::prelude::*;
    use time::macros::format_description;

    use super::*;

    proptest! {
        #[test]
        fn time_is_formatted_like_general_formatter(
            seconds in FIRST_TIME.unix_timestamp()..=LAST_TIME.unix_timestamp(),
            nanoseconds in 0..1_000_000_000_u32,
        ) {
            let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            let at = at.replace_nanosecond(nanoseconds).unwrap();
            let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
            prop_assert_eq!(Timestamp::new(at).to_string(), at.format(&form).unwrap());
        }
    }

    #[test]
    fn a_timestamp_has_three_digits_and_z() {
        let at: Timestamp = "2026-11-23T10:20:30.1239+01:00".parse().unwrap();
        assert_eq!(at.to_string(), "2026-11-23T09:20:30.123Z");
        assert_eq!(at.to_string().parse::<Timestamp>().unwrap(), at);
    }

    #[test]
    fn time_beyond_four_digit_years_is_clamped() {
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
