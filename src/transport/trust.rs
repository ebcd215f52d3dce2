//! Whose certificates a client believes that calls servers of users: those that authorities of theirs signed
//! (upstream: `client-go/transport`, Go's `crypto/x509`).

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::{Arc, OnceLock};

/// The certificate that a client shows, as it is at the moment.
pub type Identity = Arc<dyn ResolvesClientCert>;

/// Why nobody or not this one is believed, in Go's words.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("unable to load root certificates: unable to parse bytes as PEM block")]
    Authorities,
    #[error("tls: failed to find any PEM data in {0} input")]
    Identity(&'static str),
    #[error("tls: failed to verify certificate: x509: {0}")]
    Certificate(String),
    #[error("{0}")]
    Tls(#[from] rustls::Error),
}

/// The certificate and its key, in PEM, that a client shows all its life.
pub fn identity(certificate: &[u8], key: &[u8]) -> Result<Identity, TrustError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or(TrustError::Identity("certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TrustError::Identity("key"))?;
    let key = CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider())?;
    Ok(Arc::new(SingleCertAndKey::from(key)))
}

/// A client that believes the `authorities`, in PEM; those whom this machine believes if there are none. It shows
/// `identity` if it has one and is asked.
pub fn config(authorities: &[u8], identity: Option<Identity>) -> Result<ClientConfig, TrustError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (roots, pinned) = if authorities.is_empty() {
        (system_roots(), Vec::new())
    } else {
        given_roots(authorities)?
    };
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match WebPkiServerVerifier::builder_with_provider(roots.clone(), provider).build() {
        Ok(chains) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { chains, pinned })),
        // There is nobody to believe.
        Err(_) => builder.with_root_certificates(roots),
    };
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(identity),
        None => builder.with_no_client_auth(),
    };
    // The only version with upgrades.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Whom the machine believes: for those who name nobody.
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

fn given_roots(authorities: &[u8]) -> Result<(Arc<RootCertStore>, Pinned), TrustError> {
    let (mut roots, mut pinned) = (RootCertStore::empty(), Vec::new());
    for certificate in CertificateDer::pem_slice_iter(authorities) {
        let certificate = certificate.map_err(|_| TrustError::Authorities)?;
        roots.add(certificate.clone()).map_err(|_| TrustError::Authorities)?;
        pinned.push(certificate);
    }
    if pinned.is_empty() {
        return Err(TrustError::Authorities);
    }
    Ok((Arc::new(roots), pinned))
}

/// Checks chains, and takes a certificate that is itself among those who are believed, as Go does: many servers have one
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
pub fn refusal(error: &std::io::Error, name: &str) -> Option<TrustError> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(why) = inner else {
        return None;
    };
    Some(TrustError::Certificate(match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate signed by unknown authority".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("certificate is not valid for any names, but wanted to match {name}")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate has expired or is not yet valid".to_owned()
        }
        other => other.to_string(),
    }))
}
