//! A container's environment (upstream: `kubelet_pods.go` `makeEnvironmentVariables`).

use super::ConfigError;
use super::expansion::expand;
use super::services;
use crate::kubelet::downward::{self, NodeFigures};
use crate::kubelet::objects::Objects;
use crate::kubelet::pod;
use indexmap::IndexMap;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod, Service};
use std::sync::Arc;

pub type Environment = IndexMap<String, String>;

/// What a container's environment is made from, besides the pod itself.
pub struct Sources<'a> {
    pub objects: &'a Objects,
    /// All that there are.
    pub services: &'a [Arc<Service>],
    pub pod_ips: &'a [String],
    pub host_ips: &'a [String],
    pub node: NodeFigures,
}

/// The variables in order, later ones over earlier ones: those of Services, `envFrom`, `env`.
pub fn environment(pod: &Pod, container: &Container, sources: &Sources<'_>) -> Result<Environment, ConfigError> {
    let links = pod::spec(pod).enable_service_links.unwrap_or(true);
    let mut env: Environment = services::variables(pod::namespace(pod), links, sources.services)
        .into_iter()
        .collect();
    add_env_from(pod, container, sources, &mut env)?;
    for var in container.env.as_deref().unwrap_or_default() {
        let value = match (&var.value, &var.value_from) {
            (Some(text), _) if !text.is_empty() => Some(expand(text, |name| env.get(name).map(String::as_str))),
            (_, Some(from)) => value_from(pod, container, var, from, sources)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            env.insert(var.name.clone(), value);
        }
    }
    Ok(env)
}

fn add_env_from(
    pod: &Pod,
    container: &Container,
    sources: &Sources<'_>,
    env: &mut Environment,
) -> Result<(), ConfigError> {
    for from in container.env_from.as_deref().unwrap_or_default() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            let found = sources.objects.config_map(&reference.name)?;
            let Some(map) = found else {
                missing(reference.optional, "configmap", &reference.name)?;
                continue;
            };
            for (key, value) in map.data.iter().flatten() {
                add(env, prefix, key, value.clone());
            }
        }
        if let Some(reference) = &from.secret_ref {
            let found = sources.objects.secret(&reference.name)?;
            let Some(secret) = found else {
                missing(reference.optional, "secret", &reference.name)?;
                continue;
            };
            for (key, value) in secret.data.iter().flatten() {
                add(env, prefix, key, text(value, pod, "Secret", &reference.name, key)?);
            }
        }
    }
    Ok(())
}

/// Keys that cannot be names of variables are left out, as upstream does.
fn add(env: &mut Environment, prefix: &str, key: &str, value: String) {
    let name = format!("{prefix}{key}");
    let valid = !name.is_empty() && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=');
    if valid {
        env.insert(name, value);
    }
}

fn missing(optional: Option<bool>, kind: &'static str, name: &str) -> Result<(), ConfigError> {
    if optional.unwrap_or(false) {
        return Ok(());
    }
    Err(ConfigError::ObjectNotFound {
        kind,
        name: name.to_owned(),
    })
}

fn text(value: &ByteString, pod: &Pod, kind: &'static str, name: &str, key: &str) -> Result<String, ConfigError> {
    String::from_utf8(value.0.clone()).map_err(|_| ConfigError::NotText {
        key: key.to_owned(),
        kind,
        object: format!("{}/{name}", pod::namespace(pod)),
    })
}

