//! Reads images from registries (upstream: containerd's `core/remotes/docker`; the OCI distribution specification).
//!
//! A repository is asked at each of its hosts in turn: the mirrors of its `hosts.toml`, then its own. It asks for what
//! it is told to: where the content goes, and that it is what it should be beyond manifests, is the caller's affair.

mod authorization;
mod hosts;

use super::RegistryAuth;
use super::reference::{DEFAULT_DOMAIN, Reference};
use authorization::Challenge;
use hosts::Host;
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RANGE, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Of a registry that sends nothing for so long, nothing more is expected.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Upstream's `MaxManifestSize` is 4 MiB in most registries.
const DOCUMENT_BYTES_MAX: usize = 8 << 20;

const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("{0}: not found")]
    NotFound(String),
    #[error("pull access denied, repository does not exist or may require authorization: server message: {0}")]
    Denied(String),
    #[error("unexpected status from GET request to {url}: {status}")]
    Status { url: String, status: StatusCode },
    #[error("failed to do request: Get {url:?}: {reason}")]
    Request { url: String, reason: String },
    #[error("{url}: {reason}")]
    Content { url: String, reason: String },
    #[error("{path}: {reason}")]
    Settings { path: PathBuf, reason: String },
}
pub type Result<T, E = RegistryError> = std::result::Result<T, E>;

/// A manifest or an index.
#[derive(Clone, Debug)]
pub struct Document {
    pub media_type: String,
    /// Of these bytes.
    pub digest: String,
    pub bytes: Vec<u8>,
}

/// The part of a registry that holds one image's versions.
pub struct Repository {
    name: Reference,
    hosts: Vec<Access>,
}

/// A host, and what it wants to see before it answers.
struct Access {
    host: Host,
    client: reqwest::Client,
    /// Credentials for this host.
    credentials: Option<RegistryAuth>,
    authorization: Mutex<Option<HeaderValue>>,
}

impl Repository {
    /// `settings` is a directory like containerd's `/etc/containerd/certs.d`; it need not be there.
    pub fn open(settings: &Path, name: &Reference, credentials: Option<&RegistryAuth>) -> Result<Repository> {
        // Whoever starts krust has chosen one; tests have not.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let hosts = hosts::read(settings, &name.domain)?;
        let access = hosts.into_iter().map(|host| {
            Ok(Access {
                client: client(&host)?,
                // They are for the registry, and nobody else's to see.
                credentials: credentials.filter(|_| !host.mirror).cloned(),
                host,
                authorization: Mutex::default(),
            })
        });
        Ok(Repository {
            name: name.clone(),
            hosts: access.collect::<Result<_>>()?,
        })
    }

    /// What the name stands for.
    pub async fn resolve(&self) -> Result<Document> {
        match &self.name.digest {
            Some(digest) => self.manifest(digest).await,
            None => self.document(self.name.tag_or_latest().unwrap_or("latest")).await,
        }
    }

    /// A manifest or an index by its digest, which it has.
    pub async fn manifest(&self, digest: &str) -> Result<Document> {
        let document = self.document(digest).await?;
        if digest.starts_with("sha256:") && document.digest != digest {
            let reason = format!("the content's digest is {}, not {digest}", document.digest);
            let url = self.name.repository();
            return Err(RegistryError::Content { url, reason });
        }
        Ok(document)
    }

