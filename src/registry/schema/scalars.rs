//! Scalars with a syntax of their own: times, base64, quantities (upstream: their `UnmarshalJSON`).
//! Errors are Go's texts.

use crate::quantity::{ParseQuantityError, Quantity};
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine};
use std::borrow::Cow;

/// What a time is when Go's `Time` was never set; it is the same as absent.
pub(crate) const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

const TIME_LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
const MICRO_TIME_LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";

/// RFC 3339 in UTC with whole seconds, as `Time` prints what it read.
pub(crate) fn time(text: &str) -> Result<Cow<'_, str>, String> {
    scan_time(text, false)?;
    if text.len() == ZERO_TIME.len() && text.ends_with('Z') {
        return Ok(Cow::Borrowed(text));
    }
    reprint(text, "%Y-%m-%dT%H:%M:%SZ")
}

/// RFC 3339 in UTC with microseconds, as `MicroTime` prints what it read.
pub(crate) fn micro_time(text: &str) -> Result<Cow<'_, str>, String> {
    scan_time(text, true)?;
    if text.ends_with('Z') {
        return Ok(Cow::Borrowed(text));
    }
    reprint(text, "%Y-%m-%dT%H:%M:%S.%6fZ")
}

fn reprint<'a>(text: &str, format: &str) -> Result<Cow<'a, str>, String> {
    // Go's layout also takes a comma before the fraction.
    let timestamp: jiff::Timestamp = text
        .replace(',', ".")
        .parse()
        .map_err(|error| format!("parsing time {text:?}: {error}"))?;
    Ok(Cow::Owned(timestamp.strftime(format).to_string()))
}

/// Checks `text` against Go's RFC 3339 layout the way `time.Parse` reads it.
fn scan_time(text: &str, micro: bool) -> Result<(), String> {
    let layout = if micro { MICRO_TIME_LAYOUT } else { TIME_LAYOUT };
    let mut rest = text;
    let unlike = |rest: &str, element: &str| {
        Err(format!(
            "parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}"
        ))
    };
    let out_of_range = |what: &str| Err(format!("parsing time {text:?}: {what} out of range"));
    let mut numbers = [0_u32; 6];
    let elements = [
        ("2006", ""),
        ("01", "-"),
        ("02", "-"),
        ("15", "T"),
        ("04", ":"),
        ("05", ":"),
    ];
    for (number, (element, separator)) in numbers.iter_mut().zip(elements) {
        rest = match rest.strip_prefix(separator) {
            Some(rest) => rest,
            None => return unlike(rest, separator),
        };
        match rest
            .get(..element.len())
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
        {
            Some(digits) => *number = digits.parse().unwrap_or_default(),
            None => return unlike(rest, element),
        }
        rest = &rest[element.len()..];
    }
    let [year, month, day, hour, minute, second] = numbers;
    if !(1..=12).contains(&month) {
        return out_of_range("month");
    }
    if day < 1 || day > days_in(year, month) {
        return out_of_range("day");
    }
    for (value, limit, what) in [(hour, 23, "hour"), (minute, 59, "minute"), (second, 59, "second")] {
        if value > limit {
            return out_of_range(what);
        }
    }
    let fraction = match rest.as_bytes() {
        [b'.' | b',', digits @ ..] => digits.iter().take_while(|b| b.is_ascii_digit()).count(),
        _ => 0,
    };
    if micro && fraction != 6 {
        return unlike(rest, ".000000");
    }
    if fraction > 0 {
        rest = &rest[1 + fraction..];
    }
    let zone = rest.as_bytes();
    let digits = |at: &[usize]| at.iter().all(|&i| zone[i].is_ascii_digit());
    let length = match zone.first() {
        Some(b'Z') => 1,
        Some(b'+' | b'-') if zone.len() >= 6 && zone[3] == b':' && digits(&[1, 2, 4, 5]) => 6,
        _ => return unlike(rest, "Z07:00"),
    };
    if length == 6 && (&zone[1..3] > b"24".as_slice() || &zone[4..6] > b"60".as_slice()) {
        return out_of_range("time zone offset");
    }
    match rest.get(length..) {
        Some("") => Ok(()),
        extra => Err(format!(
            "parsing time {text:?}: extra text: {:?}",
            extra.unwrap_or_default()
        )),
    }
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Go's `StdEncoding`: padded, and lenient about the unused bits of the last character.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// base64 as Go prints what it read: without line breaks, unused bits zero. `scratch` is overwritten.
pub(crate) fn base64<'a>(text: &'a str, scratch: &mut Vec<u8>) -> Result<Cow<'a, str>, String> {
    let compact: Cow<'_, str> = if text.contains(['\r', '\n']) {
        text.replace(['\r', '\n'], "").into()
    } else {
        text.into()
    };
    scratch.clear();
    BASE64.decode_vec(compact.as_bytes(), scratch).map_err(|error| {
        let at = match error {
            DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
            DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => compact.trim_end_matches('=').len(),
        };
        format!("illegal base64 data at input byte {at}")
    })?;
    // Unused bits can only be set in the character before padding.
    if compact.ends_with('=') {
        let canonical = BASE64.encode(&scratch);
        if canonical != compact {
            return Ok(Cow::Owned(canonical));
        }
    }
    Ok(compact)
}

