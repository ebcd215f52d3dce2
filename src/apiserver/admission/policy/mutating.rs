//! What mutating policies change (upstream: `plugin/policy/mutating/dispatcher.go`, `…/mutating/patch`).

use super::Hook;
use super::attributes::{Asked, Attributes, converted, is_exempt};
use crate::apiserver::admission::{Operation, Subject, ask_plugins};
use crate::apiserver::codec::body;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::handlers::engine::metadata;
use crate::apiserver::handlers::patch::json::{TEST_FAILED, apply_operations};
use crate::registry::policy::evaluate::{Evaluation, Inputs};
use crate::registry::policy::{Mutation, Policy};
use crate::registry::strategy::Object;
use crate::registry::{Kind, managed, schema};
use serde_json::Value;

/// Lets every policy that is for the request change the object. If one did, the built-in plug-ins and the policies that
/// want it see it once more. True if anything was changed.
pub fn admit(ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<bool, ApiError> {
    let hooks = ctx.server.policies.read().mutating();
    // A Scale and a Binding are no objects of the kind, and what is deleted cannot be changed.
    let unchangeable = subject.operation == Operation::Delete || matches!(subject.subresource, "scale" | "binding");
    if hooks.is_empty() || unchangeable || is_exempt(subject.kind) {
        return Ok(false);
    }
    let before = object.get("metadata").and_then(Value::as_object).cloned();
    let changed = round(ctx, subject, object, &hooks, |_| true)?;
    if !changed {
        return Ok(false);
    }
    ask_plugins(ctx, subject, object)?;
    round(ctx, subject, object, &hooks, |policy| policy.reinvoked)?;
    metadata::after_policies(object, before.as_ref());
    Ok(true)
}

/// What one round comes to.
struct Round<'a> {
    ctx: &'a Context,
    subject: &'a Subject<'a>,
    /// Upstream's sentences, and the reason of the first that has one.
    errors: Vec<(String, Option<&'static str>)>,
    changed: bool,
}

fn round(
    ctx: &Context,
    subject: &Subject<'_>,
    object: &mut Object,
    hooks: &[Hook],
    takes_part: impl Fn(&Policy) -> bool,
) -> Result<bool, ApiError> {
    let mut round = Round {
        ctx,
        subject,
        errors: Vec::new(),
        changed: false,
    };
    for hook in hooks.iter().filter(|hook| takes_part(&hook.policy)) {
        round.ask(hook, object)?;
    }
    let Some((_, reason)) = round.errors.first() else {
        return Ok(round.changed);
    };
    let reason = *reason;
    let texts: Vec<String> = round.errors.into_iter().map(|(text, _)| text).collect();
    Err(ApiError::denied_by_policies(
        subject.kind,
        &subject.name,
        &texts,
        reason,
    ))
}

impl Round<'_> {
    /// What goes wrong counts only if the policy says so.
    fn fail(&mut self, policy: &Policy, binding: Option<&str>, why: &str, reason: Option<&'static str>) {
        if !policy.fails {
            return;
        }
        let text = match binding {
            Some(binding) => format!(
                "policy '{}' with binding '{binding}' denied request: {why}",
                policy.name
            ),
            None => format!("policy {:?} denied request: {why}", policy.name),
        };
        self.errors.push((text, reason));
    }

    fn ask(&mut self, hook: &Hook, object: &mut Object) -> Result<(), ApiError> {
        let policy = &*hook.policy;
        let seen = object.clone();
        let attributes = Attributes::new(self.ctx, self.subject, &seen);
        let matched = match attributes.matched(hook) {
            Ok(None) => return Ok(()),
            Ok(Some(matched)) => matched,
            Err(error) => {
                self.fail(policy, None, &format!("failed to configure policy: {error}"), None);
                return Ok(());
            }
        };
        let kind = matched.as_deref().unwrap_or(self.subject.kind);
        for binding in &hook.bindings {
            let params = match attributes.params(policy, binding) {
                Ok(None) => continue,
                Ok(Some(params)) => params,
                Err(error) => {
                    let why = format!("failed to configure binding: {error}");
                    self.fail(policy, Some(&binding.name), &why, None);
                    continue;
                }
            };
            let old = attributes.old.as_deref().map(|old| self.to_version(kind, old));
            let around = Invocation {
                attributes: &attributes,
                policy,
                kind,
                old: old.as_ref(),
                namespace: attributes.namespace_object()?,
                request: attributes.admission_request(matched.as_deref()),
            };
            for param in &params {
                let current = self.to_version(kind, object);
                let mut next = current.clone();
                for error in around.run(param.as_ref(), &mut next)? {
                    self.fail(policy, Some(&binding.name), &error, Some("Invalid"));
                }
                if next != current {
                    *object = match &matched {
                        Some(kind) => converted(kind, self.subject.kind, &next),
                        None => next,
                    };
                    self.changed = true;
                }
            }
        }
        Ok(())
    }

    fn to_version(&self, kind: &Kind, object: &Object) -> Object {
        if std::ptr::eq(kind, self.subject.kind) {
            object.clone()
        } else {
            converted(self.subject.kind, kind, object)
        }
    }
}

