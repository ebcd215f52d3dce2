//! Seeded runs: pods with volumes come and go, drivers attach and detach late, nodes fall silent, are declared to be down or
//! vanish with volumes mounted, caches are behind, writes fail, answers are lost, and the controller is restarted.

use super::memory::Memory;
use super::plan::{Observed, Source, Volume, plan, unique_name, volume};
use crate::controllers::dice::Dice;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::ResourceExt;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

const NODES: u64 = 3;
const PATIENCE: u64 = 6 * 60;

/// The last one may be on several nodes.
fn volumes() -> Vec<Volume> {
    let modes = ["ReadWriteOnce", "ReadWriteOnce", "ReadWriteMany"];
    let volumes = modes.iter().enumerate().map(|(number, mode)| {
        let object = json!({"metadata": {"name": format!("v{number}")}, "spec": {"accessModes": [mode],
            "csi": {"driver": "d", "volumeHandle": format!("h{number}")}}});
        volume(&serde_json::from_value(object).unwrap()).unwrap()
    });
    volumes.collect()
}

#[derive(Clone, Default)]
struct Machine {
    silent: bool,
    down: bool,
    /// Volumes that its kubelet has mounted, by number.
    mounted: BTreeSet<usize>,
}

/// An attachment, as the API server has it.
#[derive(Clone)]
struct Attached {
    object: VolumeAttachment,
    node: u64,
    volume: usize,
}

struct World {
    now: u64,
    start: Instant,
    volumes: Vec<Volume>,
    machines: BTreeMap<u64, Machine>,
    /// Those that each node's pods want.
    wanted: BTreeMap<u64, BTreeSet<usize>>,
    attached: BTreeMap<String, Attached>,
    cached: BTreeMap<String, Attached>,
    memory: Memory,
    timers: BTreeMap<u64, u64>,
    /// Since when a volume has not been needed on a node, told from the world itself.
    unneeded: BTreeMap<(u64, usize), u64>,
    /// By the writes that were seen to fail, or whose answers were lost.
    again: BTreeSet<u64>,
}

impl World {
    fn node(&self, number: u64) -> Option<Node> {
        let machine = self.machines.get(&number)?;
        let in_use: Vec<String> = machine
            .mounted
            .iter()
            .map(|one| unique_name(&self.volumes[*one]))
            .collect();
        let taints = if machine.down {
            json!([{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}])
        } else {
            json!([])
        };
        let ready = if machine.silent { "Unknown" } else { "True" };
        Some(
            serde_json::from_value(
                json!({"metadata": {"name": format!("n{number}")}, "spec": {"taints": taints},
                "status": {"volumesInUse": in_use, "conditions": [{"type": "Ready", "status": ready}]}}),
            )
            .unwrap(),
        )
    }

    fn wants(&self, node: u64, volume: usize) -> bool {
        self.machines.contains_key(&node) && self.wanted.get(&node).is_some_and(|wanted| wanted.contains(&volume))
    }

