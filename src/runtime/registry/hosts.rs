//! Where a registry's content is got from (upstream: containerd's `core/remotes/docker/config/hosts.go`).

use super::{RegistryError, Result, default_host};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Identity};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// One place to ask.
#[derive(Clone)]
pub(super) struct Host {
    /// `https://host/v2`
    pub base: String,
    /// It holds the content of others, and is told whose.
    pub mirror: bool,
    pub skip_verify: bool,
    /// Beside those of the system.
    pub authorities: Vec<Certificate>,
    /// Who asks: a certificate and its key.
    pub identity: Option<Identity>,
    pub headers: HeaderMap,
}

/// Mirrors in the order of their `hosts.toml`, then the registry itself.
pub(super) fn read(settings: &Path, domain: &str) -> Result<Vec<Host>> {
    let port_as_name = domain.replace(':', "_") + "_";
    for name in [domain, port_as_name.as_str(), "_default"] {
        let path = settings.join(name).join("hosts.toml");
        match std::fs::read_to_string(&path) {
            Ok(text) => return parse(&path, &text, domain),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let reason = error.to_string();
                return Err(RegistryError::Settings { path, reason });
            }
        }
    }
    Ok(vec![plain(&default_base(domain))])
}

/// Registries of this machine are asked without TLS.
fn default_base(domain: &str) -> String {
    let host = default_host(domain);
    let bare = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    let local = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let scheme = if local && !host.ends_with(":443") {
        "http"
    } else {
        "https"
    };
    format!("{scheme}://{host}")
}

fn plain(server: &str) -> Host {
    Host {
        base: base(server, false),
        mirror: false,
        skip_verify: false,
        authorities: Vec::new(),
        identity: None,
        headers: HeaderMap::new(),
    }
}

fn base(server: &str, override_path: bool) -> String {
    let server = server.trim_end_matches('/');
    let server = match server.contains("://") {
        true => server.to_string(),
        false => default_base(server),
    };
    match override_path || server.ends_with("/v2") {
        true => server,
        false => server + "/v2",
    }
}

fn parse(path: &Path, text: &str, domain: &str) -> Result<Vec<Host>> {
    let wrong = |reason: String| RegistryError::Settings {
        path: path.to_owned(),
        reason,
    };
    let table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| wrong(error.message().to_string()))?;
    let mut mirrors: Vec<(&String, &Value)> = table
        .get("host")
        .and_then(Value::as_table)
        .into_iter()
        .flatten()
        .collect();
    // A table is sorted; the order of the file is what counts.
    mirrors.sort_by_key(|(name, _)| text.find(&format!("\"{name}\"")));
    let server = table
        .get("server")
        .and_then(Value::as_str)
        .map_or_else(|| default_base(domain), str::to_string);
    let mut hosts = Vec::new();
    for (name, settings) in mirrors {
        let settings = settings
            .as_table()
            .ok_or_else(|| wrong(format!("host.{name:?} is no table")))?;
        if can_pull(settings) {
            hosts.push(host(path, name, settings, domain)?);
        }
    }
    let own = host(path, &server, &table, domain)?;
    if !hosts.iter().any(|host| host.base == own.base) {
        hosts.push(own);
    }
    Ok(hosts)
}

/// Unless it says what else it is for.
fn can_pull(settings: &Table) -> bool {
    let capabilities = settings.get("capabilities").and_then(Value::as_array);
    capabilities.is_none_or(|list| list.iter().any(|one| matches!(one.as_str(), Some("pull"))))
}

fn host(path: &Path, server: &str, settings: &Table, domain: &str) -> Result<Host> {
    let wrong = |reason: String| RegistryError::Settings {
        path: path.to_owned(),
        reason,
    };
    let flag = |key: &str| settings.get(key).and_then(Value::as_bool).unwrap_or(false);
    let identity = match settings.get("client") {
        Some(client) => Some(identity(path, client).map_err(wrong)?),
        None => None,
    };
    let files: Vec<&str> = match settings.get("ca") {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(file)) => vec![file],
        _ => Vec::new(),
    };
    let mut authorities = Vec::new();
    for file in files {
        let file = beside(path, file);
        let pem = std::fs::read(&file).map_err(|error| wrong(format!("{}: {error}", file.display())))?;
        let read = Certificate::from_pem_bundle(&pem);
        authorities.extend(read.map_err(|error| wrong(format!("{}: {error}", file.display())))?);
    }
    let mut headers = HeaderMap::new();
    for (name, value) in settings.get("header").and_then(Value::as_table).into_iter().flatten() {
        let values = match value {
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
            Value::String(value) => vec![value.as_str()],
            _ => Vec::new(),
        };
        for value in values {
            let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) else {
                return Err(wrong(format!("{name:?} is no header")));
            };
            headers.append(name, value);
        }
    }
    let base = base(server, flag("override_path"));
    Ok(Host {
        mirror: base != self::base(&default_base(domain), false),
        base,
        skip_verify: flag("skip_verify"),
        authorities,
        identity,
        headers,
    })
}

