//! An APIService for every group-version that this server serves itself
//! (upstream: `kube-aggregator/pkg/controllers/autoregister`, `pkg/controlplane/controller/crdregistration`).

mod plan;

use super::custom_resources::definition::Definition;
use futures_util::StreamExt;
use futures_util::future::join_all;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use plan::{GroupVersion, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Definitions that come together are looked at together.
const SETTLE: Duration = Duration::from_millis(50);
const RETRY: Duration = Duration::from_secs(1);

/// Runs until `shutdown`.
pub async fn run(client: Client, shutdown: CancellationToken) {
    let work = async {
        let builtin = loop {
            match builtin(&client).await {
                Ok(builtin) => break builtin,
                Err(error) => tracing::warn!(%error, "the served groups cannot be discovered"),
            }
            tokio::time::sleep(RETRY).await;
        };
        Controller {
            api: Api::all(client.clone()),
            builtin,
            custom: BTreeMap::new(),
        }
        .run(Api::all(client.clone()))
        .await;
    };
    shutdown.run_until_cancelled(work).await;
}

/// The group-versions that come neither from definitions nor from other servers.
async fn builtin(client: &Client) -> kube::Result<BTreeSet<GroupVersion>> {
    let mut elsewhere = elsewhere(client).await?;
    let definitions: Vec<Definition> = Api::all(client.clone()).list(&ListParams::default()).await?.items;
    let custom: BTreeSet<GroupVersion> = definitions.iter().flat_map(plan::served).collect();
    let groups = client.list_api_groups().await?.groups;
    let groups = groups.into_iter().filter(|group| group.name != plan::OWN_GROUP);
    let versions = groups.flat_map(|group| {
        let name = group.name;
        group
            .versions
            .into_iter()
            .map(move |version| (name.clone(), version.version))
    });
    let versions: BTreeSet<GroupVersion> = versions.collect();
    // Both before and after: one that came or went meanwhile is none of this server's either.
    elsewhere.extend(self::elsewhere(client).await?);
    let core = client.list_core_api_versions().await?.versions;
    let core = core.into_iter().map(|version| (String::new(), version));
    Ok(core
        .chain(versions)
        .filter(|version| !custom.contains(version) && !elsewhere.contains(version))
        .collect())
}

/// The group-versions that other servers serve.
async fn elsewhere(client: &Client) -> kube::Result<BTreeSet<GroupVersion>> {
    let services: Vec<APIService> = Api::all(client.clone()).list(&ListParams::default()).await?.items;
    Ok(services.iter().filter_map(plan::elsewhere).collect())
}

struct Controller {
    api: Api<APIService>,
    builtin: BTreeSet<GroupVersion>,
    /// What each definition serves.
    custom: BTreeMap<String, BTreeSet<GroupVersion>>,
}

impl Controller {
    async fn run(mut self, definitions: Api<Definition>) {
        let events = watcher::watcher(definitions, watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        let (mut due, mut ready) = (true, false);
        loop {
            let settled = async {
                match due && ready {
                    true => tokio::time::sleep(SETTLE).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                event = events.next() => match event {
                    None => return,
                    Some(Err(error)) => tracing::warn!(%error, "definitions of custom resources cannot be watched"),
                    Some(Ok(Event::Init)) => self.custom.clear(),
                    Some(Ok(Event::InitDone)) => (due, ready) = (true, true),
                    Some(Ok(Event::InitApply(definition) | Event::Apply(definition))) => {
                        let served = plan::served(&definition).collect();
                        let before = self.custom.insert(definition.name().to_owned(), served);
                        due |= before.as_ref() != self.custom.get(definition.name());
                    }
                    Some(Ok(Event::Delete(definition))) => due |= self.custom.remove(definition.name()).is_some(),
                },
                () = settled => due = !self.settle().await,
            }
        }
    }

    /// Makes what is missing and removes what is no longer served; false: it is to be tried again.
    async fn settle(&self) -> bool {
        let list = match self.api.list(&ListParams::default()).await {
            Ok(list) => list,
            Err(error) => {
                tracing::warn!(%error, "APIServices cannot be listed");
                tokio::time::sleep(RETRY).await;
                return false;
            }
        };
        let custom: BTreeSet<GroupVersion> = self.custom.values().flatten().cloned().collect();
        let steps = plan::steps(&self.builtin, &custom, &list.items);
        let done = join_all(steps.iter().map(|step| self.step(step))).await;
        let done = done.into_iter().all(|done| done);
        if !done {
            tokio::time::sleep(RETRY).await;
        }
        done
    }

    async fn step(&self, step: &Step) -> bool {
        let result = match step {
            Step::Create(service) => self.api.create(&PostParams::default(), service).await.map(|_| ()),
            Step::Delete(name) => self.api.delete(name, &DeleteParams::default()).await.map(|_| ()),
        };
        match result {
            Ok(()) => true,
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => true,
            Err(error) => {
                tracing::warn!(step = %step.name(), %error, "an APIService is not as it should be");
                false
            }
        }
    }
}

impl Step {
    fn name(&self) -> String {
        match self {
            Self::Create(service) => service.name_any(),
            Self::Delete(name) => name.clone(),
        }
    }
}
