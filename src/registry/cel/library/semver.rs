//! Semantic versions (upstream: `apiserver/pkg/cel/library/semverlib.go`).

use super::Native;
use crate::registry::cel::error::Error;
use crate::registry::cel::value::Value;
use std::cmp::Ordering;
use std::sync::Arc;

/// `major.minor.patch-pre+build`; the build counts for nothing when versions are compared.
#[derive(Debug)]
pub struct Version {
    numbers: [u64; 3],
    pre: Vec<Part>,
}

/// A part of what stands after the dash; numbers come before texts.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Text(String),
}

impl Version {
    fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::of("Version string empty"));
        }
        let parts: Vec<&str> = text.splitn(3, '.').collect();
        let [major, minor, rest] = parts[..] else {
            return Err(Error::of("No Major.Minor.Patch elements found"));
        };
        let (rest, build) = match rest.split_once('+') {
            Some((rest, build)) => (rest, Some(build)),
            None => (rest, None),
        };
        let (patch, pre) = match rest.split_once('-') {
            Some((patch, pre)) => (patch, Some(pre)),
            None => (rest, None),
        };
        let number = |name: &str, text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            if !digits {
                return Err(Error::of(format!(
                    "Invalid character(s) found in {name} number {text:?}"
                )));
            }
            if text.len() > 1 && text.starts_with('0') {
                return Err(Error::of(format!(
                    "{name} number must not contain leading zeroes {text:?}"
                )));
            }
            text.parse::<u64>()
                .map_err(|_| Error::of(format!("strconv.ParseUint: parsing {text:?}: value out of range")))
        };
        let allowed = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let mut parsed = Vec::new();
        for part in pre.into_iter().flat_map(|pre| pre.split('.')) {
            if part.is_empty() {
                return Err(Error::of("Prerelease is empty"));
            }
            if part.bytes().all(|byte| byte.is_ascii_digit()) {
                if part.len() > 1 && part.starts_with('0') {
                    let text = format!("Numeric PreRelease version must not contain leading zeroes {part:?}");
                    return Err(Error::of(text));
                }
                parsed.push(Part::Number(part.parse().unwrap_or(u64::MAX)));
            } else if allowed(part) {
                parsed.push(Part::Text(part.to_owned()));
            } else {
                return Err(Error::of(format!("Invalid character(s) found in prerelease {part:?}")));
            }
        }
        for part in build.into_iter().flat_map(|build| build.split('.')) {
            if part.is_empty() {
                return Err(Error::of("Build meta data is empty"));
            }
            if !allowed(part) {
                return Err(Error::of(format!(
                    "Invalid character(s) found in build meta data {part:?}"
                )));
            }
        }
        Ok(Self {
            numbers: [
                number("Major", major)?,
                number("Minor", minor)?,
                number("Patch", patch)?,
            ],
            pre: parsed,
        })
    }

    /// Takes `v1.2` for `1.2.0`.
    fn normalized(text: &str) -> Result<Self, Error> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut parts: Vec<String> = text
            .splitn(3, '.')
            .map(|part| {
                let stripped = part.trim_start_matches('0');
                match stripped.bytes().next() {
                    _ if part.len() <= 1 => part.to_owned(),
                    Some(byte) if byte.is_ascii_digit() => stripped.to_owned(),
                    _ => format!("0{stripped}"),
                }
            })
            .collect();
        if parts.len() < 3 {
            if parts.last().is_some_and(|part| part.contains(['+', '-'])) {
                return Err(Error::of("short version cannot contain PreRelease/Build meta data"));
            }
            parts.resize(3, "0".to_owned());
        }
        Self::parse(&parts.join("."))
    }

    pub fn cmp(&self, other: &Self) -> Ordering {
        let pre = match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre.cmp(&other.pre),
        };
        self.numbers.cmp(&other.numbers).then(pre)
    }
}

/// The order of two quantities or two versions.
pub(super) fn order(arguments: &[Value<'_>]) -> Result<Ordering, Error> {
    match arguments {
        [Value::Quantity(a), Value::Quantity(b)] => Ok(a.cmp(b)),
        [Value::Semver(a), Value::Semver(b)] => Ok((**a).cmp(b)),
        _ => Err(Error::NoSuchOverload),
    }
}

fn read(arguments: &[Value<'_>]) -> Result<Result<Version, Error>, Error> {
    match arguments {
        [Value::String(text)] | [Value::String(text), Value::Bool(false)] => Ok(Version::parse(text)),
        [Value::String(text), Value::Bool(true)] => Ok(Version::normalized(text)),
        _ => Err(Error::NoSuchOverload),
    }
}

fn number<'a>(arguments: &[Value<'a>], at: usize) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::Semver(version)] => Ok(Value::Int(i64::try_from(version.numbers[at]).unwrap_or(i64::MAX))),
        _ => Err(Error::NoSuchOverload),
    }
}

pub(super) fn native(name: &str) -> Option<Native> {
    Some(match name {
        "semver" => |arguments| read(arguments)?.map(|version| Value::Semver(Arc::new(version))),
        "isSemver" => |arguments| Ok(read(arguments)?.is_ok().into()),
        "major" => |arguments| number(arguments, 0),
        "minor" => |arguments| number(arguments, 1),
        "patch" => |arguments| number(arguments, 2),
        _ => return None,
    })
}
