//! What is written into a claim that gets devices (upstream: `Allocate` of `structured/internal/…/allocator_*.go`, its end).

use super::inventory::Candidate;
use super::search::Choice;
use crate::scheduler::objects::Objects;
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceRequestAllocationResult,
    ResourceClaim,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// `chosen` are the devices of this claim, in the order of its requests.
pub fn result(
    objects: &Objects,
    claim: &ResourceClaim,
    chosen: &[&Choice<'_>],
    candidates: &[Candidate<'_>],
    node: &str,
) -> AllocationResult {
    let results = chosen.iter().map(|choice| {
        let candidate = &candidates[choice.candidate];
        let (driver, pool, device) = candidate.id.clone();
        let share = choice.share.as_ref();
        let amounts = share.filter(|amounts| !amounts.is_empty()).map(|amounts| {
            let amounts = amounts.iter();
            let texts = amounts.map(|(name, amount)| (name.clone(), Quantity(amount.to_string())));
            texts.collect()
        });
        let tolerations = choice.way.tolerations;
        DeviceRequestAllocationResult {
            request: choice.way.name.clone(),
            driver,
            pool,
            device,
            admin_access: choice.way.admin.then_some(true),
            tolerations: (!tolerations.is_empty()).then(|| tolerations.to_vec()),
            share_id: share.map(|_| uuid::Uuid::new_v4().to_string()),
            consumed_capacity: amounts,
            binding_conditions: candidate.device.binding_conditions.clone(),
            binding_failure_conditions: candidate.device.binding_failure_conditions.clone(),
            ..DeviceRequestAllocationResult::default()
        }
    });
    let config = configuration(objects, claim, chosen);
    AllocationResult {
        devices: Some(DeviceAllocationResult {
            results: Some(results.collect()),
            config: (!config.is_empty()).then_some(config),
        }),
        node_selector: reach(chosen.iter().map(|choice| &candidates[choice.candidate]), node),
        allocation_timestamp: None,
    }
}

/// That of each class once, with all requests that it is for, then that of the claim for what was chosen.
fn configuration(
    objects: &Objects,
    claim: &ResourceClaim,
    chosen: &[&Choice<'_>],
) -> Vec<DeviceAllocationConfiguration> {
    let mut classes: Vec<(&str, Vec<String>)> = Vec::new();
    for choice in chosen {
        let at = classes.iter().position(|(class, _)| *class == choice.way.class);
        let at = at.unwrap_or_else(|| {
            classes.push((choice.way.class, Vec::new()));
            classes.len() - 1
        });
        let requests = &mut classes[at].1;
        if !requests.contains(&choice.way.name) {
            requests.push(choice.way.name.clone());
        }
    }
    let mut all = Vec::new();
    for (class, requests) in classes {
        let class = objects.device_classes.get("", class);
        let own = class.and_then(|class| class.spec.as_ref()?.config.as_ref());
        all.extend(own.into_iter().flatten().map(|own| DeviceAllocationConfiguration {
            opaque: own.opaque.clone(),
            requests: Some(requests.clone()),
            source: "FromClass".into(),
        }));
    }
    let spec = claim.spec.as_ref();
    let own = spec.and_then(|spec| spec.devices.as_ref()?.config.as_ref());
    let concerns = |requests: &Option<Vec<String>>| {
        let listed = requests.as_deref().unwrap_or_default();
        let names = |choice: &&Choice<'_>| listed.iter().any(|listed| choice.is_of(listed));
        listed.is_empty() || chosen.iter().any(names)
    };
    let own = own.into_iter().flatten().filter(|own| concerns(&own.requests));
    all.extend(own.map(|own| DeviceAllocationConfiguration {
        opaque: own.opaque.clone(),
        requests: own.requests.clone(),
        source: "FromClaim".into(),
    }));
    all
}

/// From where all the devices can be reached; None: from everywhere.
fn reach<'a>(parts: impl Iterator<Item = &'a Candidate<'a>>, node: &str) -> Option<NodeSelector> {
    let mut term = NodeSelectorTerm::default();
    for Candidate { slice, device, .. } in parts {
        let spec = &slice.spec;
        let (name, selector) = if spec.per_device_node_selection == Some(true) {
            (&device.node_name, &device.node_selector)
        } else {
            (&spec.node_name, &spec.node_selector)
        };
        if name.is_some() || device.binds_to_node == Some(true) {
            let only = NodeSelectorRequirement {
                key: "metadata.name".into(),
                operator: "In".into(),
                values: Some(vec![node.to_owned()]),
            };
            term = NodeSelectorTerm {
                match_fields: Some(vec![only]),
                match_expressions: None,
            };
            break;
        }
        // Such a selector has exactly one term.
        for own in selector.iter().flat_map(|selector| &selector.node_selector_terms) {
            for (all, own) in [
                (&mut term.match_expressions, &own.match_expressions),
                (&mut term.match_fields, &own.match_fields),
            ] {
                for requirement in own.iter().flatten() {
                    let list = all.get_or_insert_default();
                    if !list.contains(requirement) {
                        list.push(requirement.clone());
                    }
                }
            }
        }
    }
    (term != NodeSelectorTerm::default()).then(|| NodeSelector {
        node_selector_terms: vec![term],
    })
}
