//! The documents as they are served: one per group-version for `/openapi/v3`, one for `/openapi/v2`
//! (upstream: `kube-openapi/pkg/handler3` and `handler`).

use super::merged::Extensions;
use super::published::{self, Latest};
use super::{custom, decorate, gnostic, swagger, table::Table};
use crate::apiserver::version::git_version;
use crate::registry::Registry;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use parking_lot::RwLock;
use poem_openapi::OpenApiService;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::sync::Arc;
use tokio::sync::{Mutex, OnceCell};

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum OpenApiError {
    #[error("generate the OpenAPI document: {0}")]
    Generate(#[source] serde_json::Error),
    #[error("compress an OpenAPI document: {0}")]
    Compress(#[source] std::io::Error),
    #[error("the task that generates the OpenAPI documents ended early: {0}")]
    Task(#[source] tokio::task::JoinError),
}

/// One document, ready to be sent. It is kept compressed: a cluster's worth of them is ten times smaller so, and
/// nearly every client takes it as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub gzip: Bytes,
    /// SHA-512 of the uncompressed bytes, upper-case hexadecimal.
    pub hash: String,
}

impl Document {
    fn new(bytes: &[u8]) -> Result<Self, OpenApiError> {
        let mut under_way = UnderWay::default();
        under_way.write_all(bytes).map_err(OpenApiError::Compress)?;
        under_way.finish()
    }

    /// Written as it is compressed: uncompressed, the largest are ten times what is kept of all of them.
    pub fn json(value: &impl Serialize) -> Result<Self, OpenApiError> {
        let mut under_way = BufWriter::new(UnderWay::default());
        serde_json::to_writer(&mut under_way, value).map_err(OpenApiError::Generate)?;
        let under_way = under_way.into_inner();
        under_way
            .map_err(|error| OpenApiError::Compress(error.into_error()))?
            .finish()
    }
}

/// A document that is being written.
struct UnderWay {
    gzip: GzEncoder<Vec<u8>>,
    digest: Sha512,
}

impl Default for UnderWay {
    fn default() -> Self {
        Self {
            gzip: GzEncoder::new(Vec::new(), Compression::fast()),
            digest: Sha512::new(),
        }
    }
}

impl UnderWay {
    fn finish(self) -> Result<Document, OpenApiError> {
        Ok(Document {
            gzip: self.gzip.finish().map_err(OpenApiError::Compress)?.into(),
            hash: hex::encode_upper(self.digest.finalize()),
        })
    }
}

impl Write for UnderWay {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.gzip.write_all(bytes)?;
        self.digest.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.gzip.flush()
    }
}

/// The document of one group-version, borrowed from the whole.
#[derive(Serialize)]
struct Part<'a> {
    openapi: &'static str,
    info: &'a Value,
    paths: &'a BTreeMap<&'a str, &'a Value>,
    components: Components<'a>,
    security: &'a Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Components<'a> {
    schemas: BTreeMap<&'a str, &'a Value>,
    security_schemes: &'a Value,
}

/// The documents of `/openapi/v3` for built-in kinds.
pub struct V3 {
    /// `api/v1`, `apis/apps/v1`, `apis/apps`, …
    pub documents: BTreeMap<String, Document>,
    /// The schemas that those of custom resources refer to.
    pub common: Map<String, Value>,
}

/// The document of `/openapi/v2`, in its two encodings.
pub struct V2 {
    pub json: Document,
    pub protobuf: Document,
}

/// Those of the registry and of other servers' documents.
type Generations = (u64, u64);

/// All documents, made when they are first asked for.
pub struct OpenApiDocuments {
    pub(super) registry: Arc<Registry>,
    v3: OnceCell<Arc<V3>>,
    /// With what it shows.
    v2: Mutex<Option<(Generations, Arc<V2>)>>,
    pub(super) latest: Latest,
    pub(super) extensions: RwLock<Arc<Extensions>>,
}

impl OpenApiDocuments {
    /// Costs nothing until a document is asked for.
    pub fn new(registry: Arc<Registry>) -> Arc<Self> {
        Arc::new(Self {
            registry,
            v3: OnceCell::new(),
            v2: Mutex::new(None),
            latest: Latest::default(),
            extensions: RwLock::default(),
        })
    }

    /// From now on the documents tell this of other servers.
    pub fn extend(&self, extensions: Extensions) {
        *self.extensions.write() = Arc::new(extensions);
    }

    /// The documents of built-in kinds.
    pub async fn v3(&self) -> Result<Arc<V3>, OpenApiError> {
        let made = self.v3.get_or_try_init(|| self.make(v3)).await?;
        Ok(made.clone())
    }

    /// Everything in one document. Who comes while it is made waits for it.
    pub async fn v2(&self) -> Result<Arc<V2>, OpenApiError> {
        let mut made = self.v2.lock().await;
        let (snapshot, extensions) = (self.registry.snapshot(), self.extensions.read().clone());
        let current = (snapshot.generation, extensions.generation);
        if let Some((generation, v2)) = &*made
            && *generation == current
        {
            return Ok(v2.clone());
        }
        let fresh = self
            .make(move |mut whole| {
                published::extend(&mut whole, &snapshot);
                v2(&whole, &extensions)
            })
            .await?;
        *made = Some((current, fresh.clone()));
        Ok(fresh)
    }

    /// Makes documents on a thread that may block: it takes some tenths of a second.
    async fn make<T: Send + 'static>(
        &self,
        from: impl FnOnce(Value) -> Result<T, OpenApiError> + Send + 'static,
    ) -> Result<Arc<T>, OpenApiError> {
        let registry = self.registry.clone();
        let made = tokio::task::spawn_blocking(move || from(whole(&registry)?)).await;
        made.map_err(OpenApiError::Task)?.map(Arc::new)
    }
}

