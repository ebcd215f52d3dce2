//! Signing requests, trust bundles and pod certificates
//! (upstream: `pkg/registry/certificates`, `pkg/apis/certificates/validation`).

mod pem;
mod pod_certificate;
mod trust_bundle;

use crate::registry::columns::certificates as printers;
use crate::registry::field::{FieldError, go_quoted};
use crate::registry::formats::{dns1123_label, dns1123_subdomain};
use crate::registry::json::{at, child_or_new, children, integer, items, objects, restore, text};
use crate::registry::strategy::{Column, Object, Requester, Strategy, Target};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ED25519};
use x509_parser::prelude::FromDer;

pub use pod_certificate::pod_certificate_request;
pub use trust_bundle::cluster_trust_bundle;

const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";
const EXPIRATION_SECONDS_MIN: i64 = 600;
/// The name of a signer's domain, and that of all of it: two names, and slashes.
const DOMAIN_BYTES_MAX: usize = 253;
const SIGNER_BYTES_MAX: usize = 571;
const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// The strategy of CertificateSigningRequests.
pub struct SigningRequestStrategy;

impl Strategy for SigningRequestStrategy {
    /// Any name will do.
    fn validate_name(&self, _name: &str, _is_prefix: bool) -> Vec<String> {
        Vec::new()
    }

    fn prepare_for_create(&self, object: &mut Object) {
        let spec = child_or_new(object, "spec");
        for field in ["username", "uid", "groups", "extra"] {
            spec.remove(field);
        }
        object.insert("status".into(), json!({}));
    }

    /// Who asks for the certificate is not the client's to say.
    fn stamp_requester(&self, object: &mut Object, requester: &Requester<'_>) {
        let spec = child_or_new(object, "spec");
        if !requester.name.is_empty() {
            spec.insert("username".into(), json!(requester.name));
        }
        if !requester.uid.is_empty() {
            spec.insert("uid".into(), json!(requester.uid));
        }
        if !requester.groups.is_empty() {
            spec.insert("groups".into(), json!(requester.groups));
        }
        if !requester.extra.is_empty() {
            spec.insert("extra".into(), json!(requester.extra));
        }
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object, target: Target) {
        restore(object, old, "spec");
        match target {
            Target::Main => restore(object, old, "status"),
            Target::Status => {
                keep_conditions(object, old, &[APPROVED, DENIED]);
                stamp_conditions(object, old);
            }
            Target::Subresource(_) => {
                stamp_conditions(object, old);
                let conditions = at(object, &["status", "conditions"]).cloned();
                restore(object, old, "status");
                let status = child_or_new(object, "status");
                match conditions {
                    Some(conditions) => status.insert("conditions".into(), conditions),
                    None => status.remove("conditions"),
                };
            }
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Err(problem) = check_request(text(object, &["spec", "request"])) {
            errors.push(FieldError::invalid(
                "spec.request",
                text(object, &["spec", "request"]),
                &problem,
            ));
        }
        errors.extend(usage_errors(object));
        match text(object, &["spec", "signerName"]) {
            LEGACY_UNKNOWN => errors.push(FieldError::invalid(
                "spec.signerName",
                LEGACY_UNKNOWN,
                "the legacy signerName is not allowed via this API version",
            )),
            name => errors.extend(signer_name(name, "spec.signerName")),
        }
        if let Some(seconds) = integer(object, &["spec", "expirationSeconds"])
            && seconds < EXPIRATION_SECONDS_MIN
        {
            let detail = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.push(FieldError::invalid("spec.expirationSeconds", seconds, detail));
        }
        errors
    }

    fn validate_create(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = condition_errors(object);
        errors.extend(certificate_errors(text(object, &["status", "certificate"])));
        errors.extend(declared_errors(object));
        errors
    }

    fn validate_update(&self, object: &Object, old: &Object, target: Target) -> Vec<FieldError> {
        // Main has been validated as a whole.
        let mut errors = match target {
            Target::Main => Vec::new(),
            _ => self.validate(object),
        };
        let certificate = |object| text(object, &["status", "certificate"]);
        errors.extend(condition_errors(object));
        if certificate(object) != certificate(old) {
            errors.extend(certificate_errors(certificate(object)));
        }
        let path = "status.conditions";
        for kind in [APPROVED, DENIED, FAILED] {
            if conditions(object, kind).len() < conditions(old, kind).len() {
                let detail = format!("updates may not remove a condition of type {kind:?}");
                errors.push(FieldError::forbidden(path, &detail));
            }
        }
        if !matches!(target, Target::Subresource(_)) {
            for kind in [APPROVED, DENIED] {
                let (new, before) = (conditions(object, kind), conditions(old, kind));
                let what = match new.len().cmp(&before.len()) {
                    std::cmp::Ordering::Greater => "add",
                    std::cmp::Ordering::Equal if new != before => "modify",
                    _ => continue,
                };
                let detail = format!("updates may not {what} a condition of type {kind:?}");
                errors.push(FieldError::forbidden(path, &detail));
            }
        }
        if certificate(object) != certificate(old) {
            let detail = match target {
                Target::Status if certificate(old).is_empty() => "",
                Target::Status => "updates may not modify existing certificate content",
                _ => "updates may not set certificate content",
            };
            if !detail.is_empty() {
                errors.push(FieldError::forbidden("status.certificate", detail));
            }
        }
        if declared_errors(old).is_none() {
            errors.extend(declared_errors(object));
        }
        errors
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", text(object, &["spec", "signerName"]).to_owned())]
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }

    fn selects_namespace(&self) -> bool {
        false
    }

    fn unsupported_field(&self, field: &str) -> String {
        format!("field label not supported: {field}")
    }

    fn columns(&self) -> Vec<Column> {
        (printers::SIGNING_REQUEST.columns)()
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        (printers::SIGNING_REQUEST.cells)(object, now)
    }
}

/// The conditions of one type.
fn conditions<'a>(request: &'a Object, kind: &str) -> Vec<&'a Object> {
    objects(request, &["status", "conditions"])
        .map(|(_, condition)| condition)
        .filter(|condition| text(condition, &["type"]) == kind)
        .collect()
}

