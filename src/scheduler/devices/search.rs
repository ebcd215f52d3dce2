//! Devices for all claims of a pod on a node: the first way that works, of all requests in turn
//! (upstream: `allocateOne` and `allocateDevice` of `structured/internal/…/allocator_*.go`).

use super::capacity::{consumed, is_enough};
use super::inventory::{Candidate, Counter, Inventory, consumption};
use super::result::result;
use super::taken::{Amounts, Taken};
use super::{Way, key, requests};
use crate::client::placement::tolerates_device;
use crate::quantity::Quantity;
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::objects::Objects;
use k8s_openapi::api::resource::v1::{
    Device, DeviceAttribute, DeviceConstraint, DeviceSelector, DeviceToleration, ResourceClaim,
};
use std::collections::HashMap;
use std::sync::Arc;

/// Steps after which the search for one node is given up; upstream gives it ten seconds.
const STEPS_MAX: usize = 20_000;
/// Devices that one claim may have.
const DEVICES_MAX: usize = 32;

#[derive(Debug, PartialEq)]
pub enum Failure {
    /// Not on this node.
    Here(String),
    /// Something is wrong with a claim or class.
    Wrong(String),
}

/// A device for a request.
pub struct Choice<'s> {
    claim: usize,
    pub way: &'s Way<'s>,
    pub candidate: usize,
    /// What it consumes of a device that others may have, too.
    pub share: Option<Amounts>,
}

impl Choice<'_> {
    /// Whether a constraint or configuration that names this request is about it; the request's name stands for all of
    /// its alternatives.
    pub fn is_of(&self, listed: &str) -> bool {
        is_of(&self.way.name, listed)
    }
}

fn is_of(name: &str, listed: &str) -> bool {
    name == listed || name.split_once('/').is_some_and(|(main, _)| main == listed)
}

struct Alternative<'s> {
    way: &'s Way<'s>,
    /// Candidates that meet the selectors.
    fitting: Vec<usize>,
    count: usize,
}

/// One request of one claim.
struct Request<'s> {
    claim: usize,
    options: Vec<Alternative<'s>>,
}

struct Search<'s> {
    candidates: &'s [Candidate<'s>],
    inventory: &'s Inventory<'s>,
    taken: &'s Taken,
    claims: &'s [Arc<ResourceClaim>],
    constraints: Vec<&'s [DeviceConstraint]>,
    requests: Vec<Request<'s>>,
    /// The claims that get a candidate by this.
    holders: HashMap<usize, Vec<usize>>,
    /// How often counters of a pool are used by this, and how much of them.
    counted: HashMap<(usize, Counter<'s>), Quantity>,
    chosen: Vec<Choice<'s>>,
    steps: usize,
}

/// The claims with devices for each, all of them.
pub fn allocate(
    objects: &Objects,
    inventory: &Inventory<'_>,
    taken: &Taken,
    claims: &[Arc<ResourceClaim>],
    node: &NodeInfo,
) -> Result<Vec<Arc<ResourceClaim>>, Failure> {
    let reached = inventory.reached(node);
    let candidates = &reached.candidates;
    let ways: Vec<Vec<Vec<Way<'_>>>> = claims.iter().map(|claim| requests(claim)).collect();
    let mut all = Vec::new();
    for (at, claim) in claims.iter().enumerate() {
        let mut least = 0;
        for request in &ways[at] {
            let mut options = Vec::new();
            for way in request {
                let wrong = |why: String| Failure::Wrong(format!("claim {}, request {}: {why}", key(claim), way.name));
                for (pool, is) in [(&reached.incomplete, "being updated"), (&reached.invalid, "invalid")] {
                    if let Some(pool) = pool.as_ref().filter(|_| way.all) {
                        let why = format!("asks for all devices, but resource pool {pool} is currently {is}");
                        return Err(wrong(why));
                    }
                }
                let Some(class) = objects.device_classes.get("", way.class) else {
                    return Err(wrong(format!("could not retrieve device class {}", way.class)));
                };
                let of_class = class.spec.as_ref().and_then(|spec| spec.selectors.as_deref());
                let mut fitting = Vec::new();
                for (index, candidate) in candidates.iter().enumerate() {
                    let fits = holds(objects, of_class.unwrap_or_default(), candidate, || {
                        format!("class {}", way.class)
                    })
                    .and_then(|fits| {
                        Ok(fits && holds(objects, way.selectors, candidate, || format!("claim {}", key(claim)))?)
                    });
                    // Who wants all devices wants all that have enough.
                    if fits.map_err(Failure::Wrong)? && (!way.all || room(way, candidate, taken).is_some()) {
                        fitting.push(index);
                    }
                }
                let count = if way.all { fitting.len() } else { way.count };
                options.push(Alternative { way, fitting, count });
            }
            least += options.iter().map(|option| option.count).min().unwrap_or(0);
            all.push(Request { claim: at, options });
        }
        if least > DEVICES_MAX {
            let why = format!("number of requested devices {least} exceeds the claim limit of {DEVICES_MAX}");
            return Err(Failure::Wrong(format!("claim {}: {why}", key(claim))));
        }
    }
    let constraints = claims.iter().map(|claim| {
        let devices = claim.spec.as_ref().and_then(|spec| spec.devices.as_ref());
        devices
            .and_then(|devices| devices.constraints.as_deref())
            .unwrap_or_default()
    });
    let mut search = Search {
        candidates,
        inventory,
        taken,
        claims,
        constraints: constraints.collect(),
        requests: all,
        holders: HashMap::new(),
        counted: HashMap::new(),
        chosen: Vec::new(),
        steps: 0,
    };
    if !search.request(0)? {
        let why = match reached.invalid {
            Some(_) => "invalid resource pools were encountered",
            None => "cannot allocate all claims",
        };
        return Err(Failure::Here(why.into()));
    }
    let chosen = search.chosen;
    let with_devices = claims.iter().enumerate().map(|(at, claim)| {
        let own: Vec<&Choice<'_>> = chosen.iter().filter(|choice| choice.claim == at).collect();
        let result = result(objects, claim, &own, candidates, &node.name);
        let mut claim = (**claim).clone();
        claim.status.get_or_insert_default().allocation = Some(result);
        Arc::new(claim)
    });
    Ok(with_devices.collect())
}