fn value_from(
    pod: &Pod,
    container: &Container,
    var: &EnvVar,
    from: &EnvVarSource,
    sources: &Sources<'_>,
) -> Result<Option<String>, ConfigError> {
    let no_key = |kind, name: &str, key: &str| ConfigError::KeyNotFound {
        key: key.to_owned(),
        kind,
        object: format!("{}/{name}", pod::namespace(pod)),
    };
    if let Some(field) = &from.field_ref {
        let ips = downward::Addresses {
            pod_ips: sources.pod_ips,
            host_ips: sources.host_ips,
        };
        return downward::field(pod, &field.field_path, Some(&ips)).map(Some);
    }
    if let Some(field) = &from.resource_field_ref {
        let named = field.container_name.as_deref().filter(|name| !name.is_empty());
        return match named.and_then(|name| pod::find_container(pod, name)) {
            Some((_, other)) => downward::resource(&other, field, sources.node).map(Some),
            None => downward::resource(container, field, sources.node).map(Some),
        };
    }
    if let Some(selector) = &from.config_map_key_ref {
        let Some(map) = sources.objects.config_map(&selector.name)? else {
            return missing(selector.optional, "configmap", &selector.name).map(|()| None);
        };
        let plain = map.data.as_ref().and_then(|data| data.get(&selector.key)).cloned();
        return match plain {
            Some(value) => Ok(Some(value)),
            None if selector.optional.unwrap_or(false) => Ok(None),
            None => Err(no_key("ConfigMap", &selector.name, &selector.key)),
        };
    }
    if let Some(selector) = &from.secret_key_ref {
        let Some(secret) = sources.objects.secret(&selector.name)? else {
            return missing(selector.optional, "secret", &selector.name).map(|()| None);
        };
        let bytes = secret.data.as_ref().and_then(|data| data.get(&selector.key));
        return match bytes {
            Some(bytes) => text(bytes, pod, "Secret", &selector.name, &selector.key).map(Some),
            None if selector.optional.unwrap_or(false) => Ok(None),
            None => Err(no_key("Secret", &selector.name, &selector.key)),
        };
    }
    Err(ConfigError::UnsupportedSource { name: var.name.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn resolve(container: Value) -> Result<Vec<(String, String)>, ConfigError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "containers": [container]},
        }))
        .unwrap();
        let mut objects = Objects::default();
        objects.put_config_map(
            "cm",
            Some(serde_json::from_value(json!({"data": {"k": "v", "B": "from"}})).unwrap()),
        );
        objects.put_config_map("gone", None);
        objects.put_secret(
            "s",
            Some(serde_json::from_value(json!({"data": {"pw": "aHVzaA=="}})).unwrap()),
        );
        let sources = Sources {
            objects: &objects,
            services: &[],
            pod_ips: &["10.1.0.5".to_owned()],
            host_ips: &["192.168.0.1".to_owned()],
            node: NodeFigures::default(),
        };
        let env = environment(&pod, &pod::app_containers(&pod)[0], &sources)?;
        Ok(env.into_iter().collect())
    }

    fn strings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn literals_references_and_downward_fields() {
        let env = resolve(json!({"name": "c", "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)-$(LATER)"},
            {"name": "LATER", "value": "x"},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "CM", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}},
            {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pw"}}},
            {"name": "OPT", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "k", "optional": true}}},
        ]}));
        let expected = [
            ("A", "1"),
            ("B", "1-$(LATER)"),
            ("LATER", "x"),
            ("IP", "10.1.0.5"),
            ("APP", "web"),
            ("CM", "v"),
            ("PW", "hush"),
        ];
        assert_eq!(env.unwrap(), strings(&expected));
    }

    #[test]
    fn env_overrides_env_from() {
        let env = resolve(json!({"name": "c",
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"configMapRef": {"name": "cm"}}],
            "env": [{"name": "B", "value": "own $(P_k)"}],
        }));
        let mut env = env.unwrap();
        env.sort();
        assert_eq!(
            env,
            strings(&[("B", "own v"), ("P_B", "from"), ("P_k", "v"), ("k", "v")])
        );
    }

    #[test]
    fn errors_have_upstreams_words() {
        let from = |source: Value| resolve(json!({"name": "c", "env": [{"name": "X", "valueFrom": source}]}));
        for (source, message) in [
            (
                json!({"configMapKeyRef": {"name": "gone", "key": "k"}}),
                "configmap \"gone\" not found",
            ),
            (
                json!({"configMapKeyRef": {"name": "cm", "key": "zz"}}),
                "couldn't find key zz in ConfigMap ns/cm",
            ),
            (
                json!({"secretKeyRef": {"name": "s", "key": "zz"}}),
                "couldn't find key zz in Secret ns/s",
            ),
        ] {
            assert_eq!(from(source).unwrap_err().to_string(), message);
        }
        let all = resolve(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "gone"}}]}));
        assert_eq!(all.unwrap_err().to_string(), "configmap \"gone\" not found");
    }
}
