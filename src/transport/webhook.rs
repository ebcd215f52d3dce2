//! Calling a webhook: one HTTPS request with a JSON body, answered whole within its time
//! (upstream: `apiserver/pkg/util/webhook/client.go`).

use super::dial::{Address, DialError, connect_tcp};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_rustls::TlsConnector;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Where a webhook is, and how it proves who it is.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where to connect to.
    pub address: Address,
    /// The name that its certificate must have: a DNS name or an IP address.
    pub name: String,
    /// What stands in the `Host` header.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Who vouches for it, in PEM; empty for those whom this machine believes.
    pub authorities: Arc<[u8]>,
}

/// Why there is no answer, in Go's words.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("{0}")]
    Dial(#[from] DialError),
    #[error("unable to load root certificates: unable to parse bytes as PEM block")]
    Authorities,
    #[error("tls: failed to verify certificate: x509: {0}")]
    Certificate(String),
    #[error("{0}")]
    Http(String),
    #[error("context deadline exceeded")]
    Timeout,
}

/// Posts `body` and waits for the whole answer.
pub async fn post(endpoint: &Endpoint, body: Vec<u8>, timeout: Duration) -> Result<(StatusCode, Bytes), CallError> {
    tokio::time::timeout(timeout, exchange(endpoint, body))
        .await
        .unwrap_or(Err(CallError::Timeout))
}

async fn exchange(endpoint: &Endpoint, body: Vec<u8>) -> Result<(StatusCode, Bytes), CallError> {
    let address = endpoint.address.to_string();
    let name = ServerName::try_from(endpoint.name.clone())
        .map_err(|_| CallError::Dial(DialError::ServerName(endpoint.name.clone())))?;
    let tls = TlsConnector::from(config(&endpoint.authorities)?);
    let tcp = connect_tcp(&endpoint.address).await?;
    let io = tls.connect(name, tcp).await.map_err(|source| {
        untrusted(&source, &endpoint.name).unwrap_or(CallError::Dial(DialError::Tls { address, source }))
    })?;
    let http = |error: &dyn std::fmt::Display| CallError::Http(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .map_err(|error| http(&error))?;
    let request = Request::post(&endpoint.path)
        .header(header::HOST, &endpoint.host)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, */*")
        .header(header::USER_AGENT, "kube-apiserver-admission")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| http(&error))?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(|error| http(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| CallError::Http(error.to_string()))?;
        Ok((head.status, body.to_bytes()))
    };
    // The connection lives as long as the exchange.
    let mut answered = std::pin::pin!(answered);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        answer = &mut answered => answer,
        end = &mut connection => match end {
            Err(error) => Err(http(&error)),
            Ok(()) => answered.await,
        },
    }
}

fn config(authorities: &[u8]) -> Result<Arc<ClientConfig>, CallError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (roots, pinned) = if authorities.is_empty() {
        (system_roots(), Vec::new())
    } else {
        given_roots(authorities)?
    };
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| CallError::Http(error.to_string()))?;
    let mut config = match WebPkiServerVerifier::builder_with_provider(roots.clone(), provider).build() {
        Ok(chains) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { chains, pinned })),
        // There is nobody to believe.
        Err(_) => builder.with_root_certificates(roots),
    }
    .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Whom the machine believes: for webhooks that name nobody.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    };
    ROOTS.get_or_init(read).clone()
}

type Pinned = Vec<CertificateDer<'static>>;

fn given_roots(authorities: &[u8]) -> Result<(Arc<RootCertStore>, Pinned), CallError> {
    let (mut roots, mut pinned) = (RootCertStore::empty(), Vec::new());
    for certificate in CertificateDer::pem_slice_iter(authorities) {
        let certificate = certificate.map_err(|_| CallError::Authorities)?;
        roots.add(certificate.clone()).map_err(|_| CallError::Authorities)?;
        pinned.push(certificate);
    }
    if pinned.is_empty() {
        return Err(CallError::Authorities);
    }
    Ok((Arc::new(roots), pinned))
}

/// Checks chains, and takes a certificate that is itself among those who are believed, as Go does: many webhooks have one
/// that they signed themselves, which is an authority's.
#[derive(Debug)]
struct Verifier {
    chains: Arc<WebPkiServerVerifier>,
    pinned: Pinned,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self
            .chains
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if verified.is_ok() || !self.pinned.contains(end_entity) {
            return verified;
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(end_entity) else {
            return verified;
        };
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let validity = certificate.validity();
        if validity.not_before.timestamp() > seconds || validity.not_after.timestamp() < seconds {
            return Err(CertificateError::Expired.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// What is wrong with the certificate, if that is what went wrong.
fn untrusted(error: &std::io::Error, name: &str) -> Option<CallError> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(why) = inner else {
        return None;
    };
    Some(CallError::Certificate(match why {
        CertificateError::UnknownIssuer => "certificate signed by unknown authority".to_owned(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("certificate is not valid for any names, but wanted to match {name}")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate has expired or is not yet valid".to_owned()
        }
        other => other.to_string(),
    }))
}
