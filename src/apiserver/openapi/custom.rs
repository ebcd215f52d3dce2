//! What the documents say of custom resources (upstream: `apiextensions-apiserver/pkg/controller/openapi/builder`).
//!
//! They come and go at run time, one at a time: what is said of one is made by itself, so that a group of a thousand
//! is written without being held as a whole.

use super::operations::{DELETE_OPTIONS, Names, PATCH, STATUS, list_definition};
use super::parameters::{Parameter, lists};
use crate::registry::Kind;
use crate::registry::custom::CustomKind;
use serde_json::{Map, Value, json};

pub const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
pub const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
pub const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";
/// What paths and schemas of custom resources refer to besides themselves.
pub const COMMON: [&str; 6] = [DELETE_OPTIONS, LIST_META, OBJECT_META, PATCH, SCALE, STATUS];

const KIND: &str = "x-kubernetes-group-version-kind";
const API_CONVENTIONS: &str = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";
const CONTENT: [&str; 2] = ["application/json", "application/yaml"];
const PATCHES: [&str; 3] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
];

/// The schemas of a kind and of its list, by name. `swagger`: as far as clients of `/openapi/v2` understand them.
pub fn schemas(kind: &Kind, custom: &CustomKind, swagger: bool) -> [(String, Value); 2] {
    let mut schema = custom.schema().json();
    let preserves = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if swagger && preserves {
        // A client that saw some members would refuse all others.
        schema = json!({"type": "object"});
    } else {
        if swagger {
            reduce(&mut schema);
        }
        publish(&mut schema, swagger, true);
    }
    let own = |kind_name: &str| json!([{"group": kind.group, "version": kind.version, "kind": kind_name}]);
    if !schema.is_object() {
        schema = json!({"type": "object"});
    }
    schema[KIND] = own(kind.kind);
    let selectable: Vec<Value> = kind
        .strategy
        .selectable_fields()
        .iter()
        .map(|field| json!({"fieldPath": field}))
        .collect();
    if !swagger && !selectable.is_empty() {
        schema["x-kubernetes-selectable-fields"] = selectable.into();
    }
    let list = json!({
        "description": format!("{} is a list of {}", kind.list_kind, kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": api_version(),
            "items": {
                "description": format!("List of {}. More info: {API_CONVENTIONS}", kind.resource),
                "type": "array",
                "items": reference(&kind.definition),
            },
            "kind": kind_property(),
            "metadata": described(LIST_META, "Standard list metadata."),
        },
        KIND: own(&kind.list_kind),
    });
    [(kind.definition.clone(), schema), (list_definition(kind), list)]
}

fn reference(definition: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{definition}")})
}

/// A reference with a text beside it.
fn described(definition: &str, description: &str) -> Value {
    json!({"description": format!("{description} More info: {API_CONVENTIONS}#metadata"), "allOf": [reference(definition)]})
}

fn api_version() -> Value {
    json!({
        "description": "The version of the schema of this object. Servers convert what they recognize to the newest \
                        one, and may refuse what they do not.",
        "type": "string",
    })
}

fn kind_property() -> Value {
    json!({
        "description": "The kind of this object, in CamelCase. It follows from where the object is sent to and cannot \
                        be changed.",
        "type": "string",
    })
}

/// Adds what every object has to the schema of a whole resource, at the root and where one is embedded; says in words
/// that all clients know what an extension means.
fn publish(schema: &mut Value, swagger: bool, root: bool) {
    let Some(object) = schema.as_object_mut() else { return };
    let is_true = |object: &Map<String, Value>, key: &str| object.get(key) == Some(&Value::Bool(true));
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(key) {
            publish(inner, swagger, false);
        }
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(|inner| publish(inner, swagger, false));
    }
    if is_true(object, "x-kubernetes-int-or-string")
        && !swagger
        && !object.contains_key("anyOf")
        && !object.contains_key("allOf")
    {
        object.insert("anyOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
    }
    let embedded = is_true(object, "x-kubernetes-embedded-resource");
    let open = swagger && is_true(object, "x-kubernetes-preserve-unknown-fields");
    if !root && (!embedded || open) {
        return;
    }
    if embedded && !root {
        let required = object.entry("required").or_insert_with(|| json!([]));
        for field in ["kind", "apiVersion"] {
            if let Some(required) = required.as_array_mut()
                && !required.iter().any(|known| known == field)
            {
                required.push(field.into());
            }
        }
    }
    let properties = object.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        properties.insert("apiVersion".into(), api_version());
        properties.insert("kind".into(), kind_property());
        properties.insert("metadata".into(), described(OBJECT_META, "Standard object's metadata."));
    }
}

