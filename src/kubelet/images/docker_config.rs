//! The node's own credentials: a `config.json` as `docker login` writes it, and the helpers that it names (upstream:
//! `pkg/credentialprovider/config.go`; docker's `cli/config/credentials`).

use super::keyring::{Credential, DEFAULT_REGISTRY, Keyring};
use crate::runtime::RegistryAuth;
use crate::runtime::reference::{DEFAULT_DOMAIN, Reference};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Docker Hub's entry in such files, and its name to helpers.
const HUB: &str = "https://index.docker.io/v1/";
/// A helper that takes longer is not waited for.
const HELPER_MAX: Duration = Duration::from_secs(20);

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ConfigFile {
    auths: Map<String, Value>,
    /// By registry.
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// What the first of the files has for an image. It is read each time: `docker login` may have changed it.
pub async fn find(files: &[PathBuf], image: &Reference) -> Vec<Credential> {
    for path in files {
        let text = match tokio::fs::read(path).await {
            Ok(text) => text,
            Err(_) => continue,
        };
        match serde_json::from_slice::<ConfigFile>(&text) {
            Ok(config) => return of_file(&config, image).await,
            Err(error) => tracing::warn!(path = %path.display(), %error, "Credentials for registries cannot be read"),
        }
    }
    Vec::new()
}

async fn of_file(config: &ConfigFile, image: &Reference) -> Vec<Credential> {
    let mut found = Vec::new();
    if let Some((helper, server)) = helper(config, image) {
        match ask(&helper, &server).await {
            Ok(auth) => found.extend(auth.map(|auth| Credential { auth, secret: None })),
            Err(error) => tracing::warn!(helper, server, error, "A helper for credentials failed"),
        }
    }
    let mut keyring = Keyring::default();
    keyring.add_all(&config.auths, None);
    found.extend(keyring.find(image));
    found
}

/// The helper for the image's registry, and what it calls the registry.
fn helper(config: &ConfigFile, image: &Reference) -> Option<(String, String)> {
    let names: &[&str] = match image.domain.as_str() {
        DEFAULT_DOMAIN => &[HUB, DEFAULT_REGISTRY, DEFAULT_DOMAIN],
        domain => &[domain],
    };
    let own = names
        .iter()
        .find_map(|name| Some((config.cred_helpers.get(*name)?, *name)));
    let store = Some((&config.creds_store, names[0])).filter(|(store, _)| !store.is_empty());
    let (helper, server) = own.or(store)?;
    Some((helper.clone(), server.to_owned()))
}

/// None where the helper knows nothing of the registry.
async fn ask(helper: &str, server: &str) -> Result<Option<RegistryAuth>, String> {
    if !helper
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    {
        return Err("this is no name of a helper".to_owned());
    }
    let mut command = Command::new(format!("docker-credential-{helper}"));
    command.arg("get").kill_on_drop(true);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let answer = async {
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that has ended says why by its code.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
        child.wait_with_output().await.map_err(|error| error.to_string())
    };
    let output = tokio::time::timeout(HELPER_MAX, answer).await;
    let output = output.map_err(|_| format!("no answer within {HELPER_MAX:?}"))??;
    if !output.status.success() {
        // That is how it says that there are none.
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        return match text.contains("credentials not found") {
            true => Ok(None),
            false => Err(format!("{}: {text}", output.status)),
        };
    }
    let answer: Answer = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    Ok(Some(RegistryAuth {
        username: answer.username,
        password: answer.secret,
        server: server.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image(name: &str) -> Reference {
        Reference::parse(name).unwrap()
    }

    fn config(value: Value) -> ConfigFile {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn helpers_of_registries_come_before_the_store() {
        let config = config(json!({"credsStore": "desktop", "credHelpers": {"ghcr.io": "gh", "docker.io": "hub"}}));
        let of = |name: &str| helper(&config, &image(name)).unwrap();
        assert_eq!(of("ghcr.io/a"), ("gh".into(), "ghcr.io".into()));
        assert_eq!(of("busybox"), ("hub".into(), "docker.io".into()));
        assert_eq!(of("quay.io/a"), ("desktop".into(), "quay.io".into()));
        let config = self::config(json!({"credsStore": "desktop"}));
        assert_eq!(helper(&config, &image("a")).unwrap().1, HUB);
        assert!(helper(&self::config(json!({})), &image("a")).is_none());
    }

    #[tokio::test]
    async fn the_first_file_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let auths = |user: &str| json!({"auths": {"ghcr.io": {"username": user, "password": "p"}, "empty.io": {}}});
        std::fs::write(path("broken"), "{").unwrap();
        std::fs::write(path("one"), auths("one").to_string()).unwrap();
        std::fs::write(path("two"), auths("two").to_string()).unwrap();
        let files = ["absent", "broken", "one", "two"].map(path);
        let found = find(&files, &image("ghcr.io/a")).await;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].auth.username, "one");
        assert!(find(&files, &image("empty.io/a")).await.is_empty());
        assert!(find(&[], &image("ghcr.io/a")).await.is_empty());
    }

    #[tokio::test]
    async fn a_helper_that_is_not_there_is_an_error() {
        assert!(ask("of-the-test-that-nobody-has", "ghcr.io").await.is_err());
        assert!(ask("../../bin/sh", "ghcr.io").await.is_err());
    }
}