    async fn document(&self, version: &str) -> Result<Document> {
        let mut response = self.get(&format!("manifests/{version}"), Some(MANIFESTS), 0).await?;
        let url = response.url().to_string();
        let named = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let named = named
            .and_then(|value| value.split(';').next())
            .unwrap_or_default()
            .trim();
        let mut media_type = named.to_string();
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| request_failed(&url, &error))? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > DOCUMENT_BYTES_MAX {
                let reason = "too large for a manifest".to_string();
                return Err(RegistryError::Content { url, reason });
            }
        }
        // Plain files behind a web server are manifests, too: the content says it itself.
        let said: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| RegistryError::Content {
            url,
            reason: format!("this is no manifest: {error}"),
        })?;
        if let Some(said) = said.get("mediaType").and_then(|value| value.as_str()) {
            media_type = said.to_string();
        }
        Ok(Document {
            media_type,
            digest: format!("sha256:{}", hex::encode(Sha256::digest(&bytes))),
            bytes,
        })
    }

    /// A blob from `offset` on. The second part is where the answer begins: not every server can begin in the middle.
    pub async fn blob(&self, digest: &str, offset: u64) -> Result<(Response, u64)> {
        let response = self.get(&format!("blobs/{digest}"), None, offset).await?;
        let begins = match response.status() {
            StatusCode::PARTIAL_CONTENT => offset,
            _ => 0,
        };
        Ok((response, begins))
    }

    /// From the first host that has it. The error is that of the last, which is the registry itself.
    async fn get(&self, path: &str, accept: Option<&str>, offset: u64) -> Result<Response> {
        let mut last = RegistryError::NotFound(self.name.to_string());
        for access in &self.hosts {
            match self.get_from(access, path, accept, offset).await {
                Ok(response) => return Ok(response),
                Err(error) => {
                    tracing::debug!(host = access.host.base, path, %error, "a registry's host does not have it");
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn get_from(&self, access: &Access, path: &str, accept: Option<&str>, offset: u64) -> Result<Response> {
        let host = &access.host;
        let url = match host.mirror {
            true => format!("{}/{}/{path}?ns={}", host.base, self.name.path, self.name.domain),
            false => format!("{}/{}/{path}", host.base, self.name.path),
        };
        let mut tried = false;
        loop {
            let mut request = access.client.get(&url).headers(host.headers.clone());
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            if offset > 0 {
                request = request.header(RANGE, format!("bytes={offset}-"));
            }
            let authorization = access.authorization.lock().clone();
            if let Some(authorization) = authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = request.send().await.map_err(|error| request_failed(&url, &error))?;
            match response.status() {
                status if status.is_success() => return Ok(response),
                StatusCode::UNAUTHORIZED if !tried => {
                    tried = true;
                    let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter();
                    let challenges = challenges.filter_map(|value| Challenge::parse(value.to_str().ok()?));
                    let challenges: Vec<Challenge> = challenges.collect();
                    let authorization = self.authorize(access, &challenges).await?;
                    *access.authorization.lock() = Some(authorization);
                }
                StatusCode::NOT_FOUND => return Err(RegistryError::NotFound(self.name.to_string())),
                StatusCode::UNAUTHORIZED => {
                    return Err(RegistryError::Denied(
                        "insufficient_scope: authorization failed".to_string(),
                    ));
                }
                status => return Err(RegistryError::Status { url, status }),
            }
        }
    }

    async fn authorize(&self, access: &Access, challenges: &[Challenge]) -> Result<HeaderValue> {
        let scope = format!("repository:{}:pull", self.name.path);
        for challenge in challenges {
            let found = challenge
                .answer(&access.client, access.credentials.as_ref(), &scope)
                .await?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Err(RegistryError::Denied("no basic auth credentials".to_string()))
    }
}

fn client(host: &Host) -> Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .user_agent(concat!("krust/", env!("CARGO_PKG_VERSION")));
    if let Some(identity) = &host.identity {
        builder = builder.identity(identity.clone());
    }
    if host.skip_verify {
        builder = builder.danger_accept_invalid_certs(true);
    } else if host.base.starts_with("http://") {
        // It must not matter that a system has no authorities.
        builder = builder.tls_certs_only([]);
    } else if !host.authorities.is_empty() {
        builder = builder.tls_certs_merge(host.authorities.clone());
    }
    builder.build().map_err(|error| request_failed(&host.base, &error))
}

/// The innermost error says what happened.
fn request_failed(url: &str, error: &reqwest::Error) -> RegistryError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    RegistryError::Request {
        url: url.to_string(),
        reason: cause.to_string(),
    }
}

/// Where a registry's API is, unless it is set otherwise.
fn default_host(domain: &str) -> String {
    match domain {
        DEFAULT_DOMAIN => "registry-1.docker.io".to_string(),
        domain => domain.to_string(),
    }
}
