//! Resource quantities: parsing, canonical text and arithmetic (upstream: `apimachinery/pkg/api/resource`).
//! A leaf, open to all: API server, scheduler and node agent reckon with the same figures.

use std::fmt;
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
/// Values beyond this are capped, as upstream caps at 2^63-1 of the largest unit it must hold.
const UNITS_MAX: i128 = i64::MAX as i128;

/// How the quantity was written, which its canonical text keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `500m`, `2k`
    DecimalSi,
    /// `1Gi`
    BinarySi,
    /// `1e3`
    DecimalExponent,
}

/// A fixed-point number with a resolution of one nano (10^-9), rounded up as upstream rounds.
///
/// Equal and ordered by amount: `1Gi` is `1073741824`.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct ParseQuantityError;

impl Quantity {
    pub const ZERO: Quantity = Quantity {
        nanos: 0,
        format: Format::DecimalSi,
    };

    /// Whole units, in the given format.
    pub fn from_units(units: i64, format: Format) -> Self {
        Self {
            nanos: i128::from(units) * NANO,
            format,
        }
    }
    /// Thousandths (millicores).
    pub fn from_milli(milli: i64) -> Self {
        Self {
            nanos: i128::from(milli) * (NANO / 1000),
            format: Format::DecimalSi,
        }
    }
    /// In whole units, rounded up, capped at `i64`.
    pub fn value(self) -> i64 {
        clamp(div_ceil(self.nanos, NANO))
    }
    /// In thousandths, rounded up, capped at `i64`.
    pub fn milli_value(self) -> i64 {
        clamp(div_ceil(self.nanos, NANO / 1000))
    }
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }
    /// No digits below one unit.
    pub fn is_integer(self) -> bool {
        self.nanos % NANO == 0
    }
    /// The nearest float.
    pub fn approximate(self) -> f64 {
        self.nanos as f64 / NANO as f64
    }
    pub fn format(self) -> Format {
        self.format
    }
    /// Rounded up to thousandths, as the API server keeps resources.
    #[must_use]
    pub fn rounded_to_milli(self) -> Self {
        let milli = NANO / 1000;
        Self {
            nanos: div_ceil(self.nanos, milli) * milli,
            ..self
        }
    }
    /// The sum, in the format of `self` unless that is zero.
    pub fn plus(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self {
            nanos: self.nanos.saturating_add(other.nanos),
            format,
        }
    }
    pub fn minus(self, other: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_sub(other.nanos),
            format: self.format,
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn clamp(value: i128) -> i64 {
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// Rounds away from zero, as upstream's ScaledValue does.
fn div_ceil(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    match value % by {
        0 => quotient,
        rest if rest > 0 => quotient + 1,
        _ => quotient - 1,
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(ParseQuantityError),
        };
        let digits_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(digits_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(ParseQuantityError);
        }
        let (multiplier, format) = parse_suffix(suffix)?;
        let nanos = scale(whole, fraction, multiplier);
        Ok(Self {
            nanos: if negative { -nanos } else { nanos },
            format,
        })
    }
}

/// A multiplier as numerator: `base^exponent`.
#[derive(Clone, Copy)]
enum Multiplier {
    Power10(i32),
    Power2(u32),
}

fn parse_suffix(suffix: &str) -> Result<(Multiplier, Format), ParseQuantityError> {
    use Format::*;
    use Multiplier::*;
    Ok(match suffix {
        "" => (Power10(0), DecimalSi),
        "n" => (Power10(-9), DecimalSi),
        "u" => (Power10(-6), DecimalSi),
        "m" => (Power10(-3), DecimalSi),
        "k" => (Power10(3), DecimalSi),
        "M" => (Power10(6), DecimalSi),
        "G" => (Power10(9), DecimalSi),
        "T" => (Power10(12), DecimalSi),
        "P" => (Power10(15), DecimalSi),
        "E" => (Power10(18), DecimalSi),
        "Ki" => (Power2(10), BinarySi),
        "Mi" => (Power2(20), BinarySi),
        "Gi" => (Power2(30), BinarySi),
        "Ti" => (Power2(40), BinarySi),
        "Pi" => (Power2(50), BinarySi),
        "Ei" => (Power2(60), BinarySi),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or(ParseQuantityError)?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(ParseQuantityError);
            }
            // Beyond these figures everything is zero or the cap anyway.
            let size = digits.parse::<i32>().unwrap_or(1000).min(1000);
            (
                Power10(if exponent.starts_with('-') { -size } else { size }),
                DecimalExponent,
            )
        }
    })
}