/// A policy with one of its bindings before a request.
struct Invocation<'a> {
    attributes: &'a Attributes<'a>,
    policy: &'a Policy,
    /// The version that the policy is for.
    kind: &'a Kind,
    old: Option<&'a Object>,
    namespace: Option<Object>,
    request: Object,
}

impl Invocation<'_> {
    /// Applies the mutations in order; each sees what those before it did. The texts say what went wrong with which.
    fn run(&self, params: Option<&Object>, object: &mut Object) -> Result<Vec<String>, ApiError> {
        let subject = self.attributes.subject();
        let asked = Asked(self.attributes.ctx);
        let without = Inputs {
            object: None,
            old: self.old,
            params,
            namespace: self.namespace.as_ref(),
            request: &self.request,
            authorizer: &asked,
            subject: &subject,
        };
        match Evaluation::new(with(without, object), &self.policy.variables).holds(&self.policy.conditions) {
            Ok(true) => {}
            Ok(false) => return Ok(Vec::new()),
            Err(error) => return Ok(vec![error]),
        }
        let mut errors = Vec::new();
        for mutation in &self.policy.mutations {
            let made = Evaluation::new(with(without, object), &self.policy.variables).mutation(mutation);
            match made.and_then(|made| self.patched(mutation, made, object)) {
                Ok(Patched::Object(next)) => *object = next,
                Ok(Patched::Unchanged) => {}
                Ok(Patched::Unreadable(why)) => return Err(ApiError::internal(why)),
                Err(error) => errors.push(error),
            }
        }
        Ok(errors)
    }

    fn patched(&self, mutation: &Mutation, made: Value, object: &Object) -> Result<Patched, String> {
        let definition = schema::definition(self.kind);
        let patched = match (mutation, made) {
            (Mutation::Apply(_), Value::Object(mut config)) => {
                config.insert("apiVersion".to_owned(), self.kind.group_version().into());
                config.insert("kind".to_owned(), self.kind.kind.into());
                let merged = managed::overlay(&definition, object, &config)
                    .map_err(|error| format!("error applying patch: {error}"))?;
                Value::Object(merged)
            }
            (_, Value::Array(operations)) => {
                let operations: Vec<Object> = operations
                    .into_iter()
                    .filter_map(|operation| match operation {
                        Value::Object(operation) => Some(operation),
                        _ => None,
                    })
                    .collect();
                match apply_operations(&operations, object) {
                    Ok(patched) => patched,
                    Err(TEST_FAILED) => return Ok(Patched::Unchanged),
                    Err(error) => return Err(format!("JSONPath: {error}")),
                }
            }
            _ => return Ok(Patched::Unchanged),
        };
        let decoded = match schema::prune(&definition, patched) {
            Ok(decoded) => decoded,
            Err(error) => return Ok(Patched::Unreadable(error)),
        };
        if !decoded.strict.is_empty() {
            let why = format!("strict decoding error: {}", decoded.strict.join(", "));
            return Ok(Patched::Unreadable(why));
        }
        let mut object = decoded.object;
        if let Some(custom) = &self.kind.custom {
            // Unknown fields of custom resources are dropped.
            let _ = body::unknown_fields(custom, &mut object).count();
        }
        self.kind.strategy.default(&mut object);
        Ok(Patched::Object(object))
    }
}

fn with<'a>(inputs: Inputs<'a>, object: &'a Object) -> Inputs<'a> {
    Inputs {
        object: Some(object),
        ..inputs
    }
}

/// What a mutation made of an object.
enum Patched {
    Object(Object),
    Unchanged,
    /// It is no object of its kind any longer.
    Unreadable(String),
}