const QUANTITY_FORMAT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// A quantity in its canonical text, as `Quantity` prints what it read: `1024Mi` is `1Gi`.
pub(crate) fn quantity(text: &str) -> Result<Cow<'_, str>, String> {
    check_quantity(text)?;
    let parsed: Quantity = text
        .trim()
        .parse()
        .map_err(|error: ParseQuantityError| error.to_string())?;
    let canonical = parsed.to_string();
    Ok(if canonical == text {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(canonical)
    })
}

/// Tells a malformed quantity from one with an unknown suffix.
fn check_quantity(text: &str) -> Result<(), String> {
    let text = text.trim();
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let number = unsigned
        .bytes()
        .take_while(|b| b.is_ascii_digit() || *b == b'.')
        .count();
    let (number, suffix) = unsigned.split_at(number);
    let well_formed = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let digits = well_formed.strip_prefix(['+', '-']).unwrap_or(well_formed);
    if !number.bytes().any(|b| b.is_ascii_digit())
        || number.matches('.').count() > 1
        || !digits.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(QUANTITY_FORMAT.to_owned());
    }
    let exponent = suffix
        .strip_prefix(['e', 'E'])
        .filter(|exponent| exponent.parse::<i32>().is_ok());
    const SUFFIXES: [&str; 16] = [
        "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
    ];
    if exponent.is_none() && !SUFFIXES.contains(&suffix) {
        return Err("unable to parse quantity's suffix".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_reads_them() {
        assert_eq!(time("2026-02-28T23:59:59Z").as_deref(), Ok("2026-02-28T23:59:59Z"));
        assert_eq!(
            time("2026-02-28T23:59:59.987+02:00").as_deref(),
            Ok("2026-02-28T21:59:59Z")
        );
        assert_eq!(
            micro_time("2026-02-28T23:59:59.000001Z").as_deref(),
            Ok("2026-02-28T23:59:59.000001Z")
        );
        assert_eq!(
            micro_time("2026-02-28T01:00:00.500000+02:00").as_deref(),
            Ok("2026-02-27T23:00:00.500000Z")
        );
        for (text, error) in [
            ("x", "as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\""),
            ("", "as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"2006\""),
            (
                "2026-01-02",
                "as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"T\"",
            ),
            (
                "2026-01-02T03:04:05",
                "as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"Z07:00\"",
            ),
        ] {
            assert_eq!(time(text), Err(format!("parsing time {text:?} {error}")));
        }
        assert_eq!(
            time("2026-02-30T00:00:00Z"),
            Err("parsing time \"2026-02-30T00:00:00Z\": day out of range".into())
        );
        assert_eq!(
            time("2026-02-03T00:00:00Zx"),
            Err("parsing time \"2026-02-03T00:00:00Zx\": extra text: \"x\"".into())
        );
        assert!(micro_time("2026-02-03T00:00:00Z").is_err());
        assert!(time("2026-02-0é").is_err());
        assert!(time("2026-01-01T00:00:00+é1:00").is_err());
    }

    #[test]
    fn base64_is_checked_and_made_canonical() {
        let mut scratch = Vec::new();
        assert_eq!(base64("aGVs\nbG8=", &mut scratch).as_deref(), Ok("aGVsbG8="));
        assert_eq!(base64("aGVsbG9=", &mut scratch).as_deref(), Ok("aGVsbG8="));
        assert_eq!(base64("", &mut scratch).as_deref(), Ok(""));
        assert_eq!(
            base64("aGV$", &mut scratch),
            Err("illegal base64 data at input byte 3".into())
        );
        assert_eq!(
            base64("aGVsbG8", &mut scratch),
            Err("illegal base64 data at input byte 7".into())
        );
    }

    #[test]
    fn quantities() {
        for good in ["1", "0.5", "100m", "1Ki", "+3E", "-2e3", "1E-2", "1.", ".5", "12E"] {
            assert!(quantity(good).is_ok(), "{good}");
        }
        for bad in ["", "m", "1 Gi", "1..2", "abc", "1x"] {
            assert_eq!(quantity(bad), Err(QUANTITY_FORMAT.into()), "{bad}");
        }
        assert_eq!(quantity("1024Mi").as_deref(), Ok("1Gi"));
        assert_eq!(quantity("0.5").as_deref(), Ok("500m"));
        assert!(quantity("1Kii").is_err_and(|error| error.contains("suffix")));
    }
}
