//! Requests of pods for certificates (upstream: `PodCertificateRequest` in `pkg/apis/certificates/validation`).

use super::{pem, signer_name};
use crate::registry::columns::certificates as printers;
use crate::registry::field::FieldError;
use crate::registry::formats::dns1123_subdomain;
use crate::registry::json::{child_or_new, default_number, map, number, objects, text};
use crate::registry::strategies::{Stored, conditions};
use crate::registry::strategy::Object;
use crate::registry::validation::immutable;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// What the certificate of a pod may last.
const SECONDS: std::ops::RangeInclusive<i64> = 3600..=7_862_400;
/// What signers of Kubernetes' own give a pod at most.
const SECONDS_MAX_KUBERNETES: i64 = 86_400;
const UID_BYTES_MAX: usize = 128;
const STUB_BYTES_MAX: usize = 10 * 1024;
const CHAIN_BYTES_MAX: usize = 100 * 1024;
const REFRESH_MARGIN: SignedDuration = SignedDuration::from_mins(10);
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

const STUB: &str = "spec.stubPKCS10Request";
const CHAIN: &str = "status.certificateChain";

/// What a request ends as.
const ISSUED: &str = "Issued";
const ENDS: [&str; 3] = [ISSUED, "Denied", "Failed"];

pub fn pod_certificate_request() -> Stored {
    Stored::new(printers::POD_CERTIFICATE_REQUEST)
        .conditional()
        .defaults(|request| {
            let spec = child_or_new(request, "spec");
            default_number(spec, "maxExpirationSeconds", SECONDS_MAX_KUBERNETES);
        })
        .create_rules(spec_errors)
        .update_rules(|new, old| Vec::from_iter(immutable(new.get("spec"), old.get("spec"), "spec")))
        .status(|| json!({}))
        .status_rules(|new, old| status_errors(new, old, Timestamp::now()))
        .fields(&["spec.signerName", "spec.podName", "spec.nodeName"], |request| {
            [
                ("spec.signerName", "signerName"),
                ("spec.podName", "podName"),
                ("spec.nodeName", "nodeName"),
            ]
            .map(|(path, field)| (path, text(request, &["spec", field]).to_owned()))
            .to_vec()
        })
        .unattended("pod certificate requests are stored, but no controller signs them yet")
}

fn spec_errors(request: &Object) -> Vec<FieldError> {
    let empty = Object::new();
    let spec = map(request, &["spec"]).unwrap_or(&empty);
    let mut errors = signer_name(text(spec, &["signerName"]), "spec.signerName");
    for (name, uid) in [
        ("podName", "podUID"),
        ("serviceAccountName", "serviceAccountUID"),
        ("nodeName", "nodeUID"),
    ] {
        for problem in dns1123_subdomain(text(spec, &[name]), false) {
            errors.push(FieldError::invalid(
                format!("spec.{name}"),
                text(spec, &[name]),
                &problem,
            ));
        }
        let path = format!("spec.{uid}");
        match text(spec, &[uid]).len() {
            0 => errors.push(FieldError::invalid(path, "", "must not be empty")),
            length if length > UID_BYTES_MAX => errors.push(FieldError::too_long(path, UID_BYTES_MAX)),
            _ => {}
        }
    }
    let seconds = number(spec, &["maxExpirationSeconds"]);
    let domain = text(spec, &["signerName"]).split('/').next().unwrap_or_default();
    let most = if domain == "kubernetes.io" || domain.ends_with(".kubernetes.io") {
        SECONDS_MAX_KUBERNETES
    } else {
        *SECONDS.end()
    };
    if !(*SECONDS.start()..=most).contains(&seconds) {
        let detail = format!("must be in the range [{}, {most}]", SECONDS.start());
        errors.push(FieldError::invalid("spec.maxExpirationSeconds", seconds, &detail));
    }
    errors.extend(stub_error(
        &STANDARD.decode(text(spec, &["stubPKCS10Request"])).unwrap_or_default(),
    ));
    errors
}

