//! The roles of upstream's controllers, each bound to the service account of its name
//! (upstream: `bootstrappolicy/controller_policy.go`).

use super::table::{RoleRow, Row, may, named};

const READ: &str = "get list watch";
const EVENTS: Row = may("create patch update", "core events.k8s.io", "events");

/// Named without their prefix.
pub(super) const ROLES: &[RoleRow] = &[
    RoleRow::new(
        "attachdetach-controller",
        &[
            may("list watch", "core", "persistentvolumeclaims persistentvolumes"),
            may(READ, "core", "nodes"),
            may("patch update", "core", "nodes/status"),
            may("list watch", "core", "pods"),
            EVENTS,
            may("create delete get list watch", "storage.k8s.io", "volumeattachments"),
            may(READ, "storage.k8s.io", "csidrivers"),
            may(READ, "storage.k8s.io", "csinodes"),
        ],
    ),
    RoleRow::new(
        "certificate-controller",
        &[
            may(
                "delete get list watch",
                "certificates.k8s.io",
                "certificatesigningrequests",
            ),
            may(
                "update",
                "certificates.k8s.io",
                "certificatesigningrequests/approval certificatesigningrequests/status",
            ),
            named(
                "approve",
                "certificates.k8s.io",
                "signers",
                "kubernetes.io/kube-apiserver-client-kubelet",
            ),
            named(
                "sign",
                "certificates.k8s.io",
                "signers",
                "kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet \
                 kubernetes.io/kubelet-serving kubernetes.io/legacy-unknown",
            ),
            may("create", "authorization.k8s.io", "subjectaccessreviews"),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "clusterrole-aggregation-controller",
        &[may(
            "escalate get list patch update watch",
            "rbac.authorization.k8s.io",
            "clusterroles",
        )],
    ),
    RoleRow::new(
        "cronjob-controller",
        &[
            may("get list update watch", "batch", "cronjobs"),
            may("create delete get list patch update watch", "batch", "jobs"),
            may("update", "batch", "cronjobs/status"),
            may("update", "batch", "cronjobs/finalizers"),
            may("delete list watch", "core", "pods"),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "daemon-set-controller",
        &[
            may(READ, "apps extensions", "daemonsets"),
            may("update", "apps extensions", "daemonsets/status"),
            may("update", "apps extensions", "daemonsets/finalizers"),
            may("list watch", "core", "nodes"),
            may("create delete list patch watch", "core", "pods"),
            may("create", "core", "pods/binding"),
            may(
                "create delete get list patch update watch",
                "apps",
                "controllerrevisions",
            ),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "deployment-controller",
        &[
            may("get list update watch", "apps extensions", "deployments"),
            may("update", "apps extensions", "deployments/status"),
            may("update", "apps extensions", "deployments/finalizers"),
            may(
                "create delete get list patch update watch",
                "apps extensions",
                "replicasets",
            ),
            may("get list update watch", "core", "pods"),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "device-taint-eviction-controller",
        &[
            may("delete get list watch", "core", "pods"),
            may("patch update", "core", "pods/status"),
            may(READ, "resource.k8s.io", "resourceclaims"),
            may(READ, "resource.k8s.io", "resourceslices"),
            may(READ, "resource.k8s.io", "deviceclasses"),
            EVENTS,
            may("patch update", "resource.k8s.io", "devicetaintrules/status"),
            may(READ, "resource.k8s.io", "devicetaintrules"),
        ],
    ),
    RoleRow::new(
        "disruption-controller",
        &[
            may(READ, "apps extensions", "deployments"),
            may(READ, "apps extensions", "replicasets"),
            may(READ, "core", "replicationcontrollers"),
            may(READ, "policy", "poddisruptionbudgets"),
            may(READ, "apps", "statefulsets"),
            may("update", "policy", "poddisruptionbudgets/status"),
            may("patch update", "core", "pods/status"),
            may("get", "*", "*/scale"),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "endpoint-controller",
        &[
            may(READ, "core", "pods services"),
            may("create delete get list update watch", "core", "endpoints"),
            may("create", "core", "endpoints/restricted"),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "endpointslice-controller",
        &[
            may(READ, "core", "nodes pods services"),
            may("update", "core", "services/finalizers"),
            may(
                "create delete get list update watch",
                "discovery.k8s.io",
                "endpointslices",
            ),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "endpointslicemirroring-controller",
        &[
            may(READ, "core", "endpoints services"),
            may("update", "core", "services/finalizers"),
            may("update", "core", "endpoints/finalizers"),
            may(
                "create delete get list update watch",
                "discovery.k8s.io",
                "endpointslices",
            ),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "ephemeral-volume-controller",
        &[
            may(READ, "core", "pods"),
            may("update", "core", "pods/finalizers"),
            may("create get list watch", "core", "persistentvolumeclaims"),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "expand-controller",
        &[
            may("get list patch update watch", "core", "persistentvolumes"),
            may("patch update", "core", "persistentvolumeclaims/status"),
            may(READ, "core", "persistentvolumeclaims"),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "generic-garbage-collector",
        &[may("delete get list patch update watch", "*", "*"), EVENTS],
    ),
    RoleRow::new(
        "horizontal-pod-autoscaler",
        &[
            may(READ, "autoscaling", "horizontalpodautoscalers"),
            may("update", "autoscaling", "horizontalpodautoscalers/status"),
            may("get update", "*", "*/scale"),
            may("list watch", "core", "pods"),
            may("list watch", "metrics.k8s.io", "pods"),
            may(READ, "custom.metrics.k8s.io", "*"),
            may(READ, "external.metrics.k8s.io", "*"),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "job-controller",
        &[
            may("get list patch update watch", "batch", "jobs"),
            may("update", "batch", "jobs/status"),
            may("update", "batch", "jobs/finalizers"),
            may("create delete list patch watch", "core", "pods"),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "kube-apiserver-serving-clustertrustbundle-publisher",
        &[
            named(
                "attest",
                "certificates.k8s.io",
                "signers",
                "kubernetes.io/kube-apiserver-serving",
            ),
            may(
                "create delete list update watch",
                "certificates.k8s.io",
                "clustertrustbundles",
            ),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "legacy-service-account-token-cleaner",
        &[
            named(
                "get",
                "core",
                "configmaps",
                "kube-apiserver-legacy-service-account-token-tracking",
            ),
            may("delete patch", "core", "secrets"),
        ],
    ),
    RoleRow::new(
        "namespace-controller",
        &[
            may("delete get list watch", "core", "namespaces"),
            may("update", "core", "namespaces/finalize namespaces/status"),
            may("delete deletecollection get list watch", "*", "*"),
        ],
    ),
    RoleRow::new(
        "node-controller",
        &[
            may("delete get list patch update watch", "core", "nodes"),
            may("patch update", "core", "nodes/status"),
            may("patch update", "core", "pods/status"),
            may("delete get list watch", "core", "pods"),
            may(READ, "coordination.k8s.io", "leases"),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "persistent-volume-binder",
        &[
            may("create delete get list update watch", "core", "persistentvolumes"),
            may("update", "core", "persistentvolumes/status"),
            may("get list update watch", "core", "persistentvolumeclaims"),
            may("update", "core", "persistentvolumeclaims/status"),
            may("create delete get list watch", "core", "pods"),
            may(READ, "storage.k8s.io", "storageclasses"),
            may("list watch", "core", "nodes"),
            EVENTS,
            may("watch", "core", "events"),
        ],
    ),
    RoleRow::new(
        "pod-garbage-collector",
        &[
            may("delete list watch", "core", "pods"),
            may(READ, "core", "nodes"),
            may("patch", "core", "pods/status"),
        ],
    ),
    RoleRow::new(
        "podcertificaterequestcleaner",
        &[may(
            "delete get list watch",
            "certificates.k8s.io",
            "podcertificaterequests",
        )],
    ),
    RoleRow::new(
        "pv-protection-controller",
        &[may("get list update watch", "core", "persistentvolumes"), EVENTS],
    ),
    RoleRow::new(
        "pvc-protection-controller",
        &[
            may("get list update watch", "core", "persistentvolumeclaims"),
            may("update", "core", "persistentvolumeclaims/status"),
            may(READ, "core", "pods"),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "replicaset-controller",
        &[
            may("get list update watch", "apps extensions", "replicasets"),
            may("update", "apps extensions", "replicasets/status"),
            may("update", "apps extensions", "replicasets/finalizers"),
            may("create delete list patch watch", "core", "pods"),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "replication-controller",
        &[
            may("get list update watch", "core", "replicationcontrollers"),
            may("update", "core", "replicationcontrollers/status"),
            may("update", "core", "replicationcontrollers/finalizers"),
            may("create delete list patch watch", "core", "pods"),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "resource-claim-controller",
        &[
            may(READ, "core", "pods"),
            may("update", "core", "pods/finalizers"),
            may("create delete get list watch", "resource.k8s.io", "resourceclaims"),
            may(
                "patch update",
                "resource.k8s.io",
                "resourceclaims resourceclaims/status",
            ),
            may("patch update", "core", "pods/status"),
            EVENTS,
            may("patch update", "resource.k8s.io", "resourceclaims/binding"),
        ],
    ),
    RoleRow::new(
        "resourcequota-controller",
        &[
            may("list watch", "*", "*"),
            may("update", "core", "resourcequotas/status"),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "root-ca-cert-publisher",
        &[may("create update", "core", "configmaps"), EVENTS],
    ),
    RoleRow::new(
        "route-controller",
        &[
            may("list watch", "core", "nodes"),
            may("patch", "core", "nodes/status"),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "selinux-warning-controller",
        &[
            EVENTS,
            may(READ, "core", "persistentvolumes"),
            may(READ, "core", "persistentvolumeclaims"),
            may(READ, "core", "pods"),
            may(READ, "storage.k8s.io", "csidrivers"),
        ],
    ),
    RoleRow::new(
        "service-account-controller",
        &[may("create", "core", "serviceaccounts"), EVENTS],
    ),
    RoleRow::new(
        "service-cidrs-controller",
        &[
            may("get list patch update watch", "networking.k8s.io", "servicecidrs"),
            may("patch update", "networking.k8s.io", "servicecidrs/finalizers"),
            may("patch update", "networking.k8s.io", "servicecidrs/status"),
            may(READ, "networking.k8s.io", "ipaddresses"),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "service-controller",
        &[
            may(READ, "core", "services"),
            may("patch update", "core", "services/status"),
            may("list watch", "core", "nodes"),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "statefulset-controller",
        &[
            may("list watch", "core", "pods"),
            may(READ, "apps", "statefulsets"),
            may("update", "apps", "statefulsets/status"),
            may("update", "apps", "statefulsets/finalizers"),
            may("create delete get patch update", "core", "pods"),
            may(
                "create delete get list patch update watch",
                "apps",
                "controllerrevisions",
            ),
            may("create get list watch", "core", "persistentvolumeclaims"),
            may("delete update", "core", "persistentvolumeclaims"),
            may("update", "core", "pods/finalizers"),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "storage-version-migrator-controller",
        &[
            may("list patch", "*", "*"),
            may("get", "apiextensions.k8s.io", "customresourcedefinitions"),
            may("patch", "apiextensions.k8s.io", "customresourcedefinitions/status"),
            may("update", "storagemigration.k8s.io", "storageversionmigrations/status"),
        ],
    ),
    RoleRow::new(
        "ttl-after-finished-controller",
        &[may("delete get list watch", "batch", "jobs"), EVENTS],
    ),
    RoleRow::new(
        "ttl-controller",
        &[may("list patch update watch", "core", "nodes"), EVENTS],
    ),
    RoleRow::new(
        "validatingadmissionpolicy-status-controller",
        &[
            may(READ, "admissionregistration.k8s.io", "validatingadmissionpolicies"),
            may(
                "get patch update",
                "admissionregistration.k8s.io",
                "validatingadmissionpolicies/status",
            ),
            EVENTS,
        ],
    ),
    RoleRow::new(
        "volumeattributesclass-protection-controller",
        &[
            may(READ, "core", "persistentvolumeclaims"),
            may(READ, "core", "persistentvolumes"),
            may("get list update watch", "storage.k8s.io", "volumeattributesclasses"),
            EVENTS,
        ],
    ),
];
