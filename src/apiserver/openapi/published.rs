//! All documents of `/openapi/v3`, those of custom resources included: which there are, and under which hashes
//! (upstream: `apiextensions-apiserver/pkg/controller/openapiv3`, and the aggregator that joins the indexes).
//!
//! The hash of a document of custom resources is that of what it is made of. So the index is cheap, a document is
//! made when it is first asked for, and one that did not change is not made again.

use super::custom;
use super::documents::{Document, OpenApiDocuments, OpenApiError, V3};
use super::merged::Extensions;
use crate::apiserver::version::git_version;
use crate::registry::{Kind, Snapshot};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// The documents of one generation of the registry.
pub struct Published {
    generation: (u64, u64),
    /// What `/openapi/v3` answers.
    pub index: Document,
    builtin: Arc<V3>,
    /// By key: `apis/example.com/v1`.
    custom: BTreeMap<String, Arc<Custom>>,
    /// Those of other servers that have none of version 3 themselves.
    made: BTreeMap<String, Document>,
}

/// The document of a group-version with custom kinds.
struct Custom {
    hash: String,
    kinds: Vec<Arc<Kind>>,
    made: OnceCell<Document>,
}

/// What was published last.
#[derive(Default)]
pub struct Latest(Mutex<Option<Arc<Published>>>);

impl OpenApiDocuments {
    /// What is published now.
    pub async fn published(&self) -> Result<Arc<Published>, OpenApiError> {
        let builtin = self.v3().await?;
        let (snapshot, extensions) = (self.registry.snapshot(), self.extensions.read().clone());
        let mut latest = self.latest.0.lock();
        if let Some(published) = &*latest
            && published.generation == (snapshot.generation, extensions.generation)
        {
            return Ok(published.clone());
        }
        let published = Arc::new(Published::new(builtin, &snapshot, &extensions, latest.as_deref())?);
        *latest = Some(published.clone());
        Ok(published)
    }
}

impl Published {
    fn new(
        builtin: Arc<V3>,
        snapshot: &Snapshot,
        extensions: &Extensions,
        before: Option<&Self>,
    ) -> Result<Self, OpenApiError> {
        let mut custom = BTreeMap::new();
        for (name, group) in snapshot.custom_groups() {
            for version in group.versions() {
                let key = format!("apis/{name}/{version}");
                let kinds = group.kinds_of(version);
                let hash = hash(&key, kinds, &builtin);
                let known = before
                    .and_then(|before| before.custom.get(&key))
                    .filter(|known| known.hash == hash);
                let document = known.cloned().unwrap_or_else(|| {
                    Arc::new(Custom {
                        hash,
                        kinds: kinds.to_vec(),
                        made: OnceCell::new(),
                    })
                });
                custom.insert(key, document);
            }
        }
        let hashes = builtin.documents.iter().map(|(key, document)| (key, &document.hash));
        let custom_hashes = custom.iter().map(|(key, document)| (key, &document.hash));
        // What a definition adds to a built-in group-version stands in the same document.
        let mut paths: BTreeMap<&String, Value> = hashes
            .chain(custom_hashes)
            .map(|(key, hash)| (key, json!({"serverRelativeURL": url(key, hash)})))
            .collect();
        // Other servers serve the documents of their groups themselves.
        for (key, url) in &extensions.v3 {
            paths.insert(key, json!({"serverRelativeURL": url}));
        }
        for (key, document) in &extensions.made {
            paths.insert(key, json!({"serverRelativeURL": url(key, &document.hash)}));
        }
        Ok(Self {
            generation: (snapshot.generation, extensions.generation),
            index: Document::json(&json!({"paths": paths}))?,
            builtin,
            custom,
            made: extensions.made.clone(),
        })
    }

