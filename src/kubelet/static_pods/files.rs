//! From files to pods.

use super::mirror::{HASH, SEEN, SOURCE};
use crate::client::ObjectKey;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// The pods of all files. A file that has none is told of and left out; of two pods of a name the first file's counts.
pub fn read(
    directory: &Path,
    node_name: &str,
    complete: &dyn Fn(Value) -> Result<Value, String>,
) -> BTreeMap<ObjectKey, Pod> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::error!(%error, directory = %directory.display(), "The directory of static pods cannot be read");
            return BTreeMap::new();
        }
    };
    let hidden = |path: &Path| {
        path.file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| !hidden(path) && path.is_file());
    paths.sort();
    let mut pods = BTreeMap::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        match text.and_then(|text| pod(&text, &path, node_name, complete)) {
            Ok(pod) => {
                pods.entry(ObjectKey::of(&pod)).or_insert(pod);
            }
            Err(error) => tracing::error!(error, path = %path.display(), "The file of a static pod cannot be used"),
        }
    }
    pods
}

/// One pod, as upstream's kubelet completes it.
fn pod(
    text: &str,
    path: &Path,
    node_name: &str,
    complete: &dyn Fn(Value) -> Result<Value, String>,
) -> Result<Pod, String> {
    let mut object: Value = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    if (&object["apiVersion"], &object["kind"]) != (&json!("v1"), &json!("Pod")) {
        return Err("it does not hold an object of the kind Pod in version v1".to_owned());
    }
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return Err("it has no metadata".to_owned());
    };
    let name = metadata.get("name").and_then(Value::as_str).unwrap_or_default();
    if name.is_empty() {
        return Err("it has no name".to_owned());
    }
    let name = format!("{name}-{}", node_name.to_lowercase());
    let uid = metadata
        .get("uid")
        .and_then(Value::as_str)
        .filter(|uid| !uid.is_empty())
        .map(str::to_owned);
    let uid = uid.unwrap_or_else(|| {
        let digest = Sha256::digest(format!("host:{node_name}file:{}{text}", path.display()));
        hex::encode(&digest[..16])
    });
    metadata.insert("name".to_owned(), json!(name));
    metadata.insert("uid".to_owned(), json!(uid));
    metadata.entry("namespace").or_insert_with(|| json!("default"));
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    annotations[HASH] = json!(uid);
    annotations[SOURCE] = json!("file");
    annotations[SEEN] = json!(jiff::Timestamp::now().to_string());
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return Err("it has no spec".to_owned());
    };
    spec.insert("nodeName".to_owned(), json!(node_name));
    // No taint drives it away.
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    let everything = json!({"operator": "Exists", "effect": "NoExecute"});
    if let Some(list) = tolerations.as_array_mut().filter(|list| !list.contains(&everything)) {
        list.push(everything);
    }
    object["status"] = json!({"phase": "Pending"});
    serde_json::from_value(complete(object)?).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: i}]}\n";

    #[test]
    fn files_become_pods_of_this_node() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        let complete = |object: Value| match object["metadata"]["name"] == "refused-n1" {
            true => Err("invalid".to_owned()),
            false => Ok(object),
        };
        let read = || read(directory.path(), "N1", &complete);
        assert!(read().is_empty());
        write("web.yaml", WEB);
        write("refused.yaml", &WEB.replace("web", "refused"));
        write(".hidden.yaml", &WEB.replace("web", "hidden"));
        write("other.yaml", &WEB.replace("Pod", "Service"));
        write("none.yaml", "::");
        let pods = read();
        assert_eq!(
            pods.keys().map(ToString::to_string).collect::<Vec<_>>(),
            ["default/web-n1"]
        );
        let pod = pods.into_values().next().unwrap();
        let uid = pod.metadata.uid.clone().unwrap();
        let annotations = pod.metadata.annotations.unwrap();
        assert_eq!(
            (uid.len(), annotations[HASH].as_str(), annotations[SOURCE].as_str()),
            (32, uid.as_str(), "file")
        );
        let spec = pod.spec.unwrap();
        assert_eq!(
            (spec.node_name.as_deref(), spec.tolerations.unwrap().len()),
            (Some("N1"), 1)
        );
        // The same file is the same pod; a changed one is another.
        let again = |pods: BTreeMap<ObjectKey, Pod>| pods.into_values().next().unwrap().metadata.uid.unwrap();
        assert_eq!(again(read()), uid);
        write("web.yaml", &WEB.replace("image: i", "image: j"));
        assert_ne!(again(read()), uid);
    }
}
