//! The metadata that the server owns (upstream: `registry/rest/{meta,create,update}.go`, `storage/names`).

use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::registry::Kind;
use crate::registry::strategy::Object;
use rand::Rng;
use serde_json::{Map, Value, json};

/// A creator may not set it.
const SERVER_OWNED: u8 = 1;
/// An update never changes it.
const KEPT: u8 = 2;
/// A policy that changes objects does not change it.
const OUT_OF_POLICIES: u8 = 4;
const SERVERS: u8 = SERVER_OWNED | KEPT | OUT_OF_POLICIES;

/// The fields of metadata in the order of stored objects, which is upstream's, and whose they are.
const FIELDS: [(&str, u8); 15] = [
    ("name", OUT_OF_POLICIES),
    ("generateName", OUT_OF_POLICIES),
    ("namespace", KEPT | OUT_OF_POLICIES),
    ("selfLink", SERVERS),
    ("uid", SERVERS),
    ("resourceVersion", OUT_OF_POLICIES),
    ("generation", SERVERS),
    ("creationTimestamp", SERVERS),
    ("deletionTimestamp", SERVERS),
    ("deletionGracePeriodSeconds", SERVERS),
    ("labels", 0),
    ("annotations", 0),
    ("ownerReferences", 0),
    ("finalizers", 0),
    ("managedFields", OUT_OF_POLICIES),
];

/// Those of a rule.
fn fields(rule: u8) -> impl Iterator<Item = &'static str> {
    let fields = FIELDS.iter().filter(move |(_, rules)| rules & rule != 0);
    fields.map(|(name, _)| *name)
}

const NAME_BYTES_MAX: usize = 63;
const SUFFIX_CHARS: usize = 5;
/// No vowels and nothing that is mistaken for another: no words come out.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The object's metadata; absent or of another type counts as empty.
pub fn of(object: &Object) -> &Object {
    static EMPTY: std::sync::LazyLock<Object> = std::sync::LazyLock::new(Object::new);
    object.get("metadata").and_then(Value::as_object).unwrap_or(&EMPTY)
}

/// The object's metadata, put there if it is absent.
pub fn of_mut(object: &mut Object) -> &mut Object {
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if !metadata.is_object() {
        *metadata = json!({});
    }
    match metadata {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object above"),
    }
}

/// A text field of the metadata; absent is empty.
pub fn text<'a>(object: &'a Object, field: &str) -> &'a str {
    of(object).get(field).and_then(Value::as_str).unwrap_or_default()
}

pub fn has_finalizers(object: &Object) -> bool {
    of(object)
        .get("finalizers")
        .and_then(Value::as_array)
        .is_some_and(|list| !list.is_empty())
}