/// What is wrong with the request that carries the key.
fn stub_error(der: &[u8]) -> Option<FieldError> {
    if der.is_empty() {
        let detail = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
        return Some(FieldError::invalid_untold("spec", detail));
    }
    if der.len() > STUB_BYTES_MAX {
        return Some(FieldError::too_long(STUB, STUB_BYTES_MAX));
    }
    let Ok(([], request)) = X509CertificationRequest::from_der(der) else {
        return Some(FieldError::invalid_untold(STUB, "must be a valid PKCS#10 CSR"));
    };
    let key = &request.certification_request_info.subject_pki;
    if key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
        let good = curve.is_some_and(|curve| [OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521].contains(&curve));
        if !good {
            let detail = "elliptic public keys must use curve P256, P384, or P521";
            return Some(FieldError::invalid(STUB, "curve P-224", detail));
        }
    } else if let Ok(PublicKey::RSA(key)) = key.parsed() {
        // Whole bytes, as upstream counts.
        let bits = key.key_size().div_ceil(8) * 8;
        if bits != 3072 && bits != 4096 {
            let detail = "RSA keys must have modulus size 3072 or 4096";
            return Some(FieldError::invalid(STUB, format!("{bits}-bit modulus"), detail));
        }
    } else if key.algorithm.algorithm != OID_SIG_ED25519 {
        let detail = "unknown public key type; supported types are Ed25519, ECDSA, and RSA";
        return Some(FieldError::invalid_untold(STUB, detail));
    }
    let verified = request.verify_signature();
    verified
        .err()
        .map(|_| FieldError::invalid_untold(STUB, "invalid signature"))
}

/// Whether the request has come to one of these ends.
fn ended(request: &Object, ends: &[&str]) -> bool {
    objects(request, &["status", "conditions"])
        .any(|(_, condition)| ends.contains(&text(condition, &["type"])) && text(condition, &["status"]) == "True")
}

