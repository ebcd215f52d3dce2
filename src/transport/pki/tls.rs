//! rustls configurations whose certificates can be swapped while connections come in.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::PkiError;
use super::issue::Authority;
use super::store::PemPair;
use crate::transport::{ClientCertificate, Peer};

/// Kubernetes' attribute of a subject for the user's id.
const USER_ID: x509_parser::der_parser::Oid<'static> = x509_parser::der_parser::oid!(1.3.6.1.4.1.57683.2);

/// The current pair of one certificate; configurations hold it and see every swap.
#[derive(Clone)]
pub(super) struct Swappable(Arc<RwLock<Current>>);

struct Current {
    pair: Arc<PemPair>,
    key: Arc<CertifiedKey>,
}

impl Swappable {
    pub fn new(subject: &str, pair: PemPair) -> Result<Swappable, PkiError> {
        let key = certified_key(subject, &pair)?;
        Ok(Swappable(Arc::new(RwLock::new(Current {
            pair: Arc::new(pair),
            key: Arc::new(key),
        }))))
    }

    pub fn swap(&self, subject: &str, pair: PemPair) -> Result<(), PkiError> {
        let key = certified_key(subject, &pair)?;
        *self.0.write() = Current {
            pair: Arc::new(pair),
            key: Arc::new(key),
        };
        Ok(())
    }

    pub fn pair(&self) -> Arc<PemPair> {
        self.0.read().pair.clone()
    }

    fn key(&self) -> Arc<CertifiedKey> {
        self.0.read().key.clone()
    }
}

impl fmt::Debug for Swappable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Swappable")
    }
}

impl ResolvesServerCert for Swappable {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key())
    }
}

impl ResolvesClientCert for Swappable {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.key())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Parses a pair and checks that key and certificate belong together.
pub(super) fn certified_key(subject: &str, pair: &PemPair) -> Result<CertifiedKey, PkiError> {
    let failed = |source| PkiError::Tls {
        subject: subject.to_owned(),
        source,
    };
    let unreadable = |error: rustls::pki_types::pem::Error| failed(rustls::Error::General(error.to_string()));
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(unreadable)?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain.map_err(unreadable)?, key, &provider).map_err(failed)
}

/// What an accept loop needs for TLS.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<rustls::ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// None where no front proxy signs users in.
    front_proxies: Option<Arc<dyn ClientCertVerifier>>,
}

impl ServerTls {
    /// `front_proxies` are the authorities whose certificates front proxies have; empty: there are none.
    pub(super) fn new(
        subject: &str,
        authority: &Authority,
        front_proxies: &[CertificateDer<'static>],
        certificate: &Swappable,
    ) -> Result<ServerTls, PkiError> {
        let failed = |source| PkiError::Tls {
            subject: subject.to_owned(),
            source,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier_of = |authorities: &[CertificateDer<'static>]| {
            let roots = roots(authorities).map_err(failed)?;
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            let verifier = builder.allow_unauthenticated().build();
            verifier.map_err(|error| failed(rustls::Error::General(error.to_string())))
        };
        let verifier = verifier_of(std::slice::from_ref(authority.certificate()))?;
        let front_proxies = match front_proxies {
            [] => None,
            authorities => Some(verifier_of(authorities)?),
        };
        // Go's clients show no certificate of an authority that the server does not name.
        let hints = [Some(&verifier), front_proxies.as_ref()].into_iter().flatten();
        let hints = hints
            .flat_map(|verifier| verifier.root_hint_subjects())
            .cloned()
            .collect();
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_client_cert_verifier(Arc::new(AcceptForNow {
                verifier: verifier.clone(),
                hints,
            }))
            .with_cert_resolver(Arc::new(certificate.clone()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(ServerTls {
            config: Arc::new(config),
            verifier,
            front_proxies,
        })
    }

    pub fn config(&self) -> Arc<rustls::ServerConfig> {
        self.config.clone()
    }

    /// Who the client is, by the certificates that it proved to own the first of.
    pub fn peer(&self, certificates: Option<&[CertificateDer<'_>]>) -> Peer {
        let Some([certificate, intermediates @ ..]) = certificates else {
            return Peer::Anonymous;
        };
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
            return Peer::UntrustedCertificate;
        };
        let now = UnixTime::now();
        let error = match self.verifier.verify_client_cert(certificate, intermediates, now) {
            Ok(_) => return Peer::Certificate(Arc::new(describe(certificate, &parsed))),
            Err(error) => error,
        };
        let proxies = self.front_proxies.as_ref();
        if proxies.is_some_and(|proxies| proxies.verify_client_cert(certificate, intermediates, now).is_ok()) {
            return Peer::FrontProxy(Arc::new(describe(certificate, &parsed)));
        }
        tracing::debug!(%error, "client certificate is not valid here");
        Peer::UntrustedCertificate
    }
}

fn describe(der: &CertificateDer<'_>, parsed: &X509Certificate<'_>) -> ClientCertificate {
    let subject = parsed.subject();
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().map(str::to_owned).ok();
    ClientCertificate {
        // Go takes the last of several common names.
        common_name: subject.iter_common_name().last().and_then(text).unwrap_or_default(),
        uid: subject.iter_by_oid(&USER_ID).next().and_then(text).unwrap_or_default(),
        organizations: subject.iter_organization().filter_map(text).collect(),
        sha256_hex: hex::encode(Sha256::digest(der)),
    }
}

/// The configuration of a client that trusts the authority's servers and shows a certificate.
pub(super) fn client_config(
    authority: &Authority,
    certificate: &Swappable,
) -> Result<Arc<rustls::ClientConfig>, PkiError> {
    let failed = |source| PkiError::Tls {
        subject: "apiserver-kubelet-client".to_owned(),
        source,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots(std::slice::from_ref(authority.certificate())).map_err(failed)?)
        .with_client_cert_resolver(Arc::new(certificate.clone()));
    Ok(Arc::new(config))
}

fn roots(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    Ok(roots)
}

/// Lets the handshake pass with any certificate whose key the client owns; [`ServerTls::peer`] judges it after.
/// A client with a wrong certificate then gets a 401 that it can show, as upstream's server answers, and not a
/// broken handshake.
#[derive(Debug)]
struct AcceptForNow {
    verifier: Arc<dyn ClientCertVerifier>,
    /// The names of all authorities that somebody may have a certificate of.
    hints: Vec<DistinguishedName>,
}

impl ClientCertVerifier for AcceptForNow {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
