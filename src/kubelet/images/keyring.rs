//! Which credentials fit an image: those of the pod's pull secrets, then the node's own (upstream:
//! `pkg/credentialprovider/keyring.go`, `secrets/secrets.go`).

use crate::runtime::RegistryAuth;
use crate::runtime::reference::Reference;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Map, Value};

/// Docker Hub under the name that its own client gives it.
pub const DEFAULT_REGISTRY: &str = "index.docker.io";

/// What a pull is tried with.
#[derive(Clone, Debug)]
pub struct Credential {
    pub auth: RegistryAuth,
    /// Uid of the secret that it is from; None: the node's own.
    pub secret: Option<String>,
}

/// Credentials by the registries, or parts of registries, that they are for.
#[derive(Debug, Default)]
pub struct Keyring {
    entries: Vec<(String, Credential)>,
}

impl Keyring {
    pub fn of_secrets<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut keyring = Self::default();
        for secret in secrets {
            let data = secret.data.as_ref();
            let parse = |key: &str| -> Option<Value> { serde_json::from_slice(&data?.get(key)?.0).ok() };
            let servers = match parse(".dockerconfigjson") {
                Some(mut config) => config.get_mut("auths").map(Value::take),
                None => parse(".dockercfg"),
            };
            if let Some(Value::Object(servers)) = servers {
                keyring.add_all(&servers, Some(secret.metadata.uid.as_deref().unwrap_or_default()));
            }
        }
        keyring
    }

    /// Takes in the `auths` of a configuration file, or of the secret with this uid.
    pub fn add_all(&mut self, servers: &Map<String, Value>, secret: Option<&str>) {
        for (server, entry) in servers {
            if let Some(auth) = credentials(server, entry) {
                let secret = secret.map(str::to_owned);
                self.entries.push((place(server), Credential { auth, secret }));
            }
        }
    }

    /// Those that fit an image, the most specific first.
    pub fn find(&self, image: &Reference) -> Vec<Credential> {
        let repository = image.repository();
        let mut fitting: Vec<&(String, Credential)> = self
            .entries
            .iter()
            .filter(|(place, _)| fits(place, &repository))
            .collect();
        fitting.sort_by(|(a, _), (b, _)| b.cmp(a));
        if fitting.is_empty() && image.domain == crate::runtime::reference::DEFAULT_DOMAIN {
            fitting = self
                .entries
                .iter()
                .filter(|(place, _)| place == DEFAULT_REGISTRY)
                .collect();
        }
        fitting
            .into_iter()
            .map(|(_, credentials)| credentials.clone())
            .collect()
    }
}

/// Host and path that an entry is for: schemes and versions of registries' APIs say nothing.
fn place(server: &str) -> String {
    let bare = server
        .strip_prefix("https://")
        .or_else(|| server.strip_prefix("http://"))
        .unwrap_or(server);
    let (host, path) = match bare.find('/') {
        Some(at) => bare.split_at(at),
        None => (bare, ""),
    };
    let path = path
        .strip_prefix("/v1")
        .or_else(|| path.strip_prefix("/v2"))
        .filter(|rest| rest.starts_with('/'))
        .unwrap_or(path);
    match path {
        "/" => host.to_owned(),
        path => format!("{host}{path}"),
    }
}

/// Whether an entry is for a repository: parts of its host name may hold wildcards, and its path is the beginning of the
/// repository's.
fn fits(place: &str, repository: &str) -> bool {
    let split = |text: &str| -> (Vec<String>, String, String) {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
        let parts = name.split('.').map(str::to_owned).collect();
        (parts, port.to_owned(), path.to_owned())
    };
    let (wanted, wanted_port, wanted_path) = split(place);
    let (parts, port, path) = split(repository);
    wanted.len() == parts.len()
        && wanted_port == port
        && path.starts_with(&wanted_path)
        && wanted
            .iter()
            .zip(&parts)
            .all(|(glob, part)| matches(glob.as_bytes(), part.as_bytes()))
}

