//! What upstream's strategies say of each kind, as tables over all rows: generations, updates without a version,
//! PUT that creates, DELETE that answers with the object, names, fields to select by.

use super::{Kind, Registry};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// `pods`, `deployments.apps`: the stored kinds for which something holds, each once.
fn those(holds: impl Fn(&Kind) -> bool) -> BTreeSet<String> {
    Registry::builtin()
        .kinds()
        .filter(|kind| kind.has_verb("update") && holds(kind))
        .map(|kind| kind.group_resource())
        .collect()
}

/// Two columns: a group, and resources of it.
fn listed(table: &[(&str, &str)]) -> BTreeSet<String> {
    let names = table.iter().flat_map(|(group, resources)| {
        resources.split(' ').map(move |resource| match *group {
            "" => resource.to_owned(),
            group => format!("{resource}.{group}"),
        })
    });
    let served: BTreeSet<String> = Registry::builtin().kinds().map(|kind| kind.group_resource()).collect();
    names.filter(|name| served.contains(name)).collect()
}

#[test]
fn generations_are_kept_where_upstream_does() {
    let expected = listed(&[
        ("", "pods podtemplates replicationcontrollers"),
        ("apps", "daemonsets deployments replicasets statefulsets"),
        ("batch", "cronjobs jobs"),
        ("networking.k8s.io", "ingresses ingressclasses networkpolicies"),
        ("policy", "poddisruptionbudgets"),
        (
            "admissionregistration.k8s.io",
            "mutatingwebhookconfigurations validatingwebhookconfigurations mutatingadmissionpolicies \
             mutatingadmissionpolicybindings validatingadmissionpolicies validatingadmissionpolicybindings",
        ),
        ("scheduling.k8s.io", "priorityclasses"),
        ("discovery.k8s.io", "endpointslices"),
        (
            "flowcontrol.apiserver.k8s.io",
            "flowschemas prioritylevelconfigurations",
        ),
        ("resource.k8s.io", "deviceclasses devicetaintrules resourceslices"),
        ("storagemigration.k8s.io", "storageversionmigrations"),
        ("apiextensions.k8s.io", "customresourcedefinitions"),
    ]);
    assert_eq!(those(|kind| kind.strategy.has_generation()), expected);
}

#[test]
fn updates_name_a_version_where_upstream_wants_one() {
    let expected = listed(&[
        ("coordination.k8s.io", "leases"),
        ("policy", "poddisruptionbudgets"),
        ("node.k8s.io", "runtimeclasses"),
        (
            "storage.k8s.io",
            "csidrivers csinodes csistoragecapacities volumeattachments",
        ),
        (
            "admissionregistration.k8s.io",
            "mutatingwebhookconfigurations validatingwebhookconfigurations mutatingadmissionpolicies \
             mutatingadmissionpolicybindings validatingadmissionpolicies validatingadmissionpolicybindings",
        ),
        ("certificates.k8s.io", "clustertrustbundles podcertificaterequests"),
        ("apiextensions.k8s.io", "customresourcedefinitions"),
        ("apiregistration.k8s.io", "apiservices"),
    ]);
    assert_eq!(those(|kind| !kind.strategy.allow_unconditional_update()), expected);
}

#[test]
fn put_creates_where_upstream_does() {
    let expected = listed(&[
        ("", "endpoints events limitranges services"),
        ("events.k8s.io", "events"),
        ("coordination.k8s.io", "leases"),
        ("node.k8s.io", "runtimeclasses"),
        (
            "rbac.authorization.k8s.io",
            "clusterrolebindings clusterroles rolebindings roles",
        ),
    ]);
    assert_eq!(those(|kind| kind.strategy.allow_create_on_update()), expected);
}

#[test]
fn delete_answers_with_the_object_where_upstream_does() {
    let expected = listed(&[
        (
            "",
            "namespaces persistentvolumeclaims persistentvolumes pods podtemplates resourcequotas serviceaccounts \
             services",
        ),
        (
            "storage.k8s.io",
            "csidrivers csinodes storageclasses volumeattachments volumeattributesclasses",
        ),
        (
            "resource.k8s.io",
            "deviceclasses devicetaintrules resourceclaims resourceclaimtemplates resourceslices",
        ),
    ]);
    assert_eq!(those(|kind| kind.strategy.returns_deleted_object()), expected);
}

