//! A webhook of a configuration, compiled (upstream: `apiserver/pkg/admission/plugin/webhook/accessors.go`).

use super::Conditions;
use super::criteria::Criteria;
use super::expression::Names;
use crate::registry::client_config::ClientConfig;
use crate::registry::json::{integer, items, map, objects, text};
use crate::registry::strategy::Object;
use serde_json::Value;
use std::time::Duration;

/// Upstream's default.
const TIMEOUT_SECONDS: u64 = 10;

pub struct Hook {
    pub name: String,
    pub criteria: Criteria,
    pub conditions: Conditions,
    /// A call that fails refuses the request.
    pub fails: bool,
    pub timeout: Duration,
    /// It may be called for a dry run.
    pub harmless: bool,
    /// It wants to see the object again that others changed after it.
    pub reinvoked: bool,
    pub client: ClientConfig,
    /// `admission.k8s.io/v1`, or the older version if it prefers that.
    pub review_version: &'static str,
}

impl Hook {
    /// The webhooks of a configuration of either kind.
    pub fn all_of(configuration: &Object) -> Vec<Self> {
        let hooks = objects(configuration, &["webhooks"]);
        hooks.map(|(index, hook)| Self::of(hook, index)).collect()
    }

    fn of(hook: &Object, index: usize) -> Self {
        let empty = Object::new();
        let seconds = integer(hook, &["timeoutSeconds"]).and_then(|seconds| u64::try_from(seconds).ok());
        let mut versions = items(hook, &["admissionReviewVersions"])
            .iter()
            .filter_map(Value::as_str);
        let known = versions.find(|version| matches!(*version, "v1" | "v1beta1"));
        Self {
            name: text(hook, &["name"]).to_owned(),
            criteria: Criteria::of_hook(hook, "rules"),
            conditions: Conditions::compile(hook, &format!("webhooks[{index}].matchConditions"), Names::of_hook()),
            fails: text(hook, &["failurePolicy"]) != "Ignore",
            timeout: Duration::from_secs(seconds.unwrap_or(TIMEOUT_SECONDS)),
            harmless: matches!(text(hook, &["sideEffects"]), "None" | "NoneOnDryRun"),
            reinvoked: text(hook, &["reinvocationPolicy"]) == "IfNeeded",
            client: ClientConfig::of(map(hook, &["clientConfig"]).unwrap_or(&empty)),
            review_version: if known == Some("v1beta1") {
                "admission.k8s.io/v1beta1"
            } else {
                "admission.k8s.io/v1"
            },
        }
    }
}
