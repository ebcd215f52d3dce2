//! The pools of devices, as their slices tell them (upstream: `structured/internal/…/pools_*.go`). Made once per pod, and
//! indexed by node: a node is looked at without the slices of all others.

use super::DeviceId;
use super::taken::Taken;
use crate::quantity::Quantity;
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::objects::Objects;
use crate::scheduler::selector::NodeTerms;
use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{
    Device, DeviceCounterConsumption, DeviceTaint, DeviceTaintRuleSpec, ResourceSlice,
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Name of the set, name of the counter.
pub type Counter<'a> = (&'a str, &'a str);
pub type Counters<'a> = HashMap<Counter<'a>, Quantity>;

pub struct Pool<'a> {
    driver: &'a str,
    name: &'a str,
    /// Of the newest generation; those whose devices have conditions for binding come last.
    slices: Vec<&'a ResourceSlice>,
    /// Some of its slices are missing.
    is_incomplete: bool,
    is_invalid: bool,
    /// What of its shared counters nobody has consumed; below zero where too much is.
    pub free: Counters<'a>,
}

impl Pool<'_> {
    /// `driver/pool`
    pub fn key(&self) -> String {
        format!("{}/{}", self.driver, self.name)
    }
}

pub struct Inventory<'a> {
    pools: Vec<Pool<'a>>,
    /// Pools with slices of just one node.
    of_node: HashMap<&'a str, Vec<usize>>,
    /// Pools that any node may reach.
    of_many: Vec<usize>,
    rules: Vec<&'a DeviceTaintRuleSpec>,
}

pub struct Candidate<'a> {
    pub id: DeviceId,
    pub slice: &'a ResourceSlice,
    pub device: &'a Device,
    /// In the inventory.
    pub pool: usize,
    /// Its own, and those that rules give it.
    pub taints: Vec<&'a DeviceTaint>,
}

impl Candidate<'_> {
    pub fn is_shared(&self) -> bool {
        self.device.allow_multiple_allocations == Some(true)
    }
    /// `driver/pool/device`
    pub fn key(&self) -> String {
        let (driver, pool, device) = &self.id;
        format!("{driver}/{pool}/{device}")
    }
}

/// What a node can reach.
#[derive(Default)]
pub struct Reached<'a> {
    pub candidates: Vec<Candidate<'a>>,
    /// A pool that is being changed, and one that contradicts itself.
    pub incomplete: Option<String>,
    pub invalid: Option<String>,
}

/// Name of the counter and how much of it.
pub fn consumption(device: &Device) -> impl Iterator<Item = (Counter<'_>, Quantity)> {
    let sets = device.consumes_counters.iter().flatten();
    sets.flat_map(|set: &DeviceCounterConsumption| {
        let counters = set.counters.iter();
        counters.map(|(name, counter)| {
            let amount = counter.value.0.parse().unwrap_or(Quantity::ZERO);
            ((set.counter_set.as_str(), name.as_str()), amount)
        })
    })
}

fn has_conditions(slice: &ResourceSlice) -> bool {
    let mut devices = slice.spec.devices.iter().flatten();
    devices.any(|device| device.binding_conditions.is_some())
}

fn has_counters(slice: &ResourceSlice) -> bool {
    slice.spec.shared_counters.as_ref().is_some_and(|sets| !sets.is_empty())
}

impl<'a> Inventory<'a> {
    pub fn of(objects: &'a Objects, taken: &Taken) -> Self {
        let mut by_pool: BTreeMap<(&str, &str), Vec<&'a ResourceSlice>> = BTreeMap::new();
        for slice in objects.resource_slices.all() {
            let key = (slice.spec.driver.as_str(), slice.spec.pool.name.as_str());
            by_pool.entry(key).or_default().push(slice);
        }
        let pools = by_pool.into_iter();
        let mut pools: Vec<Pool<'a>> = pools
            .map(|((driver, name), slices)| pool(driver, name, slices, taken))
            .collect();
        // Simpler devices are preferred.
        pools.sort_by_key(|pool| pool.slices.iter().any(|slice| has_conditions(slice)));
        let (mut of_node, mut of_many): (HashMap<&str, Vec<usize>>, Vec<usize>) = Default::default();
        for (at, pool) in pools.iter().enumerate() {
            let with_devices = || pool.slices.iter().filter(|slice| !has_counters(slice));
            if with_devices().any(|slice| slice.spec.node_name.is_none()) {
                of_many.push(at);
                continue;
            }
            let names: HashSet<&str> = with_devices()
                .filter_map(|slice| slice.spec.node_name.as_deref())
                .collect();
            for name in names {
                of_node.entry(name).or_default().push(at);
            }
        }
        Self {
            pools,
            of_node,
            of_many,
            rules: objects.device_taint_rules.all().map(|rule| &rule.spec).collect(),
        }
    }