/// The whole API as one OpenAPI v3 document.
fn whole(registry: &Registry) -> Result<Value, OpenApiError> {
    let service = OpenApiService::new(Table, "Kubernetes", git_version());
    let mut document = serde_json::from_str(&service.spec()).map_err(OpenApiError::Generate)?;
    decorate::decorate(&mut document, registry);
    Ok(document)
}

fn v2(whole: &Value, extensions: &Extensions) -> Result<V2, OpenApiError> {
    let mut swagger = swagger::from_v3(whole);
    extensions.merge_into(&mut swagger);
    Ok(V2 {
        json: Document::json(&swagger)?,
        protobuf: Document::new(&gnostic::encode(&swagger))?,
    })
}

fn v3(whole: Value) -> Result<V3, OpenApiError> {
    let none = Map::new();
    let object = |pointer: &str| whole.pointer(pointer).and_then(Value::as_object).unwrap_or(&none);
    let schemas = object("/components/schemas");
    let mut groups: BTreeMap<&str, BTreeMap<&str, &Value>> = BTreeMap::new();
    for (path, operations) in object("/paths") {
        groups.entry(document_key(path)).or_default().insert(path, operations);
    }
    let mut documents = BTreeMap::new();
    let security = json!([{"BearerToken": []}]);
    for (key, paths) in &groups {
        let part = Part {
            openapi: "3.0.0",
            info: &whole["info"],
            paths,
            components: Components {
                schemas: referred(paths.values().copied(), schemas),
                security_schemes: &whole["components"]["securitySchemes"],
            },
            security: &security,
        };
        documents.insert((*key).to_owned(), Document::json(&part)?);
    }
    let references: Vec<Value> = custom::COMMON
        .iter()
        .map(|name| json!({"$ref": format!("#/components/schemas/{name}")}))
        .collect();
    let common = referred(references.iter(), schemas);
    let common = common
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema.clone()));
    Ok(V3 {
        documents,
        common: common.collect(),
    })
}

/// The document that a path belongs to: `apis/apps/v1` for `/apis/apps/v1/namespaces/…`, and the path itself, as
/// far as it is fixed, where it is no resource's.
fn document_key(path: &str) -> &str {
    let path = path.trim_matches('/');
    let segments = match path.split('/').next() {
        Some("apis") => 3,
        Some("api") => 2,
        _ => return path.split("/{").next().unwrap_or(path),
    };
    path.match_indices('/')
        .nth(segments - 1)
        .map_or(path, |(end, _)| &path[..end])
}

/// The schemas that values refer to, directly or through others.
fn referred<'a>(
    values: impl Iterator<Item = &'a Value>,
    schemas: &'a Map<String, Value>,
) -> BTreeMap<&'a str, &'a Value> {
    let mut found = BTreeMap::new();
    let mut open: Vec<&Value> = values.collect();
    while let Some(value) = open.pop() {
        match value {
            Value::Object(object) => {
                let reference = object
                    .get("$ref")
                    .and_then(Value::as_str)
                    .and_then(|path| path.rsplit('/').next());
                if let Some((name, schema)) = reference.and_then(|name| schemas.get_key_value(name))
                    && found.insert(name.as_str(), schema).is_none()
                {
                    open.push(schema);
                }
                open.extend(object.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    found
}
