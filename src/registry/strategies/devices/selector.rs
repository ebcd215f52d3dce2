//! Expressions that choose devices (upstream: `dynamic-resource-allocation/cel/compile.go`).

use super::{LIST_MAX, bounded};
use crate::registry::cel::decl::{FieldDecl, ObjectDecl, Shape};
use crate::registry::cel::{CALL_COST_MAX, Decl, Environment, Type, compile};
use crate::registry::field::FieldError;
use crate::registry::json::{objects, text};
use crate::registry::strategy::Object;
use std::sync::{Arc, LazyLock};

const EXPRESSION_BYTES_MAX: usize = 10 * 1024;
const MEMBERS_MAX: u64 = 32;
/// Characters of an attribute, or items of one that is a list.
const VALUE_MAX: u64 = 64;
const DRIVER_MAX: u64 = 63;

/// `device`: what an expression can look at, and how large that can be.
static DEVICE: LazyLock<Arc<Decl>> = LazyLock::new(|| {
    let decl = |shape, elements_max| {
        Arc::new(Decl {
            shape,
            nullable: false,
            elements_max,
            bytes_min: 2,
        })
    };
    let by_domain = || {
        let members = decl(Shape::Map(decl(Shape::Any, VALUE_MAX)), MEMBERS_MAX);
        decl(Shape::Map(members), MEMBERS_MAX)
    };
    let fields = [
        ("driver", decl(Shape::String, DRIVER_MAX)),
        ("attributes", by_domain()),
        ("capacity", by_domain()),
        ("allowMultipleAllocations", decl(Shape::Bool, 1)),
    ];
    let fields = fields.into_iter().map(|(name, decl)| {
        let name: Arc<str> = name.into();
        (name.clone(), FieldDecl { name, decl })
    });
    decl(
        Shape::Object(ObjectDecl {
            name: "kubernetes.DRADevice".into(),
            fields: fields.collect(),
        }),
        u64::MAX,
    )
});

/// The selectors in a list of `owner`.
pub fn list(owner: &Object, list: &[&str], path: &str) -> Vec<FieldError> {
    if let Some(error) = bounded(owner, list, LIST_MAX, path) {
        return vec![error];
    }
    let mut errors = Vec::new();
    for (index, selector) in objects(owner, list) {
        let path = format!("{path}[{index}].cel");
        if selector.contains_key("cel") {
            let source = text(selector, &["cel", "expression"]);
            errors.extend(expression(source, &format!("{path}.expression")));
        } else {
            errors.push(FieldError::required(path, ""));
        }
    }
    errors
}

fn expression(source: &str, path: &str) -> Option<FieldError> {
    if source.len() > EXPRESSION_BYTES_MAX {
        return Some(FieldError::too_long(path, EXPRESSION_BYTES_MAX));
    }
    let environment = Environment::default().with_data("device", &DEVICE);
    match compile(source, &environment) {
        Err(error) => {
            let detail = format!("compilation failed: {error}");
            Some(FieldError::invalid(path, source, &detail))
        }
        Ok(program) if !matches!(program.result(), Type::Bool | Type::Dyn) => {
            let detail = format!("must evaluate to bool or the unknown type, not {}", program.result());
            Some(FieldError::invalid(path, source, &detail))
        }
        Ok(program) => {
            let dear = program.cost_max() > CALL_COST_MAX;
            dear.then(|| FieldError::forbidden(path, "too complex, exceeds cost limit"))
        }
    }
}
