//! The service proxy: nftables rules of this host that lead connections to Services to their endpoints (upstream:
//! `pkg/proxy/nftables`, kube-proxy).
//!
//! Informers say what changed; the [`fragment`] of each Service that did is worked out anew, and one script brings the
//! [`table`] from what it holds to what it should. The table stays when krust ends, as pods do.

mod fragment;
mod services;
mod table;

use crate::client::ObjectKey;
use crate::client::endpoint_slices::service_of;
use crate::client::informer::{Change, Index, Informer, Informers};
use crate::netfilter::{self, NetfilterError, conntrack, watch::Watch};
use fragment::{Asked, Fragment};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
pub use services::PROXY_NAME_LABEL;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use table::Table;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const RETRY_DELAY_MIN: Duration = Duration::from_secs(1);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(60);

/// What the rules are made from.
#[derive(Clone)]
pub struct Sources {
    pub services: Informer<Service>,
    pub slices: Informer<EndpointSlice>,
    /// By `namespace/name` of their Service.
    pub slices_of: Index<EndpointSlice>,
}

impl Sources {
    pub fn new(informers: &Informers) -> Self {
        let slices = informers.of::<EndpointSlice>();
        Self {
            services: informers.of(),
            slices_of: slices.index(|slice| service_of(slice).iter().map(ToString::to_string).collect()),
            slices,
        }
    }
}

/// Services that are to be looked at.
#[derive(Default)]
struct Dirty {
    keys: Mutex<BTreeSet<ObjectKey>>,
    changed: Notify,
}

impl Dirty {
    fn add(&self, key: ObjectKey) {
        self.keys.lock().insert(key);
        self.changed.notify_one();
    }
}

