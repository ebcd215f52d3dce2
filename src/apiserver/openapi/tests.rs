//! What clients find in the documents, and how they are served.

use super::*;
use crate::registry::Registry;
use poem::http::{StatusCode, header};
use poem::{Request, Response};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

const GNOSTIC: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const NAMED_POD: &str = "/api/v1/namespaces/{namespace}/pods/{name}";

/// Made once for all tests, as in a server.
static DOCUMENTS: LazyLock<Arc<OpenApiDocuments>> = LazyLock::new(|| OpenApiDocuments::new(Registry::builtin()));

async fn get(uri: &str, headers: &[(header::HeaderName, &str)]) -> Response {
    let mut request = Request::builder().uri_str(uri);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    serve(&DOCUMENTS, &request.finish())
        .await
        .unwrap_or_else(|error| error.to_response())
}

async fn bytes(response: Response) -> Vec<u8> {
    response.into_body().into_vec().await.expect("a body")
}

async fn document(uri: &str) -> Value {
    let response = get(uri, &[]).await;
    assert_eq!(response.status(), StatusCode::OK, "{uri}");
    assert_eq!(response.content_type(), Some("application/json"), "{uri}");
    serde_json::from_slice(&bytes(response).await).expect("JSON")
}

/// The URLs of the index, hash included.
async fn urls() -> Vec<String> {
    let index = document("/openapi/v3").await;
    let paths = index["paths"].as_object().expect("paths").values();
    paths
        .map(|entry| entry["serverRelativeURL"].as_str().expect("a URL").to_owned())
        .collect()
}

fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().into_iter().flatten();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

fn references<'a>(value: &'a Value, found: &mut HashSet<&'a str>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get("$ref").and_then(Value::as_str));
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

fn parameter<'a>(operation: &'a Value, name: &str) -> Option<&'a Value> {
    operation["parameters"]
        .as_array()?
        .iter()
        .find(|parameter| parameter["name"] == name)
}

#[tokio::test]
async fn every_document_is_whole() {
    let mut ids = HashSet::new();
    let mut patches = 0;
    for url in urls().await {
        let document = document(&url).await;
        assert_eq!(document["openapi"], "3.0.0");
        let mut found = HashSet::new();
        references(&document, &mut found);
        for reference in found {
            assert!(
                document.pointer(reference.trim_start_matches('#')).is_some(),
                "{url} lacks {reference}"
            );
        }
        for (path, method, operation) in operations(&document) {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            for name in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
                assert_eq!(parameter(operation, name).expect(path)["in"], "path", "{path}");
            }
            if method == "patch" && operation["x-kubernetes-action"] == "patch" {
                patches += 1;
                assert_eq!(parameter(operation, "fieldValidation").expect(path)["in"], "query");
                assert!(
                    operation["x-kubernetes-group-version-kind"]["kind"].is_string(),
                    "{path}"
                );
                let content = &operation["requestBody"]["content"];
                assert!(content["application/strategic-merge-patch+json"].is_object(), "{path}");
            }
        }
    }
    assert!(patches > 80, "{patches}");
}

#[tokio::test]
async fn names_are_those_that_code_generators_know() {
    let (core, apps) = (
        document("/openapi/v3/api/v1").await,
        document("/openapi/v3/apis/apps/v1").await,
    );
    let id = |document: &Value, path: &str, method: &str| document["paths"][path][method]["operationId"].clone();
    assert_eq!(id(&core, NAMED_POD, "patch"), "patchCoreV1NamespacedPod");
    assert_eq!(id(&core, "/api/v1/pods", "get"), "listCoreV1PodForAllNamespaces");
    assert_eq!(
        id(&core, &format!("{NAMED_POD}/exec"), "get"),
        "connectCoreV1GetNamespacedPodExec"
    );
    assert_eq!(
        id(&core, &format!("{NAMED_POD}/eviction"), "post"),
        "createCoreV1NamespacedPodEviction"
    );
    assert_eq!(
        id(&core, "/api/v1/namespaces/{namespace}/pods", "delete"),
        "deleteCoreV1CollectionNamespacedPod"
    );
    let deployments = "/apis/apps/v1/namespaces/{namespace}/deployments";
    assert_eq!(id(&apps, deployments, "post"), "createAppsV1NamespacedDeployment");
    assert_eq!(apps["paths"][deployments]["post"]["tags"], json!(["apps_v1"]));
    let rbac = document("/openapi/v3/apis/rbac.authorization.k8s.io/v1").await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    assert_eq!(id(&rbac, roles, "get"), "listRbacAuthorizationV1ClusterRole");
    assert_eq!(rbac["paths"][roles]["get"]["tags"], json!(["rbacAuthorization_v1"]));
}

