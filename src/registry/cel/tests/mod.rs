//! Expressions and what becomes of them: tables of situations.

mod errors;
mod language;
mod libraries;
mod random;

use super::decl::{FieldDecl, ListKind, ObjectDecl, Shape};
use super::*;
use serde_json::{Value as Json, json};

fn decl(shape: Shape) -> Arc<Decl> {
    Arc::new(Decl {
        shape,
        nullable: false,
        elements_max: 100,
        bytes_min: 2,
    })
}

fn object(fields: Vec<(&str, Arc<Decl>)>) -> Arc<Decl> {
    let fields = fields.into_iter().map(|(name, decl)| {
        let escaped: Arc<str> = decl::escape(name).expect("a name").into();
        (
            escaped,
            FieldDecl {
                name: name.into(),
                decl,
            },
        )
    });
    decl(Shape::Object(ObjectDecl {
        name: "object".into(),
        fields: fields.collect(),
    }))
}

/// Data with a bit of everything.
fn everything() -> Arc<Decl> {
    let text = || decl(Shape::String);
    let list = |item, kind| decl(Shape::List { item, kind });
    let pair = || object(vec![("name", text()), ("value", decl(Shape::Int))]);
    object(vec![
        ("text", text()),
        ("other", text()),
        ("int", decl(Shape::Int)),
        ("double", decl(Shape::Double)),
        ("bool", decl(Shape::Bool)),
        ("port", decl(Shape::IntOrString)),
        ("bytes", decl(Shape::Bytes)),
        ("duration", decl(Shape::Duration)),
        ("date", decl(Shape::Date)),
        ("time", decl(Shape::DateTime)),
        ("texts", list(text(), ListKind::Atomic)),
        ("ints", list(decl(Shape::Int), ListKind::Atomic)),
        ("set", list(text(), ListKind::Set)),
        ("same", list(text(), ListKind::Set)),
        ("pairs", list(pair(), ListKind::Map(["name".into()].into()))),
        ("map", decl(Shape::Map(text()))),
        ("nested", pair()),
        ("namespace", text()),
        ("a-b.c", text()),
        ("any", decl(Shape::Any)),
        ("absent", text()),
    ])
}

fn data() -> Json {
    json!({
        "text": "hello", "other": "wörld", "int": 7, "double": 1.5, "bool": true, "port": "80%", "bytes": "aGk=",
        "duration": "90s", "date": "2024-02-29", "time": "2024-02-29T12:30:45.5Z",
        "texts": ["b", "a"], "ints": [3, 1, 2], "set": ["x", "y"], "same": ["y", "x"],
        "pairs": [{"name": "a", "value": 1}, {"name": "b", "value": 2}],
        "map": {"k": "v", "a.b": "w"}, "nested": {"name": "n", "value": 9},
        "namespace": "ns", "a-b.c": "dashed", "any": {"x": [1, "two", null], "y": 2.5}
    })
}

fn environment() -> Environment {
    Environment::default().with_data("self", &everything())
}

/// What an expression over [`data`] comes to, or its error.
fn evaluated(source: &str) -> Result<String, String> {
    let program = compile(source, &environment()).map_err(|error| error.to_string())?;
    let (json, decl) = (data(), everything());
    let lookup = |name: &str| (name == "self").then(|| Value::of(&json, &decl));
    let (result, _) = program.evaluate(&lookup, CALL_COST_MAX);
    result.map(|value| shown(&value)).map_err(|error| error.to_string())
}

fn shown(value: &Value<'_>) -> String {
    match value {
        Value::String(text) => format!("{:?}", &**text),
        Value::List(list) => {
            let items: Vec<String> = list
                .iter()
                .map(|item| item.map_or_else(|e| e.to_string(), |v| shown(&v)))
                .collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            let entries: Vec<String> = map
                .keys()
                .iter()
                .map(|key| {
                    format!(
                        "{}: {}",
                        shown(key),
                        shown(&map.get(key).expect("a key").expect("a value"))
                    )
                })
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Optional(None) => "none".to_owned(),
        Value::Optional(Some(inner)) => format!("some({})", shown(inner)),
        Value::Null => "null".to_owned(),
        Value::Type(name) => name.to_string(),
        other => other.to_string(),
    }
}

/// Each expression must be true.
fn holds(expressions: &[&str]) {
    for source in expressions {
        assert_eq!(evaluated(source).as_deref(), Ok("true"), "{source}");
    }
}
