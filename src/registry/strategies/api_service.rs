//! APIServices (upstream: `kube-aggregator/pkg/registry/apiservice`, `pkg/apis/apiregistration/validation`).
//!
//! Local ones say which group-versions this server serves itself; requests for others are passed on to their Services.

use crate::registry::columns::{Column, age, column, name_column};
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1035_label, dns1123_subdomain, path_segment, port_number};
use crate::registry::json::{child, default_to, integer, is_set, map, number, objects, text};
use crate::registry::strategy::{Object, Strategy, Target, default_prepare_for_update};
use serde_json::{Value, json};

const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1000;

pub struct ApiServiceStrategy;

fn is_local(object: &Object) -> bool {
    map(object, &["spec", "service"]).is_none()
}

fn local_condition() -> Value {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let message = "Local APIServices are always available";
    json!({"type": "Available", "status": "True", "lastTransitionTime": now, "reason": "Local", "message": message})
}

impl Strategy for ApiServiceStrategy {
    /// The name's other rule needs the object: see `validate`.
    fn validate_name(&self, name: &str, is_prefix: bool) -> Vec<String> {
        path_segment(name, is_prefix)
    }

    fn default(&self, object: &mut Object) {
        let service = child(object, "spec").and_then(|spec| child(spec, "service"));
        if let Some(service) = service {
            default_to(service, "port", 443);
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        // Whether others are available is seen when they are tried.
        let status = match is_local(object) {
            true => json!({"conditions": [local_condition()]}),
            false => json!({}),
        };
        object.insert("status".into(), status);
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object, target: Target) {
        default_prepare_for_update(object, old, target);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (group, version) = (text(object, &["spec", "group"]), text(object, &["spec", "version"]));
        let name = text(object, &["metadata", "name"]);
        let required = format!("{version}.{group}");
        if name != required {
            let detail = format!("must be `spec.version+\".\"+spec.group`: {required:?}");
            errors.push(FieldError::invalid("metadata.name", name, &detail));
        }
        if group.is_empty() && version != "v1" {
            let detail = "only v1 may have an empty group and it better be legacy kube";
            errors.push(FieldError::required("spec.group", detail));
        }
        if !group.is_empty() {
            for problem in dns1123_subdomain(group, false) {
                errors.push(FieldError::invalid("spec.group", group, &problem));
            }
        }
        for problem in dns1035_label(version, false) {
            errors.push(FieldError::invalid("spec.version", version, &problem));
        }
        for (field, max) in [
            ("groupPriorityMinimum", GROUP_PRIORITY_MAX),
            ("versionPriority", VERSION_PRIORITY_MAX),
        ] {
            let priority = number(object, &["spec", field]);
            if priority <= 0 || priority > max {
                let detail = format!("must be positive and less than {max}");
                errors.push(FieldError::invalid(format!("spec.{field}"), priority, &detail));
            }
        }
        let spec = map(object, &["spec"]).cloned().unwrap_or_default();
        let skips = spec.get("insecureSkipTLSVerify") == Some(&Value::Bool(true));
        let Some(service) = map(object, &["spec", "service"]) else {
            if is_set(&spec, "caBundle") {
                let bytes = format!("{} bytes", text(&spec, &["caBundle"]).len() * 3 / 4);
                let detail = "local APIServices may not have a caBundle";
                errors.push(FieldError::invalid("spec.caBundle", bytes, detail));
            }
            if skips {
                let detail = "local APIServices may not have insecureSkipTLSVerify";
                errors.push(FieldError::invalid("spec.insecureSkipTLSVerify", true, detail));
            }
            return errors;
        };
        for field in ["namespace", "name"] {
            if text(service, &[field]).is_empty() {
                errors.push(FieldError::required(format!("spec.service.{field}"), ""));
            }
        }
        let port = integer(service, &["port"]).unwrap_or_default();
        let problems = port_number(port);
        if !problems.is_empty() {
            let detail = format!("port is not valid: {}", problems.join(", "));
            errors.push(FieldError::invalid("spec.service.port", port, &detail));
        }
        if skips && is_set(&spec, "caBundle") {
            let detail = "may not be true if caBundle is present";
            errors.push(FieldError::invalid("spec.insecureSkipTLSVerify", true, detail));
        }
        errors
    }

    fn validate_update(&self, object: &Object, _old: &Object, target: Target) -> Vec<FieldError> {
        if target != Target::Status {
            return Vec::new();
        }
        let conditions = objects(object, &["status", "conditions"]);
        let wrong =
            conditions.filter(|(_, condition)| !matches!(text(condition, &["status"]), "True" | "False" | "Unknown"));
        wrong
            .map(|(index, condition)| {
                let path = format!("status.conditions[{index}].status");
                FieldError::not_supported(path, text(condition, &["status"]), &["True", "False", "Unknown"])
            })
            .collect()
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            name_column(),
            Column {
                description: "The reference to the service that hosts this API endpoint.",
                ..column("Service", "string")
            },
            Column {
                description: "Whether this service is available.",
                ..column("Available", "string")
            },
            column("Age", "string"),
        ]
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let service = match map(object, &["spec", "service"]) {
            None => "Local".to_owned(),
            Some(service) => format!("{}/{}", text(service, &["namespace"]), text(service, &["name"])),
        };
        let available = objects(object, &["status", "conditions"])
            .find(|(_, condition)| text(condition, &["type"]) == "Available")
            .map_or("Unknown".to_owned(), |(_, condition)| {
                match (text(condition, &["status"]), text(condition, &["reason"])) {
                    (status @ "True", _) | (status, "") => status.to_owned(),
                    (status, reason) => format!("{status} ({reason})"),
                }
            });
        vec![
            json!(text(object, &["metadata", "name"])),
            json!(service),
            json!(available),
            json!(age(object, now)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(object: Value) -> Vec<String> {
        let object = object.as_object().unwrap();
        ApiServiceStrategy
            .validate(object)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn the_name_is_version_and_group() {
        let spec =
            json!({"group": "example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 100});
        assert_eq!(
            texts(json!({"metadata": {"name": "v1.example.com"}, "spec": spec})),
            [] as [&str; 0]
        );
        assert_eq!(
            texts(json!({"metadata": {"name": "v2.example.com"}, "spec": spec})),
            [
                "metadata.name: Invalid value: \"v2.example.com\": must be `spec.version+\".\"+spec.group`: \"v1.example.com\""
            ]
        );
    }

    #[test]
    fn priorities_and_services_are_checked() {
        let errors = texts(json!({
            "metadata": {"name": "v1.example.com"},
            "spec": {"group": "example.com", "version": "v1", "groupPriorityMinimum": 0, "versionPriority": 2000,
                "service": {"port": 0}, "insecureSkipTLSVerify": true, "caBundle": "AA=="},
        }));
        assert_eq!(
            errors,
            [
                "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: 2000: must be positive and less than 1000",
                "spec.service.namespace: Required value",
                "spec.service.name: Required value",
                "spec.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
            ]
        );
    }

    #[test]
    fn local_ones_are_available_at_once() {
        let mut local = json!({"spec": {"group": "a.b", "version": "v1"}})
            .as_object()
            .unwrap()
            .clone();
        ApiServiceStrategy.prepare_for_create(&mut local);
        assert_eq!(
            ApiServiceStrategy.cells(&local, 0)[1..3],
            [json!("Local"), json!("True")]
        );
        let mut remote = json!({"spec": {"service": {"name": "s", "namespace": "n"}}})
            .as_object()
            .unwrap()
            .clone();
        ApiServiceStrategy.prepare_for_create(&mut remote);
        let expected = [json!("n/s"), json!("Unknown")];
        assert_eq!(ApiServiceStrategy.cells(&remote, 0)[1..3], expected);
    }
}