#[tokio::test]
async fn schemas_have_what_kubectl_reads() {
    let core = document("/openapi/v3/api/v1").await;
    let schemas = &core["components"]["schemas"];
    let pod = &schemas["io.k8s.api.core.v1.Pod"];
    assert_eq!(
        pod["x-kubernetes-group-version-kind"],
        json!([{"group": "", "version": "v1", "kind": "Pod"}])
    );
    assert_eq!(pod.get("required"), None);
    // References stand alone, texts beside them.
    let spec = &pod["properties"]["spec"];
    assert_eq!(
        spec["allOf"],
        json!([{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}])
    );
    assert!(
        spec["description"]
            .as_str()
            .is_some_and(|text| text.contains("desired behavior"))
    );
    let spec = &schemas["io.k8s.api.core.v1.PodSpec"];
    assert_eq!(spec["required"], json!(["containers"]));
    let volumes = &spec["properties"]["volumes"];
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
    assert_eq!(volumes["x-kubernetes-patch-merge-key"], "name");
    let ports = &schemas["io.k8s.api.core.v1.Container"]["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-patch-merge-key"], "containerPort");
    assert_eq!(
        ports["x-kubernetes-list-map-keys"],
        json!(["containerPort", "protocol"])
    );
    assert_eq!(
        ports["items"],
        json!({"allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.ContainerPort"}], "default": {}})
    );
    // Zero values: of structs, of required texts and numbers, and of what lists and maps hold; not of pointers,
    // times and quantities.
    let property = |definition: &str, path: &str| schemas[definition].pointer(&format!("/properties/{path}/default"));
    let container = "io.k8s.api.core.v1.Container";
    assert_eq!(property("io.k8s.api.core.v1.Pod", "spec"), Some(&json!({})));
    assert_eq!(property(container, "name"), Some(&json!("")));
    assert_eq!(property(container, "args/items"), Some(&json!("")));
    assert_eq!(
        property("io.k8s.api.core.v1.ContainerPort", "containerPort"),
        Some(&json!(0))
    );
    assert_eq!(
        property("io.k8s.api.core.v1.ConfigMap", "data/additionalProperties"),
        Some(&json!(""))
    );
    for (definition, path) in [
        (container, "image"),
        (container, "livenessProbe"),
        ("io.k8s.api.core.v1.ConfigMap", "binaryData/additionalProperties"),
        ("io.k8s.api.core.v1.ResourceRequirements", "limits/additionalProperties"),
        ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "creationTimestamp"),
    ] {
        assert_eq!(property(definition, path), None, "{definition} {path}");
    }
    let protocol = &schemas["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"];
    assert_eq!(protocol["default"], "TCP");
    assert_eq!(
        schemas["io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"]["x-kubernetes-map-type"],
        "atomic"
    );
    let int_or_string = &schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!(int_or_string["oneOf"], json!([{"type": "integer"}, {"type": "string"}]));
    let list = &schemas["io.k8s.api.core.v1.PodList"];
    assert_eq!(list["x-kubernetes-group-version-kind"][0]["kind"], "PodList");
}

