//! What a server says of itself in OpenAPI version 2, said in version 3, for servers that have no other
//! (upstream: `kube-openapi/pkg/openapiconv`). Pure; some is lost, as upstream.

use serde_json::{Map, Value, json};

const DEFINITIONS: &str = "#/definitions/";
const SCHEMAS: &str = "#/components/schemas/";
const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];

/// The same API as a document of version 3.
pub fn from_swagger(swagger: &Value) -> Value {
    let mut document = Map::new();
    document.insert("openapi".to_owned(), "3.0.0".into());
    copy(swagger, &["info", "externalDocs"], &mut document);
    let paths = entries(&swagger["paths"]).map(|(name, value)| match is_extension(name) {
        true => (name.clone(), value.clone()),
        false => (name.clone(), path(value)),
    });
    document.insert("paths".to_owned(), paths.collect::<Map<_, _>>().into());
    let mut components = Map::new();
    let mut add = |name: &str, from: &str, convert: &dyn Fn(&Value) -> Value| {
        if swagger[from].is_object() {
            let converted = entries(&swagger[from]).map(|(name, value)| (name.clone(), convert(value)));
            components.insert(name.to_owned(), converted.collect::<Map<_, _>>().into());
        }
    };
    add("schemas", "definitions", &schema);
    add("securitySchemes", "securityDefinitions", &security);
    add("responses", "responses", &|value| response(value, &swagger["produces"]));
    document.insert("components".to_owned(), components.into());
    document.into()
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn is_extension(name: &str) -> bool {
    name.starts_with("x-")
}

/// Takes over what says the same in both versions, and extensions.
fn copy(from: &Value, names: &[&str], to: &mut Map<String, Value>) {
    for (name, value) in entries(from) {
        if names.contains(&name.as_str()) || is_extension(name) {
            to.insert(name.clone(), value.clone());
        }
    }
}

/// A reference to something else than a schema moves below the components.
fn reference(value: &Value, kind: &str) -> Option<Value> {
    let to = value.get("$ref")?.as_str()?;
    let to = to.replacen(&format!("#/{kind}/"), &format!("#/components/{kind}/"), 1);
    Some(json!({ "$ref": to }))
}

fn path(path: &Value) -> Value {
    let mut converted = Map::new();
    copy(path, &["$ref"], &mut converted);
    for method in METHODS {
        if let Some(found) = path.get(method) {
            converted.insert(method.to_owned(), operation(found));
        }
    }
    if path["parameters"].is_array() {
        let parameters = list(&path["parameters"]).iter().map(parameter);
        converted.insert("parameters".to_owned(), parameters.collect::<Vec<_>>().into());
    }
    converted.into()
}

fn operation(operation: &Value) -> Value {
    let mut converted = Map::new();
    let same = [
        "tags",
        "summary",
        "description",
        "externalDocs",
        "operationId",
        "deprecated",
    ];
    copy(operation, &same, &mut converted);
    let is_body = |parameter: &&Value| parameter["name"] == "body" && parameter["schema"].is_object();
    let (bodies, others): (Vec<&Value>, Vec<&Value>) = list(&operation["parameters"]).iter().partition(is_body);
    if !others.is_empty() {
        let others = others.into_iter().map(parameter);
        converted.insert("parameters".to_owned(), others.collect::<Vec<_>>().into());
    }
    if let Some(body) = bodies.last() {
        let mut request = Map::new();
        if let Some(content) = content(&body["schema"], &operation["consumes"]) {
            request.insert("content".to_owned(), content);
        }
        converted.insert("requestBody".to_owned(), request.into());
    }
    let responses = entries(&operation["responses"]).map(|(code, value)| match is_extension(code) {
        true => (code.clone(), value.clone()),
        false => (code.clone(), response(value, &operation["produces"])),
    });
    converted.insert("responses".to_owned(), responses.collect::<Map<_, _>>().into());
    converted.into()
}

/// The schema for each of the media types.
fn content(value: &Value, types: &Value) -> Option<Value> {
    let types = types.as_array()?.iter().filter_map(Value::as_str);
    let content = types.map(|name| (name.to_owned(), json!({"schema": schema(value)})));
    Some(content.collect::<Map<_, _>>().into())
}

fn response(response: &Value, produces: &Value) -> Value {
    if let Some(reference) = reference(response, "responses") {
        return reference;
    }
    let mut converted = Map::new();
    copy(response, &["description"], &mut converted);
    if response["schema"].is_object()
        && let Some(content) = content(&response["schema"], produces)
    {
        converted.insert("content".to_owned(), content);
    }
    converted.into()
}

fn parameter(parameter: &Value) -> Value {
    if let Some(reference) = reference(parameter, "parameters") {
        return reference;
    }
    let mut converted = Map::new();
    let same = ["name", "in", "description", "required", "allowEmptyValue"];
    copy(parameter, &same, &mut converted);
    let of_parameter = match parameter.get("schema") {
        Some(found) => schema(found),
        None => {
            let mut simple = Map::new();
            for name in ["type", "format", "uniqueItems"] {
                if let Some(value) = parameter.get(name) {
                    simple.insert(name.to_owned(), value.clone());
                }
            }
            simple.into()
        }
    };
    converted.insert("schema".to_owned(), of_parameter);
    converted.into()
}

/// References point elsewhere, and nothing may stand beside them.
fn schema(value: &Value) -> Value {
    let Some(object) = value.as_object() else {
        return value.clone();
    };
    let mut converted = Map::with_capacity(object.len());
    for (key, value) in object {
        let value = match (key.as_str(), value) {
            ("$ref", Value::String(to)) => match to.find(DEFINITIONS) {
                Some(at) => format!("{SCHEMAS}{}", &to[at + DEFINITIONS.len()..]).into(),
                None => value.clone(),
            },
            ("properties", Value::Object(properties)) => {
                let properties = properties.iter().map(|(name, value)| (name.clone(), schema(value)));
                properties.collect::<Map<_, _>>().into()
            }
            ("items" | "additionalProperties" | "additionalItems" | "not", Value::Object(_)) => schema(value),
            ("items" | "allOf" | "anyOf" | "oneOf", Value::Array(all)) => all.iter().map(schema).collect(),
            _ => value.clone(),
        };
        converted.insert(key.clone(), value);
    }
    if converted.len() > 1
        && let Some(reference) = converted.shift_remove("$ref")
    {
        converted.insert("allOf".to_owned(), json!([{ "$ref": reference }]));
    }
    converted.into()
}

fn security(scheme: &Value) -> Value {
    let mut converted = Map::new();
    copy(scheme, &["description", "type", "name", "in"], &mut converted);
    if let Some(flow) = scheme["flow"].as_str().filter(|flow| !flow.is_empty()) {
        let names = ["authorizationUrl", "tokenUrl", "scopes"];
        let of_flow = names
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), scheme.get(name)?.clone())));
        let of_flow: Map<String, Value> = of_flow.collect();
        converted.insert("flows".to_owned(), json!({ flow: of_flow }));
    }
    converted.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_construct_has_its_place() {
        let swagger = json!({
            "swagger": "2.0", "info": {"title": "t", "version": "1"}, "externalDocs": {"url": "u"}, "schemes": ["https"],
            "produces": ["text/plain"], "security": [{"BearerToken": []}],
            "paths": {
                "x-all": 1,
                "/a/{name}": {
                    "x-path": true,
                    "parameters": [
                        {"name": "name", "in": "path", "required": true, "type": "string", "uniqueItems": true},
                        {"$ref": "#/parameters/shared"},
                    ],
                    "post": {
                        "operationId": "create", "tags": ["a"], "summary": "s", "schemes": ["https"],
                        "x-kubernetes-action": "post",
                        "consumes": ["application/json", "application/yaml"], "produces": ["application/json"],
                        "parameters": [
                            {"name": "body", "in": "body", "required": true, "schema": {"$ref": "#/definitions/A"}},
                            {"name": "limit", "in": "query", "type": "integer", "format": "int64", "description": "d"},
                        ],
                        "responses": {
                            "200": {"description": "OK", "schema": {"$ref": "#/definitions/A"}},
                            "404": {"$ref": "#/responses/missing"},
                            "default": {"description": "Else"},
                        },
                    },
                },
            },
            "definitions": {
                "A": {"type": "object", "x-kind": [1], "properties": {
                    "one": {"description": "d", "$ref": "#/definitions/B"},
                    "many": {"type": "array", "items": {"$ref": "#/definitions/B"}},
                    "map": {"additionalProperties": {"$ref": "#/definitions/B"}},
                    "any": {"additionalProperties": true},
                }},
                "B": {"type": "string"},
            },
            "responses": {"missing": {"description": "gone", "schema": {"$ref": "#/definitions/B"}}},
            "securityDefinitions": {
                "BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"},
                "Flow": {"type": "oauth2", "flow": "implicit", "authorizationUrl": "u", "scopes": {"a": "b"}},
            },
        });
        let of = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
        assert_eq!(
            from_swagger(&swagger),
            json!({
                "openapi": "3.0.0", "info": {"title": "t", "version": "1"}, "externalDocs": {"url": "u"},
                "paths": {
                    "x-all": 1,
                    "/a/{name}": {
                        "x-path": true,
                        "parameters": [
                            {"name": "name", "in": "path", "required": true,
                                "schema": {"type": "string", "uniqueItems": true}},
                            {"$ref": "#/components/parameters/shared"},
                        ],
                        "post": {
                            "operationId": "create", "tags": ["a"], "summary": "s", "x-kubernetes-action": "post",
                            "parameters": [{"name": "limit", "in": "query", "description": "d",
                                "schema": {"type": "integer", "format": "int64"}}],
                            "requestBody": {"content": {
                                "application/json": {"schema": of("A")}, "application/yaml": {"schema": of("A")}}},
                            "responses": {
                                "200": {"description": "OK", "content": {"application/json": {"schema": of("A")}}},
                                "404": {"$ref": "#/components/responses/missing"},
                                "default": {"description": "Else"},
                            },
                        },
                    },
                },
                "components": {
                    "schemas": {
                        "A": {"type": "object", "x-kind": [1], "properties": {
                            "one": {"description": "d", "allOf": [of("B")]},
                            "many": {"type": "array", "items": of("B")},
                            "map": {"additionalProperties": of("B")},
                            "any": {"additionalProperties": true},
                        }},
                        "B": {"type": "string"},
                    },
                    "responses": {"missing": {"description": "gone", "content": {"text/plain": {"schema": of("B")}}}},
                    "securitySchemes": {
                        "BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"},
                        "Flow": {"type": "oauth2", "flows": {"implicit": {"authorizationUrl": "u", "scopes": {"a": "b"}}}},
                    },
                },
            })
        );
    }
}