/// `*` is any text, `?` any character.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    match (glob.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=text.len()).any(|from| matches(rest, &text[from..])),
        (Some((b'?', rest)), Some((_, text))) => matches(rest, text),
        (Some((one, rest)), Some((other, text))) => one == other && matches(rest, text),
        _ => false,
    }
}

fn credentials(server: &str, entry: &Value) -> Option<RegistryAuth> {
    let text = |key: &str| {
        let text = entry.get(key).and_then(Value::as_str);
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let (username, password) = match (text("identitytoken"), text("auth")) {
        (Some(token), _) => (RegistryAuth::TOKEN_USER.to_owned(), token),
        (None, Some(auth)) => {
            let decoded = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
            let (username, password) = decoded.split_once(':')?;
            (username.to_owned(), password.trim_end_matches('\0').to_owned())
        }
        (None, None) => (text("username")?, text("password")?),
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

    fn users(keyring: &Keyring, image: &str) -> Vec<String> {
        let found = keyring.find(&Reference::parse(image).unwrap());
        found.into_iter().map(|found| found.auth.username).collect()
    }

    #[test]
    fn the_most_specific_comes_first() {
        let auth = |user: &str| json!({"username": user, "password": "p"});
        let mut keyring = Keyring::default();
        let servers = json!({
            "ghcr.io": auth("host"), "ghcr.io/team": auth("team"), "https://ghcr.io/v2/team/app": auth("app"),
            "*.example.com": auth("any"), "reg.example.com:5000": auth("port"), "localhost:5000": auth("local"),
        });
        keyring.add_all(servers.as_object().unwrap(), None);
        assert_eq!(users(&keyring, "ghcr.io/team/app:1"), ["app", "team", "host"]);
        assert_eq!(users(&keyring, "ghcr.io/other/app"), ["host"]);
        assert_eq!(users(&keyring, "a.example.com/x"), ["any"]);
        assert_eq!(users(&keyring, "a.b.example.com/x"), [""; 0]);
        assert_eq!(users(&keyring, "reg.example.com:5000/x"), ["port"]);
        assert_eq!(users(&keyring, "localhost:5000/x"), ["local"]);
        assert_eq!(users(&keyring, "localhost:5001/x"), [""; 0]);
        assert_eq!(users(&keyring, "busybox"), [""; 0]);
    }

    #[test]
    fn docker_hub_has_many_names() {
        for server in [
            "https://index.docker.io/v1/",
            "index.docker.io",
            "docker.io",
            "docker.io/library",
        ] {
            let mut keyring = Keyring::default();
            keyring.add_all(
                json!({server: {"username": "u", "password": "p"}}).as_object().unwrap(),
                None,
            );
            assert_eq!(users(&keyring, "busybox"), ["u"], "{server}");
            assert_eq!(users(&keyring, "quay.io/busybox"), [""; 0], "{server}");
        }
    }

    #[test]
    fn secrets_of_both_kinds() {
        let auth = STANDARD.encode("u:p:w");
        let secret = |key: &str, content: Value| Secret {
            data: Some([(key.to_owned(), ByteString(content.to_string().into_bytes()))].into()),
            ..Secret::default()
        };
        let secrets = [
            secret(
                ".dockerconfigjson",
                json!({"auths": {"https://index.docker.io/v1/": {"auth": auth}}}),
            ),
            secret(".dockercfg", json!({"ghcr.io": {"username": "g", "password": "h"}})),
            secret("other", json!({})),
        ];
        let keyring = Keyring::of_secrets(&secrets);
        let hub = keyring.find(&Reference::parse("busybox").unwrap());
        assert_eq!(
            (hub[0].auth.username.as_str(), hub[0].auth.password.as_str()),
            ("u", "p:w")
        );
        assert_eq!(users(&keyring, "ghcr.io/a/b"), ["g"]);
        let entry = json!({"auth": STANDARD.encode("u:"), "identitytoken": "t"});
        let found = credentials("r.example", &entry).unwrap();
        assert_eq!(found.identity_token(), Some("t"));
        assert_eq!(hub[0].auth.identity_token(), None);
    }
}