#[tokio::test]
async fn the_hash_in_the_url_names_the_content() {
    let url = urls()
        .await
        .into_iter()
        .find(|url| url.contains("/apps/v1?"))
        .expect("apps/v1");
    let response = get(&url, &[]).await;
    assert_eq!(response.header(header::CACHE_CONTROL), Some("public, immutable"));
    assert!(
        response
            .header(header::EXPIRES)
            .is_some_and(|expires| expires.ends_with(" GMT"))
    );
    let etag = response.header(header::ETAG).expect("an ETag").to_owned();
    let hash = url.split("hash=").nth(1).expect("a hash");
    assert_eq!(etag, format!("\"{hash}\""));
    let plain = bytes(response).await;

    let stale = get("/openapi/v3/apis/apps/v1?hash=0", &[]).await;
    assert_eq!(stale.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(stale.header(header::LOCATION), Some(&*url));
    let known = get(&url, &[(header::IF_NONE_MATCH, &etag)]).await;
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(
        get("/openapi/v3/apis/apps/v1", &[]).await.header(header::CACHE_CONTROL),
        None
    );

    let packed = get(&url, &[(header::ACCEPT_ENCODING, "br, gzip;q=0.5")]).await;
    assert_eq!(packed.header(header::CONTENT_ENCODING), Some("gzip"));
    let packed = bytes(packed).await;
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*packed), &mut unpacked).expect("gzip");
    assert_eq!(unpacked, plain);

    // The same schema has the same hash, however often documents are made.
    let again = OpenApiDocuments::new(Registry::builtin());
    let first = DOCUMENTS.published().await.expect("documents").index.hash.clone();
    let second = again.published().await.expect("documents");
    assert_eq!(second.index.hash, first);
    assert_eq!(second.hash("apis/apps/v1"), Some(hash));
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    assert_eq!(
        get("/openapi/v3/apis/none/v1", &[]).await.status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(get("/openapi/v4", &[]).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(get("/docs/none", &[]).await.status(), StatusCode::NOT_FOUND);
    let html = [(header::ACCEPT, "text/html")];
    assert_eq!(get("/openapi/v2", &html).await.status(), StatusCode::NOT_ACCEPTABLE);
    assert_eq!(
        get("/openapi/v3/api/v1", &html).await.status(),
        StatusCode::NOT_ACCEPTABLE
    );
    let browser = [(header::ACCEPT, "text/html, */*;q=0.1")];
    assert_eq!(get("/openapi/v3/api/v1", &browser).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn swagger_says_the_same() {
    let swagger = document("/openapi/v2").await;
    assert_eq!(swagger["swagger"], "2.0");
    let patch = &swagger["paths"][NAMED_POD]["patch"];
    assert_eq!(parameter(patch, "body").expect("a body")["required"], true);
    assert_eq!(
        parameter(patch, "fieldValidation").expect("the parameter")["type"],
        "string"
    );
    assert!(
        patch["consumes"]
            .as_array()
            .is_some_and(|types| types.contains(&json!("application/merge-patch+json")))
    );
    let definitions = &swagger["definitions"];
    let spec = &definitions["io.k8s.api.core.v1.Pod"]["properties"]["spec"];
    assert_eq!(spec["$ref"], "#/definitions/io.k8s.api.core.v1.PodSpec");
    assert!(spec["description"].is_string());
    let int_or_string = &definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!(
        (&int_or_string["type"], &int_or_string["format"]),
        (&json!("string"), &json!("int-or-string"))
    );
    assert_eq!(int_or_string.get("oneOf"), None);
    let mut found = HashSet::new();
    references(&swagger, &mut found);
    for reference in found {
        assert!(
            swagger.pointer(reference.trim_start_matches('#')).is_some(),
            "{reference}"
        );
    }
}

/// The parts of gnostic's messages that client-go cannot do without.
mod gnostic_messages {
    #[derive(prost::Message)]
    pub struct Document {
        #[prost(string, tag = "1")]
        pub swagger: String,
        #[prost(message, optional, tag = "8")]
        pub paths: Option<Paths>,
        #[prost(message, optional, tag = "9")]
        pub definitions: Option<Definitions>,
    }
    #[derive(prost::Message)]
    pub struct Paths {
        #[prost(message, repeated, tag = "2")]
        pub path: Vec<NamedPath>,
    }
    #[derive(prost::Message)]
    pub struct NamedPath {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(message, optional, tag = "2")]
        pub value: Option<PathItem>,
    }
    #[derive(prost::Message)]
    pub struct PathItem {
        #[prost(message, optional, tag = "8")]
        pub patch: Option<Operation>,
    }
    #[derive(prost::Message)]
    pub struct Operation {
        #[prost(string, tag = "5")]
        pub operation_id: String,
        #[prost(message, repeated, tag = "13")]
        pub extensions: Vec<NamedAny>,
    }
    #[derive(prost::Message)]
    pub struct NamedAny {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(message, optional, tag = "2")]
        pub value: Option<Any>,
    }
    #[derive(prost::Message)]
    pub struct Any {
        #[prost(string, tag = "2")]
        pub yaml: String,
    }
    #[derive(prost::Message)]
    pub struct Definitions {
        #[prost(message, repeated, tag = "1")]
        pub named: Vec<NamedSchema>,
    }
    #[derive(prost::Message)]
    pub struct NamedSchema {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(message, optional, tag = "2")]
        pub value: Option<Schema>,
    }
    #[derive(prost::Message)]
    pub struct Schema {
        #[prost(string, tag = "1")]
        pub reference: String,
        #[prost(message, optional, tag = "25")]
        pub properties: Option<Definitions>,
        #[prost(message, repeated, tag = "31")]
        pub extensions: Vec<NamedAny>,
    }
}