/// Now, as objects carry it: RFC 3339 in whole seconds.
pub fn timestamp(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Makes the metadata of a new object: client values that do not count are gone, the server's are in.
/// The name is left to [`generate_name`].
pub fn for_create(ctx: &Context, kind: &Kind, object: &mut Object) -> Result<(), ApiError> {
    let url_namespace = ctx.key_namespace(kind).to_owned();
    let metadata = of_mut(object);
    let own = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default();
    if !own("resourceVersion").is_empty() {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    check_namespace(kind, own("namespace"), &url_namespace)?;
    for field in fields(SERVER_OWNED) {
        metadata.remove(field);
    }
    metadata.remove("resourceVersion");
    if kind.namespaced() {
        metadata.insert("namespace".into(), Value::String(url_namespace));
    } else {
        metadata.remove("namespace");
    }
    let uid = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
    metadata.insert("uid".into(), Value::String(uid.to_string()));
    metadata.insert(
        "creationTimestamp".into(),
        Value::String(timestamp(jiff::Timestamp::now())),
    );
    if kind.strategy.has_generation() {
        metadata.insert("generation".into(), json!(1));
    }
    dedupe_owners(ctx, metadata);
    Ok(())
}

/// A namespace in the body must be the URL's; it does not count for cluster-scoped kinds.
pub fn check_namespace(kind: &Kind, body: &str, url: &str) -> Result<(), ApiError> {
    if kind.namespaced() && !body.is_empty() && body != url {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// The body of an update must have the name of the URL.
pub fn check_name(object: &Object, url: &str) -> Result<(), ApiError> {
    match text(object, "name") {
        "" => Err(ApiError::bad_request(format!(
            "the name of the object ({url} based on URL) was undeterminable: name must be provided"
        ))),
        name if name == url => Ok(()),
        name => Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({url})"
        ))),
    }
}

/// Fills in the name from `generateName`. True if it did, so that a collision may be tried again.
pub fn generate_name(object: &mut Object) -> bool {
    let base = text(object, "generateName");
    if base.is_empty() || !text(object, "name").is_empty() {
        return false;
    }
    let mut end = base.len().min(NAME_BYTES_MAX - SUFFIX_CHARS);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let name = format!("{}{}", &base[..end], random_suffix());
    of_mut(object).insert("name".into(), Value::String(name));
    true
}

/// What makes a generated name unlike others.
pub fn random_suffix() -> String {
    let mut random = rand::rng();
    (0..SUFFIX_CHARS)
        .map(|_| char::from(SUFFIX_ALPHABET[random.random_range(0..SUFFIX_ALPHABET.len())]))
        .collect()
}

/// Puts back what an update may not touch.
pub fn for_update(ctx: &Context, object: &mut Object, old: &Object, main: bool) {
    let before = of(old);
    let metadata = of_mut(object);
    for field in fields(KEPT) {
        put_back(metadata, before, field);
    }
    put_back(metadata, before, "resourceVersion");
    if !main {
        put_back(metadata, before, "ownerReferences");
    }
    dedupe_owners(ctx, metadata);
}

/// Puts back what a policy may not touch.
pub fn after_policies(object: &mut Object, before: Option<&Object>) {
    let nothing = Object::new();
    let metadata = of_mut(object);
    for field in fields(OUT_OF_POLICIES) {
        put_back(metadata, before.unwrap_or(&nothing), field);
    }
}

fn put_back(metadata: &mut Object, before: &Object, field: &str) {
    match before.get(field) {
        Some(value) => {
            metadata.insert(field.into(), value.clone());
        }
        None => {
            metadata.remove(field);
        }
    }
}

/// Exact repetitions of an owner are dropped, with a warning.
fn dedupe_owners(ctx: &Context, metadata: &mut Object) {
    let Some(Value::Array(owners)) = metadata.get_mut("ownerReferences") else {
        return;
    };
    let mut seen: Vec<Value> = Vec::with_capacity(owners.len());
    let mut repeated = Vec::new();
    for owner in owners.drain(..) {
        if seen.contains(&owner) {
            repeated.push(owner.get("uid").and_then(Value::as_str).unwrap_or_default().to_owned());
        } else {
            seen.push(owner);
        }
    }
    *owners = seen;
    if !repeated.is_empty() {
        ctx.warnings.add(format!(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, \
             and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            repeated.join(", ")
        ));
    }
}

/// Raises the generation by one if the object has one.
pub fn bump_generation(object: &mut Object) {
    let metadata = of_mut(object);
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
        metadata.insert("generation".into(), json!(generation + 1));
    }
}

/// The object with its fields in the order in which they are stored: type, metadata, the rest as it stands.
pub fn canonical(mut object: Object) -> Object {
    let mut metadata = std::mem::take(of_mut(&mut object));
    let mut ordered = Map::with_capacity(metadata.len() + 1);
    for (field, _) in FIELDS {
        if let Some(value) = metadata.remove(field) {
            ordered.insert(field.into(), value);
        }
    }
    ordered.extend(metadata);
    let mut result = Map::with_capacity(object.len());
    for field in ["apiVersion", "kind"] {
        if let Some(value) = object.get_mut(field) {
            result.insert(field.into(), value.take());
        }
    }
    result.insert("metadata".into(), Value::Object(ordered));
    for (field, value) in object {
        // The three that are there already were taken out of `object` above.
        result.entry(field).or_insert(value);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn type_and_metadata_come_first_in_order() {
        let shuffled = object(json!({
            "data": {"b": "1", "a": "2"},
            "metadata": {"labels": {}, "uid": "u", "extra": 1, "name": "n"},
            "kind": "ConfigMap", "apiVersion": "v1",
        }));
        let text = serde_json::to_string(&canonical(shuffled)).unwrap();
        assert_eq!(
            text,
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"n","uid":"u","labels":{},"extra":1},"data":{"b":"1","a":"2"}}"#
        );
    }

    #[test]
    fn names_are_generated_from_their_base() {
        let mut short = object(json!({"metadata": {"generateName": "web-"}}));
        assert!(generate_name(&mut short));
        assert_eq!(text(&short, "name").len(), 9);
        assert!(!generate_name(&mut short), "a name that is there is kept");
        let mut long = object(json!({"metadata": {"generateName": "ä".repeat(60)}}));
        assert!(generate_name(&mut long));
        assert_eq!(text(&long, "name").len(), NAME_BYTES_MAX);
    }

    #[test]
    fn timestamps_have_whole_seconds() {
        let at = jiff::Timestamp::from_millisecond(1_700_000_000_999).unwrap();
        assert_eq!(timestamp(at), "2023-11-14T22:13:20Z");
    }
}
