//! Signing requests, trust bundles and pod certificates
//! (upstream: `pkg/registry/certificates`, `pkg/apis/certificates/validation`).

use super::Stored;
use crate::registry::columns::certificates as printers;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_label, dns1123_subdomain};
use crate::registry::json::{
    at, child_or_new, children, default_number, integer, items, map, number, objects, restore, text,
};
use crate::registry::strategy::{Column, Object, Requester, Strategy, Target};
use crate::registry::validation::immutable;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";
const EXPIRATION_SECONDS_MIN: i64 = 600;
const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";
/// What the certificate of a pod may last.
const POD_SECONDS: std::ops::RangeInclusive<i64> = 3600..=7_862_400;
/// What signers of Kubernetes' own give a pod at most.
const POD_SECONDS_MAX_KUBERNETES: i64 = 86_400;
const NAME_BYTES_MAX: usize = 253;
const UID_BYTES_MAX: usize = 128;

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
        errors.extend(condition_errors(object));
        errors.extend(certificate_errors(text(object, &["status", "certificate"])));
        errors
    }

    fn validate_update(&self, object: &Object, old: &Object, target: Target) -> Vec<FieldError> {
        // Main has been validated as a whole.
        let mut errors = match target {
            Target::Main => Vec::new(),
            _ => self.validate(object),
        };
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
        let certificate = |object| text(object, &["status", "certificate"]);
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
    let Some(block) = Pem::iter_from_buffer(&pem).next().and_then(Result::ok) else {
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

/// The PEM of a PKCS#10 request, base64 around it, signed with its own key.
fn check_request(base64: &str) -> Result<(), String> {
    let pem = STANDARD.decode(base64).unwrap_or_default();
    let block = Pem::iter_from_buffer(&pem).next().and_then(Result::ok);
    match block {
        Some(block) if block.label == "CERTIFICATE REQUEST" => check_pkcs10(&block.contents),
        _ => Err("PEM block type must be CERTIFICATE REQUEST".to_owned()),
    }
}

fn check_pkcs10(der: &[u8]) -> Result<(), String> {
    let (_, request) =
        X509CertificationRequest::from_der(der).map_err(|_| "x509: malformed certificate request".to_owned())?;
    request
        .verify_signature()
        .map_err(|_| "x509: verification of the request's own signature failed".to_owned())
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
    if domain.len() > NAME_BYTES_MAX {
        errors.push(FieldError::too_long(path, NAME_BYTES_MAX));
    }
    for label in domain.split('.') {
        for problem in dns1123_label(label, false) {
            let detail = format!("validating label {label:?}: {problem}");
            errors.push(FieldError::invalid(path, domain, &detail));
        }
    }
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, domain, detail));
    }
    // As long as the name and the namespace of an object together.
    const REST_BYTES_MAX: usize = NAME_BYTES_MAX + 63 + 1;
    if rest.len() > REST_BYTES_MAX {
        errors.push(FieldError::too_long(path, REST_BYTES_MAX));
    }
    for label in rest.split('.') {
        for problem in dns1123_subdomain(label, false) {
            let detail = format!("validating label {label:?}: {problem}");
            errors.push(FieldError::invalid(path, rest, &detail));
        }
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
        let other = match kind {
            APPROVED => DENIED,
            DENIED => APPROVED,
            _ => "",
        };
        if seen.contains(&other) {
            let detail = "Approved and Denied conditions are mutually exclusive";
            errors.push(FieldError::invalid(field("type"), kind, detail));
        }
        if seen.contains(&kind) {
            errors.push(FieldError::duplicate(field("type"), kind));
        }
        seen.push(kind);
    }
    errors
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
    for block in Pem::iter_from_buffer(pem).map_while(Result::ok) {
        if block.label != "CERTIFICATE" {
            return Some(format!(
                "only CERTIFICATE PEM blocks are allowed, found {:?}",
                block.label
            ));
        }
        if block.parse_x509().is_err() {
            return Some("x509: malformed certificate".to_owned());
        }
        found = true;
    }
    (!found).then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}

/// The name of a bundle begins with its signer's, colons for slashes.
fn bundle_name(name: &str, is_prefix: bool) -> Vec<String> {
    let rest = name.rsplit_once(':').map_or(name, |(_, rest)| rest);
    dns1123_subdomain(rest, is_prefix)
}

