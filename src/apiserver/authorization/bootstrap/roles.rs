//! The roles that every cluster has (upstream: `bootstrappolicy/policy.go`), and to whom they are bound.

use super::table::{BindingRow, RoleRow, may, named, paths};

const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const READ_WRITE: &str = "create delete deletecollection get list patch update watch";
const RECORD: &str = "create patch update";

pub(super) const CLUSTER_ROLES: &[RoleRow] = &[
    RoleRow::new("cluster-admin", &[may("*", "*", "*"), paths("*", "*")]),
    RoleRow::new("admin", &[]).gathering("admin"),
    RoleRow::new("edit", &[]).gathering("edit").part_of("admin"),
    RoleRow::new("view", &[]).gathering("view").part_of("edit"),
    RoleRow::new(
        "system:aggregate-to-admin",
        &[
            may("create", "authorization.k8s.io", "localsubjectaccessreviews"),
            may(READ_WRITE, "rbac.authorization.k8s.io", "rolebindings roles"),
        ],
    )
    .part_of("admin"),
    RoleRow::new(
        "system:aggregate-to-edit",
        &[
            may(
                READ,
                "core",
                "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy",
            ),
            may("impersonate", "core", "serviceaccounts"),
            may(WRITE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
            may("create", "core", "pods/eviction"),
            may(
                WRITE,
                "core",
                "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets \
                 serviceaccounts services services/proxy",
            ),
            may("create", "core", "serviceaccounts/token"),
            may(
                WRITE,
                "apps",
                "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale \
                 statefulsets statefulsets/scale",
            ),
            may(WRITE, "autoscaling", "horizontalpodautoscalers"),
            may(WRITE, "batch", "cronjobs jobs"),
            may(
                WRITE,
                "extensions",
                "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets \
                 replicasets/scale replicationcontrollers/scale",
            ),
            may(WRITE, "policy", "poddisruptionbudgets"),
            may(WRITE, "networking.k8s.io", "ingresses networkpolicies"),
            may(READ_WRITE, "coordination.k8s.io", "leases"),
            may(WRITE, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
        ],
    )
    .part_of("edit"),
    RoleRow::new(
        "system:aggregate-to-view",
        &[
            may(
                READ,
                "core",
                "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods \
                 replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status",
            ),
            may(
                READ,
                "core",
                "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status \
                 resourcequotas resourcequotas/status",
            ),
            may(READ, "core", "namespaces"),
            may(READ, "discovery.k8s.io", "endpointslices"),
            may(
                READ,
                "apps",
                "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status \
                 replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
            ),
            may(
                READ,
                "autoscaling",
                "horizontalpodautoscalers horizontalpodautoscalers/status",
            ),
            may(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
            may(
                READ,
                "extensions",
                "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses \
                 ingresses/status networkpolicies replicasets replicasets/scale replicasets/status \
                 replicationcontrollers/scale",
            ),
            may(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
            may(READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
            may(
                READ,
                "resource.k8s.io",
                "resourceclaims resourceclaims/status resourceclaimtemplates",
            ),
        ],
    )
    .part_of("view"),
    // metrics-server's role; a part of view is one of edit and admin, too.
    RoleRow::new(
        "system:aggregated-metrics-reader",
        &[may(READ, "metrics.k8s.io", "nodes pods")],
    )
    .part_of("view"),
    RoleRow::new(
        "system:auth-delegator",
        &[
            may("create", "authentication.k8s.io", "tokenreviews"),
            may("create", "authorization.k8s.io", "subjectaccessreviews"),
        ],
    ),
    RoleRow::new(
        "system:basic-user",
        &[
            may(
                "create",
                "authorization.k8s.io",
                "selfsubjectaccessreviews selfsubjectrulesreviews",
            ),
            may("create", "authentication.k8s.io", "selfsubjectreviews"),
        ],
    ),
    RoleRow::new(
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[may(
            "create",
            "certificates.k8s.io",
            "certificatesigningrequests/nodeclient",
        )],
    ),
    RoleRow::new(
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[may(
            "create",
            "certificates.k8s.io",
            "certificatesigningrequests/selfnodeclient",
        )],
    ),
    RoleRow::new(
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[named(
            "approve",
            "certificates.k8s.io",
            "signers",
            "kubernetes.io/kube-apiserver-client",
        )],
    ),
    RoleRow::new(
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[named(
            "approve",
            "certificates.k8s.io",
            "signers",
            "kubernetes.io/kube-apiserver-client-kubelet",
        )],
    ),
    RoleRow::new(
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[named(
            "approve",
            "certificates.k8s.io",
            "signers",
            "kubernetes.io/kubelet-serving",
        )],
    ),
    RoleRow::new(
        "system:certificates.k8s.io:legacy-unknown-approver",
        &[named(
            "approve",
            "certificates.k8s.io",
            "signers",
            "kubernetes.io/legacy-unknown",
        )],
    ),
    RoleRow::new(
        "system:cluster-trust-bundle-discovery",
        &[may(READ, "certificates.k8s.io", "clustertrustbundles")],
    ),
    RoleRow::new(
        "system:discovery",
        &[paths(
            "get",
            "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/",
        )],
    ),
    RoleRow::new(
        "system:heapster",
        &[
            may(READ, "core", "events namespaces nodes pods"),
            may(READ, "extensions", "deployments"),
        ],
    ),
    RoleRow::new("system:kube-aggregator", &[may(READ, "core", "endpoints services")]),
    RoleRow::new(
        "system:kube-controller-manager",
        &[
            may(RECORD, "core events.k8s.io", "events"),
            may("create", "coordination.k8s.io", "leases"),
            named("get update", "coordination.k8s.io", "leases", "kube-controller-manager"),
            may("create", "core", "secrets serviceaccounts"),
            may("delete", "core", "secrets"),
            may("get", "core", "configmaps namespaces secrets serviceaccounts"),
            may("update", "core", "secrets serviceaccounts"),
            may("create", "authentication.k8s.io", "tokenreviews"),
            may("create", "authorization.k8s.io", "subjectaccessreviews"),
            may("list watch", "*", "*"),
            may("create", "core", "serviceaccounts/token"),
        ],
    ),
    RoleRow::new("system:kube-dns", &[may("list watch", "core", "endpoints services")]),
    RoleRow::new(
        "system:kube-scheduler",
        &[
            may(RECORD, "core events.k8s.io", "events"),
            may("create", "coordination.k8s.io", "leases"),
            named("get update", "coordination.k8s.io", "leases", "kube-scheduler"),
            may(READ, "core", "nodes"),
            may("delete get list watch", "core", "pods"),
            may("create", "core", "bindings pods/binding"),
            may("patch update", "core", "pods/status"),
            may(READ, "core", "replicationcontrollers services"),
            may(READ, "apps extensions", "replicasets"),
            may(READ, "apps", "statefulsets"),
            may(READ, "policy", "poddisruptionbudgets"),
            may(READ, "core", "persistentvolumeclaims persistentvolumes"),
            may("create", "authentication.k8s.io", "tokenreviews"),
            may("create", "authorization.k8s.io", "subjectaccessreviews"),
            may(READ, "storage.k8s.io", "csinodes"),
            may(READ, "storage.k8s.io", "volumeattachments"),
            may(READ, "core", "namespaces"),
            may(READ, "storage.k8s.io", "csidrivers"),
            may(READ, "storage.k8s.io", "csistoragecapacities"),
            may(READ, "resource.k8s.io", "deviceclasses"),
            may("get list patch update watch", "resource.k8s.io", "resourceclaims"),
            may("create delete", "resource.k8s.io", "resourceclaims"),
            may(
                "get list patch update watch",
                "resource.k8s.io",
                "resourceclaims/status",
            ),
            may("patch update", "resource.k8s.io", "resourceclaims/binding"),
            may("get list patch update watch", "core", "pods/finalizers"),
            may(READ, "resource.k8s.io", "resourceslices"),
            may(READ, "resource.k8s.io", "devicetaintrules"),
        ],
    ),
    RoleRow::new(
        "system:kubelet-api-admin",
        &[
            may(READ, "core", "nodes"),
            may("proxy", "core", "nodes"),
            may("*", "core", "nodes/log nodes/metrics nodes/proxy nodes/stats"),
            may("*", "core", "nodes/configz nodes/healthz nodes/pods"),
        ],
    ),
    RoleRow::new(
        "system:monitoring",
        &[paths(
            "get",
            "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*",
        )],
    ),
    RoleRow::new(
        "system:node",
        &[
            may("create", "authentication.k8s.io", "tokenreviews"),
            may(
                "create",
                "authorization.k8s.io",
                "localsubjectaccessreviews subjectaccessreviews",
            ),
            may(READ, "core", "services"),
            may("create get list watch", "core", "nodes"),
            may("patch update", "core", "nodes/status"),
            may("patch update", "core", "nodes"),
            may(RECORD, "core", "events"),
            may(READ, "core", "pods"),
            may("create delete", "core", "pods"),
            may("patch update", "core", "pods/status"),
            may("create", "core", "pods/eviction"),
            may(READ, "core", "configmaps secrets"),
            may("get", "core", "persistentvolumeclaims persistentvolumes"),
            may("get", "core", "endpoints"),
            may(
                "create get list watch",
                "certificates.k8s.io",
                "certificatesigningrequests",
            ),
            may("create delete get patch update", "coordination.k8s.io", "leases"),
            may("get", "storage.k8s.io", "volumeattachments"),
            may("create", "core", "serviceaccounts/token"),
            may("get patch update", "core", "persistentvolumeclaims/status"),
            may(READ, "storage.k8s.io", "csidrivers"),
            may("create delete get patch update", "storage.k8s.io", "csinodes"),
            may(READ, "node.k8s.io", "runtimeclasses"),
            may("get", "resource.k8s.io", "resourceclaims"),
            may("deletecollection", "resource.k8s.io", "resourceslices"),
            may(READ, "certificates.k8s.io", "clustertrustbundles"),
            may("create get list watch", "certificates.k8s.io", "podcertificaterequests"),
            may("get", "core", "serviceaccounts"),
        ],
    ),
    RoleRow::new(
        "system:node-bootstrapper",
        &[may(
            "create get list watch",
            "certificates.k8s.io",
            "certificatesigningrequests",
        )],
    ),
    RoleRow::new(
        "system:node-problem-detector",
        &[
            may("get", "core", "nodes"),
            may("patch", "core", "nodes/status"),
            may(RECORD, "core events.k8s.io", "events"),
        ],
    ),
    RoleRow::new(
        "system:node-proxier",
        &[
            may("list watch", "core", "endpoints services"),
            may(READ, "core", "nodes"),
            may(RECORD, "core events.k8s.io", "events"),
            may("list watch", "networking.k8s.io", "servicecidrs"),
            may("list watch", "discovery.k8s.io", "endpointslices"),
        ],
    ),
    RoleRow::new(
        "system:persistent-volume-provisioner",
        &[
            may("create delete get list watch", "core", "persistentvolumes"),
            may("get list update watch", "core", "persistentvolumeclaims"),
            may(READ, "storage.k8s.io", "storageclasses"),
            may("watch", "core", "events"),
            may(RECORD, "core events.k8s.io", "events"),
        ],
    ),
    RoleRow::new(
        "system:public-info-viewer",
        &[paths("get", "/healthz /livez /readyz /version /version/")],
    ),
    RoleRow::new(
        "system:service-account-issuer-discovery",
        &[paths(
            "get",
            "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
        )],
    ),
    RoleRow::new(
        "system:volume-scheduler",
        &[
            may("get list patch update watch", "core", "persistentvolumes"),
            may(READ, "storage.k8s.io", "storageclasses"),
            may("get list patch update watch", "core", "persistentvolumeclaims"),
        ],
    ),
    // Not upstream's: the server's own page about its API.
    RoleRow::new("krust:docs", &[paths("get", "/docs /docs/*")]),
];

/// Cluster-wide bindings, besides one for each controller's role.
pub(super) const CLUSTER_ROLE_BINDINGS: &[BindingRow] = &[
    BindingRow::new("cluster-admin", "group:system:masters"),
    BindingRow::new("system:basic-user", "group:system:authenticated"),
    BindingRow::new("system:cluster-trust-bundle-discovery", "group:system:serviceaccounts"),
    BindingRow::new("system:discovery", "group:system:authenticated"),
    BindingRow::new("system:kube-controller-manager", "user:system:kube-controller-manager"),
    BindingRow::new("system:kube-dns", "account:kube-system/kube-dns"),
    BindingRow::new("system:kube-scheduler", "user:system:kube-scheduler"),
    BindingRow::new("system:monitoring", "group:system:monitoring"),
    // Nodes are allowed by their own authorizer; the binding is there for those who add a subject.
    BindingRow::new("system:node", ""),
    BindingRow::new("system:node-proxier", "user:system:kube-proxy"),
    BindingRow::new(
        "system:public-info-viewer",
        "group:system:authenticated group:system:unauthenticated",
    ),
    BindingRow::new(
        "system:service-account-issuer-discovery",
        "group:system:serviceaccounts",
    ),
    BindingRow::new("system:volume-scheduler", "user:system:kube-scheduler"),
    BindingRow::new("krust:docs", "group:system:authenticated"),
];
