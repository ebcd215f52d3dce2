//! What the authority signs, and when a kept certificate will not do any more.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::names::ServerNames;
use super::store::{self, PemPair};
use super::{PkiError, tls};

const AUTHORITY_VALIDITY: Duration = Duration::days(3650);
/// The same key is certified again when less is left: kubeconfigs that hold the older certificate go on.
const AUTHORITY_RENEWAL: Duration = Duration::days(730);
const VALIDITY: Duration = Duration::days(365);
/// Certificates are renewed when less is left.
const RENEWAL: Duration = Duration::days(60);
/// For peers whose clock is behind ours.
const CLOCK_SKEW: Duration = Duration::hours(1);

/// An authority: its file without extension, and its common name.
pub(super) type AuthorityProfile = (&'static str, &'static str);
/// Signs servers and clients of the cluster.
pub(super) const CLUSTER: AuthorityProfile = ("ca", "kubernetes");
/// Signs only the proxy that names users to the servers of other API groups.
pub(super) const FRONT_PROXY: AuthorityProfile = ("front-proxy-ca", "front-proxy-ca");

/// File and common name of the front proxy's certificate.
pub const FRONT_PROXY_CLIENT: &str = "front-proxy-client";

/// A certificate that this server wants to have.
pub(super) struct Profile {
    /// File name without extension.
    pub file: &'static str,
    common_name: String,
    organization: Option<&'static str>,
    usage: ExtendedKeyUsagePurpose,
    names: ServerNames,
}

impl Profile {
    /// In the order of `Pki`'s fields: API server, kubelet, API server as a client of kubelets, administrator.
    pub fn all(names: &ServerNames) -> [Profile; 4] {
        let server = |file, common_name: &str, organization| Profile {
            file,
            common_name: common_name.to_owned(),
            organization,
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            names: names.clone(),
        };
        let client = |file, common_name: &str| Profile {
            file,
            common_name: common_name.to_owned(),
            organization: Some("system:masters"),
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            names: ServerNames::default(),
        };
        [
            server("apiserver", "kube-apiserver", None),
            server("kubelet", "kubelet", Some("system:nodes")),
            client("apiserver-kubelet-client", "kube-apiserver-kubelet-client"),
            client("admin", "kubernetes-admin"),
        ]
    }

    /// For a client whose name is all that it says.
    pub fn of_user(user: &'static str) -> Profile {
        Profile {
            file: user,
            common_name: user.to_owned(),
            organization: None,
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            names: ServerNames::default(),
        }
    }
}

