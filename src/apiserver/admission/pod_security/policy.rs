//! What the labels of a namespace ask of its pods (upstream: `pod-security-admission/api`). Pure.

use super::checks::{Minor, Pod, Violation, violations};
use crate::registry::field::FieldError;
use crate::registry::json::texts;
use crate::registry::strategy::Object;
use std::fmt;

/// What all those labels begin with.
pub const PREFIX: &str = "pod-security.kubernetes.io/";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level as of a version; None is the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standard {
    level: Level,
    version: Option<Minor>,
}

const OPEN: Standard = Standard {
    level: Level::Privileged,
    version: None,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub enforce: Standard,
    pub warn: Standard,
}

impl Standard {
    pub fn violations(self, pod: Pod<'_>) -> Vec<Violation> {
        if self.level == Level::Privileged {
            return Vec::new();
        }
        let restricted = self.level == Level::Restricted;
        violations(pod, restricted, self.version.unwrap_or(Minor::MAX))
    }

    /// Whether pods that were fine before may not be any more.
    pub fn is_stricter_than(self, old: Self) -> bool {
        let relaxed = self.version == old.version && self.level <= old.level;
        self != old && self.level != Level::Privileged && !relaxed
    }
}

/// `restricted:latest`.
impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            None => write!(f, "{level}:latest"),
            Some(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

impl Policy {
    /// That of a namespace, and what is wrong with its labels: what cannot be read is enforced as strictly as can be, and
    /// not warned of.
    pub fn of(namespace: &Object) -> (Self, Vec<FieldError>) {
        let label = |name: &str| {
            let mut labels = texts(namespace, &["metadata", "labels"]);
            let value = labels.find(|(key, _)| key.strip_prefix(PREFIX) == Some(name));
            value.map(|(_, value)| value.to_owned())
        };
        let mut errors = Vec::new();
        let mut read = |mode: &str| {
            let version_label = format!("{mode}-version");
            let mut check = |name: &str, value: &str, fine: bool, detail: &str| {
                if !fine {
                    let path = format!("metadata.labels[{PREFIX}{name}]");
                    errors.push(FieldError::invalid(&path, value, detail));
                }
            };
            let level = label(mode).map(|text| {
                let level = level(&text);
                let detail = "must be one of privileged, baseline, restricted";
                check(mode, &text, level.is_some(), detail);
                level
            });
            let version = label(&version_label).map(|text| {
                let version = version(&text);
                check(
                    &version_label,
                    &text,
                    version.is_some(),
                    "must be \"latest\" or \"v1.x\"",
                );
                version
            });
            (level, version)
        };
        let (enforce, enforce_version) = read("enforce");
        // Only whether it can be read matters here.
        read("audit");
        let (warn, warn_version) = read("warn");
        let mut policy = Self {
            enforce: OPEN,
            warn: OPEN,
        };
        if let Some(level) = enforce {
            policy.enforce.level = level.unwrap_or(Level::Restricted);
        }
        policy.enforce.version = enforce_version.flatten().flatten();
        policy.warn.level = warn.flatten().unwrap_or(Level::Privileged);
        policy.warn.version = warn_version.flatten().flatten();
        // What is enforced on pods is what their makers are warned of.
        let is_known = enforce.flatten().is_some();
        if warn.is_none() && is_known && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if warn_version.is_none() {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }
}

fn level(text: &str) -> Option<Level> {
    Some(match text {
        "privileged" => Level::Privileged,
        "baseline" => Level::Baseline,
        "restricted" => Level::Restricted,
        _ => return None,
    })
}

/// None if it is no version; the newest is Some(None).
fn version(text: &str) -> Option<Option<Minor>> {
    if text == "latest" {
        return Some(None);
    }
    let digits = text.strip_prefix("v1.")?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let has_zero = digits.len() > 1 && digits.starts_with('0');
    digits.parse().ok().filter(|_| is_number && !has_zero).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_say_what_is_enforced_and_warned_of() {
        for (labels, enforce, warn, wrong) in [
            (json!({}), "privileged:latest", "privileged:latest", 0),
            (
                json!({"enforce": "restricted"}),
                "restricted:latest",
                "restricted:latest",
                0,
            ),
            (
                json!({"enforce": "baseline", "enforce-version": "v1.25"}),
                "baseline:v1.25",
                "baseline:v1.25",
                0,
            ),
            (
                json!({"enforce": "restricted", "warn": "baseline", "warn-version": "v1.30"}),
                "restricted:latest",
                "baseline:v1.30",
                0,
            ),
            (
                json!({"enforce": "strict"}),
                "restricted:latest",
                "privileged:latest",
                1,
            ),
            (
                json!({"enforce": "restricted", "warn": "strict"}),
                "restricted:latest",
                "privileged:latest",
                1,
            ),
            (
                json!({"enforce": "baseline", "enforce-version": "v1.30", "warn-version": "newest"}),
                "baseline:v1.30",
                "baseline:latest",
                1,
            ),
            (
                json!({"warn": "strict", "audit-version": "1.2", "enforce-version": "v1.01"}),
                "privileged:latest",
                "privileged:latest",
                3,
            ),
        ] {
            let mut namespace = json!({"metadata": {"labels": {}}});
            for (key, value) in labels.as_object().unwrap() {
                namespace["metadata"]["labels"][format!("{PREFIX}{key}")] = value.clone();
            }
            let (policy, errors) = Policy::of(namespace.as_object().unwrap());
            assert_eq!(
                (
                    policy.enforce.to_string().as_str(),
                    policy.warn.to_string().as_str(),
                    errors.len()
                ),
                (enforce, warn, wrong),
                "{labels}"
            );
        }
    }

    #[test]
    fn stricter() {
        let of = |level: &str, minor| Standard {
            level: super::level(level).unwrap(),
            version: minor,
        };
        for (new, old, expected) in [
            (of("baseline", None), of("privileged", None), true),
            (of("baseline", None), of("restricted", None), false),
            (of("baseline", None), of("baseline", None), false),
            (of("baseline", Some(30)), of("restricted", None), true),
            (of("privileged", Some(30)), of("privileged", None), false),
        ] {
            assert_eq!(new.is_stricter_than(old), expected, "{new} {old}");
        }
    }
}
