//! What the schemas of the objects that a policy is for have against its expressions. Nothing else comes of it than
//! warnings in the status of the policy (upstream: `plugin/policy/validating/typechecking.go`).

use super::expression::{Names, decl, typed_environment};
use super::{scope_of, variables};
use crate::registry::cel::decl::{FieldDecl, ListKind, ObjectDecl, Shape, escape};
use crate::registry::cel::{self, Decl, Type};
use crate::registry::json::{items, map, objects, text};
use crate::registry::schema::{self, Definition, ListType, Node, Property};
use crate::registry::strategy::Object;
use crate::registry::{Kind, Registry};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Kinds that are looked at for a policy.
const KINDS_MAX: usize = 10;
/// Definitions within one another, of the same name, are looked into no further: a schema may contain itself.
const DEPTH_MAX: usize = 24;

/// An expression that does not fit a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// `spec.validations[0].expression`
    pub field: String,
    pub warning: String,
}

/// All warnings about the validations of a ValidatingAdmissionPolicy.
pub fn warnings(registry: &Registry, policy: &Object) -> Vec<Warning> {
    let empty = Object::new();
    let spec = map(policy, &["spec"]).unwrap_or(&empty);
    let kinds: Vec<(Arc<Kind>, Type)> = kinds_of(registry, spec)
        .into_iter()
        .map(|kind| {
            let declared = type_of(&kind);
            (kind, declared)
        })
        .collect();
    let params = map(spec, &["paramKind"]).and_then(|kind| {
        let (group, version) = split(text(kind, &["apiVersion"]));
        Some(type_of(&*registry.lookup_kind(
            group,
            version,
            text(kind, &["kind"]),
        )?))
    });
    let mut warnings = Vec::new();
    for (index, validation) in objects(spec, &["validations"]) {
        for field in ["expression", "messageExpression"] {
            let source = text(validation, &[field]);
            if source.is_empty() {
                continue;
            }
            let issues: Vec<String> = kinds
                .iter()
                .filter_map(|(kind, object)| issue(spec, source, kind, object, params.as_ref()))
                .collect();
            if !issues.is_empty() {
                warnings.push(Warning {
                    field: format!("spec.validations[{index}].{field}"),
                    warning: issues.join("\n"),
                });
            }
        }
    }
    warnings
}

/// What a kind has against an expression.
fn issue(spec: &Object, source: &str, kind: &Kind, object: &Type, params: Option<&Type>) -> Option<String> {
    let names = Names {
        params: params.is_some(),
        authorizer: true,
        patches: false,
    };
    let environment = || typed_environment(names, object.clone(), params.cloned().unwrap_or(Type::Dyn));
    let (_, scope) = variables(spec, environment());
    let error = cel::compile(source, &scope_of(&scope, environment())).err()?;
    let Kind {
        group, version, kind, ..
    } = kind;
    Some(format!("{group}/{version}, Kind={kind}: {error}\n"))
}

fn split(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// The kinds that the rules name, sorted; those that rules with wildcards are for are not looked for.
fn kinds_of(registry: &Registry, spec: &Object) -> Vec<Arc<Kind>> {
    let mut kinds = BTreeMap::new();
    for (_, rule) in objects(spec, &["matchConstraints", "resourceRules"]) {
        let named = |field: &str| -> Vec<&str> { items(rule, &[field]).iter().filter_map(Value::as_str).collect() };
        let (groups, versions) = (named("apiGroups"), named("apiVersions"));
        if groups.iter().chain(&versions).any(|name| name.contains('*')) {
            continue;
        }
        let resources = named("resources");
        let whole = || resources.iter().filter(|resource| !resource.contains(['*', '/']));
        for group in &groups {
            for version in &versions {
                for resource in whole() {
                    if let Some(kind) = registry.lookup(group, version, resource)
                        && kinds.len() < KINDS_MAX
                    {
                        kinds.insert((kind.group, kind.version, kind.kind), kind);
                    }
                }
            }
        }
    }
    kinds.into_values().collect()
}

/// The type of the objects of a kind.
fn type_of(kind: &Kind) -> Type {
    let mut path = Vec::new();
    Type::of(&of_definition(&schema::definition(kind), kind.kind, &mut path))
}

/// `path`: the definitions around this one.
fn of_definition<'d>(definition: &'d Definition, name: &str, path: &mut Vec<&'d str>) -> Arc<Decl> {
    let object = definition.object();
    if path.contains(&definition.name.as_str()) || path.len() > DEPTH_MAX || object.preserve_unknown {
        return decl(Shape::Any);
    }
    path.push(&definition.name);
    let fields = object.properties.iter().filter_map(|(field, property)| {
        let decl = of_property(property, &format!("{name}.{field}"), path);
        let field = FieldDecl {
            name: field.as_str().into(),
            decl,
        };
        Some((Arc::from(escape(&field.name)?), field))
    });
    let fields = fields.collect();
    path.pop();
    decl(Shape::Object(ObjectDecl {
        name: name.into(),
        fields,
    }))
}

fn of_property<'d>(property: &'d Property, name: &str, path: &mut Vec<&'d str>) -> Arc<Decl> {
    let Node::List(item) = &property.node else {
        return of_node(&property.node, name, path);
    };
    let keys = || {
        property
            .list_map_keys
            .iter()
            .map(|key| Arc::from(key.as_str()))
            .collect()
    };
    decl(Shape::List {
        item: of_node(item, name, path),
        kind: match property.list_type {
            Some(ListType::Set) => ListKind::Set,
            Some(ListType::Map) => ListKind::Map(keys()),
            _ => ListKind::Atomic,
        },
    })
}

fn of_node<'d>(node: &'d Node, name: &str, path: &mut Vec<&'d str>) -> Arc<Decl> {
    match node {
        Node::Object(definition) => of_definition(definition, name, path),
        Node::Map(value) => decl(Shape::Map(of_node(value, name, path))),
        Node::List(item) => decl(Shape::List {
            item: of_node(item, name, path),
            kind: ListKind::Atomic,
        }),
        Node::String => decl(Shape::String),
        Node::Bytes => decl(Shape::Bytes),
        Node::Time | Node::MicroTime => decl(Shape::DateTime),
        Node::Int32 | Node::Int64 => decl(Shape::Int),
        Node::Double => decl(Shape::Double),
        Node::Boolean => decl(Shape::Bool),
        Node::IntOrString => decl(Shape::IntOrString),
        Node::Quantity | Node::Any | Node::Either(..) => decl(Shape::Any),
    }
}