pub fn cluster_trust_bundle() -> Stored {
    Stored::new(printers::CLUSTER_TRUST_BUNDLE)
        .named(bundle_name)
        .conditional()
        .rules(|bundle| {
            let signer = text(bundle, &["spec", "signerName"]);
            let name = text(bundle, &["metadata", "name"]);
            let mut errors = Vec::new();
            if signer.is_empty() {
                if name.contains(':') {
                    let detail = "ClusterTrustBundle without signer name must not have \":\" in its name";
                    errors.push(FieldError::invalid("metadata.name", name, detail));
                }
            } else {
                let prefix = format!("{}:", signer.replace('/', ":"));
                if !name.starts_with(&prefix) {
                    let detail =
                        format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}");
                    errors.push(FieldError::invalid("metadata.name", name, &detail));
                }
                errors.extend(signer_name(signer, "spec.signerName"));
            }
            errors.extend(anchor_errors(text(bundle, &["spec", "trustBundle"])));
            errors
        })
        .update_rules(|new, old| {
            let signer = |bundle| at(bundle, &["spec", "signerName"]);
            Vec::from_iter(immutable(signer(new), signer(old), "spec.signerName"))
        })
        .fields(&["spec.signerName"], signer_field)
}

fn signer_field(object: &Object) -> Vec<(&'static str, String)> {
    vec![("spec.signerName", text(object, &["spec", "signerName"]).to_owned())]
}

/// A bundle is certificates in PEM, each once.
fn anchor_errors(bundle: &str) -> Vec<FieldError> {
    let invalid = |detail: String| FieldError::invalid("spec.trustBundle", "<value omitted>", &detail);
    let mut errors = Vec::new();
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut repeated: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, block) in Pem::iter_from_buffer(bundle.as_bytes())
        .map_while(Result::ok)
        .enumerate()
    {
        if block.label != "CERTIFICATE" {
            errors.push(invalid(format!("entry {index} has bad block type: {}", block.label)));
        } else if block.parse_x509().is_err() {
            errors.push(invalid(format!("entry {index} does not parse as X.509")));
        }
        if let Some(first) = seen.iter().position(|other| *other == block.contents) {
            repeated.entry(first).or_insert_with(|| vec![first]).push(index);
        }
        seen.push(block.contents);
    }
    if !errors.is_empty() {
        return errors;
    }
    if seen.is_empty() {
        errors.push(invalid("at least one trust anchor must be provided".to_owned()));
    }
    for indices in repeated.values() {
        let indices: Vec<String> = indices.iter().map(ToString::to_string).collect();
        errors.push(invalid(format!(
            "duplicate trust anchor (indices [{}])",
            indices.join(" ")
        )));
    }
    errors
}

pub fn pod_certificate_request() -> Stored {
    Stored::new(printers::POD_CERTIFICATE_REQUEST)
        .conditional()
        .defaults(|request| {
            default_number(
                child_or_new(request, "spec"),
                "maxExpirationSeconds",
                POD_SECONDS_MAX_KUBERNETES,
            );
        })
        .rules(pod_request_errors)
        .update_rules(|new, old| Vec::from_iter(immutable(new.get("spec"), old.get("spec"), "spec")))
        .status(|| json!({}))
        .fields(&["spec.signerName", "spec.podName", "spec.nodeName"], |request| {
            ["spec.signerName", "spec.podName", "spec.nodeName"]
                .map(|field| {
                    (
                        field,
                        text(request, &["spec", field.trim_start_matches("spec.")]).to_owned(),
                    )
                })
                .to_vec()
        })
        .unattended("pod certificate requests are stored, but no controller signs them yet")
}

fn pod_request_errors(request: &Object) -> Vec<FieldError> {
    let empty = Object::new();
    let spec = map(request, &["spec"]).unwrap_or(&empty);
    let mut errors = signer_name(text(spec, &["signerName"]), "spec.signerName");
    for field in ["podName", "serviceAccountName", "nodeName"] {
        let name = text(spec, &[field]);
        for problem in dns1123_subdomain(name, false) {
            errors.push(FieldError::invalid(format!("spec.{field}"), name, &problem));
        }
    }
    for field in ["podUID", "serviceAccountUID", "nodeUID"] {
        let uid = text(spec, &[field]);
        if uid.is_empty() {
            errors.push(FieldError::required(format!("spec.{field}"), "must not be empty"));
        } else if uid.len() > UID_BYTES_MAX {
            errors.push(FieldError::too_long(format!("spec.{field}"), UID_BYTES_MAX));
        }
    }
    let seconds = number(spec, &["maxExpirationSeconds"]);
    let most = if text(spec, &["signerName"]).starts_with("kubernetes.io/") {
        POD_SECONDS_MAX_KUBERNETES
    } else {
        *POD_SECONDS.end()
    };
    if !(*POD_SECONDS.start()..=most).contains(&seconds) {
        let detail = format!("must be in the range [{}, {most}]", POD_SECONDS.start());
        errors.push(FieldError::invalid("spec.maxExpirationSeconds", seconds, &detail));
    }
    let der = STANDARD.decode(text(spec, &["stubPKCS10Request"])).unwrap_or_default();
    if let Err(problem) = check_pkcs10(&der) {
        let shown = text(spec, &["stubPKCS10Request"]);
        errors.push(FieldError::invalid("spec.stubPKCS10Request", shown, &problem));
    }
    errors
}
