//! What is done for every node of a checked tree: functions are looked up, literals are looked at
//! (upstream: `cel-go/cel/validator.go`).

use super::ast::{Expr, Kind, Literal};
use super::check::Checked;
use super::library::{self, Native};
use super::source::Problem;
use super::types::Type;
use super::value;
use crate::registry::patterns;
use crate::registry::string_formats as formats;

/// Calls `act` for a node and all below it.
fn walk(expr: &Expr, act: &mut dyn FnMut(&Expr)) {
    act(expr);
    children(expr, &mut |child| walk(child, act));
}

fn children(expr: &Expr, act: &mut dyn FnMut(&Expr)) {
    match &expr.kind {
        Kind::Literal(_) | Kind::Ident(_) => {}
        Kind::Select { operand, .. } => act(operand),
        Kind::Call { target, arguments, .. } => {
            target.iter().for_each(|target| act(target));
            arguments.iter().for_each(act);
        }
        Kind::List(elements) => elements.iter().for_each(|element| act(&element.value)),
        Kind::Map(entries) => entries.iter().for_each(|entry| {
            act(&entry.key);
            act(&entry.value);
        }),
        Kind::Struct { fields, .. } => fields.iter().for_each(|field| act(&field.value)),
        Kind::Comprehension(parts) => {
            for part in [&parts.range, &parts.init, &parts.condition, &parts.step, &parts.result] {
                act(part);
            }
        }
    }
}

/// Finds the functions that are called, by the nodes that call them.
pub(super) fn link(root: &Expr, natives: &mut [Option<Native>]) {
    walk(root, &mut |expr| {
        if let Kind::Call { function, .. } = &expr.kind {
            natives[expr.id as usize] = library::native(function);
        }
    });
}

/// Durations, times and patterns that are written out must be right.
pub(super) fn literals(root: &Expr, offsets: &[usize], problems: &mut Vec<Problem>) {
    walk(root, &mut |expr| {
        let Kind::Call {
            function, arguments, ..
        } = &expr.kind
        else {
            return;
        };
        let argument = match &**function {
            "duration" | "timestamp" => arguments.first(),
            "matches" => arguments.last(),
            _ => return,
        };
        let Some(argument) = argument else { return };
        let Kind::Literal(Literal::String(text)) = &argument.kind else {
            return;
        };
        let valid = match &**function {
            "duration" => formats::go_duration(text).is_some(),
            "timestamp" => value::parse_timestamp(text).is_some(),
            _ => patterns::compiled(text).is_ok(),
        };
        if !valid {
            problems.push(Problem {
                offset: offsets[argument.id as usize],
                message: format!("invalid {function} argument"),
            });
        }
    });
}

/// Elements of a list, keys and values of a map that is written out must be of one type each, but for what
/// `format` is given.
pub(super) fn mixed(expr: &Expr, offsets: &[usize], checked: &Checked, problems: &mut Vec<Problem>) {
    let of = |expr: &Expr, optional: bool| {
        let found = &checked.types[expr.id as usize];
        if optional {
            found.unwrap_optional().0
        } else {
            found.clone()
        }
    };
    let mut differs = |expr: &Expr, expected: &Type, found: &Type| {
        if !expected.same(found) {
            problems.push(Problem {
                offset: offsets[expr.id as usize],
                message: format!("expected type '{expected}' but found '{found}'"),
            });
        }
        !expected.same(found)
    };
    match &expr.kind {
        Kind::Call { function, .. } if &**function == "format" => return,
        Kind::List(elements) => {
            let mut expected = None;
            for element in elements {
                let found = of(&element.value, element.optional);
                match &expected {
                    None => expected = Some(found),
                    Some(expected) => {
                        if differs(&element.value, expected, &found) {
                            break;
                        }
                    }
                }
            }
        }
        Kind::Map(entries) => {
            if let Some((first, rest)) = entries.split_first() {
                let (key, value) = (of(&first.key, false), of(&first.value, first.optional));
                for entry in rest {
                    differs(&entry.key, &key, &of(&entry.key, false));
                    differs(&entry.value, &value, &of(&entry.value, entry.optional));
                }
            }
        }
        _ => {}
    }
    children(expr, &mut |child| mixed(child, offsets, checked, problems));
}
