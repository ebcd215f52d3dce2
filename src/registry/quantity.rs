//! Quantities: parsing, comparing and the canonical form that is stored (upstream: `apimachinery/pkg/api/resource`).

use std::cmp::Ordering;
use std::fmt;

/// Which suffixes a quantity was written with, and is printed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12M`
    Decimal,
    /// `12Mi`
    Binary,
}

/// A number with up to nine decimal places, at most 2^63-1, and how it is printed.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// Billionths. Within ±(2^63-1)·10^9, so sums of a pod's containers cannot overflow.
    nanos: i128,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANOS: i128 = 1_000_000_000;
const NANOS_MAX: i128 = i64::MAX as i128 * NANOS;
/// More digits than this cannot change the result, which is capped.
const EXPONENT_MAX: i32 = 60;

impl Quantity {
    pub const ZERO: Quantity = Quantity {
        nanos: 0,
        format: Format::Decimal,
    };

    /// Parses a quantity. Fractions below a billionth are rounded away from zero, large numbers capped.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError::Format);
        }
        let (base, exponent, format) = parse_suffix(suffix)?;
        let magnitude = scale(whole, fraction, base, exponent);
        Ok(Self {
            nanos: if negative { -magnitude } else { magnitude },
            format,
        })
    }

    /// A JSON value as clients send it: a string, or a plain number.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, QuantityError> {
        match value {
            serde_json::Value::String(text) => Self::parse(text),
            serde_json::Value::Number(number) => Self::parse(&number.to_string()),
            _ => Err(QuantityError::Format),
        }
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// A whole number without a fraction.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANOS == 0
    }

    /// Rounded away from zero.
    pub fn value(&self) -> i64 {
        i64::try_from(div_away(self.nanos, NANOS)).unwrap_or(i64::MAX)
    }

    /// Thousandths, rounded away from zero, capped.
    pub fn milli_value(&self) -> i64 {
        i64::try_from(div_away(self.nanos, NANOS / 1000)).unwrap_or(i64::MAX)
    }

    /// Rounded away from zero to thousandths, as upstream stores resources.
    #[must_use]
    pub fn rounded_to_milli(self) -> Self {
        let milli = NANOS / 1000;
        Self {
            nanos: div_away(self.nanos, milli) * milli,
            ..self
        }
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            nanos: (self.nanos + other.nanos).clamp(-NANOS_MAX, NANOS_MAX),
            format: if self.is_zero() { other.format } else { self.format },
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// The canonical form: no fraction, the largest suffix that keeps it so.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        // Small or fractional numbers cannot be written with binary suffixes without loss.
        if self.format == Format::Binary && self.is_whole() && self.nanos.abs() >= 1024 * NANOS {
            let mut number = self.nanos / NANOS;
            let mut steps = 0;
            while number % 1024 == 0 && steps < 6 {
                number /= 1024;
                steps += 1;
            }
            return write!(f, "{number}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][steps]);
        }
        let mut number = self.nanos;
        let mut exponent = -9;
        while number % 1000 == 0 && exponent < 18 {
            number /= 1000;
            exponent += 3;
        }
        match self.format {
            Format::DecimalExponent if exponent == 0 => write!(f, "{number}"),
            Format::DecimalExponent => write!(f, "{number}e{exponent}"),
            Format::Decimal | Format::Binary => {
                let suffix = match exponent {
                    -9 => "n",
                    -6 => "u",
                    -3 => "m",
                    0 => "",
                    3 => "k",
                    6 => "M",
                    9 => "G",
                    12 => "T",
                    15 => "P",
                    _ => "E",
                };
                write!(f, "{number}{suffix}")
            }
        }
    }
}

/// Base, exponent and format of a suffix.
fn parse_suffix(suffix: &str) -> Result<(u32, i32, Format), QuantityError> {
    let known = match suffix {
        "" => (10, 0, Format::Decimal),
        "n" => (10, -9, Format::Decimal),
        "u" => (10, -6, Format::Decimal),
        "m" => (10, -3, Format::Decimal),
        "k" => (10, 3, Format::Decimal),
        "M" => (10, 6, Format::Decimal),
        "G" => (10, 9, Format::Decimal),
        "T" => (10, 12, Format::Decimal),
        "P" => (10, 15, Format::Decimal),
        "E" => (10, 18, Format::Decimal),
        "Ki" => (2, 10, Format::Binary),
        "Mi" => (2, 20, Format::Binary),
        "Gi" => (2, 30, Format::Binary),
        "Ti" => (2, 40, Format::Binary),
        "Pi" => (2, 50, Format::Binary),
        "Ei" => (2, 60, Format::Binary),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or_else(|| bad_suffix(suffix))?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(bad_suffix(suffix));
            }
            let exponent: i32 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
            (10, exponent, Format::DecimalExponent)
        }
    };
    Ok(known)
}

