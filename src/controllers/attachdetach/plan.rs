//! Which attachments a node is to have (upstream: `pkg/controller/volume/attachdetach`, `pkg/volume/csi`). Pure.

use k8s_openapi::api::core::v1::{AttachedVolume, Node, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::{VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// A volume of a CSI driver.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Volume {
    pub name: String,
    pub driver: String,
    pub handle: String,
    /// It may be attached to one node only.
    pub exclusive: bool,
}

pub fn volume(volume: &PersistentVolume) -> Option<Volume> {
    let spec = volume.spec.as_ref()?;
    let csi = spec.csi.as_ref()?;
    let shared = ["ReadWriteMany", "ReadOnlyMany"];
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    Some(Volume {
        name: volume.name_any(),
        driver: csi.driver.clone(),
        handle: csi.volume_handle.clone(),
        exclusive: !modes.is_empty() && !modes.iter().any(|mode| shared.contains(&mode.as_str())),
    })
}

/// The name that everybody expects of an attachment.
pub fn attachment_name(volume: &Volume, node: &str) -> String {
    let hash = Sha256::digest(format!("{}{}{node}", volume.handle, volume.driver));
    format!("csi-{}", hex::encode(hash))
}

/// Whether it is a name as [`attachment_name`] makes them.
fn is_attachment_name(name: &str) -> bool {
    let hash = name.strip_prefix("csi-").unwrap_or_default();
    hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// How a node's status names a volume.
pub fn unique_name(volume: &Volume) -> String {
    format!("kubernetes.io/csi/{}^{}", volume.driver, volume.handle)
}

fn attachment(volume: &Volume, node: &str) -> VolumeAttachment {
    VolumeAttachment {
        metadata: ObjectMeta {
            name: Some(attachment_name(volume, node)),
            ..Default::default()
        },
        spec: VolumeAttachmentSpec {
            attacher: volume.driver.clone(),
            node_name: node.to_owned(),
            source: VolumeAttachmentSource {
                persistent_volume_name: Some(volume.name.clone()),
                inline_volume_spec: None,
            },
        },
        status: None,
    }
}

/// What an attachment is of.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    Volume(Volume),
    /// Of a volume that is no more.
    Gone,
    /// Of something that is not attached by this controller.
    Other,
}

/// What is known of a node.
pub struct Observed<'a> {
    pub name: &'a str,
    /// None if it is gone.
    pub node: Option<&'a Node>,
    /// What it has mounted, or had when it went, as its status names volumes.
    pub in_use: &'a [String],
    /// The volumes of the pods there that need an attachment.
    pub wanted: &'a [Volume],
    /// All attachments that name the node.
    pub attachments: &'a [Arc<VolumeAttachment>],
    pub source_of: &'a dyn Fn(&VolumeAttachment) -> Source,
    /// Whether a volume is attached to another node.
    pub is_elsewhere: &'a dyn Fn(&Volume) -> bool,
    /// Whether the attachment of this name was to leave for so long that a node that is not ready is not asked any more.
    pub is_overdue: &'a dyn Fn(&str) -> bool,
}

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub create: Vec<VolumeAttachment>,
    /// Those of what is to be created that only one node may have: volumes by the attachment's name.
    pub exclusive: BTreeMap<String, String>,
    pub delete: Vec<String>,
    /// Attachments that nobody needs, of volumes that the node still has mounted.
    pub leaving: Vec<String>,
    /// What drivers say against attachments that are needed: volume and message.
    pub failed: Vec<(String, String)>,
    /// Volumes that must leave another node first.
    pub blocked: Vec<String>,
    /// What the node's status is to list; None if it does.
    pub attached: Option<Vec<AttachedVolume>>,
}

impl Plan {
    /// Leaves out what other nodes are being given meanwhile: volumes that `give` says of those that only one may have.
    pub fn share(&mut self, give: impl FnOnce(&BTreeMap<String, String>) -> Vec<String>) {
        let taken = give(&self.exclusive);
        self.create.retain(|one| {
            let volume = self.exclusive.get(&one.name_any());
            volume.is_none_or(|volume| !taken.contains(volume))
        });
        self.blocked.extend(taken);
    }
}

fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
    taints
        .unwrap_or_default()
        .iter()
        .any(|taint| taint.key == OUT_OF_SERVICE)
}

