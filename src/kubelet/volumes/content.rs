//! What the files of a volume hold: configMap, secret, downwardAPI and projected
//! (upstream: `pkg/volume/{configmap,secret,downwardapi,projected}`).

use super::SetUpError;
use super::atomic::{File, Payload};
use super::tokens::Tokens;
use crate::kubelet::container::ConfigError;
use crate::kubelet::downward::{self, NodeFigures};
use crate::kubelet::objects::Objects;
use crate::kubelet::pod;
use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, Volume, VolumeProjection};
use std::collections::{BTreeMap, BTreeSet};

const DEFAULT_MODE: u32 = 0o644;

pub async fn payload(
    pod: &Pod,
    volume: &Volume,
    objects: &Objects,
    node: NodeFigures,
    tokens: &Tokens,
    client: &kube::Client,
) -> Result<Payload, SetUpError> {
    let mut payload = Payload::new();
    if let Some(source) = &volume.config_map {
        let (items, mode) = (source.items.as_deref(), mode(source.default_mode));
        put_config_map(objects, &source.name, items, source.optional, mode, &mut payload)?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let (items, mode) = (source.items.as_deref(), mode(source.default_mode));
        put_secret(objects, name, items, source.optional, mode, &mut payload)?;
    } else if let Some(source) = &volume.downward_api {
        let mode = mode(source.default_mode);
        downward_api(pod, source.items.as_deref(), mode, node, &mut payload)?;
    } else if let Some(projected) = &volume.projected {
        let mode = mode(projected.default_mode);
        let mut errors = Vec::new();
        for source in projected.sources.iter().flatten() {
            match project(pod, source, mode, objects, node, tokens, client).await {
                Ok(part) => payload.extend(part),
                Err(error) => errors.push(error),
            }
        }
        if let Some(error) = several(errors) {
            return Err(error);
        }
    }
    Ok(payload)
}

/// Several errors as upstream tells them together: each text once.
fn several(mut errors: Vec<SetUpError>) -> Option<SetUpError> {
    let mut seen = BTreeSet::new();
    errors.retain(|error| seen.insert(error.to_string()));
    if errors.len() < 2 {
        return errors.pop();
    }
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Some(SetUpError::Several(texts.join(", ")))
}

/// One source of a projected volume.
async fn project(
    pod: &Pod,
    source: &VolumeProjection,
    mode: u32,
    objects: &Objects,
    node: NodeFigures,
    tokens: &Tokens,
    client: &kube::Client,
) -> Result<Payload, SetUpError> {
    let mut payload = Payload::new();
    if let Some(source) = &source.config_map {
        let items = source.items.as_deref();
        put_config_map(objects, &source.name, items, source.optional, mode, &mut payload)?;
    } else if let Some(source) = &source.secret {
        let items = source.items.as_deref();
        put_secret(objects, &source.name, items, source.optional, mode, &mut payload)?;
    } else if let Some(source) = &source.downward_api {
        downward_api(pod, source.items.as_deref(), mode, node, &mut payload)?;
    } else if let Some(source) = &source.service_account_token {
        let content = tokens.get(pod, source, client).await?;
        let (mode, owner) = token_access(pod, mode);
        payload.insert(source.path.clone(), File { content, mode, owner });
    } else {
        let fields = serde_json::to_value(source).unwrap_or_default();
        let name = fields.as_object().and_then(|map| map.keys().next().cloned());
        let name = name.unwrap_or_else(|| "nothing".to_owned());
        return Err(SetUpError::UnsupportedType(format!("projected with {name}")));
    }
    Ok(payload)
}

fn mode(mode: Option<i32>) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok())
        .map_or(DEFAULT_MODE, |mode| mode & 0o777)
}

type Data = BTreeMap<String, Vec<u8>>;

/// Puts the chosen keys, or all, under their paths.
fn select(
    kind: &'static str,
    data: Data,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
    payload: &mut Payload,
) -> Result<(), SetUpError> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        payload.extend(data.into_iter().map(|(key, content)| {
            (
                key,
                File {
                    content,
                    mode,
                    owner: None,
                },
            )
        }));
        return Ok(());
    };
    for item in items {
        match data.get(&item.key) {
            Some(content) => {
                let file = File {
                    content: content.clone(),
                    mode: item.mode.map_or(mode, |own| self::mode(Some(own))),
                    owner: None,
                };
                payload.insert(item.path.clone(), file);
            }
            None if optional.unwrap_or(false) => {}
            None => {
                return Err(SetUpError::NoSuchKey {
                    kind,
                    key: item.key.clone(),
                });
            }
        }
    }
    Ok(())
}

