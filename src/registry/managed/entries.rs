//! `metadata.managedFields`: read, ordered, capped and written (upstream: `managedfields/internal/managedfields.go`,
//! `capmanagers.go`).

use super::fields_v1;
use super::set::Set;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// How many entries of updates are kept apart.
const UPDATERS_MAX: usize = 10;
const ANCIENT: &str = "ancient-changes";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

/// Who an entry belongs to. An applier is the same one in every version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    pub manager: Cow<'a, str>,
    pub operation: Operation,
    /// Empty for appliers.
    pub api_version: Cow<'a, str>,
    pub subresource: Cow<'a, str>,
}

#[derive(Clone, Debug)]
pub struct Entry<'a> {
    pub identity: Identity<'a>,
    /// The version in which `fields` speak.
    pub api_version: Cow<'a, str>,
    pub time: Option<Cow<'a, str>>,
    pub fields: Set<'a>,
    /// Which item of the list this was read from, while it still says the same.
    pub original: Option<usize>,
}

/// An entry as it will stand in the list.
#[derive(Debug)]
pub enum Written {
    Anew(Value),
    /// The item of the list that was read.
    As(usize),
}

impl<'a> Identity<'a> {
    pub fn applier(manager: &'a str, subresource: &'a str) -> Self {
        Self {
            manager: Cow::Borrowed(manager),
            operation: Operation::Apply,
            api_version: Cow::Borrowed(""),
            subresource: Cow::Borrowed(subresource),
        }
    }

    pub fn updater(manager: &'a str, api_version: &'a str, subresource: &'a str) -> Self {
        Self {
            manager: Cow::Borrowed(manager),
            operation: Operation::Update,
            api_version: Cow::Borrowed(api_version),
            subresource: Cow::Borrowed(subresource),
        }
    }

    /// The text by which upstream tells managers apart, and sorts them.
    pub fn text(&self) -> String {
        let mut map = Map::new();
        for (key, value) in [
            ("manager", &*self.manager),
            ("operation", self.operation.name()),
            ("apiVersion", &*self.api_version),
            ("subresource", &*self.subresource),
        ] {
            if !value.is_empty() {
                map.insert(key.into(), value.into());
            }
        }
        Value::Object(map).to_string()
    }
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Whether the list asks for a new beginning: `[]` or `[{}]`.
pub fn is_reset(list: &Value) -> bool {
    match list.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(only)]) => only.is_empty(),
        _ => false,
    }
}

/// Reads the list. None if any of it is malformed.
pub fn decode(list: Option<&Value>) -> Option<Vec<Entry<'_>>> {
    let Some(list) = list else {
        return Some(Vec::new());
    };
    let list = list.as_array()?;
    let mut entries: Vec<Entry<'_>> = Vec::with_capacity(list.len() + 1);
    for (index, value) in list.iter().enumerate() {
        let entry = decode_entry(index, value)?;
        // Of two entries of the same owner the later counts.
        entries.retain(|other| other.identity != entry.identity);
        entries.push(entry);
    }
    Some(entries)
}

fn decode_entry(index: usize, value: &Value) -> Option<Entry<'_>> {
    let map = value.as_object()?;
    let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
    let operation = match text("operation") {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    let api_version = text("apiVersion");
    if api_version.is_empty() || text("fieldsType") != "FieldsV1" {
        return None;
    }
    let identity = match operation {
        Operation::Apply => Identity::applier(text("manager"), text("subresource")),
        Operation::Update => Identity::updater(text("manager"), api_version, text("subresource")),
    };
    let fields = match map.get("fieldsV1") {
        None | Some(Value::Null) => Set::default(),
        Some(fields) => fields_v1::parse(fields)?,
    };
    Some(Entry {
        identity,
        api_version: Cow::Borrowed(api_version),
        time: map.get("time").and_then(Value::as_str).map(Cow::Borrowed),
        fields,
        original: Some(index),
    })
}

