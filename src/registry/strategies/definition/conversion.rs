//! Who converts between versions (upstream: `validateCustomResourceConversion`, `apiserver/pkg/util/webhook`).
//!
//! Paths are those of upstream's internal type, which has no `webhook` in between.

use crate::registry::field::FieldError;
use crate::registry::formats::{dns1035_label, port_number};
use crate::registry::json::{integer, items, map, text};
use crate::registry::strategy::Object;
use serde_json::{Value, json};

const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const URL_FORM: &str = "; desired format: https://host[/path]";

/// `spec.conversion`; `recognized`: a version of ConversionReview that is known must be there.
pub fn validate(conversion: &Object, recognized: bool, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let strategy = text(conversion, &["strategy"]);
    let webhook = map(conversion, &["webhook"]);
    let client = map(conversion, &["webhook", "clientConfig"]);
    let versions = items(conversion, &["webhook", "conversionReviewVersions"]);
    match strategy {
        "" => errors.push(FieldError::required(format!("{path}.strategy"), "")),
        "None" | "Webhook" => {}
        other => errors.push(FieldError::not_supported(
            format!("{path}.strategy"),
            other,
            &["None", "Webhook"],
        )),
    }
    let client_path = format!("{path}.webhookClientConfig");
    let versions_path = format!("{path}.conversionReviewVersions");
    if strategy == "Webhook" {
        match client {
            None => errors.push(FieldError::required(
                client_path,
                "required when strategy is set to Webhook",
            )),
            Some(client) => errors.extend(client_config(client, &client_path)),
        }
        errors.extend(review_versions(versions, recognized, &versions_path));
    } else if webhook.is_some() {
        let detail = "should not be set when strategy is not set to Webhook";
        if client.is_some() {
            errors.push(FieldError::forbidden(client_path, detail));
        }
        if !versions.is_empty() {
            errors.push(FieldError::forbidden(versions_path, detail));
        }
    }
    errors
}

/// Whether the versions of ConversionReview hold one that is known, or none at all.
pub fn is_recognized(conversion: Option<&Object>) -> bool {
    let versions = conversion.map_or(&[][..], |c| items(c, &["webhook", "conversionReviewVersions"]));
    versions.is_empty()
        || versions
            .iter()
            .any(|version| REVIEW_VERSIONS.iter().any(|known| version == known))
}

fn client_config(client: &Object, path: &str) -> Vec<FieldError> {
    let url = client.get("url").and_then(Value::as_str);
    let service = map(client, &["service"]);
    match (url, service) {
        (Some(url), None) => validate_url(url, &format!("{path}.url")),
        (None, Some(service)) => validate_service(service, &format!("{path}.service")),
        _ => vec![FieldError::required(path, "exactly one of url or service is required")],
    }
}

fn validate_url(url: &str, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = if scheme.is_empty() {
        ""
    } else {
        rest.split('/').next().unwrap_or_default()
    };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if scheme != "https" {
        let detail = format!("'https' is the only allowed URL scheme{URL_FORM}");
        errors.push(FieldError::invalid(path, scheme, &detail));
    }
    if host.is_empty() {
        errors.push(FieldError::invalid(
            path,
            host,
            &format!("host must be specified{URL_FORM}"),
        ));
    }
    for (part, what) in [
        (user, "user information is not permitted in the URL"),
        (fragment, "fragments are not permitted in the URL"),
        (query, "query parameters are not permitted in the URL"),
    ] {
        if !part.is_empty() {
            errors.push(FieldError::invalid(path, part, what));
        }
    }
    errors
}

fn validate_service(service: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (field, detail) in [
        ("name", "service name is required"),
        ("namespace", "service namespace is required"),
    ] {
        if text(service, &[field]).is_empty() {
            errors.push(FieldError::required(format!("{path}.{field}"), detail));
        }
    }
    let port = integer(service, &["port"]).unwrap_or(443);
    let problems = port_number(port);
    if !problems.is_empty() {
        let detail = format!("port is not valid: {}", problems.join(", "));
        errors.push(FieldError::invalid(format!("{path}.port"), port, &detail));
    }
    let url_path = text(service, &["path"]);
    if url_path.is_empty() || url_path == "/" {
        return errors;
    }
    let invalid = |detail: &str| FieldError::invalid(format!("{path}.path"), url_path, detail);
    if url_path.contains("//") {
        let position = url_path.split('/').skip(1).position(str::is_empty).unwrap_or_default();
        errors.push(invalid(&format!("segment[{position}] may not be empty")));
        return errors;
    }
    if !url_path.starts_with('/') {
        errors.push(invalid("must start with a '/'"));
    }
    errors
}

fn review_versions(versions: &[Value], recognized: bool, path: &str) -> Vec<FieldError> {
    if versions.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let mut errors = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        let version = version.as_str().unwrap_or_default();
        let at = format!("{path}[{index}]");
        if seen.contains(&version) {
            errors.push(FieldError::invalid(at, version, "duplicate version"));
            continue;
        }
        seen.push(version);
        for problem in dns1035_label(version, false) {
            errors.push(FieldError::invalid(at.clone(), version, &problem));
        }
    }
    if recognized && !seen.iter().any(|version| REVIEW_VERSIONS.contains(version)) {
        let detail = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(FieldError::invalid(path, json!(versions), &detail));
    }
    errors
}