/// Takes away what clients of `/openapi/v2` would misread (upstream: `controller/openapi/v2/conversion.go`).
fn reduce(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    for key in ["allOf", "anyOf", "oneOf", "not"] {
        object.shift_remove(key);
    }
    let is_true = |object: &Map<String, Value>, key: &str| object.get(key) == Some(&Value::Bool(true));
    let nullable = object.shift_remove("nullable") == Some(Value::Bool(true));
    let open = is_true(object, "x-kubernetes-preserve-unknown-fields");
    if nullable || open {
        object.shift_remove("items");
        object.shift_remove("properties");
    }
    let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
    if nullable || (kind == "array" && !object.contains_key("items")) || (open && kind == "object") {
        object.shift_remove("type");
    }
    if let Some(Value::Object(properties)) = object.get("properties") {
        let nulls: Vec<String> = properties
            .iter()
            .filter(|(_, schema)| schema.get("nullable") == Some(&Value::Bool(true)))
            .map(|(name, _)| name.clone())
            .collect();
        if let Some(Value::Array(required)) = object.get_mut("required") {
            required.retain(|name| !nulls.iter().any(|null| name == null));
            if required.is_empty() {
                object.shift_remove("required");
            }
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(key) {
            reduce(inner);
        }
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(reduce);
    }
}

/// The paths of a kind with their operations.
pub fn paths(kind: &Kind) -> Vec<(String, Value)> {
    let writer = Paths {
        kind,
        names: Names::of(kind.group, kind.version),
    };
    let base = format!("/apis/{}/{}", kind.group, kind.version);
    let mut paths = Vec::new();
    let namespace = if kind.namespaced() {
        let id = format!("list{}{}ForAllNamespaces", writer.names.id, kind.kind);
        paths.push((
            format!("{base}/{}", kind.resource),
            json!({"get": writer.list(id, &[])}),
        ));
        "namespaces/{namespace}/"
    } else {
        ""
    };
    let collection = format!("{base}/{namespace}{}", kind.resource);
    paths.push((collection.clone(), writer.collection()));
    paths.push((
        format!("{collection}/{{name}}"),
        writer.object("", &kind.definition, true),
    ));
    for subresource in &kind.subresources {
        let definition = if subresource.name == "scale" {
            SCALE
        } else {
            &kind.definition
        };
        let path = format!("{collection}/{{name}}/{}", subresource.name);
        paths.push((path, writer.object(subresource.name, definition, false)));
    }
    paths
}

struct Paths<'a> {
    kind: &'a Kind,
    names: Names,
}

/// The body of an operation: media types, definition, whether it must be there.
type Request<'a> = Option<(&'a [&'a str], &'a str, bool)>;

