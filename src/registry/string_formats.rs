//! Formats of strings (upstream: `kube-openapi/pkg/validation/strfmt`, `apiserver/validation/formats.go`).
//! Names are compared without dashes; formats not listed here are ignored.

use super::patterns;
use std::net::{Ipv4Addr, Ipv6Addr};

const STRINGS: &[&str] = &[
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

fn plain(name: &str) -> String {
    name.replace('-', "")
}

/// Whether it is a format of strings that is acted on.
pub fn is_known(name: &str) -> bool {
    STRINGS.contains(&plain(name).as_str())
}

/// Whether the text is of the format.
pub fn matches(name: &str, text: &str) -> bool {
    let regex = |pattern: &str| patterns::compiled(pattern).is_ok_and(|regex| regex.is_match(text));
    match plain(name).as_str() {
        "bsonobjectid" => regex("^[0-9a-fA-F]{24}$"),
        "uri" => is_request_uri(text),
        "email" => is_email(text),
        "hostname" => is_hostname(text),
        "ipv4" => ipv4(text).is_some(),
        "ipv6" => text.contains(':') && ipv6(text).is_some(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" => regex(r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
        "uuid3" => regex(r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
        "uuid4" => regex(r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"),
        "uuid5" => regex(r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => is_credit_card(text),
        "ssn" => text.len() == 11 && regex(r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$"),
        "hexcolor" => regex("^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"),
        "rgbcolor" => regex(
            r"^rgb\([ \t\n\f\r]*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])[ \t\n\f\r]*,[ \t\n\f\r]*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])[ \t\n\f\r]*,[ \t\n\f\r]*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])[ \t\n\f\r]*\)$",
        ),
        "byte" => is_base64(text),
        "date" => is_date(text),
        "duration" => duration(text).is_some(),
        "datetime" => is_date_time(text),
        "k8sshortname" => text.len() <= 63 && regex("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        "k8slongname" => {
            text.len() <= 253 && regex(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
        }
        _ => true,
    }
}

/// Four decimal numbers; leading zeros are tolerated, as Go once did.
fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0_u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

fn ipv6(text: &str) -> Option<Ipv6Addr> {
    text.parse().ok().or_else(|| {
        // The dotted tail of a mapped address may have leading zeros, too.
        let (head, tail) = text.rsplit_once(':')?;
        format!("{head}:{}", ipv4(tail)?).parse().ok()
    })
}

fn is_cidr(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else {
        return false;
    };
    if prefix.is_empty() || prefix.len() > 4 || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let length: u32 = prefix.parse().unwrap_or(u32::MAX);
    (ipv4(address).is_some() && length <= 32) || (address.contains(':') && ipv6(address).is_some() && length <= 128)
}

fn is_mac(text: &str) -> bool {
    let groups = |separator: char, digits: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len())
            && parts
                .iter()
                .all(|part| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10])
}

/// An absolute URI or an absolute path, as Go's `url.ParseRequestURI` takes it.
pub fn is_request_uri(text: &str) -> bool {
    let clean = !text.is_empty() && !text.bytes().any(|byte| byte < b' ' || byte == 0x7f);
    if !clean {
        return false;
    }
    if text == "*" {
        return true;
    }
    let valid_escapes = |text: &str| {
        let bytes = text.as_bytes();
        bytes.iter().enumerate().all(|(at, byte)| {
            *byte != b'%'
                || (bytes.get(at + 1).is_some_and(u8::is_ascii_hexdigit)
                    && bytes.get(at + 2).is_some_and(u8::is_ascii_hexdigit))
        })
    };
    let path_of = |rest: &str| rest.split('?').next().unwrap_or_default().to_owned();
    if text.starts_with('/') {
        return valid_escapes(&path_of(text));
    }
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    let mut letters = scheme.bytes();
    let scheme_ok = letters.next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && letters.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !scheme_ok {
        return false;
    }
    let Some(after) = rest.strip_prefix("//") else {
        // `mailto:x` has an opaque part, which Go takes for a URI with a scheme.
        return true;
    };
    let authority = after.split(['/', '?']).next().unwrap_or_default();
    let host_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    is_host_port(host_port) && valid_escapes(&path_of(after))
}

fn is_host_port(text: &str) -> bool {
    let port_ok = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = text.strip_prefix('[') {
        return rest
            .split_once(']')
            .is_some_and(|(_, tail)| tail.is_empty() || tail.strip_prefix(':').is_some_and(port_ok));
    }
    let host_ok = |host: &str| {
        host.chars()
            .all(|c| c.is_alphanumeric() || !c.is_ascii() || "-_.~!$&'()*+,;=:%[]<>\"".contains(c))
    };
    match text.rsplit_once(':') {
        Some((host, port)) => port_ok(port) && host_ok(host),
        None => host_ok(text),
    }
}

/// `name@host`, also with a display name: `A <a@b>`.
fn is_email(text: &str) -> bool {
    let text = text.trim();
    let address = match text.strip_suffix('>').and_then(|text| text.rsplit_once('<')) {
        Some((_, address)) => address,
        None => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else {
        return false;
    };
    let atom = |text: &str, extra: &str| {
        !text.is_empty()
            && text.split('.').all(|part| {
                !part.is_empty()
                    && part
                        .chars()
                        .all(|c| c.is_alphanumeric() || !c.is_ascii() || extra.contains(c))
            })
    };
    const ATOM: &str = "!#$%&'*+-/=?^_`{|}~";
    let quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
    let literal = domain.starts_with('[') && domain.ends_with(']');
    (quoted || atom(local, ATOM)) && (literal || atom(domain, ATOM))
}

/// One label with at most one dash in second place, or labels with a top-level domain of letters.
fn is_hostname(text: &str) -> bool {
    let of = |pattern: &str, text: &str| patterns::compiled(pattern).is_ok_and(|regex| regex.is_match(text));
    const CHARACTERS: &str = r"^[a-zA-Z0-9\p{S}\p{L}]*$";
    let dashed =
        |label: &str| !label.starts_with('-') && !label.ends_with('-') && of(CHARACTERS, &label.replace('-', ""));
    if text.is_empty() || text.len() > 255 || text.split('.').any(|label| label.is_empty() || label.len() > 63) {
        return false;
    }
    match text.rsplit_once('.') {
        None => {
            let mut rest = text.chars();
            let first = rest.next().map(String::from).unwrap_or_default();
            let rest = rest.as_str();
            of(CHARACTERS, &first) && of(CHARACTERS, rest.strip_prefix('-').unwrap_or(rest))
        }
        Some((labels, top)) => labels.split('.').all(dashed) && of(r"^[a-zA-Z\p{L}]{2,63}$", top),
    }
}

fn is_isbn10(text: &str) -> bool {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace() && *byte != b'-')
        .collect();
    let shape = digits.len() == 10
        && digits[..9].iter().all(u8::is_ascii_digit)
        && (digits[9].is_ascii_digit() || digits[9] == b'X');
    let value = |byte: u8| if byte == b'X' { 10 } else { u32::from(byte - b'0') };
    shape
        && (1..=10)
            .zip(&digits)
            .map(|(weight, digit)| weight * value(*digit))
            .sum::<u32>()
            % 11
            == 0
}

fn is_isbn13(text: &str) -> bool {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace() && *byte != b'-')
        .collect();
    if digits.len() != 13 || !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let sum: u32 = [1, 3]
        .iter()
        .cycle()
        .zip(&digits[..12])
        .map(|(weight, digit)| weight * u32::from(digit - b'0'))
        .sum();
    u32::from(digits[12] - b'0') == (10 - sum % 10) % 10
}

fn is_credit_card(text: &str) -> bool {
    const PATTERN: &str = "^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$";
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let number = u32::from(digit - b'0') * (1 + at as u32 % 2);
            if number >= 10 { number % 10 + 1 } else { number }
        })
        .sum();
    patterns::compiled(PATTERN).is_ok_and(|regex| regex.is_match(&digits)) && sum.is_multiple_of(10)
}

fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let padding = text.len() - body.len();
    !text.is_empty()
        && text.len().is_multiple_of(4)
        && padding <= 2
        && body
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte))
}

