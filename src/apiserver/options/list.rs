//! Options of list, watch and deletecollection (upstream: `ListOptions` and its validation).

use super::{Query, check};
use crate::apiserver::error::ApiError;
use crate::registry::field::FieldError;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    NotOlderThan,
    Exact,
}

#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub label_selector: String,
    pub field_selector: String,
    pub watch: bool,
    pub allow_watch_bookmarks: bool,
    /// As sent: empty, `0` or a revision.
    pub resource_version: String,
    pub resource_version_match: Option<VersionMatch>,
    pub timeout: Option<Duration>,
    /// At most this many items; None is no limit.
    pub limit: Option<usize>,
    /// The continue token.
    pub continue_token: String,
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    /// `watch`: the request is a watch, by parameter or by the old prefix.
    pub fn from_query(query: &Query, watch: bool) -> Result<Self, ApiError> {
        let text = |name| query.get(name).unwrap_or_default().to_owned();
        let mut errors = Vec::new();
        let match_text = text("resourceVersionMatch");
        let resource_version_match = match match_text.as_str() {
            "NotOlderThan" => Some(VersionMatch::NotOlderThan),
            "Exact" => Some(VersionMatch::Exact),
            _ => None,
        };
        let options = Self {
            label_selector: text("labelSelector"),
            field_selector: text("fieldSelector"),
            watch,
            allow_watch_bookmarks: query.flag("allowWatchBookmarks"),
            resource_version: text("resourceVersion"),
            resource_version_match,
            timeout: query.integer("timeoutSeconds")?.and_then(seconds),
            limit: query
                .integer("limit")?
                .and_then(|limit| usize::try_from(limit).ok())
                .filter(|limit| *limit > 0),
            continue_token: text("continue"),
            send_initial_events: query.optional_flag("sendInitialEvents"),
        };
        if watch {
            options.validate_watch(&match_text, &mut errors);
        } else {
            options.validate_list(&match_text, &mut errors);
        }
        check("ListOptions", errors)?;
        Ok(options)
    }

    fn validate_list(&self, match_text: &str, errors: &mut Vec<FieldError>) {
        const FIELD: &str = "resourceVersionMatch";
        let mut forbid = |field, why| errors.push(FieldError::forbidden(field, why));
        if !match_text.is_empty() {
            if self.resource_version.is_empty() {
                forbid(
                    FIELD,
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                );
            }
            if !self.continue_token.is_empty() {
                forbid(FIELD, "resourceVersionMatch is forbidden when continue is provided");
            }
            if self.resource_version_match.is_none() {
                errors.push(FieldError::not_supported(
                    FIELD,
                    match_text,
                    &["Exact", "NotOlderThan", ""],
                ));
            }
            if self.resource_version_match == Some(VersionMatch::Exact) && self.resource_version == "0" {
                let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                errors.push(FieldError::forbidden(FIELD, why));
            }
        }
        if self.send_initial_events.is_some() {
            errors.push(FieldError::forbidden(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            ));
        }
    }

    fn validate_watch(&self, match_text: &str, errors: &mut Vec<FieldError>) {
        const FIELD: &str = "resourceVersionMatch";
        let not_older = self.resource_version_match == Some(VersionMatch::NotOlderThan);
        if self.send_initial_events.is_some() && !not_older {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            errors.push(FieldError::forbidden(FIELD, why));
        }
        if !match_text.is_empty() {
            if self.send_initial_events.is_none() {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.push(FieldError::forbidden(FIELD, why));
            }
            if !not_older {
                errors.push(FieldError::not_supported(FIELD, match_text, &["NotOlderThan"]));
            }
            if !self.continue_token.is_empty() {
                errors.push(FieldError::forbidden(
                    FIELD,
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
        }
    }
}

fn seconds(value: i64) -> Option<Duration> {
    u64::try_from(value)
        .ok()
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(query: &str, watch: bool) -> Option<u16> {
        ListOptions::from_query(&Query::parse(query), watch)
            .err()
            .map(|e| e.code().as_u16())
    }

    #[test]
    fn lists_are_validated() {
        assert_eq!(code("resourceVersion=5&resourceVersionMatch=Exact", false), None);
        for bad in [
            "resourceVersionMatch=Exact",
            "resourceVersion=0&resourceVersionMatch=Exact",
            "resourceVersion=5&resourceVersionMatch=Maybe",
            "resourceVersion=5&resourceVersionMatch=Exact&continue=x",
            "sendInitialEvents=true",
        ] {
            assert_eq!(code(bad, false), Some(422), "{bad}");
        }
        assert_eq!(code("limit=x", false), Some(400));
    }

    #[test]
    fn watches_are_validated() {
        assert_eq!(
            code("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true),
            None
        );
        for bad in [
            "sendInitialEvents=true",
            "resourceVersionMatch=NotOlderThan",
            "sendInitialEvents=true&resourceVersionMatch=Exact",
        ] {
            assert_eq!(code(bad, true), Some(422), "{bad}");
        }
    }
}
