//! Signing the requests of others with the cluster's authority (upstream: `pkg/controller/certificates/authority`).
//!
//! The certificate says what the request says of its subject, key and names, byte for byte, and nothing else of it.
//! rcgen would read them into types of its own, which have no room for two organizations.

use super::PkiError;
use super::issue::Authority;
use rcgen::{PublicKeyData, SigningKey};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::der_parser::oid::Oid;
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

/// For peers whose clock is behind ours.
const BACKDATE: Duration = Duration::minutes(5);
/// Of a certificate that lives shorter the five minutes would be much.
const SHORT: Duration = Duration::hours(8);

/// Bits of the key usage extension, by the API's names; the first bit is the highest of the first byte.
const KEY_USAGES: [(&str, u16); 10] = [
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];
/// Extended key usages, by the API's names.
const EXTENDED_USAGES: [(&str, &[u64]); 13] = [
    ("any", &[2, 5, 29, 37, 0]),
    ("server auth", &[1, 3, 6, 1, 5, 5, 7, 3, 1]),
    ("client auth", &[1, 3, 6, 1, 5, 5, 7, 3, 2]),
    ("code signing", &[1, 3, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[1, 3, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[1, 3, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[1, 3, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[1, 3, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[1, 3, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
    ("netscape sgc", &[2, 16, 840, 1, 113_730, 4, 1]),
];

const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY: &[u64] = &[2, 5, 29, 35];
const ALTERNATIVE_NAMES: &[u64] = &[2, 5, 29, 17];

/// What a request asks for, as far as signers look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: usize,
    pub addresses: usize,
    pub emails: usize,
    pub uris: usize,
}

/// Reads a PEM request. Err says what is wrong with it.
pub fn read(request: &[u8]) -> Result<Asked, String> {
    let der = der_of(request)?;
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|error| error.to_string())?;
    let subject = &request.certification_request_info.subject;
    let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().unwrap_or_default().to_owned();
    let mut asked = Asked {
        common_name: subject.iter_common_name().last().map(text).unwrap_or_default(),
        organizations: subject.iter_organization().map(text).collect(),
        ..Asked::default()
    };
    for extension in request.requested_extensions().into_iter().flatten() {
        if let ParsedExtension::SubjectAlternativeName(names) = extension {
            for name in &names.general_names {
                use x509_parser::extensions::GeneralName;
                match name {
                    GeneralName::DNSName(_) => asked.dns_names += 1,
                    GeneralName::IPAddress(_) => asked.addresses += 1,
                    GeneralName::RFC822Name(_) => asked.emails += 1,
                    GeneralName::URI(_) => asked.uris += 1,
                    _ => {}
                }
            }
        }
    }
    Ok(asked)
}

/// When a PEM certificate expires, in seconds.
pub fn expiry(certificate: &[u8]) -> Option<i64> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate).ok()?;
    let certificate = pem.parse_x509().ok()?;
    Some(certificate.validity().not_after.timestamp())
}

fn der_of(request: &[u8]) -> Result<Vec<u8>, String> {
    let pem = Pem::iter_from_buffer(request).next();
    match pem {
        Some(Ok(pem)) if pem.label == "CERTIFICATE REQUEST" => Ok(pem.contents),
        _ => Err("PEM block type must be CERTIFICATE REQUEST".to_owned()),
    }
}

/// The certificate for a PEM request, in PEM.
pub(super) fn sign(
    authority: &Authority,
    request: &[u8],
    usages: &[String],
    lifetime: Duration,
) -> Result<String, PkiError> {
    sign_at(authority, request, usages, lifetime, OffsetDateTime::now_utc())
}

fn sign_at(
    authority: &Authority,
    request: &[u8],
    usages: &[String],
    lifetime: Duration,
    now: OffsetDateTime,
) -> Result<String, PkiError> {
    let refused = |reason: String| PkiError::Request { reason };
    let der = der_of(request).map_err(refused)?;
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|error| refused(error.to_string()))?;
    request
        .verify_signature()
        .map_err(|error| refused(format!("its signature is not that of its key: {error}")))?;
    let (_, own) = X509Certificate::from_der(authority.certificate()).map_err(|error| refused(error.to_string()))?;
    let algorithm = algorithm(authority.key()).map_err(refused)?;
    let info = &request.certification_request_info;
    let not_after = if lifetime < SHORT {
        now + lifetime
    } else {
        now + lifetime - BACKDATE
    };
    let not_after = not_after.min(own.validity().not_after.to_datetime());
    let mut serial: [u8; 16] = rand::random();
    serial[0] = (serial[0] & 0x7f) | 0x40;
    let names = alternative_names(&request).map_err(refused)?;
    let extensions = extensions(usages, &own, names, info.subject.as_raw() == EMPTY_NAME).map_err(refused)?;
    let content = sequence(&[
        &tagged(0xa0, &integer(&[2])),
        &integer(&serial),
        &algorithm,
        own.subject().as_raw(),
        &sequence(&[&time(now - BACKDATE), &time(not_after)]),
        info.subject.as_raw(),
        info.subject_pki.raw,
        &tagged(0xa3, &extensions),
    ]);
    let signature = authority.key().sign(&content);
    let signature = signature.map_err(|source| PkiError::Issue {
        subject: info.subject.to_string(),
        source,
    })?;
    let bits = [&[0], signature.as_slice()].concat();
    let certificate = sequence(&[&content, &algorithm, &tagged(0x03, &bits)]);
    Ok(pem(&CertificateDer::from(certificate)))
}

const EMPTY_NAME: &[u8] = &[0x30, 0];

fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// The algorithm by which a key signs, as certificates name it.
fn algorithm(key: &rcgen::KeyPair) -> Result<Vec<u8>, String> {
    let kind = PublicKeyData::algorithm(key);
    let named = |oid: &[u64]| sequence(&[&object_id(oid)]);
    if *kind == rcgen::PKCS_ECDSA_P256_SHA256 {
        Ok(named(&[1, 2, 840, 10045, 4, 3, 2]))
    } else if *kind == rcgen::PKCS_ECDSA_P384_SHA384 {
        Ok(named(&[1, 2, 840, 10045, 4, 3, 3]))
    } else if *kind == rcgen::PKCS_ED25519 {
        Ok(named(&[1, 3, 101, 112]))
    } else if *kind == rcgen::PKCS_RSA_SHA256 {
        Ok(sequence(&[&object_id(&[1, 2, 840, 113_549, 1, 1, 11]), &[0x05, 0]]))
    } else {
        Err("the authority's key is of a kind that it does not sign with".to_owned())
    }
}

/// The names of the request, as they stand there.
fn alternative_names(request: &X509CertificationRequest<'_>) -> Result<Option<Vec<u8>>, String> {
    let wanted: Oid<'_> = Oid::from(ALTERNATIVE_NAMES).map_err(|error| format!("{error:?}"))?;
    for attribute in request.certification_request_info.iter_attributes() {
        if let x509_parser::cri_attributes::ParsedCriAttribute::ExtensionRequest(requested) =
            attribute.parsed_attribute()
        {
            for extension in &requested.extensions {
                if extension.oid == wanted {
                    return Ok(Some(extension.value.to_vec()));
                }
            }
        }
    }
    Ok(None)
}

fn extensions(
    usages: &[String],
    authority: &X509Certificate<'_>,
    names: Option<Vec<u8>>,
    without_subject: bool,
) -> Result<Vec<u8>, String> {
    let mut bits: u16 = 0;
    let mut extended: Vec<&[u64]> = Vec::new();
    for usage in usages {
        if let Some((_, bit)) = KEY_USAGES.iter().find(|(name, _)| name == usage) {
            bits |= 0x8000 >> bit;
        } else if let Some((_, oid)) = EXTENDED_USAGES.iter().find(|(name, _)| name == usage) {
            if !extended.contains(oid) {
                extended.push(oid);
            }
        } else {
            return Err(format!("unrecognized usage values: [{usage:?}]"));
        }
    }
    let mut list: Vec<Vec<u8>> = Vec::new();
    if bits != 0 {
        list.push(extension(KEY_USAGE, true, &bit_string(bits)));
    }
    if !extended.is_empty() {
        let ids: Vec<u8> = extended.into_iter().flat_map(object_id).collect();
        list.push(extension(EXTENDED_KEY_USAGE, false, &tagged(0x30, &ids)));
    }
    list.push(extension(BASIC_CONSTRAINTS, true, EMPTY_NAME));
    let key_id = authority
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
    if let Some(id) = key_id {
        list.push(extension(AUTHORITY_KEY, false, &sequence(&[&tagged(0x80, &id)])));
    }
    if let Some(names) = names {
        list.push(extension(ALTERNATIVE_NAMES, without_subject, &names));
    }
    Ok(tagged(0x30, &list.concat()))
}

fn extension(oid: &[u64], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[0x01, 0x01, 0xff] } else { &[] };
    sequence(&[&object_id(oid), critical, &tagged(0x04, value)])
}

/// Sixteen bits, of which those at the end that are not set are left out.
fn bit_string(bits: u16) -> Vec<u8> {
    let unused = u8::try_from(bits.trailing_zeros() % 8).unwrap_or(0);
    let [first, second] = bits.to_be_bytes();
    let bytes: &[u8] = if second == 0 { &[first] } else { &[first, second] };
    tagged(0x03, &[&[unused], bytes].concat())
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tagged(0x30, &parts.concat())
}

/// A positive number, big end first.
fn integer(bytes: &[u8]) -> Vec<u8> {
    tagged(0x02, bytes)
}

fn object_id(parts: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (first, rest) = parts.split_at(2);
    for part in std::iter::once(&(first[0] * 40 + first[1])).chain(rest) {
        let groups = (64 - part.leading_zeros()).max(1).div_ceil(7);
        for group in (0..groups).rev() {
            let seven = u8::try_from((part >> (7 * group)) & 0x7f).unwrap_or(0);
            bytes.push(if group == 0 { seven } else { seven | 0x80 });
        }
    }
    tagged(0x06, &bytes)
}

fn time(at: OffsetDateTime) -> Vec<u8> {
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let rest = format!(
        "{month:02}{day:02}{:02}{:02}{:02}Z",
        at.hour(),
        at.minute(),
        at.second()
    );
    if year < 2050 {
        tagged(0x17, format!("{:02}{rest}", year % 100).as_bytes())
    } else {
        tagged(0x18, format!("{year:04}{rest}").as_bytes())
    }
}

/// Tag, length, content.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match content.len() {
        short @ 0..=127 => bytes.push(short as u8),
        long => {
            let length: Vec<u8> = long.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            bytes.push(0x80 | length.len() as u8);
            bytes.extend(length);
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::pki::issue::CLUSTER;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
    use x509_parser::pem::parse_x509_pem;

    fn request(key: &KeyPair) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        // The same attribute under its number: two organizations.
        params
            .distinguished_name
            .push(DnType::CustomDnType(vec![2, 5, 4, 10]), "second");
        params.distinguished_name.push(DnType::CommonName, "system:node:n1");
        params.subject_alt_names = vec![
            SanType::DnsName("n1".try_into().unwrap()),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
        ];
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn what_a_request_says_is_read() {
        let key = KeyPair::generate().unwrap();
        let asked = read(request(&key).as_bytes()).unwrap();
        let expected = Asked {
            common_name: "system:node:n1".into(),
            organizations: vec!["system:nodes".into(), "second".into()],
            dns_names: 1,
            addresses: 1,
            ..Asked::default()
        };
        assert_eq!(asked, expected);
        assert!(read(b"nothing").is_err());
    }

    #[test]
    fn a_certificate_says_what_was_asked_and_allowed() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(directory.path(), CLUSTER).unwrap();
        let key = KeyPair::generate().unwrap();
        let usages = ["digital signature", "key encipherment", "client auth", "server auth"].map(str::to_owned);
        let now = OffsetDateTime::from_unix_timestamp(OffsetDateTime::now_utc().unix_timestamp()).unwrap();
        for (lifetime, until) in [
            (Duration::minutes(10), now + Duration::minutes(10)),
            (Duration::days(365), now + Duration::days(365) - BACKDATE),
        ] {
            let pem = sign_at(&authority, request(&key).as_bytes(), &usages, lifetime, now).unwrap();
            let (_, parsed) = parse_x509_pem(pem.as_bytes()).unwrap();
            let certificate = parsed.parse_x509().unwrap();
            let (_, own) = X509Certificate::from_der(authority.certificate()).unwrap();
            certificate.verify_signature(Some(own.public_key())).unwrap();
            assert_eq!(certificate.issuer(), own.subject());
            assert_eq!(certificate.validity().not_before.to_datetime(), now - BACKDATE);
            assert_eq!(certificate.validity().not_after.to_datetime(), until);
            assert_eq!(expiry(pem.as_bytes()), Some(until.unix_timestamp()));
            let organizations: Vec<&str> = certificate
                .subject()
                .iter_organization()
                .map(|o| o.as_str().unwrap())
                .collect();
            assert_eq!(organizations, ["system:nodes", "second"]);
            assert_eq!(
                certificate.public_key().raw,
                rcgen::PublicKeyData::subject_public_key_info(&key)
            );
            let usage = certificate.key_usage().unwrap().unwrap();
            assert!(usage.critical && usage.value.digital_signature() && usage.value.key_encipherment());
            assert!(!usage.value.key_cert_sign());
            let extended = certificate.extended_key_usage().unwrap().unwrap().value;
            assert!(extended.client_auth && extended.server_auth && !extended.code_signing);
            assert!(!certificate.is_ca());
            let names = certificate.subject_alternative_name().unwrap().unwrap();
            assert_eq!(names.value.general_names.len(), 2);
        }
        let odd = ["flying".to_owned()];
        assert!(sign(&authority, request(&key).as_bytes(), &odd, Duration::days(1)).is_err());
    }
}
