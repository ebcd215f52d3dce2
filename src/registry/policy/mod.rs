//! Admission policies: compiled once, matched and evaluated for every request that they concern
//! (upstream: `apiserver/pkg/admission/plugin/policy`, `…/plugin/cel`). Nothing here does I/O.
//!
//! - [`criteria`]: which requests something is for; webhooks ask the same.
//! - [`expression`]: expressions and what they can name.
//! - [`evaluate`]: what a policy says to a request.
//! - [`hook`]: webhooks of a configuration.
//! - [`type_check`]: what the schemas of the objects have against the expressions.

pub mod criteria;
pub mod evaluate;
pub mod expression;
pub mod hook;
#[cfg(test)]
mod tests;
pub mod type_check;

use super::cel::{Environment, Type};
use super::field::FieldError;
use super::json::{map, objects, text};
use super::strategy::Object;
use criteria::Criteria;
use expression::{Expression, Names, Returns, environment};

/// The kinds of admission's own configuration, which nothing may refuse or change.
pub const EXEMPT: [&str; 6] = [
    "validatingwebhookconfigurations",
    "mutatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
];
pub const GROUP: &str = "admissionregistration.k8s.io";

/// A ValidatingAdmissionPolicy or a MutatingAdmissionPolicy.
#[derive(Debug)]
pub struct Policy {
    pub name: String,
    /// What goes wrong refuses the request; otherwise the policy has nothing to say then.
    pub fails: bool,
    pub param_kind: Option<ParamKind>,
    pub constraints: Criteria,
    pub conditions: Conditions,
    pub variables: Vec<Variable>,
    pub validations: Vec<Validation>,
    pub audit_annotations: Vec<AuditAnnotation>,
    pub mutations: Vec<Mutation>,
    /// It wants to see the object again that others changed after it.
    pub reinvoked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamKind {
    pub api_version: String,
    pub kind: String,
}

/// `matchConditions`: name and expression.
#[derive(Debug, Default)]
pub struct Conditions(pub Vec<(String, Expression)>);

#[derive(Debug)]
pub struct Variable {
    /// `variables.x`.
    pub full_name: String,
    pub expression: Expression,
}

#[derive(Debug)]
pub struct Validation {
    pub expression: Expression,
    pub message: String,
    pub message_expression: Option<Expression>,
    /// A reason of a Status.
    pub reason: Option<String>,
}

#[derive(Debug)]
pub struct AuditAnnotation {
    pub key: String,
    pub expression: Expression,
}

#[derive(Debug)]
pub enum Mutation {
    /// Makes an apply configuration.
    Apply(Expression),
    /// Makes the operations of a JSON patch.
    Patch(Expression),
}

/// Upstream's prefix of the variables of a policy.
const VARIABLES: &str = "variables";

impl Conditions {
    pub fn compile(owner: &Object, path: &str, names: Names) -> Self {
        let environment = environment(names);
        let conditions = objects(owner, &["matchConditions"]).map(|(index, condition)| {
            let path = format!("{path}[{index}].expression");
            let source = text(condition, &["expression"]);
            let expression = Expression::compile(path, source, &environment, Returns::Bool);
            (text(condition, &["name"]).to_owned(), expression)
        });
        Self(conditions.collect())
    }
}

impl Policy {
    /// Compiles a policy of either kind. What does not compile is kept with its error.
    pub fn compile(policy: &Object) -> Self {
        let empty = Object::new();
        let spec = map(policy, &["spec"]).unwrap_or(&empty);
        let param_kind = map(spec, &["paramKind"]).map(|kind| ParamKind {
            api_version: text(kind, &["apiVersion"]).to_owned(),
            kind: text(kind, &["kind"]).to_owned(),
        });
        let names = Names {
            params: param_kind.is_some(),
            authorizer: true,
            patches: false,
        };
        let (variables, scope) = variables(spec, environment(names));
        let quiet = scope_of(
            &scope,
            environment(Names {
                authorizer: false,
                ..names
            }),
        );
        let patches = scope_of(&scope, environment(Names { patches: true, ..names }));
        let scope = scope_of(&scope, environment(names));
        let validations = objects(spec, &["validations"]).map(|(index, validation)| {
            let at = |field: &str| format!("spec.validations[{index}].{field}");
            let of = |field: &str, environment: &Environment, returns| {
                Expression::compile(at(field), text(validation, &[field]), environment, returns)
            };
            Validation {
                expression: of("expression", &scope, Returns::Bool),
                message: text(validation, &["message"]).trim().to_owned(),
                message_expression: (!text(validation, &["messageExpression"]).trim().is_empty())
                    .then(|| of("messageExpression", &quiet, Returns::Text)),
                reason: Some(text(validation, &["reason"]))
                    .filter(|reason| !reason.is_empty())
                    .map(str::to_owned),
            }
        });
        let audit_annotations = objects(spec, &["auditAnnotations"]).map(|(index, annotation)| AuditAnnotation {
            key: text(annotation, &["key"]).to_owned(),
            expression: Expression::compile(
                format!("spec.auditAnnotations[{index}].valueExpression"),
                text(annotation, &["valueExpression"]),
                &scope,
                Returns::TextOrNull,
            ),
        });
        let mutations = objects(spec, &["mutations"]).filter_map(|(index, mutation)| {
            let of = |field: &str, returns| {
                let path = format!("spec.mutations[{index}].{field}.expression");
                Expression::compile(path, text(mutation, &[field, "expression"]), &patches, returns)
            };
            match text(mutation, &["patchType"]) {
                "ApplyConfiguration" => Some(Mutation::Apply(of("applyConfiguration", Returns::Object))),
                "JSONPatch" => Some(Mutation::Patch(of("jsonPatch", Returns::Patch))),
                _ => None,
            }
        });
        Self {
            name: text(policy, &["metadata", "name"]).to_owned(),
            fails: text(spec, &["failurePolicy"]) != "Ignore",
            constraints: Criteria::of_policy(map(spec, &["matchConstraints"]).unwrap_or(&empty)),
            conditions: Conditions::compile(spec, "spec.matchConditions", names),
            validations: validations.collect(),
            audit_annotations: audit_annotations.collect(),
            mutations: mutations.collect(),
            reinvoked: text(spec, &["reinvocationPolicy"]) == "IfNeeded",
            variables,
            param_kind,
        }
    }

