//! OpenAPI v3 to Swagger 2.0, which older clients still read
//! (upstream: `kube-openapi/pkg/openapiconv`, the other way round).

use super::schemas::{INT_OR_STRING, QUANTITY};
use serde_json::{Map, Value, json};

/// The same API as a Swagger 2.0 document.
pub fn from_v3(document: &Value) -> Value {
    let object = |pointer: &str| {
        document
            .pointer(pointer)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
    };
    let paths: Map<String, Value> = object("/paths")
        .map(|(name, path)| (name.clone(), convert_path(path)))
        .collect();
    let definitions: Map<String, Value> = object("/components/schemas")
        .map(|(name, schema)| (name.clone(), definition(name, schema)))
        .collect();
    json!({
        "swagger": "2.0",
        "info": document["info"],
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": document["components"]["securitySchemes"],
        "security": [{"BearerToken": []}],
    })
}

fn convert_path(path: &Value) -> Value {
    let methods = path.as_object().into_iter().flatten();
    methods
        .map(|(method, operation)| (method.clone(), convert_operation(operation)))
        .collect::<Map<_, _>>()
        .into()
}

fn convert_operation(operation: &Value) -> Value {
    let mut converted = Map::new();
    let mut parameters: Vec<Value> = operation["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .map(parameter)
        .collect();
    if let Some(body) = operation.get("requestBody") {
        let (content_types, schema) = content(&body["content"]);
        converted.insert("consumes".to_owned(), content_types);
        let mut parameter = json!({"name": "body", "in": "body", "schema": schema});
        if body["required"] == true {
            parameter["required"] = true.into();
        }
        parameters.insert(0, parameter);
    }
    if operation.get("x-kubernetes-action").is_some() && !converted.contains_key("consumes") {
        converted.insert("consumes".to_owned(), json!(["*/*"]));
    }
    let mut responses = Map::new();
    for (code, response) in operation["responses"].as_object().into_iter().flatten() {
        let (content_types, schema) = content(&response["content"]);
        let mut answer = json!({"description": response["description"]});
        if !schema.is_null() {
            answer["schema"] = schema;
        }
        if code == "200" {
            converted.insert("produces".to_owned(), content_types);
        }
        responses.insert(code.clone(), answer);
    }
    // Discovery is said to read what it writes.
    let discovery = ["get", "API"].iter().all(|part| id(operation).contains(part)) || id(operation) == "getCodeVersion";
    if let (true, Some(produces)) = (discovery, converted.get("produces").cloned()) {
        converted.entry("consumes").or_insert(produces);
    }
    converted.insert("schemes".to_owned(), json!(["https"]));
    if !parameters.is_empty() {
        converted.insert("parameters".to_owned(), parameters.into());
    }
    converted.insert("responses".to_owned(), responses.into());
    for (key, value) in operation.as_object().into_iter().flatten() {
        if key.starts_with("x-") || ["tags", "description", "operationId"].contains(&key.as_str()) {
            converted.insert(key.clone(), value.clone());
        }
    }
    converted.into()
}

fn id(operation: &Value) -> &str {
    operation["operationId"].as_str().unwrap_or_default()
}

/// The media types, and the schema of the first.
fn content(content: &Value) -> (Value, Value) {
    let content = content.as_object();
    let types = content
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect::<Vec<_>>();
    let first = content.and_then(|content| content.values().next());
    (
        types.into(),
        first.map_or(Value::Null, |media| schema(&media["schema"])),
    )
}

fn parameter(parameter: &Value) -> Value {
    let mut converted = parameter.as_object().cloned().unwrap_or_default();
    if converted.get("required") == Some(&Value::Bool(false)) {
        converted.shift_remove("required");
    }
    if let Some(Value::Object(schema)) = converted.shift_remove("schema") {
        converted.extend(schema);
    }
    converted.insert("uniqueItems".to_owned(), true.into());
    converted.into()
}

fn definition(name: &str, value: &Value) -> Value {
    let mut converted = schema(value);
    match name {
        INT_OR_STRING => {
            converted["type"] = "string".into();
            converted["format"] = "int-or-string".into();
        }
        QUANTITY => converted["type"] = "string".into(),
        _ => {}
    }
    converted
}

/// References point elsewhere, texts stand beside them, and there is no choice between types.
fn schema(value: &Value) -> Value {
    let Some(object) = value.as_object() else {
        return value.clone();
    };
    let mut converted = Map::with_capacity(object.len());
    for (key, value) in object {
        match key.as_str() {
            "$ref" => {
                let name = value
                    .as_str()
                    .and_then(|path| path.rsplit('/').next())
                    .unwrap_or_default();
                converted.insert(key.clone(), format!("#/definitions/{name}").into());
            }
            "allOf" => {
                if let Some(Value::Object(reference)) = value.get(0).map(schema) {
                    converted.extend(reference);
                }
            }
            "oneOf" | "anyOf" | "not" | "nullable" | "default" => {}
            "items" | "additionalProperties" => {
                converted.insert(key.clone(), schema(value));
            }
            "properties" => {
                let properties = value.as_object().into_iter().flatten();
                let properties: Map<String, Value> = properties.map(|(name, v)| (name.clone(), schema(v))).collect();
                converted.insert(key.clone(), properties.into());
            }
            _ => {
                converted.insert(key.clone(), value.clone());
            }
        }
    }
    converted.into()
}