/// Paths are relative to the file that names them.
fn beside(path: &Path, file: &str) -> PathBuf {
    path.parent()
        .map_or_else(|| PathBuf::from(file), |directory| directory.join(file))
}

/// A file with both the certificate and the key, a list of one, or of one pair of both.
fn identity(path: &Path, client: &Value) -> Result<Identity, String> {
    let one = match client {
        Value::Array(list) if list.len() == 1 => &list[0],
        Value::Array(_) => return Err("krust takes one client certificate, not several".to_string()),
        one => one,
    };
    let files: Vec<&str> = match one {
        Value::String(file) => vec![file],
        Value::Array(pair) => pair.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let mut pem = Vec::new();
    for file in files.into_iter().filter(|file| !file.is_empty()) {
        let file = beside(path, file);
        pem.extend(std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?);
        pem.push(b'\n');
    }
    Identity::from_pem(&pem).map_err(|error| format!("the client certificate cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_certificates() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("r.example");
        std::fs::create_dir_all(&folder).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        std::fs::write(folder.join("c.pem"), &certificate).unwrap();
        std::fs::write(folder.join("k.pem"), key.serialize_pem()).unwrap();
        std::fs::write(folder.join("both.pem"), certificate + &key.serialize_pem()).unwrap();
        for (client, taken) in [
            (r#""both.pem""#, true),
            (r#"["both.pem"]"#, true),
            (r#"[["c.pem", "k.pem"]]"#, true),
            (r#"[["both.pem", ""]]"#, true),
            (r#"["both.pem", "both.pem"]"#, false),
            (r#""absent.pem""#, false),
            (r#""c.pem""#, false),
        ] {
            std::fs::write(folder.join("hosts.toml"), format!("client = {client}\n")).unwrap();
            let hosts = read(directory.path(), "r.example");
            let found = hosts.is_ok_and(|hosts| hosts[0].identity.is_some());
            assert_eq!(found, taken, "{client}");
        }
    }

    fn bases(hosts: &[Host]) -> Vec<(&str, bool)> {
        hosts.iter().map(|host| (host.base.as_str(), host.mirror)).collect()
    }

    #[test]
    fn registries_without_settings() {
        let nowhere = Path::new("/nonexistent");
        for (domain, base) in [
            ("docker.io", "https://registry-1.docker.io/v2"),
            ("ghcr.io", "https://ghcr.io/v2"),
            ("localhost:5000", "http://localhost:5000/v2"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000/v2"),
            ("[::1]:5000", "http://[::1]:5000/v2"),
            ("localhost:443", "https://localhost:443/v2"),
        ] {
            assert_eq!(bases(&read(nowhere, domain).unwrap()), [(base, false)]);
        }
    }

    #[test]
    fn mirrors_come_first_and_in_their_order() {
        let text = r#"
            server = "https://registry-1.docker.io"
            [host."https://z.example"]
              capabilities = ["pull", "resolve"]
              [host."https://z.example".header]
                x-one = "1"
            [host."http://a.example/prefix"]
              override_path = true
              skip_verify = true
            [host."https://pushes.example"]
              capabilities = ["push"]
        "#;
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("docker.io")).unwrap();
        std::fs::write(directory.path().join("docker.io/hosts.toml"), text).unwrap();
        let hosts = read(directory.path(), "docker.io").unwrap();
        let expected = [
            ("https://z.example/v2", true),
            ("http://a.example/prefix", true),
            ("https://registry-1.docker.io/v2", false),
        ];
        assert_eq!(bases(&hosts), expected);
        assert_eq!(hosts[0].headers["x-one"], "1");
        assert!(hosts[1].skip_verify && !hosts[0].skip_verify);
        std::fs::write(directory.path().join("docker.io/hosts.toml"), "server = ").unwrap();
        let error = read(directory.path(), "docker.io").err().unwrap().to_string();
        assert!(error.contains("hosts.toml"), "{error}");
    }
}