fn status_errors(new: &Object, old: &Object, now: Timestamp) -> Vec<FieldError> {
    let mut errors = condition_errors(new);
    if !errors.is_empty() {
        return errors;
    }
    let empty = Object::new();
    let status = map(new, &["status"]).unwrap_or(&empty);
    let same = status == map(old, &["status"]).unwrap_or(&empty);
    let problem = if ended(old, &ENDS) {
        (!same).then_some("immutable after PodCertificateRequest is issued, denied, or failed")
    } else if ended(new, &ENDS[1..]) {
        let detail = "non-condition status fields must be empty when denying or failing the PodCertificateRequest";
        status.keys().any(|field| field != "conditions").then_some(detail)
    } else if ended(new, &[ISSUED]) {
        errors.extend(issue_errors(new, old, now));
        None
    } else {
        (!same).then_some("status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"")
    };
    errors.extend(problem.map(|detail| FieldError::invalid_untold("status", detail)));
    errors
}

/// At most one end, which is true, and nothing else.
fn condition_errors(request: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut ends = 0;
    for (index, condition) in objects(request, &["status", "conditions"]) {
        // With the point that upstream has there.
        let path = |field: &str| format!("status.conditions.[{index}].{field}");
        let (kind, status) = (text(condition, &["type"]), text(condition, &["status"]));
        if !ENDS.contains(&kind) {
            errors.push(FieldError::not_supported(path("type"), kind, &ENDS));
            continue;
        }
        ends += 1;
        if ends > 1 {
            let detail = "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
            errors.push(FieldError::invalid(path("type"), kind, detail));
        }
        if status != "True" {
            errors.push(FieldError::not_supported(path("status"), status, &["True"]));
        }
    }
    if let Some(status) = map(request, &["status"]) {
        errors.extend(conditions::validate(status, "status"));
    }
    errors
}

/// The certificate is the one asked for, and what the status says of it is so.
fn issue_errors(new: &Object, old: &Object, now: Timestamp) -> Vec<FieldError> {
    let chain = text(new, &["status", "certificateChain"]);
    if chain.len() > CHAIN_BYTES_MAX {
        return vec![FieldError::too_long(CHAIN, CHAIN_BYTES_MAX)];
    }
    let invalid = |detail: &str| vec![FieldError::invalid(CHAIN, chain, detail)];
    let mut blocks = pem::blocks(chain.as_bytes());
    let Some(block) = blocks.next() else {
        return invalid("issued certificate chain must contain at least one certificate");
    };
    if block.label != "CERTIFICATE" {
        return invalid("issued certificate chain must consist entirely of CERTIFICATE PEM blocks");
    }
    let Some(leaf) = block.certificate() else {
        return invalid("leaf certificate does not parse as valid X.509");
    };
    let mut errors = Vec::new();
    let names = leaf.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(name) => errors.extend(dns_name_problems(name)),
            GeneralName::RFC822Name(address) if !address.contains('@') => {
                let detail = "leaf certificate should not contain invalid EmailAddress";
                errors.push(FieldError::invalid(CHAIN, *address, detail));
            }
            _ => {}
        }
    }
    let der = STANDARD
        .decode(text(old, &["spec", "stubPKCS10Request"]))
        .unwrap_or_default();
    let Ok((_, request)) = X509CertificationRequest::from_der(&der) else {
        errors.push(FieldError::invalid_untold(STUB, "must be a valid PKCS#10 CSR"));
        return errors;
    };
    if request.certification_request_info.subject_pki.raw != leaf.public_key().raw {
        errors.extend(invalid("leaf certificate was not issued to the requested public key"));
        return errors;
    }
    let time = |field: &str| text(new, &["status", field]).parse::<Timestamp>().ok();
    let (not_before, not_after, refresh) = (time("notBefore"), time("notAfter"), time("beginRefreshAt"));
    let consistent = "must be present and consistent with the issued certificate";
    for (field, time, detail) in [
        ("notBefore", not_before, consistent),
        ("notAfter", not_after, consistent),
        (
            "beginRefreshAt",
            refresh,
            "must be present and in the range [notbefore+10min, notafter-10min]",
        ),
    ] {
        if time.is_none() {
            errors.push(FieldError::required(format!("status.{field}"), detail));
        }
    }
    let (Some(not_before), Some(not_after), Some(refresh)) = (not_before, not_after, refresh) else {
        return errors;
    };
    if !errors.is_empty() {
        return errors;
    }
    let (from, until) = (
        leaf.validity().not_before.timestamp(),
        leaf.validity().not_after.timestamp(),
    );
    let wrong = |field: &str, detail: &str| {
        let shown = text(new, &["status", field]);
        vec![FieldError::invalid(format!("status.{field}"), shown, detail)]
    };
    if not_before.as_second() != from {
        return wrong(
            "notBefore",
            "must be set to the NotBefore time encoded in the leaf certificate",
        );
    }
    if not_before.duration_since(now).abs() >= CLOCK_SKEW {
        return wrong(
            "notBefore",
            "must be set to within 5 minutes of kube-apiserver's current time",
        );
    }
    if not_after.as_second() != until {
        return wrong(
            "notAfter",
            "must be set to the NotAfter time encoded in the leaf certificate",
        );
    }
    let most = number(new, &["spec", "maxExpirationSeconds"]);
    let lifetime = |detail: &str| {
        let nanoseconds = until.saturating_sub(from).saturating_mul(1_000_000_000);
        vec![FieldError::invalid(CHAIN, nanoseconds, detail)]
    };
    if until - from < *SECONDS.start() {
        return lifetime("leaf certificate lifetime must be >= 1 hour");
    }
    if until - from > most {
        return lifetime(&format!(
            "leaf certificate lifetime must be <= spec.maxExpirationSeconds ({most})"
        ));
    }
    if refresh.duration_since(not_before) < REFRESH_MARGIN {
        return wrong("beginRefreshAt", "must be at least 10 minutes after status.notBefore");
    }
    if not_after.duration_since(refresh) < REFRESH_MARGIN {
        return wrong("beginRefreshAt", "must be at least 10 minutes before status.notAfter");
    }
    for block in blocks {
        if block.label != "CERTIFICATE" {
            // Spelled as upstream spells it here.
            return invalid("issued certificate chain must consist entirely of CERTFICATE PEM blocks");
        }
        if block.certificate().is_none() {
            return invalid("intermediate certificate does not parse as valid X.509");
        }
    }
    errors
}

fn dns_name_problems(name: &str) -> Vec<FieldError> {
    [
        (name.is_empty(), "leaf certificate should not contain empty DNSName"),
        (
            name.contains(".."),
            "leaf certificate's DNSName should not contain '..'",
        ),
        (
            name.starts_with('.') || name.ends_with('.'),
            "leaf certificate's DNSName should not start or end with '.'",
        ),
    ]
    .into_iter()
    .filter(|(bad, _)| *bad)
    .map(|(_, detail)| FieldError::invalid(CHAIN, name, detail))
    .collect()
}
