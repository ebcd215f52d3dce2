//! Tests of the store as a whole, each on a database of its own.

mod compaction;
mod crash;
mod failures;
mod lists;
mod model;
mod postgres;
mod reopen;
mod watches;
mod writes;

use super::*;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// Indexes the uid only, as far as these tests need.
struct UidIndexer;

impl Indexer for UidIndexer {
    fn index(&self, _resource: &str, json: &[u8]) -> Index {
        let object: Value = serde_json::from_slice(json).expect("stored JSON");
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        Index {
            uid,
            ..Index::default()
        }
    }
}

/// A directory with a database in it.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Place {
        Place {
            directory: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("krust.db")
    }

    fn options(&self) -> Options {
        Options::sqlite(&self.file())
    }

    async fn open(&self) -> Arc<Storage> {
        self.open_with(self.options()).await
    }

    async fn open_with(&self, options: Options) -> Arc<Storage> {
        open(options).await
    }
}

async fn open(options: Options) -> Arc<Storage> {
    Storage::open(options, Arc::new(UidIndexer))
        .await
        .expect("the store opens")
}

async fn in_memory() -> Arc<Storage> {
    open(Options::memory()).await
}

fn object(name: &str, content: &str) -> Map<String, Value> {
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "uid": format!("uid-of-{name}"), "labels": {"a": "b"}},
        "data": {"content": content},
    });
    match object {
        Value::Object(object) => object,
        _ => unreachable!("it is an object"),
    }
}

fn draft(name: &str, content: &str) -> Draft {
    let index = Index {
        uid: format!("uid-of-{name}"),
        ..Index::default()
    };
    Draft::new(&object(name, content), index)
}

/// A ConfigMap in namespace `default`, or in `namespace` of `namespace/name`.
fn key(name: &str) -> Key {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    Key::new("configmaps", namespace, name)
}

fn create(name: &str, content: &str) -> Operation {
    let key = key(name);
    let draft = draft(&key.name, content);
    Operation::Create { key, draft }
}

fn update(name: &str, expected: u64, content: &str) -> Operation {
    let key = key(name);
    let draft = draft(&key.name, content);
    Operation::Update { key, expected, draft }
}

fn delete(name: &str, expected: u64) -> Operation {
    let key = key(name);
    let draft = draft(&key.name, "deleted");
    Operation::Delete { key, expected, draft }
}

async fn write(storage: &Storage, operation: Operation) -> u64 {
    storage.write(operation).await.expect("the write succeeds").revision
}

fn parsed(entry: &Entry) -> Value {
    let object: Value = serde_json::from_slice(&entry.bytes).expect("entries are JSON");
    assert_eq!(object["metadata"]["resourceVersion"], entry.revision.to_string());
    assert_eq!(object["metadata"]["name"], *entry.key.name);
    object
}

fn content(entry: &Entry) -> String {
    parsed(entry)["data"]["content"].as_str().expect("content").to_owned()
}

/// `namespace/name=content` of each.
fn shown<'a>(entries: impl IntoIterator<Item = &'a Arc<Entry>>) -> Vec<String> {
    let show = |entry: &Arc<Entry>| format!("{}/{}={}", entry.key.namespace, entry.key.name, content(entry));
    entries.into_iter().map(show).collect()
}

/// An event in one line: kind, revision, name, what it replaced.
fn told(event: &Event) -> String {
    let previous = event.previous.as_ref().map_or(0, |previous| previous.revision);
    let kind = match event.kind {
        EventKind::Put => "put",
        EventKind::Delete => "delete",
    };
    format!("{kind} {} {} after {previous}", event.revision(), event.entry.key.name)
}

/// All events after `from` that are there now.
fn events(storage: &Storage, from: u64) -> Result<Vec<Arc<Event>>, StorageError> {
    let mut watch = storage.watch("configmaps", None, from)?;
    let mut all = Vec::new();
    loop {
        let events = watch.try_next()?;
        if events.is_empty() {
            return Ok(all);
        }
        all.extend(events);
    }
}