    /// What the controller does about a node.
    fn sync(&mut self, number: u64, dice: &mut Dice) {
        self.timers.remove(&number);
        self.again.remove(&number);
        let (node, name) = (self.node(number), format!("n{number}"));
        let now = self.start + Duration::from_secs(self.now);
        let in_use = match &node {
            Some(node) => node
                .status
                .as_ref()
                .and_then(|status| status.volumes_in_use.clone())
                .unwrap_or_default(),
            None => self.memory.left_in_use(&name),
        };
        let wanted: Vec<Volume> = (0..self.volumes.len())
            .filter(|volume| self.wants(number, *volume))
            .map(|volume| self.volumes[volume].clone())
            .collect();
        let attachments: Vec<Arc<VolumeAttachment>> = self
            .cached
            .values()
            .filter(|one| one.node == number)
            .map(|one| Arc::new(one.object.clone()))
            .collect();
        let mut plan = plan(&Observed {
            name: &name,
            node: node.as_ref(),
            in_use: &in_use,
            wanted: &wanted,
            attachments: &attachments,
            source_of: &|attachment| {
                let name = attachment.spec.source.persistent_volume_name.as_ref().unwrap();
                Source::Volume(self.volumes.iter().find(|volume| volume.name == *name).unwrap().clone())
            },
            is_elsewhere: &|volume| {
                let mut others = self.cached.values().filter(|one| one.node != number);
                others.any(|one| self.volumes[one.volume].name == volume.name)
            },
            is_overdue: &|attachment| self.memory.is_overdue(&name, attachment, now),
        });
        plan.share(|volumes| self.memory.give(&name, volumes));
        for (attachment, volume) in self.memory.given(&name, &plan.exclusive) {
            self.memory.settle(&volume);
            let is_shown = attachments.iter().any(|shown| shown.name_any() == attachment);
            if let Some(made) = self.attached.get(&attachment).filter(|_| !is_shown) {
                self.cached.insert(attachment, made.clone());
                self.again.insert(number);
                return;
            }
        }
        if let Some(left) = self.memory.note_leaving(&name, &plan.leaving, now) {
            self.timers.insert(number, self.now + left.as_secs() + 1);
        }
        if !plan.blocked.is_empty() {
            self.again.insert(number);
        }
        for attachment in plan.delete {
            if dice.one_in(8) {
                self.again.insert(number);
                return;
            }
            self.may_go(&attachment);
            if let Some(one) = self.attached.get_mut(&attachment) {
                one.object.metadata.deletion_timestamp =
                    Some(serde_json::from_value(json!("2024-01-01T00:00:00Z")).unwrap());
            }
        }
        for attachment in plan.create {
            let (refused, lost) = (dice.one_in(10), dice.one_in(10));
            let name = attachment.name_any();
            if !refused && !self.attached.contains_key(&name) {
                let of = attachment.spec.source.persistent_volume_name.clone().unwrap();
                let volume = self.volumes.iter().position(|volume| volume.name == of).unwrap();
                let one = Attached {
                    object: attachment,
                    node: number,
                    volume,
                };
                self.attached.insert(name, one);
                self.check();
            }
            if refused || lost {
                self.again.insert(number);
                return;
            }
        }
    }

    /// An attachment is taken away only from who does not need it any more: nothing is mounted, or the node is gone,
    /// declared to be down, or has not been ready while it should have unmounted for six minutes.
    fn may_go(&self, name: &str) {
        let Some(one) = self.attached.get(name) else {
            return;
        };
        assert!(!self.wants(one.node, one.volume), "{name} is taken from a pod");
        let Some(machine) = self.machines.get(&one.node) else {
            return;
        };
        let since = self.unneeded.get(&(one.node, one.volume)).copied().unwrap_or(self.now);
        let forced = machine.silent && self.now - since > PATIENCE;
        let free = !machine.mounted.contains(&one.volume);
        assert!(
            free || machine.down || forced,
            "{name} is taken from a node that uses it"
        );
    }

    /// A volume of one node is never attached to two.
    fn check(&self) {
        for (number, volume) in self.volumes.iter().enumerate().filter(|(_, volume)| volume.exclusive) {
            let holders = self.attached.values().filter(|one| one.volume == number).count();
            assert!(holders <= 1, "{} is attached to {holders} nodes", volume.name);
        }
    }

