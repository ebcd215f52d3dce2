//! What a policy says to a request (upstream: `plugin/cel/activation.go`, `plugin/policy/validating/validator.go`,
//! `plugin/webhook/matchconditions/matcher.go`).

use super::expression::{Expression, NAMESPACE, REQUEST};
use super::{Conditions, Mutation, Policy, Validation, Variable};
use crate::registry::cel::decl::ANY;
use crate::registry::cel::{self, Authorizer, Authz, Error, Map, Subject, Value};
use crate::registry::strategy::Object;
use serde_json::Value as Json;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// The cost of the match conditions of a policy together.
const CONDITIONS_COST_MAX: u64 = cel::REQUEST_COST_MAX / 4;
/// Bytes of a message that an expression made.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;
const SPENT: &str = "validation failed due to running out of cost budget, no further validation rules will be run";

/// What expressions look at.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    pub object: Option<&'a Object>,
    pub old: Option<&'a Object>,
    pub params: Option<&'a Object>,
    pub namespace: Option<&'a Object>,
    /// An AdmissionRequest without its objects.
    pub request: &'a Object,
    pub authorizer: &'a dyn Authorizer,
    /// What the request is about.
    pub subject: &'a Subject,
}

/// Why a request is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denial {
    pub message: String,
    /// The reason of the Status; None for the default.
    pub reason: Option<String>,
    /// It refuses whatever the binding says.
    pub always: bool,
}

/// One request before one policy with one parameter.
pub struct Evaluation<'a> {
    inputs: Inputs<'a>,
    variables: &'a [Variable],
    /// Variables that were asked for.
    known: RefCell<HashMap<&'a str, Result<Value<'a>, Error>>>,
    /// What variables cost since the last look.
    composed: Cell<u64>,
    budget: Cell<u64>,
}

type Evaluated<'a> = Result<Value<'a>, String>;

/// The budget is spent.
struct Spent;

impl<'a> Evaluation<'a> {
    pub fn new(inputs: Inputs<'a>, variables: &'a [Variable]) -> Self {
        Self {
            inputs,
            variables,
            known: RefCell::default(),
            composed: Cell::new(0),
            budget: Cell::new(cel::REQUEST_COST_MAX),
        }
    }

    /// Whether all conditions hold. One that is false decides, whatever goes wrong with others.
    pub fn holds(&self, conditions: &'a Conditions) -> Result<bool, String> {
        if conditions.0.is_empty() {
            return Ok(true);
        }
        let outer = self.budget.replace(CONDITIONS_COST_MAX);
        let mut errors = Vec::new();
        let mut result = Ok(true);
        for (_, condition) in &conditions.0 {
            match self.run(condition) {
                Ok(Ok(Value::Bool(false))) => {
                    self.budget.set(outer);
                    return Ok(false);
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) if errors.contains(&error) => {}
                Ok(Err(error)) => errors.push(error),
                Err(Spent) => {
                    result = Err(SPENT.to_owned());
                    break;
                }
            }
        }
        self.budget.set(outer);
        match &errors[..] {
            _ if result.is_err() => result,
            [] => result,
            [one] => Err(one.clone()),
            several => Err(format!("[{}]", several.join(", "))),
        }
    }

