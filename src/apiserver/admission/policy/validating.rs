//! What validating policies refuse (upstream: `plugin/policy/validating/dispatcher.go`).

use super::Hook;
use super::attributes::{Asked, Attributes, in_version, is_exempt};
use crate::apiserver::error::ApiError;
use crate::registry::policy::evaluate::{Denial, Evaluation, Inputs};

/// Asks every policy that is for the request. The first that refuses is heard, and all that warn.
pub fn validate(attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let subject = attributes.subject;
    let hooks = attributes.ctx.server.policies.read().validating();
    if hooks.is_empty() || is_exempt(subject.kind) {
        return Ok(());
    }
    let mut refused = None;
    for hook in hooks.iter() {
        ask(attributes, hook, &mut refused)?;
    }
    match refused {
        None => Ok(()),
        Some((why, reason)) => Err(ApiError::denied_by_policy(subject.kind, &subject.name, &why, &reason)),
    }
}

/// Text and reason of the refusal.
type Refusal = Option<(String, String)>;

fn ask(attributes: &Attributes<'_>, hook: &Hook, refused: &mut Refusal) -> Result<(), ApiError> {
    let policy = &*hook.policy;
    let mut refuse = |binding: Option<&str>, denial: &Denial| {
        let with = binding
            .map(|name| format!(" with binding '{name}'"))
            .unwrap_or_default();
        let text = format!(
            "ValidatingAdmissionPolicy '{}'{with} denied request: {}",
            policy.name, denial.message
        );
        let reason = denial.reason.clone().unwrap_or_else(|| "Invalid".to_owned());
        refused.get_or_insert((text, reason));
    };
    let misconfigured = |what: &str, error: String| Denial {
        message: format!("failed to configure {what}: {error}"),
        ..Denial::default()
    };
    let matched = match attributes.matched(hook) {
        Ok(None) => return Ok(()),
        Ok(Some(matched)) => matched,
        Err(error) => {
            if policy.fails {
                refuse(None, &misconfigured("policy", error));
            }
            return Ok(());
        }
    };
    for binding in &hook.bindings {
        let params = match attributes.params(policy, binding) {
            Ok(None) => continue,
            Ok(Some(params)) => params,
            Err(error) => {
                if policy.fails {
                    refuse(Some(&binding.name), &misconfigured("binding", error));
                }
                continue;
            }
        };
        let namespace = attributes.namespace_object()?;
        let request = attributes.admission_request(matched.as_deref());
        let subject = attributes.subject();
        let (object, old) = (
            in_version(attributes, matched.as_deref(), attributes.object.as_deref()),
            in_version(attributes, matched.as_deref(), attributes.old.as_deref()),
        );
        for param in &params {
            let inputs = Inputs {
                object: object.as_deref(),
                old: old.as_deref(),
                params: param.as_ref(),
                namespace: namespace.as_ref(),
                request: &request,
                authorizer: &Asked(attributes.ctx),
                subject: &subject,
            };
            for denial in Evaluation::new(inputs, &policy.variables).validate(policy) {
                let acts = |action: &str| binding.actions.iter().any(|other| other == action);
                if denial.always || acts("Deny") {
                    refuse(Some(&binding.name), &denial);
                }
                if acts("Warn") && !denial.always {
                    attributes.ctx.warnings.add(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        policy.name, binding.name, denial.message
                    ));
                }
            }
        }
    }
    Ok(())
}