    /// What the drivers, the kubelets and time do; says which nodes the controller hears of.
    fn happens(&mut self, dice: &mut Dice, calm: bool) -> Vec<u64> {
        let (node, volume) = (dice.below(NODES), usize::try_from(dice.below(3)).unwrap());
        match dice.below(if calm { 4 } else { 11 }) {
            // A driver attaches, and lets go.
            0 | 1 => {
                let names: Vec<String> = self.attached.keys().cloned().collect();
                let mut heard = Vec::new();
                for name in names {
                    let one = self.attached.get_mut(&name).unwrap();
                    if one.object.metadata.deletion_timestamp.is_some() {
                        heard.push(one.node);
                        self.attached.remove(&name);
                    } else {
                        one.object.status = Some(serde_json::from_value(json!({"attached": true})).unwrap());
                        heard.push(one.node);
                    }
                }
                heard
            }
            // A kubelet mounts and unmounts.
            2 | 3 => {
                let ready: BTreeSet<usize> = self
                    .attached
                    .values()
                    .filter(|one| one.node == node && one.object.metadata.deletion_timestamp.is_none())
                    .filter(|one| one.object.status.as_ref().is_some_and(|status| status.attached))
                    .map(|one| one.volume)
                    .collect();
                let wanted = self.wanted.get(&node).cloned().unwrap_or_default();
                let Some(machine) = self.machines.get_mut(&node).filter(|machine| !machine.silent) else {
                    return Vec::new();
                };
                machine.mounted.retain(|volume| wanted.contains(volume));
                machine.mounted.extend(wanted.intersection(&ready).copied());
                vec![node]
            }
            4 | 5 => {
                self.wanted.entry(node).or_default().insert(volume);
                self.unneeded.remove(&(node, volume));
                vec![node]
            }
            6 => {
                if self.wanted.entry(node).or_default().remove(&volume) {
                    self.unneeded.insert((node, volume), self.now);
                }
                vec![node]
            }
            7 => {
                if let Some(machine) = self.machines.get_mut(&node) {
                    machine.silent = !machine.silent;
                    machine.down = machine.silent && dice.one_in(4);
                }
                vec![node]
            }
            8 if dice.one_in(3) => {
                // The pods of a node that vanishes are not there any more, either.
                let in_use = self.node(node).and_then(|node| node.status?.volumes_in_use);
                let left = in_use.unwrap_or_default();
                if self.machines.remove(&node).is_some() {
                    self.wanted.remove(&node);
                    self.memory.note_gone(&format!("n{node}"), left);
                } else {
                    self.machines.insert(node, Machine::default());
                    self.memory.note_gone(&format!("n{node}"), Vec::new());
                }
                vec![node]
            }
            9 => {
                self.now += dice.below(200);
                Vec::new()
            }
            10 if dice.one_in(6) => {
                // A restart: what is written is read anew, and nothing else is known.
                self.memory = Memory::default();
                self.timers.clear();
                self.cached = self.attached.clone();
                (0..NODES).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The cache catches up with one attachment; who waits for its volume hears of that, too.
    fn hear(&mut self, dice: &mut Dice) -> Vec<u64> {
        let names: BTreeSet<&String> = self.attached.keys().chain(self.cached.keys()).collect();
        let Some(name) = names
            .iter()
            .nth(usize::try_from(dice.below(names.len().max(1) as u64)).unwrap())
        else {
            return Vec::new();
        };
        let name = (*name).clone();
        match self.attached.get(&name) {
            Some(one) => {
                let node = one.node;
                self.cached.insert(name, one.clone());
                vec![node]
            }
            None => {
                self.cached.remove(&name);
                (0..NODES).collect()
            }
        }
    }

    fn due(&self) -> Vec<u64> {
        let due = self
            .timers
            .iter()
            .filter(|(_, at)| **at <= self.now)
            .map(|(node, _)| *node);
        due.chain(self.again.iter().copied()).collect()
    }
}

fn run(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut world = World {
        now: 0,
        start: Instant::now(),
        volumes: volumes(),
        machines: (0..NODES).map(|node| (node, Machine::default())).collect(),
        wanted: BTreeMap::new(),
        attached: BTreeMap::new(),
        cached: BTreeMap::new(),
        memory: Memory::default(),
        timers: BTreeMap::new(),
        unneeded: BTreeMap::new(),
        again: BTreeSet::new(),
    };
    let mut events: Vec<u64> = Vec::new();
    for step in 0..600 {
        let calm = step > 300;
        events.extend(world.happens(&mut dice, calm));
        if dice.one_in(2) {
            events.extend(world.hear(&mut dice));
        }
        events.extend(world.due());
        while !events.is_empty() && !dice.one_in(3) {
            let at = usize::try_from(dice.below(events.len() as u64)).unwrap();
            let node = events.swap_remove(at);
            world.sync(node, &mut dice);
            if dice.one_in(6) {
                world.sync(node, &mut dice);
            }
        }
        events.sort_unstable();
        events.dedup();
        if calm && step % 50 == 0 {
            world.now += PATIENCE + 60;
        }
    }
    // Who is left without a volume waits for another; who has one needs it, or has it mounted and is well.
    for one in world.attached.values() {
        let uses = world
            .machines
            .get(&one.node)
            .is_some_and(|machine| machine.mounted.contains(&one.volume) && !machine.silent);
        let node = one.node;
        assert!(
            world.wants(node, one.volume) || uses || one.object.metadata.deletion_timestamp.is_some(),
            "the attachment of v{} to n{node} is an orphan",
            one.volume
        );
    }
    for node in 0..NODES {
        for number in 0..world.volumes.len() {
            let has = |node: Option<u64>| {
                let mut holders = world.attached.values().filter(|one| one.volume == number);
                holders.any(|one| node.is_none_or(|node| one.node == node))
            };
            let blocked = world.volumes[number].exclusive && has(None);
            assert!(
                !world.wants(node, number) || has(Some(node)) || blocked,
                "v{number} is free, and n{node} waits for it"
            );
        }
    }
}

#[test]
fn volumes_are_attached_once_and_taken_away_only_from_who_does_not_need_them() {
    for seed in 0..100 {
        let run = std::panic::catch_unwind(|| run(seed));
        assert!(run.is_ok(), "seed {seed}");
    }
}
