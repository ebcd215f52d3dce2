//! What the servers of other API groups have to know to believe the front proxy, in the ConfigMap that they read at their
//! start (upstream: `pkg/controlplane/controller/clusterauthenticationtrust`).

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use super::AppError;
use super::front_proxies::FrontProxies;
use super::namespaces::KUBE_SYSTEM;
use super::network::next_write;
use crate::transport::pki::Pki;

const NAME: &str = "extension-apiserver-authentication";
/// Somebody else may write at the same time.
const ATTEMPTS_MAX: usize = 5;

/// Makes it, or adds to it what it lacks.
pub(super) async fn create(client: &Client, pki: &Pki, proxies: &FrontProxies) -> Result<(), AppError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), KUBE_SYSTEM);
    let wanted = wanted(pki, proxies);
    for _ in 0..ATTEMPTS_MAX {
        match write(&api, &wanted).await {
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {}
            done => return done.map_err(|source| AppError::ExtensionAuthentication(Box::new(source))),
        }
    }
    // Whoever writes that often is seen by `keep`.
    Ok(())
}

async fn write(api: &Api<ConfigMap>, wanted: &BTreeMap<String, String>) -> kube::Result<()> {
    let params = PostParams::default();
    let Some(mut known) = api.get_opt(NAME).await? else {
        let metadata = ObjectMeta {
            name: Some(NAME.to_owned()),
            ..ObjectMeta::default()
        };
        let map = ConfigMap {
            metadata,
            data: Some(wanted.clone()),
            ..ConfigMap::default()
        };
        return api.create(&params, &map).await.map(drop);
    };
    let data = combined(known.data.as_ref(), wanted);
    if known.data.as_ref() == Some(&data) {
        return Ok(());
    }
    known.data = Some(data);
    api.replace(NAME, &params, &known).await.map(drop)
}

/// Puts it right whenever somebody has changed it, until `stop`.
pub(super) async fn keep(client: Client, pki: Arc<Pki>, proxies: FrontProxies, stop: CancellationToken) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), KUBE_SYSTEM);
    let only_it = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let mut changes = watcher(api, only_it).default_backoff().boxed();
    // What was written here comes back, too, and then nothing is to be done.
    while next_write(&mut changes, NAME, &stop).await {
        if let Err(error) = create(&client, &pki, &proxies).await {
            tracing::warn!(%error, "servers of other API groups may not find whom to believe");
        }
    }
}

fn wanted(pki: &Pki, proxies: &FrontProxies) -> BTreeMap<String, String> {
    let list = |names: &[String]| serde_json::to_string(names).unwrap_or_default();
    let written = &proxies.written;
    [
        ("client-ca-file", pki.authority_pem().to_owned()),
        (
            "requestheader-client-ca-file",
            format!("{}{}", pki.front_proxy_authority_pem(), proxies.authorities),
        ),
        ("requestheader-allowed-names", list(&written.allowed_names)),
        ("requestheader-username-headers", list(&written.username_headers)),
        ("requestheader-uid-headers", list(&written.uid_headers)),
        ("requestheader-group-headers", list(&written.group_headers)),
        (
            "requestheader-extra-headers-prefix",
            list(&written.extra_headers_prefix),
        ),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// What is there stays, as other servers may have put it there: authorities follow one another, names are lists.
fn combined(known: Option<&BTreeMap<String, String>>, wanted: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut data = known.cloned().unwrap_or_default();
    for (key, value) in wanted {
        let text = data.entry(key.clone()).or_default();
        if key.ends_with("-file") {
            if !text.contains(value.trim()) {
                text.push_str(value);
            }
            continue;
        }
        let read = |text: &str| serde_json::from_str::<Vec<String>>(text).unwrap_or_default();
        let mut names = read(text);
        let missing: Vec<String> = read(value).into_iter().filter(|name| !names.contains(name)).collect();
        if !missing.is_empty() {
            names.extend(missing);
            *text = serde_json::to_string(&names).unwrap_or_default();
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        let entries = entries.iter().copied();
        entries.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn what_others_believe_stays() {
        let wanted = map(&[
            ("client-ca-file", "OURS\n"),
            ("requestheader-allowed-names", "[\"ours\"]"),
        ]);
        assert_eq!(combined(None, &wanted), wanted);
        assert_eq!(combined(Some(&wanted), &wanted), wanted);
        let known = map(&[
            ("client-ca-file", "THEIRS\n"),
            ("requestheader-allowed-names", "[\"theirs\"]"),
            ("more", "1"),
        ]);
        let both = map(&[
            ("client-ca-file", "THEIRS\nOURS\n"),
            ("requestheader-allowed-names", "[\"theirs\",\"ours\"]"),
            ("more", "1"),
        ]);
        assert_eq!(combined(Some(&known), &wanted), both);
        assert_eq!(combined(Some(&both), &wanted), both);
        let broken = map(&[("requestheader-allowed-names", "ours")]);
        assert_eq!(
            combined(Some(&broken), &wanted)["requestheader-allowed-names"],
            "[\"ours\"]"
        );
    }
}
