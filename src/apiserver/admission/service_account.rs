//! ServiceAccount (upstream: `plugin/pkg/admission/serviceaccount`): every pod has an account, gets a token for it
//! unless it does without, and uses only the secrets that the account lets it, where the account says so.

use super::{Operation, Subject};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::handlers::engine::metadata;
use crate::registry::Kind;
use crate::registry::json::{children, items, objects, text, texts};
use crate::registry::strategy::Object;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

const ACCOUNTS: &str = "serviceaccounts";
const DEFAULT: &str = "default";
/// The annotation of pods that the kubelet has from elsewhere.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The annotation of accounts whose pods may use only the secrets that the account lists.
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
const VOLUME: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// A little more than an hour, by which the token's issuer knows that nobody asked for it.
const TOKEN_SECONDS: i64 = 3607;
const FILE_MODE: i64 = 0o644;
const ROOT_CERTIFICATE: &str = "kube-root-ca.crt";
/// A namespace gets its default account soon after it is made, and pods wait so long for it.
const DEFAULT_WAIT_MAX: Duration = Duration::from_millis(1500);

/// Waits for the default account that a new pod is to have, if its namespace does not have one yet.
pub async fn wait_for_default(ctx: &Context, kind: &Kind, pod: &Object) {
    if !(kind.group.is_empty() && kind.resource == "pods") || is_mirror(pod) {
        return;
    }
    let (storage, namespace) = (ctx.storage(), ctx.key_namespace(kind));
    let there = || storage.get(ACCOUNTS, namespace, DEFAULT).is_some();
    if !matches!(account_name(pod), "" | DEFAULT) || there() || storage.get("namespaces", "", namespace).is_none() {
        return;
    }
    let Ok(mut watch) = storage.watch(ACCOUNTS, Some(namespace), storage.revision()) else {
        return;
    };
    let made = async {
        while !there() {
            if watch.next().await.is_err() {
                return;
            }
        }
    };
    // Whether it is there is looked at again by the plug-in.
    let _ = tokio::time::timeout(DEFAULT_WAIT_MAX, made).await;
}