#[test]
fn fields_are_selectable_where_upstream_has_them() {
    let event = "fieldPath kind name namespace resourceVersion uid apiVersion";
    let with = |prefix: &str| {
        event
            .split(' ')
            .map(|field| format!("{prefix}.{field}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let core_event = format!("{} reason reportingComponent source type", with("involvedObject"));
    let event = format!("{} reason reportingController type", with("regarding"));
    let table = BTreeMap::from([
        (
            "/v1/pods",
            "spec.nodeName spec.host spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork \
             status.phase status.podIP status.podIPs status.nominatedNodeName",
        ),
        ("/v1/nodes", "spec.unschedulable"),
        ("/v1/namespaces", "status.phase"),
        ("/v1/secrets", "type"),
        ("/v1/services", "spec.clusterIP spec.type"),
        ("/v1/replicationcontrollers", "status.replicas"),
        ("/v1/events", core_event.as_str()),
        ("events.k8s.io/v1/events", event.as_str()),
        ("batch/v1/jobs", "status.successful"),
        ("certificates.k8s.io/v1/certificatesigningrequests", "spec.signerName"),
        ("certificates.k8s.io/v1/clustertrustbundles", "spec.signerName"),
        (
            "certificates.k8s.io/v1/podcertificaterequests",
            "spec.signerName spec.podName spec.nodeName",
        ),
        ("resource.k8s.io/v1/resourceslices", "spec.nodeName spec.driver"),
    ]);
    for kind in Registry::builtin().kinds().filter(|kind| kind.has_verb("list")) {
        let name = format!("{}/{}/{}", kind.group, kind.version, kind.resource);
        let expected: BTreeSet<&str> = table
            .get(name.as_str())
            .map_or("", |fields| fields)
            .split_whitespace()
            .collect();
        let found: BTreeSet<&str> = kind.strategy.selectable_fields().iter().copied().collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn names_are_checked_as_upstream_checks_them() {
    let label_63 = "a".repeat(63);
    let long = "a".repeat(64);
    let subdomain = format!("{label_63}.{label_63}.{label_63}");
    // What is tried on every kind, and for which kinds it is a name.
    let registry = Registry::builtin();
    let valid = |group: &str, resource: &str, name: &str| {
        let kind = registry
            .lookup(group, "v1", resource)
            .unwrap_or_else(|| panic!("no row {resource}"));
        kind.strategy.validate_name(name, false).is_empty()
    };
    let labels = ["/namespaces", "apps/statefulsets", "/services"];
    let segments = [
        "rbac.authorization.k8s.io/roles",
        "rbac.authorization.k8s.io/clusterroles",
        "rbac.authorization.k8s.io/rolebindings",
        "rbac.authorization.k8s.io/clusterrolebindings",
    ];
    let subdomains = [
        "/configmaps",
        "/secrets",
        "/pods",
        "/nodes",
        "/serviceaccounts",
        "/persistentvolumes",
        "apps/deployments",
        "batch/jobs",
        "networking.k8s.io/ingresses",
        "storage.k8s.io/storageclasses",
        "scheduling.k8s.io/priorityclasses",
        "resource.k8s.io/resourceclaims",
        "coordination.k8s.io/leases",
    ];
    let split = |name: &'static str| name.split_once('/').unwrap();
    for (group, resource) in labels.map(split) {
        assert!(
            valid(group, resource, "a-1") && valid(group, resource, &label_63),
            "{resource}"
        );
        for bad in ["a.b", "A", "-a", "a_b", &long] {
            assert!(!valid(group, resource, bad), "{resource} {bad}");
        }
    }
    for (group, resource) in segments.map(split) {
        assert!(valid(group, resource, "system:a B_c"), "{resource}");
        for bad in [".", "..", "a/b", "a%b"] {
            assert!(!valid(group, resource, bad), "{resource} {bad}");
        }
    }
    for (group, resource) in subdomains.map(split) {
        assert!(
            valid(group, resource, "a.b-1") && valid(group, resource, &subdomain),
            "{resource}"
        );
        for bad in ["A", "a..b", "a_b", "-a", ""] {
            assert!(!valid(group, resource, bad), "{resource} {bad}");
        }
    }
    assert!(valid("batch", "cronjobs", &"a".repeat(52)) && !valid("batch", "cronjobs", &"a".repeat(53)));
    assert!(valid("certificates.k8s.io", "certificatesigningrequests", "Any Name"));
    assert!(
        valid("certificates.k8s.io", "clustertrustbundles", "a.b:c:d")
            && !valid("certificates.k8s.io", "clustertrustbundles", "a:B")
    );
}

#[test]
fn names_in_urls_and_short_names_are_upstreams() {
    let expected = BTreeMap::from([
        ("componentstatuses", "cs"),
        ("configmaps", "cm"),
        ("endpoints", "ep"),
        ("events", "ev"),
        ("limitranges", "limits"),
        ("namespaces", "ns"),
        ("nodes", "no"),
        ("persistentvolumeclaims", "pvc"),
        ("persistentvolumes", "pv"),
        ("pods", "po"),
        ("replicationcontrollers", "rc"),
        ("resourcequotas", "quota"),
        ("serviceaccounts", "sa"),
        ("services", "svc"),
        ("customresourcedefinitions", "crd crds"),
        ("daemonsets", "ds"),
        ("deployments", "deploy"),
        ("replicasets", "rs"),
        ("statefulsets", "sts"),
        ("horizontalpodautoscalers", "hpa"),
        ("cronjobs", "cj"),
        ("certificatesigningrequests", "csr"),
        ("ingresses", "ing"),
        ("ipaddresses", "ip"),
        ("networkpolicies", "netpol"),
        ("poddisruptionbudgets", "pdb"),
        ("priorityclasses", "pc"),
        ("storageclasses", "sc"),
        ("volumeattributesclasses", "vac"),
    ]);
    let all = [
        "pods",
        "replicationcontrollers",
        "services",
        "daemonsets",
        "deployments",
        "replicasets",
        "statefulsets",
        "horizontalpodautoscalers",
        "cronjobs",
        "jobs",
    ];
    // What metrics-server serves has the names of what it is about, and nothing else.
    let own = |kind: &Arc<Kind>| kind.group != super::resource_metrics::GROUP;
    for kind in Registry::builtin().kinds().filter(own) {
        assert_eq!(
            kind.short_names.join(" "),
            expected.get(kind.resource).copied().unwrap_or_default(),
            "{}",
            kind.resource
        );
        let is_extension = matches!(
            kind.group,
            "admissionregistration.k8s.io" | "apiextensions.k8s.io" | "apiregistration.k8s.io"
        );
        let categories: &[&str] = match kind.resource {
            resource if all.contains(&resource) => &["all"],
            _ if is_extension => &["api-extensions"],
            _ => &[],
        };
        assert_eq!(kind.categories, categories, "{}", kind.resource);
        assert_eq!(kind.singular, kind.kind.to_lowercase());
    }
}
