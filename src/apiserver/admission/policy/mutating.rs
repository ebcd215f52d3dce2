//! What mutating policies change (upstream: `plugin/policy/mutating/dispatcher.go`, `…/mutating/patch`).

use super::attributes::{Asked, Attributes};
use super::{Binding, Hook};
use crate::apiserver::admission::Subject;
use crate::apiserver::admission::reinvocation::Reinvocation;
use crate::apiserver::codec::body;
use crate::apiserver::codec::stored::converted;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::handlers::patch::json::{TEST_FAILED, apply_operations};
use crate::registry::policy::evaluate::{Evaluation, Inputs};
use crate::registry::policy::{Mutation, Policy};
use crate::registry::strategy::Object;
use crate::registry::{Kind, managed, schema};
use serde_json::Value;
use std::sync::Arc;

/// Policy and binding by their places.
pub type Place = (usize, usize);

/// What one round comes to.
struct Round<'a> {
    ctx: &'a Context,
    subject: &'a Subject<'a>,
    /// Upstream's sentences, and the reason of the first that has one.
    errors: Vec<(String, Option<&'static str>)>,
    changed: bool,
}

/// A policy with one of its bindings that is for the request.
struct Matched<'a> {
    place: Place,
    policy: &'a Policy,
    binding: &'a Binding,
    /// The version that the policy is for, if it is another.
    version: Option<Arc<Kind>>,
    /// Each is an evaluation of its own.
    params: Vec<Option<Object>>,
}

/// Lets the policies that are for the request and take part change the object. True if one did.
pub fn round(
    ctx: &Context,
    subject: &Subject<'_>,
    object: &mut Object,
    hooks: &[Hook],
    rounds: &mut Reinvocation<Place>,
) -> Result<bool, ApiError> {
    let mut round = Round {
        ctx,
        subject,
        errors: Vec::new(),
        changed: false,
    };
    // They are chosen by the object as it is before any of them changes it.
    let matched = round.choose(hooks, object, rounds);
    if !matched.is_empty() {
        round.run(&matched, object, rounds)?;
    }
    rounds.end(object);
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

    fn choose<'h>(&mut self, hooks: &'h [Hook], object: &Object, rounds: &Reinvocation<Place>) -> Vec<Matched<'h>> {
        let attributes = Attributes::new(self.ctx, self.subject, object);
        let mut chosen = Vec::new();
        for (at, hook) in hooks.iter().enumerate() {
            let policy = &*hook.policy;
            let version = match attributes.matched(hook) {
                Ok(None) => continue,
                Ok(Some(version)) => version,
                Err(error) => {
                    self.fail(policy, None, &format!("failed to configure policy: {error}"), None);
                    continue;
                }
            };
            for (index, binding) in hook.bindings.iter().enumerate() {
                let place = (at, index);
                if !rounds.takes_part(&place) && !rounds.may_take_part(&place) {
                    continue;
                }
                match attributes.params(policy, binding) {
                    Ok(None) => {}
                    Ok(Some(params)) => chosen.push(Matched {
                        place,
                        policy,
                        binding,
                        version: version.clone(),
                        params,
                    }),
                    Err(error) => {
                        let why = format!("failed to configure binding: {error}");
                        self.fail(policy, Some(&binding.name), &why, None);
                    }
                }
            }
        }
        chosen
    }

    fn run(
        &mut self,
        matched: &[Matched<'_>],
        object: &mut Object,
        rounds: &mut Reinvocation<Place>,
    ) -> Result<(), ApiError> {
        // What is evaluated is given beside it.
        let nothing = Object::new();
        let attributes = Attributes::new(self.ctx, self.subject, &nothing);
        let namespace = attributes.namespace_object()?;
        for hook in matched {
            if !rounds.takes_part(&hook.place) {
                continue;
            }
            let kind = hook.version.as_deref().unwrap_or(self.subject.kind);
            let old = self.subject.old.map(|old| self.to_version(kind, old));
            let around = Invocation {
                attributes: &attributes,
                policy: hook.policy,
                kind,
                old: old.as_ref(),
                namespace: namespace.as_ref(),
                request: attributes.admission_request(hook.version.as_deref()),
            };
            for param in &hook.params {
                let current = self.to_version(kind, object);
                let mut next = current.clone();
                for error in around.run(param.as_ref(), &mut next)? {
                    self.fail(hook.policy, Some(&hook.binding.name), &error, Some("Invalid"));
                }
                if next != current {
                    *object = match &hook.version {
                        Some(kind) => converted(kind, self.subject.kind, &next),
                        None => next,
                    };
                    self.changed = true;
                    rounds.changed();
                }
            }
            if hook.policy.reinvoked {
                rounds.asked(hook.place);
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
    namespace: Option<&'a Object>,
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
            namespace: self.namespace,
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
        Ok(decoded(self.kind, patched, Decoding::Strict).map_or_else(Patched::Unreadable, Patched::Object))
    }
}

/// What becomes of fields that a kind does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoding {
    /// They are an error.
    Strict,
    /// They are dropped.
    Lenient,
}

/// An object of a kind that somebody changed, as a body of it would be read. Err says why it cannot.
pub fn decoded(kind: &Kind, patched: Value, decoding: Decoding) -> Result<Object, String> {
    let decoded = schema::prune(&schema::definition(kind), patched)?;
    if decoding == Decoding::Strict && !decoded.strict.is_empty() {
        return Err(format!("strict decoding error: {}", decoded.strict.join(", ")));
    }
    let mut object = decoded.object;
    if let Some(custom) = &kind.custom {
        // Unknown fields of custom resources are dropped.
        let _ = body::unknown_fields(custom, &mut object).count();
    }
    kind.strategy.default(&mut object);
    Ok(object)
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