    fn taints(&self, driver: &str, pool: &str, device: &'a Device) -> Vec<&'a DeviceTaint> {
        let meets = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
        // A rule without a selector is for nothing.
        let rules = self.rules.iter().filter(|rule| {
            let selector = rule.device_selector.as_ref();
            selector.is_some_and(|selector| {
                meets(&selector.driver, driver) && meets(&selector.pool, pool) && meets(&selector.device, &device.name)
            })
        });
        let own = device.taints.iter().flatten();
        own.chain(rules.map(|rule| &rule.taint)).collect()
    }

    pub fn pool(&self, at: usize) -> &Pool<'a> {
        &self.pools[at]
    }

    pub fn reached(&self, node: &NodeInfo) -> Reached<'a> {
        let own = self.of_node.get(node.name.as_str()).into_iter().flatten();
        let mut pools: Vec<usize> = own.chain(&self.of_many).copied().collect();
        pools.sort_unstable();
        let mut reached = Reached::default();
        for at in pools {
            let pool = &self.pools[at];
            let begin = reached.candidates.len();
            for slice in &pool.slices {
                let spec = &slice.spec;
                let by_device = spec.per_device_node_selection == Some(true);
                if !by_device && !is_here(node, &spec.node_name, spec.all_nodes, &spec.node_selector) {
                    continue;
                }
                for device in spec.devices.iter().flatten() {
                    if by_device && !is_here(node, &device.node_name, device.all_nodes, &device.node_selector) {
                        continue;
                    }
                    reached.candidates.push(Candidate {
                        id: (pool.driver.to_owned(), pool.name.to_owned(), device.name.clone()),
                        slice,
                        device,
                        pool: at,
                        taints: self.taints(pool.driver, pool.name, device),
                    });
                }
            }
            let found = &reached.candidates[begin..];
            if found.is_empty() {
                continue;
            }
            let names: HashSet<&str> = found.iter().map(|one| one.device.name.as_str()).collect();
            let is_invalid = pool.is_invalid || names.len() < found.len();
            // Nothing is allocated from such a pool, but who wants all devices has to know of it.
            if pool.is_incomplete {
                reached.incomplete.get_or_insert_with(|| pool.key());
            } else if is_invalid {
                reached.invalid.get_or_insert_with(|| pool.key());
            }
            if pool.is_incomplete || is_invalid {
                reached.candidates.truncate(begin);
            }
        }
        reached
    }
}

fn is_here(node: &NodeInfo, name: &Option<String>, all: Option<bool>, selector: &Option<NodeSelector>) -> bool {
    let selects = |selector: &NodeSelector| NodeTerms::new(selector).matches_labels(&node.name, node.labels());
    all == Some(true) || name.as_deref() == Some(node.name.as_str()) || selector.as_ref().is_some_and(selects)
}

fn pool<'a>(driver: &'a str, name: &'a str, slices: Vec<&'a ResourceSlice>, taken: &Taken) -> Pool<'a> {
    let newest = slices.iter().map(|slice| slice.spec.pool.generation).max();
    let mut slices: Vec<&'a ResourceSlice> = slices
        .into_iter()
        .filter(|slice| Some(slice.spec.pool.generation) == newest)
        .collect();
    let count = slices.first().map(|first| first.spec.pool.resource_slice_count);
    slices.sort_by_key(|slice| has_conditions(slice));
    let mut is_invalid = false;
    let mut free = Counters::new();
    let mut sets = HashSet::new();
    for set in slices
        .iter()
        .flat_map(|slice| slice.spec.shared_counters.iter().flatten())
    {
        is_invalid |= !sets.insert(set.name.as_str());
        for (counter, value) in &set.counters {
            let amount = value.value.0.parse().unwrap_or(Quantity::ZERO);
            free.insert((set.name.as_str(), counter.as_str()), amount);
        }
    }
    for device in slices.iter().flat_map(|slice| slice.spec.devices.iter().flatten()) {
        let mut parts = consumption(device).peekable();
        if parts.peek().is_none() {
            continue;
        }
        let is_used = taken.is_used(&(driver.to_owned(), name.to_owned(), device.name.clone()));
        for (counter, amount) in parts {
            match free.get_mut(&counter) {
                Some(left) if is_used => *left = left.minus(amount),
                Some(_) => {}
                None => is_invalid = true,
            }
        }
    }
    Pool {
        driver,
        name,
        is_incomplete: count != i64::try_from(slices.len()).ok(),
        slices,
        is_invalid,
        free,
    }
}
