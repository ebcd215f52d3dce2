//! Swagger 2.0 as gnostic's protobuf, the only form in which client-go asks for `/openapi/v2`
//! (upstream: `gnostic-models/openapiv2/OpenAPIv2.proto`, whose field numbers these are).

use prost::encoding::{WireType, encode_key, encode_varint, string};
use serde_json::Value;

/// `application/com.github.proto-openapi.spec.v2.v1.0+protobuf`
pub fn encode(document: &Value) -> Vec<u8> {
    let mut message = Message::default();
    message.text(1, &document["swagger"]);
    message.message(2, info(&document["info"]));
    message.message(8, named(&document["paths"], 2, path_item));
    message.message(9, named(&document["definitions"], 1, schema));
    for requirement in items(&document["security"]) {
        message.message(12, named(requirement, 1, string_array));
    }
    message.message(13, named(&document["securityDefinitions"], 1, security_definition));
    message.0
}

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// A string; nothing if the value is none.
    fn text(&mut self, number: u32, value: &Value) {
        if let Some(text) = value.as_str() {
            string::encode(number, &text.to_owned(), &mut self.0);
        }
    }

    fn texts(&mut self, number: u32, values: &Value) {
        for value in items(values) {
            self.text(number, value);
        }
    }

    fn flag(&mut self, number: u32, value: &Value) {
        if *value == true {
            encode_key(number, WireType::Varint, &mut self.0);
            encode_varint(1, &mut self.0);
        }
    }

    fn message(&mut self, number: u32, message: Message) {
        encode_key(number, WireType::LengthDelimited, &mut self.0);
        encode_varint(message.0.len() as u64, &mut self.0);
        self.0.extend_from_slice(&message.0);
    }

    /// Extensions: `NamedAny {1: name, 2: Any {2: yaml}}`; JSON is YAML.
    fn extensions(&mut self, number: u32, object: &Value) {
        for (key, value) in entries(object).filter(|(key, _)| key.starts_with("x-")) {
            let mut any = Message::default();
            any.text(2, &value.to_string().into());
            let mut named = Message::default();
            named.text(1, &key.into());
            named.message(2, any);
            self.message(number, named);
        }
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value))
}

/// A message of pairs `{1: name, 2: value}`, each under `number`.
fn named(object: &Value, number: u32, value: fn(&Value) -> Message) -> Message {
    let mut message = Message::default();
    for (name, entry) in entries(object) {
        let mut pair = Message::default();
        pair.text(1, &name.into());
        pair.message(2, value(entry));
        message.message(number, pair);
    }
    message
}

/// A message whose only field is another: gnostic's `oneof` types.
fn choice(number: u32, inner: Message) -> Message {
    let mut message = Message::default();
    message.message(number, inner);
    message
}

fn info(info: &Value) -> Message {
    let mut message = Message::default();
    message.text(1, &info["title"]);
    message.text(2, &info["version"]);
    message
}

fn string_array(values: &Value) -> Message {
    let mut message = Message::default();
    message.texts(1, values);
    message
}

fn security_definition(definition: &Value) -> Message {
    let mut api_key = Message::default();
    api_key.text(1, &definition["type"]);
    api_key.text(2, &definition["name"]);
    api_key.text(3, &definition["in"]);
    api_key.text(4, &definition["description"]);
    choice(2, api_key)
}

fn path_item(path: &Value) -> Message {
    let mut message = Message::default();
    for (number, method) in [
        (2, "get"),
        (3, "put"),
        (4, "post"),
        (5, "delete"),
        (6, "options"),
        (7, "head"),
        (8, "patch"),
    ] {
        if let Some(value) = path.get(method) {
            message.message(number, operation(value));
        }
    }
    message
}

fn operation(operation: &Value) -> Message {
    let mut message = Message::default();
    message.texts(1, &operation["tags"]);
    message.text(3, &operation["description"]);
    message.text(5, &operation["operationId"]);
    message.texts(6, &operation["produces"]);
    message.texts(7, &operation["consumes"]);
    for value in items(&operation["parameters"]) {
        message.message(8, choice(1, parameter(value)));
    }
    message.message(9, named(&operation["responses"], 1, response));
    message.texts(10, &operation["schemes"]);
    message.extensions(13, operation);
    message
}

/// `Parameter`: a body, or one in the query or path.
fn parameter(parameter: &Value) -> Message {
    let mut message = Message::default();
    if parameter["in"] == "body" {
        message.text(2, &parameter["name"]);
        message.text(3, &parameter["in"]);
        message.flag(4, &parameter["required"]);
        message.message(5, schema(&parameter["schema"]));
        return choice(1, message);
    }
    message.flag(1, &parameter["required"]);
    message.text(2, &parameter["in"]);
    message.text(3, &parameter["description"]);
    message.text(4, &parameter["name"]);
    if parameter["in"] == "path" {
        message.text(5, &parameter["type"]);
        message.flag(19, &parameter["uniqueItems"]);
        choice(2, choice(4, message))
    } else {
        message.text(6, &parameter["type"]);
        message.flag(20, &parameter["uniqueItems"]);
        choice(2, choice(3, message))
    }
}

fn response(response: &Value) -> Message {
    let mut message = Message::default();
    message.text(1, &response["description"]);
    if let Some(value) = response.get("schema") {
        message.message(2, choice(1, schema(value)));
    }
    choice(1, message)
}

fn schema(value: &Value) -> Message {
    let mut message = Message::default();
    message.text(1, &value["$ref"]);
    message.text(2, &value["format"]);
    message.text(4, &value["description"]);
    message.texts(19, &value["required"]);
    if let Some(value) = value.get("additionalProperties") {
        message.message(21, choice(1, schema(value)));
    }
    if let Some(kind) = value.get("type") {
        let mut types = Message::default();
        types.text(1, kind);
        message.message(22, types);
    }
    if let Some(value) = value.get("items") {
        message.message(23, choice(1, schema(value)));
    }
    if let Some(properties) = value.get("properties") {
        message.message(25, named(properties, 1, schema));
    }
    message.extensions(31, value);
    message
}