/// Keeps the table until `stop`. `range` is that of the Services.
pub async fn run(sources: Sources, node: String, range: String, stop: CancellationToken) {
    let dirty = Arc::new(Dirty::default());
    let of_services = dirty.clone();
    sources.services.on_change(move |change: &Change<Service>| {
        if let Some(service) = change.object() {
            of_services.add(ObjectKey::of(&**service));
        }
    });
    let of_slices = dirty.clone();
    sources.slices.on_change(move |change: &Change<EndpointSlice>| {
        change
            .each()
            .filter_map(|slice| service_of(slice))
            .for_each(|key| of_slices.add(key));
    });
    let synced = async {
        sources.services.synced().await;
        sources.slices.synced().await;
    };
    if stop.run_until_cancelled(synced).await.is_none() {
        return;
    }
    let mut proxy = Proxy {
        sources,
        node,
        table: Table::new(&range),
        bridges: BTreeSet::new(),
        is_written: false,
    };
    let table = proxy.table.name().to_owned();
    let watch = Watch::open();
    if let Err(error) = &watch {
        tracing::debug!(%error, "whoever takes the table of Services away is not noticed");
    }
    let mut delay = RETRY_DELAY_MIN;
    let mut is_told = false;
    loop {
        let keys = std::mem::take(&mut *dirty.keys.lock());
        let wait = match proxy.bring_up_to_date(keys).await {
            Ok(()) => {
                (delay, is_told) = (RETRY_DELAY_MIN, false);
                None
            }
            Err(error @ NetfilterError::Start(_)) => {
                tracing::warn!(%error, "connections to Services are not led to their endpoints");
                return stop.cancelled().await;
            }
            Err(error) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(%error, "connections to Services are not led to their endpoints");
                }
                let wait = delay;
                delay = (delay * 2).min(RETRY_DELAY_MAX);
                Some(wait)
            }
        };
        tokio::select! {
            () = dirty.changed.notified(), if wait.is_none() => {}
            () = taken_away(&watch, &table) => {
                tracing::info!(table, "somebody took the table of Services away: it is written anew");
                proxy.is_written = false;
            }
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Returns when the table is not there any more; never, if that cannot be noticed.
async fn taken_away(watch: &std::io::Result<Watch>, table: &str) {
    let Ok(watch) = watch else {
        return std::future::pending().await;
    };
    loop {
        if let Err(error) = watch.table_goes(table).await {
            tracing::debug!(%error, "whoever takes the table of Services away is not noticed any more");
            return std::future::pending().await;
        }
        // It goes and comes in one when it is written anew.
        if netfilter::run("nft", &["list", "chain", "ip", table, "lead"], "")
            .await
            .is_err()
        {
            return;
        }
    }
}

struct Proxy {
    sources: Sources,
    node: String,
    table: Table,
    /// Those on which endpoints were.
    bridges: BTreeSet<String>,
    /// Whether the kernel's table is as ours.
    is_written: bool,
}

type Udp = BTreeMap<Asked, BTreeSet<(Ipv4Addr, u16)>>;

impl Proxy {
    async fn bring_up_to_date(&mut self, keys: BTreeSet<ObjectKey>) -> Result<(), NetfilterError> {
        let mut udp = Udp::new();
        let mut changes = Vec::new();
        for key in keys {
            let new = self.fragment(&key);
            let old = self.table.fragment(&key);
            let is_new = |ip: &&Ipv4Addr| old.is_none_or(|old| !old.endpoints.contains(ip));
            let fresh: Vec<Ipv4Addr> = new.endpoints.iter().filter(is_new).copied().collect();
            changed_udp(old.map(|old| &old.udp), &new.udp, &mut udp);
            self.learn_bridges(&fresh);
            changes.push((key, new));
        }
        let unseen = self.bridges.iter().filter(|bridge| !netfilter::sees_bridged(bridge));
        let unseen = unseen.cloned().collect();
        let script = self.table.change(changes, &unseen);
        if !self.is_written {
            netfilter::apply(&self.table.whole()).await?;
            allow_forwarding().await;
            self.is_written = true;
        } else if !script.is_empty()
            && let Err(error) = netfilter::apply(&script).await
        {
            // Somebody may have taken the table away.
            tracing::debug!(%error, "the table of Services is written anew");
            self.is_written = false;
            netfilter::apply(&self.table.whole()).await?;
            self.is_written = true;
        }
        if !udp.is_empty() {
            conntrack::forget(move |flow| is_stale(&udp, flow)).await?;
        }
        Ok(())
    }

    fn fragment(&self, key: &ObjectKey) -> Fragment {
        let Some(service) = self.sources.services.get_key(key) else {
            return Fragment::default();
        };
        let slices = self.sources.slices_of.get(&key.to_string());
        Fragment::of(&services::ports(&service, &slices, &self.node))
    }

    fn learn_bridges(&mut self, endpoints: &[Ipv4Addr]) {
        if endpoints.is_empty() {
            return;
        }
        for bridge in netfilter::bridges_of(endpoints.iter()) {
            if self.bridges.insert(bridge.clone())
                && let Err(error) = netfilter::route_localnet(&bridge)
            {
                tracing::debug!(%error, bridge, "node ports are not reached at the loopback address");
            }
        }
    }
}

/// What is led elsewhere than before, with where it is led now.
fn changed_udp(old: Option<&Udp>, new: &Udp, changed: &mut Udp) {
    for (asked, endpoints) in new {
        if old.and_then(|old| old.get(asked)) != Some(endpoints) {
            changed.insert(*asked, endpoints.clone());
        }
    }
    for asked in old.into_iter().flat_map(BTreeMap::keys) {
        if !new.contains_key(asked) {
            changed.entry(*asked).or_default();
        }
    }
}

fn is_stale(udp: &Udp, flow: &conntrack::Flow) -> bool {
    let (ip, port) = flow.asked;
    let led = udp
        .get(&Asked::Address(ip, port))
        .or_else(|| udp.get(&Asked::NodePort(port)));
    led.is_some_and(|endpoints| !endpoints.contains(&flow.answers))
}

/// Where somebody forbids forwarding on this host, as Docker does, connections to Services are allowed. The rule is one of
/// iptables, which looks after that chain.
async fn allow_forwarding() {
    // Without iptables nothing is forbidden by it.
    let rules = netfilter::run("iptables", &["--wait", "--list-rules", "FORWARD"], "").await;
    if !rules.unwrap_or_default().contains("-P FORWARD DROP") {
        return;
    }
    let mark = format!("{0}/{0}", fragment::MARK);
    let rule = |action| {
        [
            "--wait", action, "FORWARD", "--match", "connmark", "--mark", &mark, "--jump", "ACCEPT",
        ]
    };
    if netfilter::run("iptables", &rule("--check"), "").await.is_ok() {
        return;
    }
    if let Err(error) = netfilter::run("iptables", &rule("--insert"), "").await {
        tracing::warn!(%error, "this host's firewall may drop connections from outside to Services");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_stale_when_they_lead_elsewhere() {
        let endpoint = |last: u8| (Ipv4Addr::new(10, 42, 0, last), 53);
        let service = (Ipv4Addr::new(10, 43, 0, 9), 53);
        let asked = Asked::Address(service.0, service.1);
        let old = Udp::from([
            (asked, [endpoint(2)].into()),
            (Asked::NodePort(30_053), [endpoint(2)].into()),
        ]);
        let new = Udp::from([(asked, [endpoint(3)].into())]);
        let mut changed = Udp::new();
        changed_udp(Some(&old), &new, &mut changed);
        assert_eq!(changed.len(), 2);
        let flow = |asked, answers| conntrack::Flow { asked, answers };
        assert!(is_stale(&changed, &flow(service, endpoint(2))));
        assert!(!is_stale(&changed, &flow(service, endpoint(3))));
        // From before the Service was there.
        assert!(is_stale(&changed, &flow(service, service)));
        let host = (Ipv4Addr::new(192, 0, 2, 1), 30_053);
        assert!(is_stale(&changed, &flow(host, endpoint(2))));
        assert!(!is_stale(&changed, &flow((host.0, 99), endpoint(2))));
        let mut same = Udp::new();
        changed_udp(Some(&new), &new, &mut same);
        assert!(same.is_empty());
    }
}