/// Conditions of these types stay as they were, one for one.
fn keep_conditions(object: &mut Object, old: &Object, kinds: &[&str]) {
    let mut kept: BTreeMap<&str, std::collections::VecDeque<Object>> = kinds
        .iter()
        .map(|kind| (*kind, conditions(old, kind).into_iter().cloned().collect()))
        .collect();
    for condition in children(child_or_new(object, "status"), "conditions") {
        let before = kept
            .get_mut(text(condition, &["type"]))
            .and_then(|kept| kept.pop_front());
        if let Some(before) = before {
            *condition = before;
        }
    }
}

/// Fills in times that the client left out.
fn stamp_conditions(object: &mut Object, old: &Object) {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else {
        return;
    };
    for condition in children(status, "conditions") {
        if text(condition, &["lastTransitionTime"]).is_empty() {
            let same = conditions(old, text(condition, &["type"]))
                .into_iter()
                .find(|before| text(before, &["status"]) == text(condition, &["status"]))
                .map(|before| text(before, &["lastTransitionTime"]).to_owned());
            let time = same.filter(|time| !time.is_empty()).unwrap_or_else(|| now.clone());
            condition.insert("lastTransitionTime".into(), json!(time));
        }
        if text(condition, &["lastUpdateTime"]).is_empty() {
            condition.insert("lastUpdateTime".into(), json!(now));
        }
    }
}

/// The groups that a request asks to be in, which is what organizations in its subject are.
pub fn organizations(base64: &str) -> Vec<String> {
    let pem = STANDARD.decode(base64).unwrap_or_default();
    let Some(block) = pem::blocks(&pem).next() else {
        return Vec::new();
    };
    let Ok((_, request)) = X509CertificationRequest::from_der(&block.contents) else {
        return Vec::new();
    };
    let subject = &request.certification_request_info.subject;
    subject
        .iter_organization()
        .filter_map(|organization| organization.as_str().ok().map(str::to_owned))
        .collect()
}

/// The name that a request asks for. Err is why it cannot be read.
pub fn common_name(base64: &str) -> Result<String, String> {
    let pem = STANDARD.decode(base64).unwrap_or_default();
    let block = pem::blocks(&pem)
        .next()
        .filter(|block| block.label == "CERTIFICATE REQUEST");
    let block = block.ok_or("PEM block type must be CERTIFICATE REQUEST")?;
    let (_, request) =
        X509CertificationRequest::from_der(&block.contents).map_err(|_| "x509: malformed certificate request")?;
    let subject = &request.certification_request_info.subject;
    let name = subject.iter_common_name().filter_map(|name| name.as_str().ok()).last();
    Ok(name.unwrap_or_default().to_owned())
}

/// The PEM of a PKCS#10 request, base64 around it, signed with its own key.
fn check_request(base64: &str) -> Result<(), String> {
    let pem = STANDARD.decode(base64).unwrap_or_default();
    match pem::blocks(&pem).next() {
        Some(block) if block.label == "CERTIFICATE REQUEST" => check_pkcs10(&block.contents),
        _ => Err("PEM block type must be CERTIFICATE REQUEST".to_owned()),
    }
}

fn check_pkcs10(der: &[u8]) -> Result<(), String> {
    let (_, request) =
        X509CertificationRequest::from_der(der).map_err(|_| "x509: malformed certificate request".to_owned())?;
    request.verify_signature().map_err(|_| {
        let key = &request.certification_request_info.subject_pki.algorithm.algorithm;
        let problem = if *key == OID_SIG_ED25519 {
            "x509: Ed25519 verification failure"
        } else if *key == OID_KEY_TYPE_EC_PUBLIC_KEY {
            "x509: ECDSA verification failure"
        } else {
            "crypto/rsa: verification error"
        };
        problem.to_owned()
    })
}