pub fn is_date(text: &str) -> bool {
    text.len() == 10 && text.is_ascii() && text.parse::<jiff::civil::Date>().is_ok()
}

fn is_date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let mut parts = lower.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else {
        return false;
    };
    is_date(date)
        && patterns::compiled(r"^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$")
            .ok()
            .and_then(|regex| {
                let found = regex.captures(time)?;
                Some(&found[1] <= "23" && &found[2] <= "59" && &found[3] <= "59")
            })
            .unwrap_or_default()
}

/// Nanoseconds of a Go duration, or of a sum of numbers with units as Scala writes them (`3 days`).
pub fn duration(text: &str) -> Option<i64> {
    go_duration(text).or_else(|| scala_duration(text))
}

/// `1h30m`, `-1.5s`, `300ms`.
pub fn go_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let whole_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let whole = &rest[..whole_end];
        rest = &rest[whole_end..];
        let mut fraction = "";
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            fraction = &after[..end];
            rest = &after[end..];
        }
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_end = rest
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit: i128 = match &rest[..unit_end] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        rest = &rest[unit_end..];
        let whole: i128 = if whole.is_empty() {
            0
        } else {
            whole.parse::<u64>().ok()?.into()
        };
        nanos += whole * unit;
        // Digits beyond the eighteenth are below a nanosecond for every unit.
        let digits = &fraction[..fraction.len().min(18)];
        if !digits.is_empty() {
            let ten = 10_i128.pow(digits.len() as u32);
            nanos += digits.parse::<i128>().ok()? * unit / ten;
        }
    }
    i64::try_from(if negative { -nanos } else { nanos }).ok()
}

fn scala_duration(text: &str) -> Option<i64> {
    const UNITS: &[(&[&str], i128)] = &[
        (&["ns", "nano"], 1),
        (&["us", "µs", "micro"], 1_000),
        (&["ms", "milli"], 1_000_000),
        (&["s", "sec"], 1_000_000_000),
        (&["m", "min"], 60_000_000_000),
        (&["h", "hr", "hour"], 3_600_000_000_000),
        (&["d", "day"], 86_400_000_000_000),
        (&["w", "wk", "week"], 604_800_000_000_000),
    ];
    let regex = patterns::compiled(r"([0-9]+)[ \t\n\f\r]*([A-Za-zµ]+)").ok()?;
    let mut nanos = None;
    for found in regex.captures_iter(text) {
        let factor: i128 = found[1].parse::<i64>().ok()?.into();
        let unit = found[2].to_lowercase();
        for (names, multiplier) in UNITS {
            for (at, name) in names.iter().enumerate() {
                // The last name of a unit stands for all that begin with it: `seconds`, `secs`.
                if unit == *name || (at + 1 == names.len() && unit.starts_with(name)) {
                    nanos = Some(nanos.unwrap_or(0) + factor * multiplier);
                    break;
                }
            }
        }
    }
    nanos.map(|nanos: i128| nanos.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
}
