//! One HTTP/1.1 connection over TLS with the kubeconfig's client certificate: the least work on the client's side
//! that still is what clients do.

use base64::Engine;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const JSON: &str = "application/json";

pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A server and who we are to it.
#[derive(Clone)]
pub struct Target {
    host: String,
    port: u16,
    tls: TlsConnector,
}

impl Target {
    /// From the current context of a kubeconfig with embedded or named client certificates.
    pub fn from_kubeconfig(file: &Path) -> Result<Self, Error> {
        let config: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(file)?)?;
        let named = |list: &str, name: &Value| {
            let entries = config[list].as_array().cloned().unwrap_or_default();
            entries
                .into_iter()
                .find(|entry| &entry["name"] == name)
                .ok_or(format!("no {name} in {list}"))
        };
        let context = named("contexts", &config["current-context"])?;
        let cluster = named("clusters", &context["context"]["cluster"])?;
        let user = named("users", &context["context"]["user"])?;
        let pem = |object: &Value, key: &str| -> Result<Vec<u8>, Error> {
            if let Some(data) = object[format!("{key}-data")].as_str() {
                return Ok(base64::engine::general_purpose::STANDARD.decode(data)?);
            }
            let path = object[key].as_str().ok_or(format!("the kubeconfig has no {key}"))?;
            Ok(std::fs::read(path)?)
        };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem(&cluster["cluster"], "certificate-authority")?) {
            roots.add(certificate?)?;
        }
        let chain = pem(&user["user"], "client-certificate")?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&pem(&user["user"], "client-key")?)?;
        let mut tls = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let server = cluster["cluster"]["server"]
            .as_str()
            .ok_or("the cluster has no server")?;
        let uri: hyper::Uri = server.parse()?;
        Ok(Self {
            host: uri
                .host()
                .ok_or("the server has no host")?
                .trim_matches(['[', ']'])
                .to_owned(),
            port: uri.port_u16().unwrap_or(443),
            tls: TlsConnector::from(Arc::new(tls)),
        })
    }

    pub async fn connect(&self) -> Result<Connection, Error> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        tcp.set_nodelay(true)?;
        let tls = self.tls.connect(ServerName::try_from(self.host.clone())?, tcp).await?;
        let (sender, connection) = handshake(TokioIo::new(tls)).await?;
        tokio::spawn(async move {
            // An end of the connection shows as an error of the request that waits on it.
            let _ = connection.await;
        });
        Ok(Connection {
            sender,
            host: format!("{}:{}", self.host, self.port),
        })
    }
}

pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    async fn send(
        &mut self,
        method: Method,
        path: &str,
        accept: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Error> {
        self.sender.ready().await?;
        let request = Request::builder().method(method).uri(path).header("host", &self.host);
        let request = request.header("accept", accept);
        let request = if body.is_empty() {
            request
        } else {
            request.header("content-type", content_type)
        };
        Ok(self.sender.send_request(request.body(Full::new(body))?).await?)
    }

    /// The body of a 2xx answer; anything else is an error with the server's text.
    pub async fn call(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Error> {
        let content_type = if method == Method::PATCH {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let response = self.send(method.clone(), path, JSON, content_type, body).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            return Err(format!("{method} {path}: {status}: {}", String::from_utf8_lossy(&body)).into());
        }
        Ok(body)
    }

    /// The body in the form that `accept` asks for.
    pub async fn get_as(&mut self, path: &str, accept: &str) -> Result<Bytes, Error> {
        let response = self.send(Method::GET, path, accept, "", Bytes::new()).await?;
        if !response.status().is_success() {
            return Err(format!("GET {path} as {accept}: {}", response.status()).into());
        }
        Ok(response.into_body().collect().await?.to_bytes())
    }

    pub async fn get_json(&mut self, path: &str) -> Result<Value, Error> {
        Ok(serde_json::from_slice(
            &self.call(Method::GET, path, Bytes::new()).await?,
        )?)
    }

    /// A watch: the body as it comes.
    pub async fn stream(mut self, path: &str) -> Result<(Self, Incoming), Error> {
        let response = self.send(Method::GET, path, JSON, "", Bytes::new()).await?;
        if !response.status().is_success() {
            return Err(format!("GET {path}: {}", response.status()).into());
        }
        Ok((self, response.into_body()))
    }
}
