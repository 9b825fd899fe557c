//! Numbers of JSON, compared as they are written. Nothing is allocated but where two differ as decimals.

/// No double has more significant digits.
const MAX_DOUBLE_DIGITS: usize = 767;

/// Returns true if a text is a number of JSON, or close to one: it is known to be JSON.
pub(super) fn is_one(text: &str) -> bool {
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (_, whole, fraction, power) = parts(text);
    let power = power.strip_prefix(['+', '-']).unwrap_or(power);
    let all = [whole, fraction, power];
    !whole.is_empty() && !power.is_empty() && all.into_iter().all(is_digits)
}

/// Returns true if a number is written as an integer that neither 64 bits nor a double hold. A double's correctly rounded decimal digits stand for the double.
pub(in crate::json) fn is_beyond_64_bits(text: &str) -> bool {
    if text.contains(['.', 'e', 'E']) || text.parse::<u64>().is_ok() || text.parse::<i64>().is_ok()
    {
        return false;
    }
    let double = text.parse::<f64>();
    !double.is_ok_and(|double| is_same(text, &format!("{double:e}")))
}

/// Returns true if two numbers are one.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    let (Some(one_decimal), Some(other_decimal)) = (Decimal::read(one), Decimal::read(other))
    else {
        return false;
    };
    let is_integer = |text: &str| !text.contains(['.', 'e', 'E']);
    if one_decimal.is_same(&other_decimal) {
        return true;
    }
    if is_integer(one) && is_integer(other) {
        return false;
    }
    let (Ok(one), Ok(other)) = (one.parse::<f64>(), other.parse::<f64>()) else {
        return false;
    };
    one == other && one_decimal.is_writing_of(one) && other_decimal.is_writing_of(other)
}

/// Appends the one form of all writings of a number. Two have the same form only where they are [`is_same`]. An integer has its own digits, also
/// where a double is near.
pub(super) fn write(text: &str, out: &mut String) {
    let Some(decimal) = Decimal::read(text) else {
        out.push_str(text);
        return;
    };
    let is_integer = !text.contains(['.', 'e', 'E']);
    let double = text.parse::<f64>().ok().filter(|_| !is_integer);
    let double = double.filter(|double| decimal.is_writing_of(*double));
    let shortest = double.map(|double| format!("{double:e}"));
    let shortest = shortest.as_deref().and_then(Decimal::read);
    shortest.unwrap_or(decimal).write(out);
}

/// The sign, the digits before and behind the point, and the power of ten.
fn parts(text: &str) -> (bool, &str, &str, &str) {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, power) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    (unsigned.len() < text.len(), whole, fraction, power)
}

/// The digits of a number without zeros at either end, in two pieces, and the power of ten of the last one. Zero has no digits.
struct Decimal<'a> {
    is_negative: bool,
    whole: &'a str,
    fraction: &'a str,
    exponent: i64,
}

impl<'a> Decimal<'a> {
    /// None of a number whose power is beyond all measure: it is the same as its own text alone.
    fn read(text: &'a str) -> Option<Self> {
        let (is_negative, all_whole, fraction, power) = parts(text);
        let fraction = fraction.trim_end_matches('0');
        let mut whole = all_whole.trim_start_matches('0');
        let mut exponent = power.parse::<i64>().ok()?;
        exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        if fraction.is_empty() {
            let all = whole.len();
            whole = whole.trim_end_matches('0');
            exponent = exponent.checked_add(i64::try_from(all - whole.len()).ok()?)?;
        }
        let is_zero = whole.is_empty() && fraction.is_empty();
        Some(Self {
            is_negative: is_negative && !is_zero,
            whole,
            fraction: if whole.is_empty() {
                fraction.trim_start_matches('0')
            } else {
                fraction
            },
            exponent: if is_zero { 0 } else { exponent },
        })
    }

    fn count(&self) -> usize {
        self.whole.len() + self.fraction.len()
    }

    fn is_same(&self, other: &Decimal<'_>) -> bool {
        let digits = self.whole.bytes().chain(self.fraction.bytes());
        self.is_negative == other.is_negative
            && self.exponent == other.exponent
            && self.count() == other.count()
            && digits.eq(other.whole.bytes().chain(other.fraction.bytes()))
    }

    fn write(&self, out: &mut String) {
        out.push_str(if self.is_negative { "-" } else { "" });
        out.push_str(self.whole);
        out.push_str(self.fraction);
        if self.count() == 0 {
            out.push('0');
        }
        if self.exponent != 0 {
            out.push('e');
            out.push_str(&self.exponent.to_string());
        }
    }

    /// Returns true if this is what the double is rounded to, at as many digits as stand here, or its shortest form.
    fn is_writing_of(&self, number: f64) -> bool {
        let count = self.count();
        if !number.is_finite() || !(1..=MAX_DOUBLE_DIGITS).contains(&count) {
            return false;
        }
        let precision = count - 1;
        let is_self = |written: &str| Decimal::read(written).is_some_and(|one| one.is_same(self));
        // The shortest form of a double that lies between two others of that length need not be the one that it is rounded to.
        is_self(&format!("{number:.precision$e}")) || is_self(&format!("{number:e}"))
    }
}