fn found<T>(
    object: Option<T>,
    kind: &'static str,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<T>, SetUpError> {
    match object {
        None if !optional.unwrap_or(false) => Err(SetUpError::Object(ConfigError::ObjectNotFound {
            kind,
            name: name.to_owned(),
        })),
        other => Ok(other),
    }
}

fn put_config_map(
    objects: &Objects,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
    payload: &mut Payload,
) -> Result<(), SetUpError> {
    let map: Option<&ConfigMap> = found(objects.config_map(name)?, "configmap", name, optional)?;
    let text = map.iter().flat_map(|map| map.data.iter().flatten());
    let binary = map.iter().flat_map(|map| map.binary_data.iter().flatten());
    let text = text.map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let data = text.chain(binary.map(|(key, value)| (key.clone(), value.0.clone())));
    select("config", data.collect(), items, optional, mode, payload)
}

fn put_secret(
    objects: &Objects,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
    payload: &mut Payload,
) -> Result<(), SetUpError> {
    let secret: Option<&Secret> = found(objects.secret(name)?, "secret", name, optional)?;
    let data = secret.iter().flat_map(|secret| secret.data.iter().flatten());
    let data = data.map(|(key, value)| (key.clone(), value.0.clone()));
    select("secret", data.collect(), items, optional, mode, payload)
}

fn downward_api(
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: u32,
    node: NodeFigures,
    payload: &mut Payload,
) -> Result<(), SetUpError> {
    for item in items.unwrap_or_default() {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => downward::field(pod, &field.field_path, None)?,
            (None, Some(selector)) => {
                let name = selector.container_name.as_deref().unwrap_or_default();
                let container = pod::find_container(pod, name);
                let (_, container) = container.ok_or_else(|| ConfigError::ObjectNotFound {
                    kind: "container",
                    name: name.to_owned(),
                })?;
                downward::resource(&container, selector, node)?
            }
            (None, None) => String::new(),
        };
        let mode = item.mode.map_or(mode, |own| self::mode(Some(own)));
        let content = text.into_bytes();
        let file = File {
            content,
            mode,
            owner: None,
        };
        payload.insert(item.path.clone(), file);
    }
    Ok(())
}

/// A token is its user's alone where the pod says who that is (upstream: `FsUserFrom`).
fn token_access(pod: &Pod, mode: u32) -> (u32, Option<u32>) {
    let context = pod::spec(pod).security_context.as_ref();
    let of_pod = context.and_then(|context| context.run_as_user);
    let users = pod::all_containers(pod).into_iter().map(|(_, container)| {
        let own = container.security_context.as_ref().and_then(|own| own.run_as_user);
        own.or(of_pod)
    });
    let users: std::collections::BTreeSet<Option<i64>> = users.collect();
    let one = users.first().copied().flatten().filter(|_| users.len() == 1);
    let owner = one.and_then(|user| u32::try_from(user).ok());
    match owner.is_some() || context.is_some_and(|context| context.fs_group.is_some()) {
        true => (0o600, owner.filter(|user| *user != nix::unistd::geteuid().as_raw())),
        false => (mode, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_token_is_for_the_one_user_of_a_pod() {
        let access = |of_pod: serde_json::Value, users: [Option<i64>; 2]| {
            let containers = users.map(|user| json!({"name": "c", "securityContext": {"runAsUser": user}}));
            let spec = json!({"securityContext": of_pod, "containers": containers});
            token_access(&serde_json::from_value(json!({"spec": spec})).unwrap(), 0o644)
        };
        assert_eq!(access(json!({}), [None, None]), (0o644, None));
        assert_eq!(access(json!({"fsGroup": 5}), [None, None]), (0o600, None));
        assert_eq!(
            access(json!({"runAsUser": 7000}), [None, Some(7000)]),
            (0o600, Some(7000))
        );
        assert_eq!(access(json!({"runAsUser": 7000}), [None, Some(8000)]), (0o644, None));
        assert_eq!(access(json!({}), [None, Some(8000)]), (0o644, None));
    }

    #[test]
    fn errors_of_several_sources_are_told_together() {
        let no_key = |kind| SetUpError::NoSuchKey {
            kind,
            key: "k".to_owned(),
        };
        let told = |errors| several(errors).map(|error: SetUpError| error.to_string());
        let (config, secret) = (
            "configmap references non-existent config key: k",
            "references non-existent secret key: k",
        );
        assert_eq!(told(Vec::new()), None);
        assert_eq!(told(vec![no_key("config"), no_key("config")]).as_deref(), Some(config));
        assert_eq!(
            told(vec![no_key("config"), no_key("secret")]),
            Some(format!("[{config}, {secret}]"))
        );
    }
}