/// Characters outside of the regular expression are another error than an unknown suffix.
fn bad_suffix(suffix: &str) -> QuantityError {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    if rest.bytes().all(|byte| byte.is_ascii_digit()) {
        QuantityError::Suffix
    } else {
        QuantityError::Format
    }
}

/// `whole.fraction × base^exponent` in billionths, rounded away from zero and capped.
fn scale(whole: &str, fraction: &str, base: u32, exponent: i32) -> i128 {
    let mut mantissa: i128 = 0;
    let mut dropped = false;
    // Decimal places still to be divided by, after all digits were read.
    let mut places: i32 = 0;
    for (in_fraction, digit) in whole
        .bytes()
        .map(|d| (false, d))
        .chain(fraction.bytes().map(|d| (true, d)))
    {
        let digit = i128::from(digit - b'0');
        // 27 digits are more than a number at the cap with all its billionths has.
        if mantissa < 10_i128.pow(27) {
            mantissa = mantissa * 10 + digit;
            places += i32::from(in_fraction);
        } else {
            dropped |= digit != 0;
            places -= i32::from(!in_fraction);
        }
    }
    if mantissa == 0 {
        return 0;
    }
    let (binary, decimal) = if base == 2 { (exponent, 0) } else { (0, exponent) };
    let decimal = decimal.saturating_add(9).saturating_sub(places);
    let mut result = mantissa;
    if decimal < 0 {
        // Binary first: it never rounds, and 2^60 fits beside the digits only after the division.
        result = match result
            .checked_shl(binary.unsigned_abs())
            .filter(|shifted| shifted >> binary == result)
        {
            Some(shifted) => div_up(shifted, decimal, dropped),
            None => return NANOS_MAX,
        };
        return result.min(NANOS_MAX);
    }
    if dropped {
        result += 1;
    }
    for _ in 0..decimal.min(EXPONENT_MAX) {
        result = result.saturating_mul(10);
    }
    for _ in 0..binary {
        result = result.saturating_mul(2);
    }
    result.min(NANOS_MAX)
}

/// Divides by 10^-decimal, rounding away from zero.
fn div_up(number: i128, decimal: i32, dropped: bool) -> i128 {
    let divisor = 10_i128.checked_pow(decimal.unsigned_abs()).unwrap_or(i128::MAX);
    let (quotient, remainder) = (number / divisor, number % divisor);
    quotient + i128::from(remainder != 0 || dropped)
}

fn div_away(number: i128, divisor: i128) -> i128 {
    let quotient = number / divisor;
    if number % divisor == 0 {
        quotient
    } else {
        quotient + number.signum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_is_upstreams() {
        let cases = [
            ("0", "0"),
            ("0.5", "500m"),
            ("1024Mi", "1Gi"),
            ("1Gi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("512", "512"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("1000m", "1"),
            ("100m", "100m"),
            ("1.5Gi", "1536Mi"),
            ("0.1Ki", "102400m"),
            ("1023", "1023"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("1E", "1E"),
            ("9E", "9E"),
            ("0.0000000001", "1n"),
            ("-0.5", "-500m"),
            ("+7", "7"),
            (".5", "500m"),
            ("5.", "5"),
            ("123456789012345678901234567890", "9223372036854775807"),
            ("1e400", "9223372036854775807"),
            ("100Ei", "9223372036854775807"),
            ("0.000000000000000000000000000001e30", "1"),
            ("1e-400", "1e-9"),
            ("2147483648", "2147483648"),
            ("129e6", "129e6"),
            ("128974848", "128974848"),
            ("123Mi", "123Mi"),
        ];
        for (text, expected) in cases {
            let quantity = Quantity::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(quantity.to_string(), expected, "{text}");
            let again = Quantity::parse(expected).unwrap_or_else(|error| panic!("{expected}: {error}"));
            assert_eq!(again, quantity, "{text} after a round trip");
            assert_eq!(again.to_string(), expected, "{text} is stable");
        }
    }

    #[test]
    fn bad_quantities_are_refused() {
        let format = [
            "", "-", ".", "1.2.3", "abc", "1 Gi", "1é", "--1", " 1", "1mi!", "0x10", "1Gi ", "½",
        ];
        for text in format {
            assert_eq!(Quantity::parse(text), Err(QuantityError::Format), "{text:?}");
        }
        for text in ["1Zi", "1mi", "1ki", "1e", "1e+", "1kk", "1K", "1ee3", "1e99999999999"] {
            let error = Quantity::parse(text);
            assert!(error.is_err(), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn rounding_and_sums() {
        let parse = |text: &str| Quantity::parse(text).expect("a quantity");
        assert_eq!(parse("1.0001").milli_value(), 1001);
        assert_eq!(parse("1.0001").value(), 2);
        assert_eq!(parse("-1.5").value(), -2);
        assert_eq!(parse("0.0005").rounded_to_milli().to_string(), "1m");
        assert_eq!(parse("1Gi").plus(parse("1Gi")).to_string(), "2Gi");
        assert!(parse("1Gi") > parse("1G"));
        assert_eq!(parse("1"), parse("1000m"));
    }
}