/// `whole.fraction` times the multiplier, in nanos, rounded up and capped.
fn scale(whole: &str, fraction: &str, multiplier: Multiplier) -> i128 {
    let whole = whole.trim_start_matches('0');
    let cap = UNITS_MAX * NANO;
    let significant = whole.len() + fraction.len();
    if significant == 0 || whole.bytes().chain(fraction.bytes()).all(|b| b == b'0') {
        return 0;
    }
    // Digits as an integer times 10^-fraction.len(). More than 27 digits: the tail only matters for rounding up.
    let mut mantissa: i128 = 0;
    let mut exponent = -(fraction.len() as i64);
    let mut inexact = false;
    let mut taken = 0;
    for byte in whole.bytes().chain(fraction.bytes()) {
        if taken < 27 {
            mantissa = mantissa * 10 + i128::from(byte - b'0');
            // Zeros before the first digit that counts take no room.
            taken += usize::from(mantissa != 0);
        } else {
            inexact |= byte != b'0';
            exponent += 1;
        }
    }
    let power = match multiplier {
        Multiplier::Power10(power) => {
            exponent += i64::from(power);
            0
        }
        Multiplier::Power2(power) => power,
    };
    if exponent > 30 {
        return cap;
    }
    let mut value = Some(mantissa);
    let mut round_up = inexact;
    // First divide what is far below a nano, then multiply: nothing overflows unseen.
    let mut exponent = exponent + 9;
    while exponent > 0 {
        value = value.and_then(|v| v.checked_mul(10));
        exponent -= 1;
    }
    value = value.and_then(|v| v.checked_mul(1i128 << power));
    let Some(mut value) = value else {
        return if exponent >= 0 {
            cap
        } else {
            slow_scale(mantissa, exponent, power)
        };
    };
    while exponent < 0 {
        if value == 0 {
            round_up = true;
            break;
        }
        round_up |= value % 10 != 0;
        value /= 10;
        exponent += 1;
    }
    (value + i128::from(round_up)).min(cap)
}

/// For mantissas so long that the binary multiplier overflows: drop digits first. Exact to well below a nano.
fn slow_scale(mut mantissa: i128, mut exponent: i64, power: u32) -> i128 {
    let cap = UNITS_MAX * NANO;
    while exponent < 0 && mantissa.checked_mul(1i128 << power).is_none() {
        mantissa = mantissa / 10 + i128::from(mantissa % 10 != 0);
        exponent += 1;
    }
    let Some(mut value) = mantissa.checked_mul(1i128 << power) else {
        return cap;
    };
    while exponent < 0 {
        value = value / 10 + i128::from(value % 10 != 0);
        exponent += 1;
    }
    value.min(cap)
}

impl fmt::Display for Quantity {
    /// The canonical text: the largest suffix that loses no digit; binary quantities below 1024 and with
    /// fractions are written in decimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let binary = self.format == Format::BinarySi && self.is_integer() && self.nanos.abs() >= 1024 * NANO;
        if binary {
            let mut value = self.nanos / NANO;
            let mut suffix = 0;
            while value % 1024 == 0 && suffix < 6 {
                value /= 1024;
                suffix += 1;
            }
            return write!(f, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][suffix]);
        }
        let mut value = self.nanos;
        let mut exponent = -9;
        while value % 1000 == 0 && exponent < 18 {
            value /= 1000;
            exponent += 3;
        }
        let suffix = match (self.format, exponent) {
            (_, 0) => String::new(),
            (Format::DecimalExponent, e) => format!("e{e}"),
            (_, -9) => "n".into(),
            (_, -6) => "u".into(),
            (_, -3) => "m".into(),
            (_, 3) => "k".into(),
            (_, 6) => "M".into(),
            (_, 9) => "G".into(),
            (_, 12) => "T".into(),
            (_, 15) => "P".into(),
            (_, _) => "E".into(),
        };
        write!(f, "{value}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_text() {
        for (given, canonical) in [
            ("0", "0"),
            ("0.5", "500m"),
            ("1024Mi", "1Gi"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1000", "1k"),
            ("1.5Gi", "1536Mi"),
            ("100Ki", "100Ki"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("12345e-3", "12345e-3"),
            ("+3", "3"),
            ("-2Gi", "-2Gi"),
            (".5", "500m"),
            ("5.", "5"),
            ("0.0000000001", "1n"),
            ("1.0000000000000000000000000000001", "1000000001n"),
            ("0.3Ki", "307200m"),
            ("1E", "1E"),
            ("100Ei", "9223372036854775807"),
            ("123456789012345678901234567890", "9223372036854775807"),
            ("0.000000000000000000000000000001e30", "1"),
            ("1e-400", "1e-9"),
        ] {
            assert_eq!(given.parse::<Quantity>().unwrap().to_string(), canonical, "{given}");
        }
    }

    #[test]
    fn bad_text() {
        for given in [
            "", "-", "1.2.3", "abc", "1Zi", "1 Gi", "1e", "1e+", ".", "1ki", "0x10", "1Gi ",
        ] {
            assert_eq!(given.parse::<Quantity>(), Err(ParseQuantityError), "{given:?}");
        }
    }

    #[test]
    fn figures() {
        let parse = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!(parse("250m").milli_value(), 250);
        assert_eq!(parse("250m").value(), 1);
        assert_eq!(parse("2").milli_value(), 2000);
        assert_eq!(parse("1Gi").value(), 1 << 30);
        assert!(parse("1Gi") > parse("1G"));
        assert_eq!(parse("1Gi"), parse("1073741824"));
        assert_eq!(parse("0.0005").rounded_to_milli().to_string(), "1m");
        assert_eq!(parse("1Gi").plus(parse("1Gi")).to_string(), "2Gi");
        assert_eq!(parse("9e99").value(), i64::MAX);
        assert_eq!(parse("99999999999999999999999999999999999Ei").value(), i64::MAX);
        assert!(parse("-1").is_negative());
    }
}
