//! Bounds of numbers (upstream: the number validator of `kube-openapi/pkg/validation/validate`).

use super::failure::{Failure, invalid};
use super::node::{Constraints, Type};
use crate::registry::field::go_float;
use serde_json::{Number, Value};

/// A bound as messages print it: whole for whole numbers, Go's `%v` else.
fn shown(bound: f64, whole: bool) -> String {
    if whole {
        (bound as i64).to_string()
    } else {
        go_float(bound)
    }
}

/// `kind` is the schema's type where it has exactly one.
pub(super) fn validate(constraints: &Constraints, number: &Number, kind: Type, format: &str, at: &str) -> Vec<Failure> {
    let mut failures = Vec::new();
    let value = Value::Number(number.clone());
    let float = number.as_f64().unwrap_or_default();
    let integer = if number.is_f64() { None } else { number.as_i64() };
    failures.extend(out_of_range(float, integer, kind, format, "Checked", at));
    if let Some(factor) = constraints.multiple_of {
        let range = out_of_range(factor, None, kind, format, "MultipleOf", at);
        let whole = range.is_none() && integer.is_some();
        failures.extend(range);
        let is_multiple = match integer {
            Some(integer) if whole && factor as i64 > 0 => integer % (factor as i64) == 0,
            _ => {
                let quotient = if factor < 1.0 {
                    1.0 / factor * float
                } else {
                    float / factor
                };
                quotient.fract() == 0.0
            }
        };
        if factor <= 0.0 || (whole && factor as i64 <= 0) {
            failures.push(Failure::Invalid {
                at: at.to_owned(),
                value: shown_value(factor, whole),
                text: format!(
                    "factor MultipleOf declared for {at} must be positive: {}",
                    shown(factor, whole)
                ),
            });
        } else if !is_multiple {
            let text = format!("should be a multiple of {}", shown(factor, whole));
            failures.push(invalid(at, value.clone(), &text));
        }
    }
    if let Some(min) = constraints.minimum {
        let range = out_of_range(min, None, kind, format, "Minimum boundary", at);
        let whole = range.is_none() && integer.is_some();
        failures.extend(range);
        let exclusive = constraints.exclusive_minimum;
        let broken = match integer {
            Some(integer) if whole => integer < min as i64 || (exclusive && integer == min as i64),
            _ => float < min || (exclusive && float == min),
        };
        if broken {
            let words = if exclusive {
                "greater than"
            } else {
                "greater than or equal to"
            };
            failures.push(invalid(
                at,
                value.clone(),
                &format!("should be {words} {}", shown(min, whole)),
            ));
        }
    }
    if let Some(max) = constraints.maximum {
        let range = out_of_range(max, None, kind, format, "Maximum boundary", at);
        let whole = range.is_none() && integer.is_some();
        failures.extend(range);
        let exclusive = constraints.exclusive_maximum;
        let broken = match integer {
            Some(integer) if whole => integer > max as i64 || (exclusive && integer == max as i64),
            _ => float > max || (exclusive && float == max),
        };
        if broken {
            let words = if exclusive {
                "less than"
            } else {
                "less than or equal to"
            };
            failures.push(invalid(at, value, &format!("should be {words} {}", shown(max, whole))));
        }
    }
    failures
}

fn shown_value(number: f64, whole: bool) -> Value {
    if whole {
        Value::from(number as i64)
    } else {
        Value::from(number)
    }
}

/// A number, or a bound, that the schema's type and format cannot hold.
fn out_of_range(float: f64, integer: Option<i64>, kind: Type, format: &str, what: &str, at: &str) -> Option<Failure> {
    let fits = match (kind, format) {
        (Type::Integer, "int32") => match integer {
            Some(integer) => i32::try_from(integer).is_ok(),
            None => float.fract() == 0.0 && float.abs() <= 2_147_483_648.0 && float != 2_147_483_648.0,
        },
        (Type::Integer, _) => integer.is_some() || (float.fract() == 0.0 && float.abs() < 9.3e18),
        (_, "float") => float.abs() <= f64::from(f32::MAX),
        _ => true,
    };
    if fits {
        return None;
    }
    let kind = kind.name();
    Some(Failure::Composite(if format.is_empty() {
        format!("{what} value must be of type {kind} (default format) in {at}")
    } else {
        format!("{what} value must be of type {kind} with format {format} in {at}")
    }))
}