    /// What a policy has against the request, in the order of its validations.
    pub fn validate(&self, policy: &'a Policy) -> Vec<Denial> {
        let failed = |message: String| {
            let denial = Denial {
                message,
                ..Denial::default()
            };
            Vec::from_iter(policy.fails.then_some(denial))
        };
        match self.holds(&policy.conditions) {
            Ok(true) => {}
            Ok(false) => return Vec::new(),
            Err(error) => return failed(error),
        }
        let mut denials = Vec::new();
        for validation in &policy.validations {
            match self.run(&validation.expression) {
                Ok(Ok(Value::Bool(true))) => {}
                Ok(Ok(_)) => match self.message(validation) {
                    Ok(message) => denials.push(Denial {
                        message,
                        reason: validation.reason.clone(),
                        always: false,
                    }),
                    Err(Spent) => denials.extend(failed(format!("failed messageExpression: {SPENT}"))),
                },
                Ok(Err(error)) => denials.extend(failed(error)),
                // Nothing else of what was found counts then.
                Err(Spent) => return failed(SPENT.to_owned()),
            }
        }
        self.budget.set(cel::REQUEST_COST_MAX);
        for annotation in &policy.audit_annotations {
            match self.run(&annotation.expression) {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    let mut errors = failed(error);
                    errors.iter_mut().for_each(|denial| denial.always = true);
                    denials.extend(errors);
                }
                Err(Spent) => return failed(SPENT.to_owned()),
            }
        }
        denials
    }

    /// The message of a validation that does not hold.
    fn message(&self, validation: &'a Validation) -> Result<String, Spent> {
        if let Some(expression) = &validation.message_expression
            && let Ok(Value::String(text)) = self.run(expression)?
        {
            let text = text.trim();
            if !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n') {
                return Ok(text.to_owned());
            }
        }
        Ok(match validation.message.trim() {
            "" => format!("failed expression: {}", validation.expression.source.trim()),
            message => message.to_owned(),
        })
    }

    /// What a mutation makes: an apply configuration, or a JSON patch.
    pub fn mutation(&self, mutation: &'a Mutation) -> Result<Json, String> {
        let expression = mutation.expression();
        if let Err(error) = expression.program() {
            return Err(error.to_owned());
        }
        let value = self.run(expression).unwrap_or_else(|Spent| Err(SPENT.to_owned()))?;
        let mismatch = |error: String| format!("type mismatch: {error}");
        match (mutation, &value) {
            (Mutation::Apply(_), Value::Struct(object)) => {
                object.check_names().map_err(mismatch)?;
                value.to_json().map_err(|error| error.to_string())
            }
            (Mutation::Patch(_), Value::List(operations)) => {
                let mut patch = Vec::with_capacity(operations.len());
                for operation in operations.iter() {
                    let operation = operation.map_err(|error| error.to_string())?;
                    let Value::Struct(operation) = &operation else {
                        let why = "JSONPatchType.expression should evaluate to array of JSONPatch";
                        return Err(mismatch(why.to_owned()));
                    };
                    if let Some(Value::Struct(object)) = operation.field("value") {
                        object.check_names().map_err(mismatch)?;
                    }
                    let json = Value::Struct(operation.clone()).to_json().map_err(|error| {
                        format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {error}")
                    })?;
                    patch.push(json);
                }
                Ok(Json::Array(patch))
            }
            (_, other) => {
                let name = other.type_name();
                Err(format!(
                    "unsupported return type from ApplyConfiguration expression: {name}"
                ))
            }
        }
    }

    fn run(&self, expression: &'a Expression) -> Result<Evaluated<'a>, Spent> {
        let program = match expression.program() {
            Ok(program) => program,
            Err(error) => return Ok(Err(format!("compilation error: {error}"))),
        };
        let (result, cost) = program.evaluate(&|name| self.lookup(name), cel::CALL_COST_MAX);
        let cost = cost.saturating_add(self.composed.take());
        self.budget.set(self.budget.get().checked_sub(cost).ok_or(Spent)?);
        Ok(result.map_err(|error| format!("expression '{}' resulted in error: {error}", expression.source)))
    }

    fn lookup(&self, name: &str) -> Option<Result<Value<'a>, Error>> {
        let inputs = self.inputs;
        let untyped = |object: Option<&'a Object>| Ok(object.map_or(Value::Null, data));
        Some(match name {
            "object" => untyped(inputs.object),
            "oldObject" => untyped(inputs.old),
            "params" => untyped(inputs.params),
            "request" => Ok(Value::Map(Map::Json {
                members: inputs.request,
                decl: &REQUEST,
            })),
            "namespaceObject" => Ok(inputs.namespace.map_or(Value::Null, |members| {
                Value::Map(Map::Json {
                    members,
                    decl: &NAMESPACE,
                })
            })),
            "authorizer" => Ok(Value::Authz(Authz::of(inputs.authorizer))),
            "authorizer.requestResource" => {
                Ok(Value::Authz(Authz::resource(inputs.authorizer, inputs.subject.clone())))
            }
            name => {
                let variable = self.variables.iter().find(|variable| variable.full_name == name)?;
                return Some(self.variable(variable));
            }
        })
    }

    /// A variable is evaluated when it is first asked for.
    fn variable(&self, variable: &'a Variable) -> Result<Value<'a>, Error> {
        if let Some(known) = self.known.borrow().get(variable.full_name.as_str()) {
            return known.clone();
        }
        let short = variable.full_name.trim_start_matches("variables.");
        let result = match variable.expression.program() {
            Err(error) => Err(Error::Other(format!(
                "composited variable {short:?} fails to compile: {error}"
            ))),
            Ok(program) => {
                let (result, cost) = program.evaluate(&|name| self.lookup(name), cel::CALL_COST_MAX);
                self.composed.set(self.composed.get().saturating_add(cost));
                result
                    .map_err(|error| Error::Other(format!("composited variable {short:?} fails to evaluate: {error}")))
            }
        };
        self.known.borrow_mut().insert(&variable.full_name, result.clone());
        result
    }
}

fn data(members: &Object) -> Value<'_> {
    Value::Map(Map::Json { members, decl: &ANY })
}
