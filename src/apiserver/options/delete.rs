//! Options of delete and deletecollection: from the body, or without one from the query
//! (upstream: `DeleteOptions` and its validation).

use super::{Query, check, dry_run};
use crate::apiserver::error::ApiError;
use crate::registry::field::FieldError;
use serde::Deserialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropagationPolicy {
    Orphan,
    Background,
    Foreground,
}

impl PropagationPolicy {
    pub fn name(self) -> &'static str {
        match self {
            Self::Orphan => "Orphan",
            Self::Background => "Background",
            Self::Foreground => "Foreground",
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub propagation: Option<PropagationPolicy>,
    /// `orphanDependents: false`: who says so is told if the object is still there.
    pub cascades: bool,
    pub dry_run: bool,
}

/// The wire form.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    kind: Option<String>,
    grace_period_seconds: Option<i64>,
    preconditions: Option<Preconditions>,
    orphan_dependents: Option<bool>,
    propagation_policy: Option<String>,
    dry_run: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

impl DeleteOptions {
    pub fn from_query(query: &Query) -> Result<Self, ApiError> {
        let dry_run: Vec<String> = query
            .all("dryRun")
            .filter(|v| !v.is_empty())
            .map(str::to_owned)
            .collect();
        Self::from_wire(Wire {
            grace_period_seconds: query.integer("gracePeriodSeconds")?,
            orphan_dependents: query.optional_flag("orphanDependents"),
            propagation_policy: query.get("propagationPolicy").map(str::to_owned),
            dry_run: Some(dry_run),
            ..Wire::default()
        })
    }

    /// `body` is the decoded body.
    pub fn from_body(body: serde_json::Value) -> Result<Self, ApiError> {
        let wire: Wire = serde_json::from_value(body)
            .map_err(|e| ApiError::bad_request(format!("unable to decode the body as DeleteOptions: {e}")))?;
        match wire.kind.as_deref() {
            None | Some("" | "DeleteOptions") => Self::from_wire(wire),
            Some(_) => Err(ApiError::bad_request(
                "decoded object cannot be converted to DeleteOptions",
            )),
        }
    }

    fn from_wire(wire: Wire) -> Result<Self, ApiError> {
        let mut errors = Vec::new();
        let policy = wire.propagation_policy.filter(|policy| !policy.is_empty());
        if wire.orphan_dependents.is_some() && policy.is_some() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid("propagationPolicy", policy.clone(), why));
        }
        let propagation = match policy.as_deref() {
            Some("Orphan") => Some(PropagationPolicy::Orphan),
            Some("Background") => Some(PropagationPolicy::Background),
            Some("Foreground") => Some(PropagationPolicy::Foreground),
            Some(other) => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(FieldError::not_supported("propagationPolicy", other, &supported));
                None
            }
            None => match wire.orphan_dependents {
                Some(true) => Some(PropagationPolicy::Orphan),
                Some(false) => Some(PropagationPolicy::Background),
                None => None,
            },
        };
        let dry_run = dry_run(&wire.dry_run.unwrap_or_default(), &mut errors);
        check("DeleteOptions", errors)?;
        let preconditions = wire.preconditions.unwrap_or_default();
        Ok(Self {
            grace_period_seconds: wire.grace_period_seconds,
            uid: preconditions.uid,
            resource_version: preconditions.resource_version,
            propagation,
            cascades: wire.orphan_dependents == Some(false),
            dry_run,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bodies_and_queries() {
        let body = json!({"kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": "u"}});
        let options = DeleteOptions::from_body(body).unwrap();
        assert_eq!(
            (options.grace_period_seconds, options.uid.as_deref()),
            (Some(0), Some("u"))
        );
        let options = DeleteOptions::from_query(&Query::parse("propagationPolicy=Orphan&dryRun=All")).unwrap();
        assert_eq!(
            (options.propagation, options.dry_run),
            (Some(PropagationPolicy::Orphan), true)
        );
    }

    #[test]
    fn bad_ones_are_refused() {
        let code = |body| DeleteOptions::from_body(body).unwrap_err().code().as_u16();
        assert_eq!(code(json!({"propagationPolicy": "Sideways"})), 422);
        assert_eq!(
            code(json!({"propagationPolicy": "Orphan", "orphanDependents": true})),
            422
        );
        assert_eq!(code(json!({"gracePeriodSeconds": "soon"})), 400);
        assert_eq!(code(json!({"kind": "Pod"})), 400);
    }
}
