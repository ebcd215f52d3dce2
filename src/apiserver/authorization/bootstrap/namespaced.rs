//! Roles in the system's namespaces (upstream: `bootstrappolicy/namespace_policy.go`).

use super::table::{BindingRow, RoleRow, Row, may, named};

const READ: &str = "get list watch";
const EVENTS: Row = may("create patch update", "core events.k8s.io", "events");
const SYSTEM: &str = "kube-system";
const PUBLIC: &str = "kube-public";

pub(super) const ROLES: &[(&str, RoleRow)] = &[
    (
        SYSTEM,
        RoleRow::new(
            "extension-apiserver-authentication-reader",
            &[named(READ, "core", "configmaps", "extension-apiserver-authentication")],
        ),
    ),
    (
        SYSTEM,
        RoleRow::new("system:controller:bootstrap-signer", &[may(READ, "core", "secrets")]),
    ),
    (
        SYSTEM,
        RoleRow::new(
            "system:controller:cloud-provider",
            &[may("create get list watch", "core", "configmaps")],
        ),
    ),
    (
        SYSTEM,
        RoleRow::new(
            "system:controller:token-cleaner",
            &[may("delete get list watch", "core", "secrets"), EVENTS],
        ),
    ),
    (
        SYSTEM,
        RoleRow::new(
            "system::leader-locking-kube-controller-manager",
            &[
                may("watch", "core", "configmaps"),
                named("get update", "core", "configmaps", "kube-controller-manager"),
            ],
        ),
    ),
    (
        SYSTEM,
        RoleRow::new(
            "system::leader-locking-kube-scheduler",
            &[
                may("watch", "core", "configmaps"),
                named("get update", "core", "configmaps", "kube-scheduler"),
            ],
        ),
    ),
    (
        PUBLIC,
        RoleRow::new(
            "system:controller:bootstrap-signer",
            &[
                may(READ, "core", "configmaps"),
                named("update", "core", "configmaps", "cluster-info"),
                EVENTS,
            ],
        ),
    ),
];

pub(super) const BINDINGS: &[(&str, BindingRow)] = &[
    (
        SYSTEM,
        BindingRow::new(
            "extension-apiserver-authentication-reader",
            "user:system:kube-controller-manager user:system:kube-scheduler",
        )
        .called("system::extension-apiserver-authentication-reader"),
    ),
    (
        SYSTEM,
        BindingRow::new(
            "system::leader-locking-kube-controller-manager",
            "user:system:kube-controller-manager account:kube-system/kube-controller-manager",
        ),
    ),
    (
        SYSTEM,
        BindingRow::new(
            "system::leader-locking-kube-scheduler",
            "user:system:kube-scheduler account:kube-system/kube-scheduler",
        ),
    ),
    (
        SYSTEM,
        BindingRow::new(
            "system:controller:bootstrap-signer",
            "account:kube-system/bootstrap-signer",
        ),
    ),
    (
        SYSTEM,
        BindingRow::new("system:controller:cloud-provider", "account:kube-system/cloud-provider"),
    ),
    (
        SYSTEM,
        BindingRow::new("system:controller:token-cleaner", "account:kube-system/token-cleaner"),
    ),
    (
        PUBLIC,
        BindingRow::new(
            "system:controller:bootstrap-signer",
            "account:kube-system/bootstrap-signer",
        ),
    ),
];