fn holds(
    objects: &Objects,
    selectors: &[DeviceSelector],
    candidate: &Candidate<'_>,
    whose: impl Fn() -> String,
) -> Result<bool, String> {
    for (at, selector) in selectors.iter().enumerate() {
        let Some(cel) = &selector.cel else { continue };
        let Some(expressions) = &objects.expressions else {
            return Err("selectors of devices are not evaluated".into());
        };
        let holds = expressions.holds(&cel.expression, &candidate.id.0, candidate.device);
        if !holds.map_err(|error| format!("{}: selector #{at}: {error}", whose()))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a request consumes of the device, if there is so much of it beside what others have.
fn room(way: &Way<'_>, candidate: &Candidate<'_>, taken: &Taken) -> Option<Amounts> {
    let wanted = consumed(way.capacity, candidate.device)?;
    let others = taken.shares.get(&candidate.id);
    is_enough(candidate.device, &wanted, others.into_iter()).then_some(wanted)
}

fn is_tainted(candidate: &Candidate<'_>, tolerations: &[DeviceToleration]) -> bool {
    let taints = candidate.taints.iter();
    let mut hard = taints.filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    hard.any(|taint| !tolerations.iter().any(|toleration| tolerates_device(toleration, taint)))
}

impl<'s> Search<'s> {
    /// Meets this request and all after it; leaves nothing chosen if it cannot.
    fn request(&mut self, at: usize) -> Result<bool, Failure> {
        let Some(request) = self.requests.get(at) else {
            return Ok(true);
        };
        let claim = request.claim;
        for option in 0..request.options.len() {
            let Alternative { way, fitting, count } = &self.requests[at].options[option];
            let held = self.chosen.iter().filter(|choice| choice.claim == claim).count();
            if (way.all && *count == 0) || fitting.is_empty() && *count > 0 || held + count > DEVICES_MAX {
                continue;
            }
            if self.device(at, option, 0, 0)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Meets the rest of the request, of which `held` devices are chosen, with candidates from `from` on.
    fn device(&mut self, at: usize, option: usize, held: usize, from: usize) -> Result<bool, Failure> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(Failure::Here("timed out trying to allocate devices".into()));
        }
        let Alternative { way, fitting, count } = &self.requests[at].options[option];
        let (way, count) = (*way, *count);
        if held == count {
            return self.request(at + 1);
        }
        let claim = self.requests[at].claim;
        for index in from..fitting.len() {
            let candidate = self.requests[at].options[option].fitting[index];
            if self.take(claim, way, candidate)? {
                // Of one that is shared a request may have several shares.
                let next = if self.candidates[candidate].is_shared() && !way.all {
                    index
                } else {
                    index + 1
                };
                if self.device(at, option, held + 1, next)? {
                    return Ok(true);
                }
                self.give_back();
            }
            if way.all {
                return Ok(false);
            }
        }
        Ok(false)
    }

    fn take(&mut self, claim: usize, way: &'s Way<'s>, at: usize) -> Result<bool, Failure> {
        let candidates = self.candidates;
        let candidate = &candidates[at];
        let holders = self.holders.get(&at).map(Vec::as_slice).unwrap_or_default();
        let in_use = match (candidate.is_shared(), way.admin) {
            (true, _) => false,
            (false, true) => holders.contains(&claim),
            (false, false) => self.taken.whole.contains(&candidate.id) || !holders.is_empty(),
        };
        if in_use || is_tainted(candidate, way.tolerations) {
            return Ok(false);
        }
        let Some(amounts) = self.room(way, at) else {
            return Ok(false);
        };
        // Who shares a device that is counted already adds nothing to the counters.
        let is_counted = candidate.is_shared() && (!holders.is_empty() || self.taken.is_used(&candidate.id));
        if !is_counted && !self.are_left(candidate) {
            return Ok(false);
        }
        if !self.keeps(claim, &way.name, at) {
            if !way.all {
                return Ok(false);
            }
            return Err(Failure::Wrong(format!(
                "claim {}, request {}: cannot add device {} because a claim constraint would not be satisfied",
                key(&self.claims[claim]),
                way.name,
                candidate.key()
            )));
        }
        if !is_counted {
            self.count(candidate, Quantity::plus);
        }
        self.holders.entry(at).or_default().push(claim);
        self.chosen.push(Choice {
            claim,
            way,
            candidate: at,
            share: candidate.is_shared().then_some(amounts),
        });
        Ok(true)
    }

    fn give_back(&mut self) {
        let Some(last) = self.chosen.pop() else { return };
        let candidates = self.candidates;
        let candidate = &candidates[last.candidate];
        if let Some(holders) = self.holders.get_mut(&last.candidate) {
            holders.pop();
            let is_still_counted = candidate.is_shared() && (!holders.is_empty() || self.taken.is_used(&candidate.id));
            if !is_still_counted {
                self.count(candidate, Quantity::minus);
            }
        }
    }

    /// As [`room`], with what was chosen meanwhile.
    fn room(&self, way: &Way<'_>, at: usize) -> Option<Amounts> {
        let candidate = &self.candidates[at];
        let wanted = consumed(way.capacity, candidate.device)?;
        let chosen = self.chosen.iter().filter(|choice| choice.candidate == at);
        let others = chosen.filter_map(|choice| choice.share.as_ref());
        let others = self.taken.shares.get(&candidate.id).into_iter().chain(others);
        is_enough(candidate.device, &wanted, others).then_some(wanted)
    }

    /// Whether the pool's counters have so much left.
    fn are_left(&self, candidate: &Candidate<'s>) -> bool {
        let free = &self.inventory.pool(candidate.pool).free;
        let mut sums: HashMap<Counter<'_>, Quantity> = HashMap::new();
        for (counter, amount) in consumption(candidate.device) {
            let sum = sums.entry(counter).or_insert(Quantity::ZERO);
            *sum = sum.plus(amount);
        }
        sums.into_iter().all(|(counter, sum)| {
            let counted = self.counted.get(&(candidate.pool, counter)).copied();
            let sum = sum.plus(counted.unwrap_or(Quantity::ZERO));
            free.get(&counter).is_some_and(|free| sum <= *free)
        })
    }

    fn count(&mut self, candidate: &Candidate<'s>, change: fn(Quantity, Quantity) -> Quantity) {
        let device: &'s Device = candidate.device;
        for (counter, amount) in consumption(device) {
            let sum = self.counted.entry((candidate.pool, counter)).or_insert(Quantity::ZERO);
            *sum = change(*sum, amount);
        }
    }

    /// Whether the device may stand beside those that the claim has.
    fn keeps(&self, claim: usize, request: &str, candidate: usize) -> bool {
        let concerns = |constraint: &DeviceConstraint, name: &str| {
            let listed = constraint.requests.as_deref().unwrap_or_default();
            listed.is_empty() || listed.iter().any(|listed| is_of(name, listed))
        };
        let constraints = self.constraints[claim].iter();
        let mut own = constraints.filter(|constraint| concerns(constraint, request));
        own.all(|constraint| {
            let others = || {
                let chosen = self.chosen.iter().filter(|choice| choice.claim == claim);
                chosen.filter(|choice| concerns(constraint, &choice.way.name))
            };
            let same = |name: &String, own: &DeviceAttribute, choice: &Choice<'_>| {
                self.attribute(choice.candidate, name) == Some(own)
            };
            if let Some(name) = &constraint.match_attribute {
                let Some(own) = self.attribute(candidate, name) else {
                    return false;
                };
                if others().any(|choice| !same(name, own, choice)) {
                    return false;
                }
            }
            if let Some(name) = &constraint.distinct_attribute {
                let Some(own) = self.attribute(candidate, name) else {
                    return false;
                };
                if others().any(|choice| same(name, own, choice)) {
                    return false;
                }
            }
            true
        })
    }

    /// By its full name; the driver's own attributes need not name it.
    fn attribute(&self, candidate: usize, name: &str) -> Option<&'s DeviceAttribute> {
        let Candidate { id, device, .. } = &self.candidates[candidate];
        let attributes = device.attributes.as_ref()?;
        attributes.get(name).or_else(|| {
            let (domain, short) = name.split_once('/')?;
            (domain == id.0).then(|| attributes.get(short))?
        })
    }
}