/// The entries in the order of the list. They borrow from the list that they were read from;
/// [`assemble`] makes the new one of it.
pub fn encode(mut entries: Vec<Entry<'_>>) -> Vec<Written> {
    entries.sort_by(|a, b| {
        let key = |entry: &'_ Entry<'_>| {
            (
                entry.identity.operation,
                entry.time.as_deref().unwrap_or_default().to_owned(),
            )
        };
        key(a)
            .cmp(&key(b))
            .then_with(|| a.identity.manager.cmp(&b.identity.manager))
            .then_with(|| a.api_version.cmp(&b.api_version))
            .then_with(|| a.identity.subresource.cmp(&b.identity.subresource))
    });
    entries.iter().map(encode_entry).collect()
}

/// The list as it is stored; None if there is no entry. `list` is the one that was read.
pub fn assemble(list: Option<Value>, written: Vec<Written>) -> Option<Value> {
    let mut before = match list {
        Some(Value::Array(before)) => before,
        _ => Vec::new(),
    };
    let taken = written.into_iter().map(|entry| match entry {
        Written::Anew(value) => value,
        Written::As(index) => before.get_mut(index).map(Value::take).unwrap_or_default(),
    });
    let list: Vec<Value> = taken.collect();
    (!list.is_empty()).then_some(Value::Array(list))
}

fn encode_entry(entry: &Entry<'_>) -> Written {
    if let Some(index) = entry.original {
        return Written::As(index);
    }
    let mut map = Map::with_capacity(7);
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            map.insert(key.to_owned(), Value::String(value.to_owned()));
        }
    };
    put("manager", &entry.identity.manager);
    put("operation", entry.identity.operation.name());
    put("apiVersion", &entry.api_version);
    put("time", entry.time.as_deref().unwrap_or_default());
    put("fieldsType", "FieldsV1");
    map.insert("fieldsV1".to_owned(), fields_v1::write(&entry.fields));
    if !entry.identity.subresource.is_empty() {
        map.insert(
            "subresource".to_owned(),
            Value::String(entry.identity.subresource.to_string()),
        );
    }
    Written::Anew(Value::Object(map))
}

/// Merges the oldest updaters of each version into one, until there are few enough.
pub fn cap(entries: &mut Vec<Entry<'_>>) {
    let mut updaters: Vec<usize> = (0..entries.len())
        .filter(|at| entries[*at].identity.operation == Operation::Update)
        .collect();
    let mut count = updaters.len();
    if count <= UPDATERS_MAX {
        return;
    }
    updaters.sort_by_cached_key(|at| {
        let entry = &entries[*at];
        (
            entry.time.as_deref().unwrap_or_default().to_owned(),
            entry.identity.text(),
        )
    });
    let mut firsts: BTreeMap<String, usize> = BTreeMap::new();
    let mut gone = vec![false; entries.len()];
    for at in updaters {
        if count <= UPDATERS_MAX {
            break;
        }
        let version = entries[at].api_version.to_string();
        let Some(first) = firsts.get(&version).copied() else {
            firsts.insert(version, at);
            continue;
        };
        let fields = std::mem::take(&mut entries[at].fields);
        let time = entries[at].time.clone();
        gone[at] = true;
        count -= 1;
        let bucket = &mut entries[first];
        bucket.identity = Identity {
            manager: Cow::Borrowed(ANCIENT),
            operation: Operation::Update,
            api_version: Cow::Owned(version),
            subresource: Cow::Borrowed(""),
        };
        let before = std::mem::take(&mut bucket.fields);
        bucket.fields = before.union(fields);
        bucket.time = time;
        bucket.original = None;
    }
    // A bucket of an earlier time, which was not among the oldest, is the same owner.
    let mut at = 0;
    entries.retain(|_| {
        at += 1;
        !gone[at - 1]
    });
    join_same(entries);
}

fn join_same(entries: &mut Vec<Entry<'_>>) {
    let mut at = 0;
    while at < entries.len() {
        let first = (0..at).find(|earlier| entries[*earlier].identity == entries[at].identity);
        let Some(first) = first else {
            at += 1;
            continue;
        };
        let entry = entries.remove(at);
        let target = &mut entries[first];
        let before = std::mem::take(&mut target.fields);
        target.fields = before.union(entry.fields);
        target.time = target.time.take().max(entry.time);
        target.original = None;
    }
}