    /// The keys of all documents, in order.
    pub fn keys(&self) -> Vec<&str> {
        let mut keys: Vec<&str> = self
            .builtin
            .documents
            .keys()
            .chain(self.custom.keys())
            .chain(self.made.keys())
            .map(String::as_str)
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The hash of the document with this key.
    pub fn hash(&self, key: &str) -> Option<&str> {
        let custom = self.custom.get(key).map(|document| &document.hash);
        let made = self.made.get(key).map(|document| &document.hash);
        made.or(custom)
            .or_else(|| self.builtin.documents.get(key).map(|document| &document.hash))
            .map(String::as_str)
    }

    /// The document with this key.
    pub async fn document(&self, key: &str) -> Result<Option<Document>, OpenApiError> {
        if let Some(made) = self.made.get(key) {
            return Ok(Some(made.clone()));
        }
        let Some(custom) = self.custom.get(key) else {
            return Ok(self.builtin.documents.get(key).cloned());
        };
        let make = async {
            let (custom, builtin, key) = (custom.clone(), self.builtin.clone(), key.to_owned());
            // Compiling and compressing many schemas takes long enough to hold up others.
            let made = tokio::task::spawn_blocking(move || custom.make(&builtin, builtin.documents.get(&key)));
            made.await.map_err(OpenApiError::Task)?
        };
        custom.made.get_or_try_init(|| make).await.cloned().map(Some)
    }
}

pub fn url(key: &str, hash: &str) -> String {
    format!("/openapi/v3/{key}?hash={hash}")
}

/// Names the content: equal for equal definitions, and different for different ones.
fn hash(key: &str, kinds: &[Arc<Kind>], builtin: &V3) -> String {
    let mut digest = Sha512::new();
    digest.update(git_version());
    digest.update(key);
    if let Some(document) = builtin.documents.get(key) {
        digest.update(&document.hash);
    }
    for custom in kinds.iter().filter_map(|kind| kind.custom.as_ref()) {
        digest.update(&custom.digest);
        digest.update([u8::from(custom.terminating)]);
    }
    hex::encode_upper(digest.finalize())
}

impl Custom {
    fn make(&self, builtin: &V3, beside: Option<&Document>) -> Result<Document, OpenApiError> {
        let (mut schemas, mut paths) = (builtin.common.clone(), Map::new());
        if let Some(document) = beside {
            let mut bytes = Vec::new();
            let mut decoder = GzDecoder::new(&*document.gzip);
            decoder.read_to_end(&mut bytes).map_err(OpenApiError::Compress)?;
            let mut document: Value = serde_json::from_slice(&bytes).map_err(OpenApiError::Generate)?;
            let mut take = |pointer: &str| match document.pointer_mut(pointer).map(Value::take) {
                Some(Value::Object(object)) => object,
                _ => Map::new(),
            };
            schemas.extend(take("/components/schemas"));
            paths = take("/paths");
        }
        self.write(&schemas, &paths).map_err(OpenApiError::Compress)
    }

    /// Kind by kind: the whole of a large group is never held at once.
    fn write(&self, schemas: &Map<String, Value>, paths: &Map<String, Value>) -> std::io::Result<Document> {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        let customs = || {
            self.kinds
                .iter()
                .filter_map(|kind| Some((kind, kind.custom.as_deref()?)))
        };
        let head = json!({"title": "Kubernetes CRD Swagger", "version": "v0.1.0"});
        write!(out, "{{\"openapi\":\"3.0.0\",\"info\":{head},\"paths\":{{")?;
        let mut entries = Entries::default();
        for (path, operations) in paths {
            entries.write(&mut out, path, operations)?;
        }
        for (kind, _) in customs() {
            for (path, operations) in custom::paths(kind) {
                entries.write(&mut out, &path, &operations)?;
            }
        }
        out.write_all(b"},\"components\":{\"schemas\":{")?;
        let mut entries = Entries::default();
        for (name, schema) in schemas {
            entries.write(&mut out, name, schema)?;
        }
        for (kind, custom) in customs() {
            for (name, schema) in custom::schemas(kind, custom, false) {
                entries.write(&mut out, &name, &schema)?;
            }
        }
        let token = json!({
            "type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header",
        });
        write!(
            out,
            "}},\"securitySchemes\":{{\"BearerToken\":{token}}}}},\"security\":[{{\"BearerToken\":[]}}]}}"
        )?;
        Ok(Document {
            gzip: out.finish()?.into(),
            hash: self.hash.clone(),
        })
    }
}

/// Entries of a JSON object under way.
#[derive(Default)]
struct Entries {
    any: bool,
}

impl Entries {
    fn write(&mut self, out: &mut impl Write, key: &str, value: &Value) -> std::io::Result<()> {
        if std::mem::replace(&mut self.any, true) {
            out.write_all(b",")?;
        }
        serde_json::to_writer(&mut *out, key)?;
        out.write_all(b":")?;
        serde_json::to_writer(&mut *out, value)?;
        Ok(())
    }
}

/// Adds what is custom to the whole document from which Swagger is made.
pub fn extend(whole: &mut Value, snapshot: &Snapshot) {
    let mut add = |pointer: &str, entries: Vec<(String, Value)>| {
        if let Some(Value::Object(object)) = whole.pointer_mut(pointer) {
            object.extend(entries);
        }
    };
    for group in snapshot.custom_groups().values() {
        for kind in group.kinds() {
            if let Some(own) = &kind.custom {
                add("/paths", custom::paths(&kind));
                add("/components/schemas", custom::schemas(&kind, own, true).into());
            }
        }
    }
}