/// In words for a pod of `namespace`: who has the volume that it waits for.
pub fn who_blocks(namespace: Option<&str>, holders: &[Arc<Pod>]) -> String {
    let (near, far): (Vec<_>, Vec<_>) = holders
        .iter()
        .partition(|pod| pod.metadata.namespace.as_deref() == namespace);
    let names: Vec<String> = near.iter().map(|pod| pod.name_any()).collect();
    match (names.join(", "), far.len()) {
        (names, 0) if names.is_empty() => {
            "Volume is already exclusively attached to one node and can't be attached to another".to_owned()
        }
        (names, 0) => format!("Volume is already used by pod(s) {names}"),
        (names, far) if names.is_empty() => {
            format!("Volume is already used by {far} pod(s) in different namespaces")
        }
        (names, far) => {
            format!("Volume is already used by pod(s) {names} and {far} pod(s) in different namespaces")
        }
    }
}

pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub fn plan(observed: &Observed<'_>) -> Plan {
    let node = observed.name;
    let held = observed
        .node
        .and_then(|node| node.status.as_ref()?.volumes_attached.clone());
    // Of a node that somebody has declared to be down nothing can be in use.
    let is_down = observed.node.is_some_and(is_out_of_service);
    let is_ready = observed.node.is_some_and(is_ready);
    let stays = |attachment: &str, volume: &String| {
        let may_be_forced = !is_ready && (observed.is_overdue)(attachment);
        observed.in_use.contains(volume) && !is_down && !may_be_forced
    };
    let wanted: BTreeMap<String, &Volume> = observed
        .wanted
        .iter()
        .map(|volume| (attachment_name(volume, node), volume))
        .collect();
    let mut plan = Plan::default();
    let mut attached: BTreeMap<String, AttachedVolume> = BTreeMap::new();
    for attachment in observed.attachments {
        let name = attachment.name_any();
        // Only those of our own making are ours to delete.
        let volume = match (observed.source_of)(attachment) {
            Source::Volume(volume) if attachment_name(&volume, node) == name => volume,
            Source::Gone if is_attachment_name(&name) && attachment.metadata.deletion_timestamp.is_none() => {
                plan.delete.push(name);
                continue;
            }
            _ => continue,
        };
        // One that goes already is nothing to mount any more, and comes again when it is gone.
        if attachment.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let unique = unique_name(&volume);
        let status = attachment.status.as_ref();
        if wanted.contains_key(&name) {
            let error = status.and_then(|status| status.attach_error.as_ref()?.message.clone());
            plan.failed.extend(error.map(|message| (volume.name.clone(), message)));
        } else if stays(&name, &unique) {
            plan.leaving.push(name);
        } else {
            plan.delete.push(name);
            continue;
        }
        if status.is_some_and(|status| status.attached) {
            let volume = AttachedVolume {
                name: unique.clone(),
                device_path: String::new(),
            };
            attached.insert(unique, volume);
        }
    }
    for (name, volume) in wanted {
        if observed
            .attachments
            .iter()
            .any(|attachment| attachment.name_any() == name)
        {
            continue;
        }
        if volume.exclusive && (observed.is_elsewhere)(volume) {
            plan.blocked.push(volume.name.clone());
        } else {
            if volume.exclusive {
                plan.exclusive.insert(name, volume.name.clone());
            }
            plan.create.push(attachment(volume, node));
        }
    }
    let held = held.unwrap_or_default();
    let mut attached: Vec<AttachedVolume> = attached.into_values().collect();
    // Those of other kinds are not ours.
    attached.extend(
        held.iter()
            .filter(|one| !one.name.starts_with("kubernetes.io/csi/"))
            .cloned(),
    );
    let same = attached.len() == held.len() && attached.iter().all(|one| held.contains(one));
    plan.attached = (!same).then_some(attached);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(status: Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n"}, "status": status})).unwrap()
    }

    fn csi(name: &str) -> Volume {
        let volume = json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
            "csi": {"driver": "d.io", "volumeHandle": format!("h-{name}")}}});
        volume_from(volume)
    }

    fn volume_from(value: Value) -> Volume {
        volume(&serde_json::from_value(value).unwrap()).unwrap()
    }

    fn look(node: &Node, wanted: &[Volume], attachments: &[Arc<VolumeAttachment>], elsewhere: bool) -> Plan {
        look_after(node, wanted, attachments, elsewhere, false)
    }

    fn look_after(
        node: &Node,
        wanted: &[Volume],
        attachments: &[Arc<VolumeAttachment>],
        elsewhere: bool,
        overdue: bool,
    ) -> Plan {
        let in_use = node.status.as_ref().and_then(|status| status.volumes_in_use.clone());
        plan(&Observed {
            name: "n",
            node: Some(node),
            in_use: &in_use.unwrap_or_default(),
            wanted,
            attachments,
            source_of: &|attachment| match attachment.spec.source.persistent_volume_name.as_deref() {
                Some("gone") => Source::Gone,
                Some(name) => Source::Volume(csi(name)),
                None => Source::Other,
            },
            is_elsewhere: &|_| elsewhere,
            is_overdue: &|_| overdue,
        })
    }

    #[test]
    fn attachments_come_and_go_with_pods() {
        let free = node(json!({}));
        let made = look(&free, &[csi("v")], &[], false);
        let attachment = made.create[0].clone();
        assert_eq!(
            attachment.name_any(),
            format!("csi-{}", hex::encode(Sha256::digest("h-vd.ion")))
        );
        assert_eq!(
            (attachment.spec.attacher.as_str(), attachment.spec.node_name.as_str()),
            ("d.io", "n")
        );
        let waiting = Arc::new(attachment.clone());
        assert_eq!(
            look(&free, &[csi("v")], std::slice::from_ref(&waiting), false),
            Plan::default()
        );
        let mut done = attachment;
        done.status = Some(serde_json::from_value(json!({"attached": true})).unwrap());
        let done = [Arc::new(done)];
        let attached = look(&free, &[csi("v")], &done, false).attached.unwrap();
        assert_eq!(attached[0].name, "kubernetes.io/csi/d.io^h-v");
        let listed = json!([{"name": "kubernetes.io/csi/d.io^h-v", "devicePath": ""}]);
        let knows = node(json!({"volumesAttached": listed}));
        assert_eq!(look(&knows, &[csi("v")], &done, false), Plan::default());
        let used = node(json!({"volumesAttached": listed, "volumesInUse": ["kubernetes.io/csi/d.io^h-v"]}));
        let stays = look(&used, &[], &done, false);
        assert_eq!(stays.leaving, [done[0].name_any()], "the node still uses it");
        assert_eq!((stays.delete.len(), stays.attached), (0, None));
        let mut down = used;
        down.spec =
            Some(serde_json::from_value(json!({"taints": [{"key": OUT_OF_SERVICE, "effect": "NoExecute"}]})).unwrap());
        assert_eq!(look(&down, &[], &done, false).delete.len(), 1, "the node is down");
        let gone = look(&knows, &[], &done, false);
        assert_eq!((gone.delete.len(), gone.attached.unwrap().len()), (1, 0));
    }

    /// After six minutes, but only of a node that is not ready.
    #[test]
    fn volumes_are_taken_from_nodes_that_do_not_answer() {
        let mut attachment = attachment(&csi("v"), "n");
        attachment.status = Some(serde_json::from_value(json!({"attached": true})).unwrap());
        let attachments = [Arc::new(attachment)];
        let name = attachments[0].name_any();
        let with = |ready: &str, in_use: Value| {
            node(
                json!({"volumesInUse": in_use, "conditions": [{"type": "Ready", "status": ready}],
                "volumesAttached": [{"name": "kubernetes.io/csi/d.io^h-v", "devicePath": ""}]}),
            )
        };
        let used = json!(["kubernetes.io/csi/d.io^h-v"]);
        for (ready, in_use, overdue, goes) in [
            ("True", json!([]), false, true),
            ("True", used.clone(), false, false),
            ("True", used.clone(), true, false),
            ("False", used.clone(), false, false),
            ("False", used.clone(), true, true),
            ("Unknown", used.clone(), true, true),
        ] {
            let plan = look_after(&with(ready, in_use.clone()), &[], &attachments, false, overdue);
            let (gone, left) = if goes {
                (vec![name.clone()], vec![])
            } else {
                (vec![], vec![name.clone()])
            };
            assert_eq!((plan.delete, plan.leaving), (gone, left), "{ready} {in_use} {overdue}");
            assert_eq!(plan.attached.is_some(), goes, "who goes is not to be mounted");
        }
        let needed = look_after(&with("Unknown", used), &[csi("v")], &attachments, false, true);
        assert_eq!(needed, Plan::default(), "a pod there needs it");
        // Of a node that is gone what it had in use is known, or nothing.
        for (in_use, goes) in [(vec!["kubernetes.io/csi/d.io^h-v".to_owned()], false), (vec![], true)] {
            let plan = plan(&Observed {
                name: "n",
                node: None,
                in_use: &in_use,
                wanted: &[],
                attachments: &attachments,
                source_of: &|_| Source::Volume(csi("v")),
                is_elsewhere: &|_| false,
                is_overdue: &|_| false,
            });
            assert_eq!((plan.delete.len() == 1, plan.leaving.len() == 1), (goes, !goes));
        }
    }

    #[test]
    fn names_of_other_namespaces_are_not_told() {
        let pod = |namespace: &str, name: &str| -> Arc<Pod> {
            serde_json::from_value(json!({"metadata": {"namespace": namespace, "name": name}})).unwrap()
        };
        let (a, b, c) = (pod("x", "a"), pod("x", "b"), pod("y", "c"));
        for (holders, expected) in [
            (
                vec![],
                "Volume is already exclusively attached to one node and can't be attached to another",
            ),
            (vec![a.clone(), b.clone()], "Volume is already used by pod(s) a, b"),
            (
                vec![c.clone()],
                "Volume is already used by 1 pod(s) in different namespaces",
            ),
            (
                vec![a, c],
                "Volume is already used by pod(s) a and 1 pod(s) in different namespaces",
            ),
        ] {
            assert_eq!(who_blocks(Some("x"), &holders), expected);
        }
    }

    #[test]
    fn what_goes_is_not_attached_and_what_fails_is_said() {
        let mut attachment = attachment(&csi("v"), "n");
        attachment.status = Some(
            serde_json::from_value(json!({"attached": false,
            "attachError": {"time": "2024-01-01T00:00:00Z", "message": "no such disk"}}))
            .unwrap(),
        );
        let plan = look(&node(json!({})), &[csi("v")], &[Arc::new(attachment.clone())], false);
        assert_eq!(plan.failed, [("v".to_owned(), "no such disk".to_owned())]);
        attachment.status = Some(serde_json::from_value(json!({"attached": true})).unwrap());
        attachment.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2024-01-01T00:00:00Z")).unwrap());
        let going = look(&node(json!({})), &[csi("v")], &[Arc::new(attachment)], false);
        assert_eq!(going, Plan::default());
    }

    #[test]
    fn the_attachment_of_a_volume_that_is_no_more_goes() {
        let free = node(json!({}));
        let of_gone = |name: &str| {
            let value = json!({"metadata": {"name": name}, "spec": {"attacher": "d.io", "nodeName": "n",
                "source": {"persistentVolumeName": "gone"}}});
            [Arc::new(serde_json::from_value::<VolumeAttachment>(value).unwrap())]
        };
        let ours = attachment_name(&csi("gone"), "n");
        assert_eq!(look(&free, &[], &of_gone(&ours), false).delete, [ours]);
        assert_eq!(look(&free, &[], &of_gone("csi-mine"), false), Plan::default());
    }

    #[test]
    fn others_attachments_and_exclusive_volumes_are_left_alone() {
        let by_hand = json!({"metadata": {"name": "mine"}, "spec": {"attacher": "d.io", "nodeName": "n", "source": {"persistentVolumeName": "v"}}});
        let by_hand: VolumeAttachment = serde_json::from_value(by_hand).unwrap();
        assert_eq!(
            look(&node(json!({})), &[], &[Arc::new(by_hand)], false),
            Plan::default()
        );
        let blocked = look(&node(json!({})), &[csi("v")], &[], true);
        assert_eq!((blocked.create.len(), blocked.blocked), (0, vec!["v".to_owned()]));
        let shared = volume_from(
            json!({"metadata": {"name": "s"}, "spec": {"accessModes": ["ReadWriteMany"],
            "csi": {"driver": "d.io", "volumeHandle": "h"}}}),
        );
        assert_eq!(look(&node(json!({})), &[shared], &[], true).create.len(), 1);
    }
}