/// The certificate authority.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    pub fn load_or_create(directory: &Path, (file, name): AuthorityProfile) -> Result<Authority, PkiError> {
        let (certificate_path, key_path) = store::paths(directory, file);
        let kept = (store::read(&certificate_path)?, store::read(&key_path)?);
        let key = match &kept {
            (_, Some(key)) => KeyPair::from_pem(key).map_err(|error| unusable(&key_path, error))?,
            (Some(_), None) => {
                let reason = format!("its key {} is missing; put it back, or remove both", key_path.display());
                return Err(PkiError::Unusable {
                    path: certificate_path,
                    reason,
                });
            }
            (None, None) => {
                let key = generate_key(name)?;
                store::write(&key_path, &key.serialize_pem())?;
                key
            }
        };
        let pem = match kept.0 {
            Some(pem) if !needs_renewal(&certificate_path, &pem, AUTHORITY_RENEWAL)? => pem,
            _ => {
                let certificate = authority_params(name).self_signed(&key);
                let pem = certificate.map_err(|error| issue_error(name, error))?.pem();
                store::write(&certificate_path, &pem)?;
                pem
            }
        };
        let certificate = parse_pem(&certificate_path, &pem)?;
        let (_, parsed) =
            X509Certificate::from_der(&certificate).map_err(|error| unusable(&certificate_path, error))?;
        if rcgen::PublicKeyData::subject_public_key_info(&key) != parsed.public_key().raw {
            return Err(unusable(
                &certificate_path,
                format!("{} is not its key", key_path.display()),
            ));
        }
        if !parsed.is_ca() {
            return Err(unusable(&certificate_path, "not the certificate of an authority"));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|error| unusable(&certificate_path, error))?;
        Ok(Authority {
            issuer,
            certificate,
            pem,
        })
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub fn key(&self) -> &KeyPair {
        self.issuer.key()
    }

    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// The kept pair if it will do, else a new one; `true` with a new one.
    pub fn load_or_issue(&self, directory: &Path, profile: &Profile) -> Result<(PemPair, bool), PkiError> {
        let (certificate_path, key_path) = store::paths(directory, profile.file);
        if let (Some(certificate), Some(key)) = (store::read(&certificate_path)?, store::read(&key_path)?) {
            let pair = PemPair { certificate, key };
            match self.objection(profile, &pair, OffsetDateTime::now_utc()) {
                None => return Ok((pair, false)),
                Some(reason) => {
                    tracing::info!(certificate = profile.file, reason, "issuing a certificate anew");
                }
            }
        }
        let pair = self.issue(profile)?;
        // Key first: a crash in between leaves a pair that does not match, which is then issued anew.
        store::write(&key_path, &pair.key)?;
        store::write(&certificate_path, &pair.certificate)?;
        Ok((pair, true))
    }

    pub fn issue(&self, profile: &Profile) -> Result<PemPair, PkiError> {
        let failed = |error| issue_error(profile.file, error);
        let key = generate_key(profile.file)?;
        let mut params = CertificateParams::default();
        validity(&mut params, VALIDITY);
        params.distinguished_name = subject(&profile.common_name, profile.organization);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![profile.usage.clone()];
        for name in &profile.names.dns {
            params
                .subject_alt_names
                .push(SanType::DnsName(name.as_str().try_into().map_err(failed)?));
        }
        params
            .subject_alt_names
            .extend(profile.names.ips.iter().copied().map(SanType::IpAddress));
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(PemPair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Why a kept pair can not be used (any more).
    fn objection(&self, profile: &Profile, pair: &PemPair, now: OffsetDateTime) -> Option<&'static str> {
        if tls::certified_key(profile.file, pair).is_err() {
            return Some("certificate and key do not match");
        }
        let Ok(certificate) = CertificateDer::from_pem_slice(pair.certificate.as_bytes()) else {
            return Some("not readable");
        };
        let Ok((_, certificate)) = X509Certificate::from_der(&certificate) else {
            return Some("not readable");
        };
        let Ok((_, authority)) = X509Certificate::from_der(&self.certificate) else {
            return Some("not readable");
        };
        if certificate.verify_signature(Some(authority.public_key())).is_err() {
            return Some("signed by another authority");
        }
        let validity = certificate.validity();
        if validity.not_before.to_datetime() > now || validity.not_after.to_datetime() - now < RENEWAL {
            return Some("expires soon");
        }
        let wanted = subject(&profile.common_name, profile.organization);
        let text = |kind| {
            wanted.get(&kind).and_then(|value| {
                if let rcgen::DnValue::Utf8String(text) = value {
                    Some(text.as_str())
                } else {
                    None
                }
            })
        };
        let kept = certificate.subject();
        let common_name = kept.iter_common_name().next().and_then(|name| name.as_str().ok());
        let organization = kept.iter_organization().next().and_then(|name| name.as_str().ok());
        if (common_name, organization) != (text(DnType::CommonName), text(DnType::OrganizationName)) {
            return Some("made for another subject");
        }
        if !names_of(&certificate).covers(&profile.names) {
            return Some("lacks a name or address of this machine");
        }
        None
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    validity(&mut params, AUTHORITY_VALIDITY);
    params.distinguished_name = subject(name, None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    params
}

fn validity(params: &mut CertificateParams, validity: Duration) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + validity;
    // rcgen would derive it from the key, and two certificates of one key must not share it.
    let mut serial: [u8; 16] = rand::random();
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
}

fn subject(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// ECDSA P-256: every TLS stack has it, and signing costs a fraction of RSA's.
fn generate_key(subject: &str) -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|error| issue_error(subject, error))
}

fn needs_renewal(path: &Path, pem: &str, margin: Duration) -> Result<bool, PkiError> {
    let certificate = parse_pem(path, pem)?;
    let (_, certificate) = X509Certificate::from_der(&certificate).map_err(|error| unusable(path, error))?;
    Ok(certificate.validity().not_after.to_datetime() - OffsetDateTime::now_utc() < margin)
}

fn names_of(certificate: &X509Certificate<'_>) -> ServerNames {
    let mut names = ServerNames::default();
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return names;
    };
    for name in &extension.value.general_names {
        match name {
            GeneralName::DNSName(name) => {
                names.dns.insert((*name).to_owned());
            }
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
                let v6 = <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from);
                names.ips.extend(v4.or(v6));
            }
            _ => {}
        }
    }
    names
}

fn parse_pem(path: &Path, pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| unusable(path, error))
}

fn unusable(path: &Path, reason: impl ToString) -> PkiError {
    PkiError::Unusable {
        path: PathBuf::from(path),
        reason: reason.to_string(),
    }
}

fn issue_error(subject: &str, source: rcgen::Error) -> PkiError {
    PkiError::Issue {
        subject: subject.to_owned(),
        source,
    }
}