impl Paths<'_> {
    /// `createExampleComV1NamespacedWidget`
    fn id(&self, verb: &str, suffix: &str) -> String {
        let namespaced = if self.kind.namespaced() { "Namespaced" } else { "" };
        format!("{verb}{}{namespaced}{}{suffix}", self.names.id, self.kind.kind)
    }

    fn operation(
        &self,
        id: String,
        action: &str,
        description: String,
        parameters: &[&[Parameter]],
        request: Request<'_>,
        answer: (&str, &[u16]),
    ) -> Value {
        let content = |types: &[&str], definition: &str| -> Value {
            let media = |media: &&str| ((*media).to_owned(), json!({"schema": reference(definition)}));
            types.iter().map(media).collect::<Map<_, _>>().into()
        };
        let mut operation = Map::new();
        operation.insert("tags".into(), json!([self.names.tag]));
        operation.insert("description".into(), description.into());
        operation.insert("operationId".into(), id.into());
        let parameters: Vec<Value> = parameters.iter().copied().flatten().map(parameter).collect();
        operation.insert("parameters".into(), parameters.into());
        if let Some((types, definition, required)) = request {
            let mut body = json!({"content": content(types, definition)});
            if required {
                body["required"] = true.into();
            }
            operation.insert("requestBody".into(), body);
        }
        let (definition, codes) = answer;
        let mut responses = Map::new();
        for code in codes {
            let description = match code {
                201 => "Created",
                202 => "Accepted",
                _ => "OK",
            };
            let response = json!({"description": description, "content": content(&CONTENT, definition)});
            responses.insert(code.to_string(), response);
        }
        responses.insert("401".into(), json!({"description": "Unauthorized"}));
        operation.insert("responses".into(), responses.into());
        let Kind {
            group, version, kind, ..
        } = self.kind;
        operation.insert("x-kubernetes-action".into(), action.into());
        operation.insert(KIND.into(), json!({"group": group, "version": version, "kind": kind}));
        operation.into()
    }

    fn namespace(&self) -> &'static [Parameter] {
        if self.kind.namespaced() { lists::NAMESPACE } else { &[] }
    }

    fn list(&self, id: String, namespace: &[Parameter]) -> Value {
        let description = format!("list objects of kind {}", self.kind.kind);
        let parameters = [namespace, lists::READ, lists::LIST];
        let list = list_definition(self.kind);
        self.operation(id, "list", description, &parameters, None, (&list, &[200]))
    }

    fn collection(&self) -> Value {
        let Kind { kind, definition, .. } = self.kind;
        let namespace = self.namespace();
        let mut operations = Map::new();
        operations.insert("get".into(), self.list(self.id("list", ""), namespace));
        let body: Request<'_> = Some((&CONTENT, definition, true));
        let parameters = [namespace, lists::READ, lists::WRITE];
        let answer = (definition.as_str(), &[200, 201, 202][..]);
        let create = self.operation(
            self.id("create", ""),
            "post",
            format!("create a {kind}"),
            &parameters,
            body,
            answer,
        );
        operations.insert("post".into(), create);
        let id = self
            .id("delete", "")
            .replacen(&self.names.id, &format!("{}Collection", self.names.id), 1);
        let description = format!("delete collection of {kind}");
        let parameters = [namespace, lists::READ, lists::SELECT];
        let delete = self.operation(id, "deletecollection", description, &parameters, None, (STATUS, &[200]));
        operations.insert("delete".into(), delete);
        operations.into()
    }

    /// The operations of an object or of a subresource.
    fn object(&self, subresource: &str, definition: &str, deletes: bool) -> Value {
        let kind = self.kind.kind;
        let of = if subresource.is_empty() {
            String::new()
        } else {
            format!("{subresource} of ")
        };
        let mut suffix = subresource.to_owned();
        if let Some(first) = suffix.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        let (name, namespace) = (lists::NAME, self.namespace());
        let write = [name, namespace, lists::READ, lists::WRITE];
        let mut operations = Map::new();
        operations.insert(
            "get".into(),
            self.operation(
                self.id("read", &suffix),
                "get",
                format!("read {of}the specified {kind}"),
                &[name, namespace, lists::READ],
                None,
                (definition, &[200]),
            ),
        );
        operations.insert(
            "put".into(),
            self.operation(
                self.id("replace", &suffix),
                "put",
                format!("replace {of}the specified {kind}"),
                &write,
                Some((&CONTENT, definition, true)),
                (definition, &[200, 201]),
            ),
        );
        if deletes {
            operations.insert(
                "delete".into(),
                self.operation(
                    self.id("delete", ""),
                    "delete",
                    format!("delete a {kind}"),
                    &[name, namespace, lists::READ, lists::DELETE],
                    Some((&CONTENT, DELETE_OPTIONS, false)),
                    (STATUS, &[200, 202]),
                ),
            );
        }
        operations.insert(
            "patch".into(),
            self.operation(
                self.id("patch", &suffix),
                "patch",
                format!("partially update {of}the specified {kind}"),
                &[name, namespace, lists::READ, lists::WRITE, lists::FORCE],
                Some((&PATCHES, PATCH, true)),
                (definition, &[200]),
            ),
        );
        operations.into()
    }
}

fn parameter(parameter: &Parameter) -> Value {
    let mut value = json!({
        "name": parameter.name,
        "in": if parameter.in_path { "path" } else { "query" },
        "description": parameter.description,
        "schema": {"type": parameter.kind, "uniqueItems": true},
    });
    if parameter.in_path {
        value["required"] = true.into();
    }
    value
}
