//! What validating policies refuse (upstream: `plugin/policy/validating/dispatcher.go`).

use super::Hook;
use super::attributes::{Asked, Attributes, converted, is_exempt};
use crate::apiserver::admission::{Operation, Subject};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::registry::policy::evaluate::{Denial, Evaluation, Inputs};
use crate::registry::strategy::Object;
use crate::registry::{Kind, Subresource};
use serde_json::json;
use std::borrow::Cow;

/// Asks every policy that is for the request. The first that refuses is heard, and all that warn.
pub fn validate(ctx: &Context, subject: &Subject<'_>, object: &Object) -> Result<(), ApiError> {
    // A pod that is bound was asked about as a Binding.
    if subject.subresource == "binding" && subject.operation == Operation::Update {
        return Ok(());
    }
    let hooks = ctx.server.policies.read().validating();
    if hooks.is_empty() || is_exempt(subject.kind) {
        return Ok(());
    }
    ask_all(&hooks, &Attributes::new(ctx, subject, object))
}

/// The same for what is sent to a subresource that does not write the object: a Binding, an Eviction.
pub fn validate_created(
    ctx: &Context,
    kind: &Kind,
    subresource: &str,
    object: &Object,
    dry_run: bool,
) -> Result<(), ApiError> {
    validate(ctx, &sent(ctx, kind, subresource, dry_run), object)
}

/// The same for a connection to a pod, a service or a node; the options are the query's.
pub fn validate_connection(ctx: &Context, kind: &Kind, subresource: &Subresource) -> Result<(), ApiError> {
    let hooks = ctx.server.policies.read().validating();
    if hooks.is_empty() {
        return Ok(());
    }
    let options = connection(ctx, subresource);
    let subject = sent(ctx, kind, subresource.name, false);
    ask_all(&hooks, &Attributes::new(ctx, &subject, &options).connecting())
}

fn sent<'a>(ctx: &Context, kind: &'a Kind, subresource: &'a str, dry_run: bool) -> Subject<'a> {
    Subject {
        kind,
        subresource,
        name: ctx.info.name.clone(),
        operation: Operation::Create,
        old: None,
        dry_run,
    }
}

/// `PodExecOptions` and the like, as far as the query says.
fn connection(ctx: &Context, subresource: &Subresource) -> Object {
    let mut options = Object::new();
    options.insert("kind".to_owned(), json!(subresource.kind));
    options.insert("apiVersion".to_owned(), json!(subresource.version));
    for flag in ["stdin", "stdout", "stderr", "tty"] {
        if ctx.query.flag(flag) {
            options.insert(flag.to_owned(), json!(true));
        }
    }
    if let Some(container) = ctx.query.get("container").filter(|name| !name.is_empty()) {
        options.insert("container".to_owned(), json!(container));
    }
    let command: Vec<&str> = ctx.query.all("command").collect();
    if !command.is_empty() {
        options.insert("command".to_owned(), json!(command));
    }
    let ports: Vec<i64> = ctx.query.all("ports").filter_map(|port| port.parse().ok()).collect();
    if !ports.is_empty() {
        options.insert("ports".to_owned(), json!(ports));
    }
    if subresource.name == "proxy" {
        options.insert("path".to_owned(), json!(format!("/{}", ctx.info.subpath.join("/"))));
    }
    options
}

fn ask_all(hooks: &[Hook], attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let subject = attributes.subject;
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

/// The object in the version that the policy is for.
fn in_version<'a>(
    attributes: &Attributes<'_>,
    matched: Option<&Kind>,
    object: Option<&'a Object>,
) -> Option<Cow<'a, Object>> {
    let object = object?;
    Some(match matched {
        Some(kind) if attributes.subject.subresource != "scale" => {
            Cow::Owned(converted(attributes.subject.kind, kind, object))
        }
        _ => Cow::Borrowed(object),
    })
}