pub fn admit(ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<(), ApiError> {
    let kind = subject.kind;
    if !(kind.group.is_empty() && kind.resource == "pods") {
        return Ok(());
    }
    let refused = |why: String| ApiError::forbidden(kind, &subject.name, &why);
    if !subject.creates_pod() {
        return Ok(());
    }
    if is_mirror(object) {
        return check_mirror(object).map_err(refused);
    }
    if account_name(object).is_empty() {
        set_account(object, DEFAULT);
    } else {
        let name = account_name(object).to_owned();
        set_account(object, &name);
    }
    let account = account(ctx, object).map_err(refused)?;
    complete(&account, object, &format!("{VOLUME}{}", metadata::random_suffix()));
    Ok(())
}

/// Whether the pod, as it is now, may have what it names.
pub fn validate(ctx: &Context, subject: &Subject<'_>, object: &Object) -> Result<(), ApiError> {
    let kind = subject.kind;
    let is_pod = kind.group.is_empty() && kind.resource == "pods";
    let debugs = subject.operation == Operation::Update && subject.subresource == "ephemeralcontainers";
    if !is_pod || !(subject.creates_pod() || debugs) {
        return Ok(());
    }
    check(ctx, object, debugs).map_err(|why| ApiError::forbidden(kind, &subject.name, &why))
}

fn check(ctx: &Context, pod: &Object, debugs: bool) -> Result<(), String> {
    if is_mirror(pod) && !debugs {
        return check_mirror(pod);
    }
    if account_name(pod).is_empty() {
        let name = metadata::text(pod, "name");
        return Err(format!(
            "no service account specified for pod {}/{name}",
            ctx.info.namespace
        ));
    }
    let account = account(ctx, pod)?;
    match (enforces(&account), debugs) {
        (false, _) => Ok(()),
        (true, true) => check_ephemeral(&account, pod),
        (true, false) => check_secrets(&account, pod),
    }
}

fn is_mirror(pod: &Object) -> bool {
    texts(pod, &["metadata", "annotations"]).any(|(key, _)| key == MIRROR)
}

fn account_name(pod: &Object) -> &str {
    text(pod, &["spec", "serviceAccountName"])
}

fn set_account(pod: &mut Object, name: &str) {
    if let Some(Value::Object(spec)) = pod.get_mut("spec") {
        // The old name of the field is kept equal, as upstream's conversion does.
        spec.insert("serviceAccountName".into(), json!(name));
        spec.insert("serviceAccount".into(), json!(name));
    }
}

/// The pod's account. Err is upstream's text.
fn account(ctx: &Context, pod: &Object) -> Result<Object, String> {
    let (namespace, name) = (&ctx.info.namespace, account_name(pod));
    let entry = ctx.storage().get(ACCOUNTS, namespace, name);
    let failed = |why: String| format!("error looking up service account {namespace}/{name}: {why}");
    let entry = entry.ok_or_else(|| failed(format!("serviceaccount {name:?} not found")))?;
    serde_json::from_slice(&entry.bytes).map_err(|error| failed(error.to_string()))
}

/// Gives the pod what its account stands for: a token in every container, and secrets for its images.
fn complete(account: &Object, pod: &mut Object, volume: &str) {
    let wants_token = [pod.get("spec"), account.get("automountServiceAccountToken")];
    let of_pod = wants_token[0].and_then(|spec| spec.get("automountServiceAccountToken"));
    let wants_token = of_pod.or(wants_token[1]).and_then(Value::as_bool).unwrap_or(true);
    let Some(Value::Object(spec)) = pod.get_mut("spec") else {
        return;
    };
    if wants_token {
        mount_token(spec, volume);
    }
    let pull_secrets = items(account, &["imagePullSecrets"]);
    if items(spec, &["imagePullSecrets"]).is_empty() && !pull_secrets.is_empty() {
        spec.insert("imagePullSecrets".into(), json!(pull_secrets));
    }
}

fn mount_token(spec: &mut Object, volume: &str) {
    let existing = objects(spec, &["volumes"]).find_map(|(_, volume)| {
        let name = text(volume, &["name"]);
        name.starts_with(VOLUME).then(|| name.to_owned())
    });
    let name = existing.clone().unwrap_or_else(|| volume.to_owned());
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in children(spec, list) {
            // Whatever is mounted there already stays.
            if objects(container, &["volumeMounts"]).any(|(_, mount)| text(mount, &["mountPath"]) == MOUNT_PATH) {
                continue;
            }
            let mount = json!({"mountPath": MOUNT_PATH, "name": name, "readOnly": true});
            push(container, "volumeMounts", mount);
            mounted = true;
        }
    }
    if mounted && existing.is_none() {
        let sources = json!([
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": ROOT_CERTIFICATE}},
            {"downwardAPI": {"items": [
                {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace"}]}},
        ]);
        let volume = json!({"name": name, "projected": {"defaultMode": FILE_MODE, "sources": sources}});
        push(spec, "volumes", volume);
    }
}

fn push(object: &mut Object, list: &str, item: Value) {
    match object.get_mut(list) {
        Some(Value::Array(list)) => list.push(item),
        _ => {
            object.insert(list.into(), json!([item]));
        }
    }
}

/// What comes from elsewhere may lean on nothing that the API server keeps for pods.
fn check_mirror(pod: &Object) -> Result<(), String> {
    if !account_name(pod).is_empty() {
        return Err("a mirror pod may not reference service accounts".into());
    }
    let volumes = || objects(pod, &["spec", "volumes"]).map(|(_, volume)| volume);
    let projections =
        || volumes().flat_map(|volume| objects(volume, &["projected", "sources"]).map(|(_, source)| source));
    let by_volume = volumes().any(|volume| volume.contains_key("secret"))
        || projections().any(|source| source.contains_key("secret"));
    let by_container = ["containers", "initContainers", "ephemeralContainers"]
        .iter()
        .any(|list| objects(pod, &["spec", list]).any(|(_, container)| !secrets_of(container).is_empty()));
    if by_volume || by_container || !items(pod, &["spec", "imagePullSecrets"]).is_empty() {
        return Err("a mirror pod may not reference secrets".into());
    }
    if projections().any(|source| source.contains_key("serviceAccountToken")) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections".into());
    }
    Ok(())
}

fn enforces(account: &Object) -> bool {
    let value = texts(account, &["metadata", "annotations"]).find(|(key, _)| *key == ENFORCE);
    // As Go's ParseBool reads it.
    value.is_some_and(|(_, value)| matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

/// The secrets that a container's environment takes from, each with how it does.
fn secrets_of(container: &Object) -> Vec<(String, &str)> {
    let vars = objects(container, &["env"]).filter_map(|(_, var)| {
        let secret = text(var, &["valueFrom", "secretKeyRef", "name"]);
        let named = !secret.is_empty();
        named.then(|| (format!("with envVar {} referencing", text(var, &["name"])), secret))
    });
    let whole = objects(container, &["envFrom"]).filter_map(|(_, from)| {
        let secret = text(from, &["secretRef", "name"]);
        (!secret.is_empty()).then(|| ("with envFrom referencing".to_owned(), secret))
    });
    vars.chain(whole).collect()
}

fn names<'a>(account: &'a Object, list: &str) -> BTreeSet<&'a str> {
    objects(account, &[list])
        .map(|(_, item)| text(item, &["name"]))
        .collect()
}

/// The pod uses only secrets that its account lists.
fn check_secrets(account: &Object, pod: &Object) -> Result<(), String> {
    let (allowed, name) = (names(account, "secrets"), text(account, &["metadata", "name"]));
    for (_, volume) in objects(pod, &["spec", "volumes"]).filter(|(_, volume)| volume.contains_key("secret")) {
        let secret = text(volume, &["secret", "secretName"]);
        if !allowed.contains(secret) {
            return Err(format!(
                "volume with secret.secretName={secret:?} is not allowed because service account {name} does not \
                 reference that secret"
            ));
        }
    }
    check_containers(account, pod, "initContainers", "init container")?;
    check_containers(account, pod, "containers", "container")?;
    let pullable = names(account, "imagePullSecrets");
    for (index, reference) in objects(pod, &["spec", "imagePullSecrets"]) {
        let secret = text(reference, &["name"]);
        if !pullable.contains(secret) {
            return Err(format!(
                "imagePullSecrets[{index}].name={secret:?} is not allowed because service account {name} does not \
                 reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

fn check_ephemeral(account: &Object, pod: &Object) -> Result<(), String> {
    check_containers(account, pod, "ephemeralContainers", "ephemeral container")
}

fn check_containers(account: &Object, pod: &Object, list: &str, what: &str) -> Result<(), String> {
    let (allowed, name) = (names(account, "secrets"), text(account, &["metadata", "name"]));
    for (_, container) in objects(pod, &["spec", list]) {
        for (how, secret) in secrets_of(container) {
            if !allowed.contains(secret) {
                return Err(format!(
                    "{what} {} {how} secret.secretName={secret:?} is not allowed because service account {name} does \
                     not reference that secret",
                    text(container, &["name"])
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_token_is_mounted_where_nothing_else_is() {
        let mount = json!({"mountPath": MOUNT_PATH, "name": "kube-api-access-abcde", "readOnly": true});
        let other = json!({"mountPath": MOUNT_PATH, "name": "own"});
        let mut pod = object(json!({"spec": {
            "containers": [{"name": "a"}, {"name": "b", "volumeMounts": [other]}], "initContainers": [{"name": "i"}]}}));
        let account = object(json!({"imagePullSecrets": [{"name": "pull"}]}));
        complete(&account, &mut pod, "kube-api-access-abcde");
        let spec = &pod["spec"];
        assert_eq!(spec["containers"][0]["volumeMounts"], json!([mount]));
        assert_eq!(spec["containers"][1]["volumeMounts"], json!([other]));
        assert_eq!(spec["initContainers"][0]["volumeMounts"], json!([mount]));
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]));
        let volume = &spec["volumes"][0];
        assert_eq!(volume["name"], "kube-api-access-abcde");
        assert_eq!(volume["projected"]["defaultMode"], 420);
        assert_eq!(volume["projected"]["sources"].as_array().unwrap().len(), 3);
        // Once more changes nothing: the volume is known by its name.
        let once = pod.clone();
        complete(&account, &mut pod, "kube-api-access-other");
        assert_eq!(pod, once);
    }

    #[test]
    fn who_does_without() {
        for (of_pod, of_account, mounted) in [
            (json!(null), json!(null), true),
            (json!(null), json!(false), false),
            (json!(false), json!(null), false),
            (json!(false), json!(true), false),
            (json!(true), json!(false), true),
        ] {
            let with = |value: &Value| {
                let mut object = Object::new();
                if !value.is_null() {
                    object.insert("automountServiceAccountToken".into(), value.clone());
                }
                object
            };
            let mut spec = with(&of_pod);
            spec.insert("containers".into(), json!([{"name": "a"}]));
            let mut pod = object(json!({ "spec": spec }));
            complete(&with(&of_account), &mut pod, "v");
            assert_eq!(pod["spec"].get("volumes").is_some(), mounted, "{of_pod} {of_account}");
        }
    }

    #[test]
    fn secrets_that_the_account_does_not_list() {
        let account = object(json!({"metadata": {"name": "robot", "annotations": {ENFORCE: "true"}},
            "secrets": [{"name": "known"}], "imagePullSecrets": [{"name": "pull"}]}));
        assert!(enforces(&account) && !enforces(&object(json!({}))));
        let tail = "is not allowed because service account robot does not reference that";
        let env = |secret: &str| json!([{"name": "E", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}}]);
        for (spec, expected) in [
            (
                json!({"volumes": [{"name": "v", "secret": {"secretName": "known"}}],
                "containers": [{"name": "c", "env": env("known")}], "imagePullSecrets": [{"name": "pull"}]}),
                None,
            ),
            (
                json!({"volumes": [{"name": "v", "secret": {"secretName": "x"}}]}),
                Some(format!("volume with secret.secretName=\"x\" {tail} secret")),
            ),
            (
                json!({"initContainers": [{"name": "c", "env": env("x")}]}),
                Some(format!(
                    "init container c with envVar E referencing secret.secretName=\"x\" {tail} secret"
                )),
            ),
            (
                json!({"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "x"}}]}]}),
                Some(format!(
                    "container c with envFrom referencing secret.secretName=\"x\" {tail} secret"
                )),
            ),
            (
                json!({"imagePullSecrets": [{"name": "x"}]}),
                Some(format!("imagePullSecrets[0].name=\"x\" {tail} imagePullSecret")),
            ),
        ] {
            let pod = object(json!({ "spec": spec }));
            assert_eq!(check_secrets(&account, &pod).err(), expected, "{pod:?}");
        }
    }

    #[test]
    fn mirror_pods_lean_on_nothing() {
        let why = |spec: Value| check_mirror(&object(json!({ "spec": spec }))).err().unwrap_or_default();
        assert_eq!(why(json!({"containers": [{"name": "a"}]})), "");
        assert_eq!(
            why(json!({"serviceAccountName": "x"})),
            "a mirror pod may not reference service accounts"
        );
        for spec in [
            json!({"volumes": [{"name": "v", "secret": {"secretName": "x"}}]}),
            json!({"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "x"}}]}]}),
            json!({"imagePullSecrets": [{"name": "x"}]}),
        ] {
            assert_eq!(why(spec), "a mirror pod may not reference secrets");
        }
        assert_eq!(
            why(
                json!({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]})
            ),
            "a mirror pod may not use ServiceAccountToken volume projections"
        );
    }
}
