//! Trust bundles of signers (upstream: `ClusterTrustBundle` in `pkg/apis/certificates/validation`).

use super::{pem, signer_name};
use crate::registry::columns::certificates as printers;
use crate::registry::field::FieldError;
use crate::registry::formats::dns1123_subdomain;
use crate::registry::json::{at, text};
use crate::registry::strategies::Stored;
use crate::registry::strategy::Object;
use crate::registry::validation::immutable;
use std::collections::BTreeMap;

const BUNDLE_BYTES_MAX: usize = 1 << 20;

/// The name of a bundle begins with its signer's, colons for slashes.
fn bundle_name(name: &str, is_prefix: bool) -> Vec<String> {
    let rest = name.rsplit_once(':').map_or(name, |(_, rest)| rest);
    dns1123_subdomain(rest, is_prefix)
}

pub fn cluster_trust_bundle() -> Stored {
    Stored::new(printers::CLUSTER_TRUST_BUNDLE)
        .named(bundle_name)
        .conditional()
        .create_rules(|bundle| {
            let mut errors = Vec::from_iter(name_errors(bundle));
            errors.extend(signer_errors(bundle));
            errors.extend(anchor_errors(anchors(bundle)));
            errors
        })
        .update_rules(|new, old| {
            let mut errors = signer_errors(new);
            // What is kept is not read again.
            if anchors(new) != anchors(old) {
                errors.extend(anchor_errors(anchors(new)));
            }
            errors.extend(name_errors(new));
            let signer = |bundle| at(bundle, &["spec", "signerName"]);
            errors.extend(immutable(signer(new), signer(old), "spec.signerName"));
            errors
        })
        .fields(&["spec.signerName"], |bundle| {
            vec![("spec.signerName", text(bundle, &["spec", "signerName"]).to_owned())]
        })
}

fn anchors(bundle: &Object) -> &str {
    text(bundle, &["spec", "trustBundle"])
}

fn signer_errors(bundle: &Object) -> Vec<FieldError> {
    match text(bundle, &["spec", "signerName"]) {
        "" => Vec::new(),
        signer => signer_name(signer, "spec.signerName"),
    }
}

fn name_errors(bundle: &Object) -> Option<FieldError> {
    let (signer, name) = (
        text(bundle, &["spec", "signerName"]),
        text(bundle, &["metadata", "name"]),
    );
    let prefix = format!("{}:", signer.replace('/', ":"));
    let detail = match signer {
        "" if name.contains(':') => "ClusterTrustBundle without signer name must not have \":\" in its name".to_owned(),
        "" => return None,
        _ if name.starts_with(&prefix) => return None,
        _ => format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"),
    };
    Some(FieldError::invalid("metadata.name", name, &detail))
}

/// A bundle is certificates of authorities in PEM, each once.
fn anchor_errors(bundle: &str) -> Vec<FieldError> {
    const PATH: &str = "spec.trustBundle";
    if bundle.len() > BUNDLE_BYTES_MAX {
        return vec![FieldError::too_long(PATH, BUNDLE_BYTES_MAX)];
    }
    let invalid = |detail: &str| FieldError::invalid(PATH, "<value omitted>", detail);
    let mut errors = Vec::new();
    let mut places: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    for (index, block) in pem::blocks(bundle.as_bytes()).enumerate() {
        let problem = if block.label != "CERTIFICATE" {
            Some(format!("has bad block type: {}", block.label))
        } else if block.has_headers {
            Some("has PEM block headers".to_owned())
        } else {
            match block.certificate() {
                None => Some("does not parse as X.509".to_owned()),
                Some(certificate) if !certificate.is_ca() => Some("does not have the CA bit set".to_owned()),
                Some(_) => None,
            }
        };
        match problem {
            Some(problem) => errors.push(invalid(&format!("entry {index} {problem}"))),
            None => places.entry(block.contents).or_default().push(index),
        }
    }
    if !errors.is_empty() {
        return errors;
    }
    if places.is_empty() {
        errors.push(invalid("at least one trust anchor must be provided"));
    }
    for indices in places.values().filter(|indices| indices.len() > 1) {
        let indices: Vec<String> = indices.iter().map(ToString::to_string).collect();
        errors.push(invalid(&format!(
            "duplicate trust anchor (indices [{}])",
            indices.join(" ")
        )));
    }
    errors
}