#[tokio::test]
async fn swagger_in_protobuf_is_what_the_json_is() {
    for accept in [GNOSTIC, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"] {
        let response = get("/openapi/v2", &[(header::ACCEPT, accept)]).await;
        assert_eq!(response.content_type(), Some(GNOSTIC));
        let message: gnostic_messages::Document = prost::Message::decode(&*bytes(response).await).expect("protobuf");
        let json = document("/openapi/v2").await;
        assert_eq!(message.swagger, "2.0");
        let definitions = message.definitions.expect("definitions").named;
        assert_eq!(
            definitions.len(),
            json["definitions"].as_object().map_or(0, |all| all.len())
        );
        let spec = definitions
            .iter()
            .find(|d| d.name == "io.k8s.api.core.v1.PodSpec")
            .and_then(|d| d.value.as_ref());
        let properties = &spec
            .and_then(|spec| spec.properties.as_ref())
            .expect("properties")
            .named;
        let containers = properties
            .iter()
            .find(|p| p.name == "containers")
            .and_then(|p| p.value.as_ref());
        let extensions: HashMap<&str, &str> = containers
            .iter()
            .flat_map(|schema| &schema.extensions)
            .map(|any| (&*any.name, any.value.as_ref().map_or("", |value| &value.yaml)))
            .collect();
        assert_eq!(extensions["x-kubernetes-patch-merge-key"], "\"name\"");
        let paths = message.paths.expect("paths").path;
        let pod = paths
            .iter()
            .find(|path| path.name == NAMED_POD)
            .and_then(|path| path.value.as_ref());
        let patch = pod.and_then(|pod| pod.patch.as_ref()).expect("patch");
        assert_eq!(patch.operation_id, "patchCoreV1NamespacedPod");
        let kind = patch
            .extensions
            .iter()
            .find(|any| any.name == "x-kubernetes-group-version-kind");
        let kind = kind.and_then(|any| any.value.as_ref()).map_or("", |any| &any.yaml);
        assert_eq!(
            serde_json::from_str::<Value>(kind).expect("JSON"),
            json!({"group": "", "version": "v1", "kind": "Pod"})
        );
    }
}

#[tokio::test]
async fn the_api_can_be_read_without_another_host() {
    let list = String::from_utf8(bytes(get("/docs", &[]).await).await).expect("text");
    assert!(list.contains("<a href=\"/docs/apis/apps/v1\">"));
    let page = String::from_utf8(bytes(get("/docs/apis/apps/v1", &[]).await).await).expect("text");
    assert!(page.contains("docEl.loadSpec(\"/openapi/v3/apis/apps/v1?hash="));
    assert!(!page.contains("<link href=\"https://") && !page.contains("src=\"https://"));
}
