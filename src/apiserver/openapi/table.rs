//! The table of kinds as a poem-openapi API: poem-openapi checks that every reference resolves, drops what nobody
//! refers to, and writes the document.
//!
//! What its types cannot express (`x-kubernetes-*`, texts beside references) is added afterwards by
//! [`super::decorate`]. Routing does not go through here: one endpoint serves built-in kinds and custom resources
//! alike (see [`crate::apiserver`]), and poem-openapi's routes are fixed when the program is compiled.

use super::operations::{Answer, Body, DELETE_OPTIONS, Operation, PATCH, WATCH_EVENT, routes};
use super::parameters::Parameter;
use super::schemas;
use crate::registry::Registry as Kinds;
use crate::registry::intern::intern;
use poem::endpoint::BoxEndpoint;
use poem::http::Method;
use poem_openapi::OpenApi;
use poem_openapi::registry::{
    MetaApi, MetaMediaType, MetaOperation, MetaOperationParam, MetaParamIn, MetaPath, MetaRequest, MetaResponse,
    MetaResponses, MetaSchema, MetaSchemaRef, MetaSecurityScheme, Registry,
};
use std::collections::HashMap;

/// The kinds of [`Kinds::builtin`].
pub struct Table;

impl OpenApi for Table {
    fn meta() -> Vec<MetaApi> {
        let paths = routes(&Kinds::builtin())
            .into_iter()
            .map(|route| MetaPath {
                path: route.path,
                operations: route.operations.into_iter().map(operation).collect(),
            })
            .collect();
        vec![MetaApi { paths }]
    }

    fn register(registry: &mut Registry) {
        registry.schemas.extend(schemas::meta_schemas(&Kinds::builtin()));
        registry.create_security_scheme(
            "BearerToken",
            MetaSecurityScheme {
                ty: "apiKey",
                description: Some("Bearer Token authentication"),
                name: Some("authorization"),
                key_in: Some("header"),
                scheme: None,
                bearer_format: None,
                flows: None,
                openid_connect_url: None,
            },
        );
    }

    fn add_routes(self, _routes: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {}
}

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const WATCHES: [&str; 2] = [
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const ANYTHING: &str = "*/*";
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

fn operation(operation: Operation) -> MetaOperation {
    MetaOperation {
        method: operation.method,
        tags: vec![intern(&operation.tag)],
        summary: None,
        description: None,
        external_docs: None,
        params: operation.parameters.iter().map(parameter).collect(),
        request: request(&operation.body),
        responses: MetaResponses {
            responses: responses(&operation.answer),
        },
        deprecated: false,
        security: Vec::new(),
        operation_id: Some(intern(&operation.id)),
        code_samples: Vec::new(),
    }
}

fn parameter(parameter: &Parameter) -> MetaOperationParam {
    MetaOperationParam {
        name: parameter.name.to_owned(),
        schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new(parameter.kind))),
        in_type: if parameter.in_path {
            MetaParamIn::Path
        } else {
            MetaParamIn::Query
        },
        description: Some(parameter.description.to_owned()),
        required: parameter.in_path,
        deprecated: false,
        explode: true,
        style: None,
    }
}

fn media(content_types: &[&'static str], definition: &str) -> Vec<MetaMediaType> {
    let media = |&content_type| MetaMediaType {
        content_type,
        schema: MetaSchemaRef::Reference(definition.to_owned()),
    };
    content_types.iter().map(media).collect()
}

fn request(body: &Body) -> Option<MetaRequest> {
    let (content, required) = match body {
        Body::None => return None,
        Body::Object(definition) => (media(&[ANYTHING], definition), true),
        Body::DeleteOptions => (media(&[ANYTHING], DELETE_OPTIONS), false),
        Body::Patch => (media(&PATCHES, PATCH), true),
    };
    Some(MetaRequest {
        description: None,
        content,
        required,
    })
}

fn responses(answer: &Answer) -> Vec<MetaResponse> {
    let object = |definition: &str| media(&[JSON, YAML, PROTOBUF], definition);
    let events = |definition: &str| media(&[&[JSON, YAML, PROTOBUF], &WATCHES[..]].concat(), definition);
    let text = |content_types: &[&'static str]| {
        let media = |&content_type| MetaMediaType {
            content_type,
            schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new("string"))),
        };
        content_types.iter().map(media).collect::<Vec<_>>()
    };
    let (content, more): (Vec<MetaMediaType>, &[u16]) = match answer {
        Answer::Read(definition) => (object(definition), &[]),
        Answer::Json(definition) => (media(&[JSON], definition), &[]),
        Answer::List(definition) => (events(definition), &[]),
        Answer::Watch => (events(WATCH_EVENT), &[]),
        Answer::Created(definition) => (object(definition), &[201, 202]),
        Answer::Written(definition) => (object(definition), &[201]),
        Answer::Deleted(definition) => (object(definition), &[202]),
        Answer::Text => (text(&["text/plain", JSON, YAML, PROTOBUF]), &[]),
        Answer::TextOf(content_type) => (text(&[content_type]), &[]),
        Answer::Connection => (text(&[ANYTHING]), &[]),
        Answer::Files => (Vec::new(), &[]),
    };
    let response = |status, description, content| MetaResponse {
        description,
        status: Some(status),
        status_range: None,
        content,
        headers: Vec::new(),
    };
    let mut responses = Vec::with_capacity(2 + more.len());
    if !matches!(answer, Answer::Files) {
        let again = |media: &MetaMediaType| MetaMediaType {
            content_type: media.content_type,
            schema: media.schema.clone(),
        };
        responses.push(response(200, "OK", content.iter().map(again).collect()));
        for &status in more {
            let description = if status == 201 { "Created" } else { "Accepted" };
            responses.push(response(status, description, content.iter().map(again).collect()));
        }
    }
    responses.push(response(401, "Unauthorized", Vec::new()));
    responses
}