fn usage_errors(request: &Object) -> Vec<FieldError> {
    let usages = items(request, &["spec", "usages"]);
    if usages.is_empty() {
        return vec![FieldError::required("spec.usages", "")];
    }
    let mut errors = Vec::new();
    let paths = || (0..).map(|index| format!("spec.usages[{index}]"));
    for (path, usage) in paths().zip(usages) {
        if !usage.as_str().is_some_and(|usage| USAGES.contains(&usage)) {
            errors.push(FieldError::not_supported(path, usage.clone(), &USAGES));
        }
    }
    for (index, (path, usage)) in paths().zip(usages).enumerate() {
        if usages[..index].contains(usage) {
            errors.push(FieldError::duplicate(path, usage.clone()));
        }
    }
    errors
}

/// `example.com/name`.
pub fn signer_name(name: &str, path: &str) -> Vec<FieldError> {
    if name.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return vec![FieldError::invalid(path, name, detail)];
    };
    let mut errors = Vec::new();
    if domain.len() > DOMAIN_BYTES_MAX {
        errors.push(FieldError::too_long(path, DOMAIN_BYTES_MAX));
    }
    let mut labels = |whole: &str, check: fn(&str, bool) -> Vec<String>| {
        // The first bad one is told.
        let bad = whole.split('.').map(|label| (label, check(label, false)));
        let (label, problems) = bad
            .into_iter()
            .find(|(_, problems)| !problems.is_empty())
            .unwrap_or_default();
        errors.extend(problems.iter().map(|problem| {
            let detail = format!("validating label {}: {problem}", go_quoted(label));
            FieldError::invalid(path, whole, &detail)
        }));
    };
    labels(domain, dns1123_label);
    labels(rest, dns1123_subdomain);
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        // Before what is said of the path.
        let position = errors
            .iter()
            .position(|error| error.body.starts_with(&format!("Invalid value: {}", go_quoted(rest))));
        errors.insert(
            position.unwrap_or(errors.len()),
            FieldError::invalid(path, domain, detail),
        );
    }
    if name.len() > SIGNER_BYTES_MAX {
        errors.push(FieldError::too_long(path, SIGNER_BYTES_MAX));
    }
    errors
}

fn condition_errors(request: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, condition) in objects(request, &["status", "conditions"]) {
        let field = |name: &str| format!("status.conditions[{index}].{name}");
        let (kind, status) = (text(condition, &["type"]), text(condition, &["status"]));
        if kind.is_empty() {
            errors.push(FieldError::required(field("type"), ""));
        }
        let supported: &[&str] = if [APPROVED, DENIED, FAILED].contains(&kind) {
            &["True"]
        } else {
            &["False", "True", "Unknown"]
        };
        if status.is_empty() {
            errors.push(FieldError::required(field("status"), ""));
        } else if !supported.contains(&status) {
            errors.push(FieldError::not_supported(field("status"), status, supported));
        }
        if seen.contains(&kind) {
            errors.push(FieldError::duplicate(field("type"), kind));
        }
        seen.push(kind);
    }
    errors
}

/// The rule that upstream's type carries itself.
fn declared_errors(request: &Object) -> Option<FieldError> {
    let has = |kind| !conditions(request, kind).is_empty();
    (has(APPROVED) && has(DENIED)).then(|| {
        let member = |kind: &str| format!("conditions[{{\"type\": {kind:?}}}]");
        let members = [member(APPROVED), member(DENIED)];
        let detail = format!("must specify at most one of: `{}`", members.join("`, `"));
        FieldError::invalid("status.conditions", format!("{{{}}}", members.join(", ")), &detail)
    })
}

/// What a signer put into the status: PEM certificates, base64 around them.
fn certificate_errors(base64: &str) -> Option<FieldError> {
    if base64.is_empty() {
        return None;
    }
    let pem = STANDARD.decode(base64).unwrap_or_default();
    let problem = certificate_problem(&pem)?;
    Some(FieldError::invalid(
        "status.certificate",
        "<certificate data>",
        &problem,
    ))
}

fn certificate_problem(pem: &[u8]) -> Option<String> {
    let mut found = false;
    for block in pem::blocks(pem) {
        if block.label != "CERTIFICATE" {
            return Some(format!(
                "only CERTIFICATE PEM blocks are allowed, found {:?}",
                block.label
            ));
        }
        if block.has_headers {
            return Some("no PEM block headers are permitted".to_owned());
        }
        if block.certificate().is_none() {
            return Some("x509: malformed certificate".to_owned());
        }
        found = true;
    }
    (!found).then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}