    /// What is wrong with the expression at a path of the policy.
    pub fn problem_at(&self, path: &str) -> Option<FieldError> {
        let variables = self.variables.iter().map(|variable| &variable.expression);
        let validations = self
            .validations
            .iter()
            .flat_map(|validation| std::iter::once(&validation.expression).chain(&validation.message_expression));
        let annotations = self.audit_annotations.iter().map(|annotation| &annotation.expression);
        let mutations = self.mutations.iter().map(Mutation::expression);
        let mut all = variables.chain(validations).chain(annotations).chain(mutations);
        all.find(|expression| expression.path() == path)?.problem()
    }
}

impl Mutation {
    pub fn expression(&self) -> &Expression {
        match self {
            Self::Apply(expression) | Self::Patch(expression) => expression,
        }
    }
}

/// Compiles the variables of a policy, each of which sees those before it; and their types.
fn variables(spec: &Object, base: Environment) -> (Vec<Variable>, Vec<(String, Type)>) {
    let (mut compiled, mut scope) = (Vec::new(), Vec::new());
    let mut environment = base;
    for (index, variable) in objects(spec, &["variables"]) {
        if index == 0 {
            environment = environment.with_data(VARIABLES, &expression::NO_VARIABLES);
        }
        let path = format!("spec.variables[{index}].expression");
        let source = text(variable, &["expression"]);
        let expression = Expression::compile(path, source, &environment, Returns::Anything);
        let found = expression::declared(&expression.result());
        let full_name = format!("{VARIABLES}.{}", text(variable, &["name"]));
        environment = environment.with(&full_name, found.clone());
        scope.push((full_name.clone(), found));
        compiled.push(Variable { full_name, expression });
    }
    (compiled, scope)
}

/// An environment with the variables of a policy.
fn scope_of(variables: &[(String, Type)], mut environment: Environment) -> Environment {
    if !variables.is_empty() {
        environment = environment.with_data(VARIABLES, &expression::NO_VARIABLES);
    }
    for (name, found) in variables {
        environment = environment.with(name, found.clone());
    }
    environment
}
