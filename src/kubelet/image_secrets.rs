//! Registry credentials from imagePullSecrets (upstream: `pkg/credentialprovider`).

use crate::kubelet::container::ConfigError;
use crate::kubelet::objects::{Objects, References};
use crate::kubelet::pod;
use crate::runtime::RegistryAuth;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{Pod, Secret};
use serde_json::Value;

/// The credentials of the pod's pull secrets that fit the image's registry. Missing secrets are passed over, as
/// upstream does: the pull itself then says what is wrong.
pub async fn find(client: &kube::Client, pod: &Pod, image: &str) -> Result<Vec<RegistryAuth>, ConfigError> {
    let names: Vec<String> = pod::spec(pod)
        .image_pull_secrets
        .iter()
        .flatten()
        .map(|s| s.name.clone())
        .collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let references = References {
        secrets: names.iter().cloned().collect(),
        ..References::default()
    };
    let objects = Objects::fetch(client, pod::namespace(pod), references).await?;
    let mut auths = Vec::new();
    for name in &names {
        if let Some(secret) = objects.secret(name)? {
            auths.extend(matching(secret, image));
        }
    }
    Ok(auths)
}

/// The registry host of an image reference; Docker Hub's where it names none.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

fn matching(secret: &Secret, image: &str) -> Vec<RegistryAuth> {
    let data = secret.data.as_ref();
    let parse = |key: &str| -> Option<Value> { serde_json::from_slice(&data?.get(key)?.0).ok() };
    let servers = match parse(".dockerconfigjson") {
        Some(mut config) => config.get_mut("auths").map(Value::take),
        None => parse(".dockercfg"),
    };
    let wanted = registry(image);
    let servers = servers.as_ref().and_then(Value::as_object).into_iter().flatten();
    servers
        .filter(|(server, _)| host(server) == wanted)
        .filter_map(|(server, entry)| credentials(server, entry))
        .collect()
}

/// `https://index.docker.io/v1/` and the like are Docker Hub.
fn host(server: &str) -> &str {
    let bare = server.trim_start_matches("https://").trim_start_matches("http://");
    match bare.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

fn credentials(server: &str, entry: &Value) -> Option<RegistryAuth> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    let (username, password) = match (text("username"), text("password")) {
        (Some(username), Some(password)) => (username, password),
        _ => {
            let decoded = String::from_utf8(STANDARD.decode(text("auth")?.trim()).ok()?).ok()?;
            let (username, password) = decoded.split_once(':')?;
            (username.to_owned(), password.to_owned())
        }
    };
    Some(RegistryAuth {
        username,
        password,
        server: server.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use serde_json::json;

    #[test]
    fn registries_of_references() {
        for (image, host) in [
            ("busybox", "docker.io"),
            ("library/busybox:1", "docker.io"),
            ("ghcr.io/x/y@sha256:0", "ghcr.io"),
            ("localhost:5000/x", "localhost:5000"),
            ("localhost/x", "localhost"),
        ] {
            assert_eq!(registry(image), host);
        }
    }

    #[test]
    fn secrets_of_both_kinds_match_by_host() {
        let auth = STANDARD.encode("u:p:w");
        let config = json!({"auths": {"https://index.docker.io/v1/": {"auth": auth}, "ghcr.io": {"username": "g", "password": "h"}}});
        let secret = Secret {
            data: Some(
                [(
                    ".dockerconfigjson".to_owned(),
                    ByteString(config.to_string().into_bytes()),
                )]
                .into(),
            ),
            ..Secret::default()
        };
        let hub = matching(&secret, "busybox");
        assert_eq!((hub[0].username.as_str(), hub[0].password.as_str()), ("u", "p:w"));
        assert_eq!(matching(&secret, "ghcr.io/a/b")[0].username, "g");
        assert!(matching(&secret, "quay.io/a/b").is_empty());
    }
}
