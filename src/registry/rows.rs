//! One row per served kind, in discovery order: groups as upstream's aggregator ranks them, resources by name.
//!
//! Adding a kind is one row here (and a strategy file if it has rules of its own).

use super::Kind;
use super::columns::core as core_columns;
use super::resource_metrics;
use super::row::{review, row};
use super::strategies::{
    self, Stored, access, autoscaler_conversion, batch as batch_strategies, certificates as certificate_strategies,
    cluster, component_status, config_map, device_taint_rule, endpoints, event, flow_control, lease, policies, quota,
    secret, storage as storage_rules, storage_migration, volumes, webhooks, workloads,
};
use k8s_openapi::api::{
    admissionregistration::v1 as admissionregistration, apps::v1 as apps, authentication::v1 as authentication,
    authorization::v1 as authorization, autoscaling, batch::v1 as batch, certificates::v1 as certificates,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery, events::v1 as events,
    flowcontrol::v1 as flowcontrol, networking::v1 as networking, node::v1 as node, policy::v1 as policy,
    rbac::v1 as rbac, resource::v1 as resource, scheduling::v1 as scheduling, storage::v1 as storage,
    storagemigration::v1 as storagemigration,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;

/// The kinds of `kubectl get all`.
const ALL: &[&str] = &["all"];
/// What extends the API server itself.
const API_EXTENSIONS: &[&str] = &["api-extensions"];

/// Every row.
pub fn all() -> Vec<Kind> {
    let rows = vec![
        // core
        review::<core::Binding>("bindings"),
        // Made when it is asked for, see `apiserver::component_status`.
        row::<core::ComponentStatus>("componentstatuses")
            .short(&["cs"])
            .verbs(&["get", "list"])
            .strategy(component_status::strategy()),
        row::<core::ConfigMap>("configmaps")
            .short(&["cm"])
            .strategy(config_map::strategy()),
        row::<core::Endpoints>("endpoints")
            .short(&["ep"])
            .strategy(endpoints::endpoints()),
        row::<core::Event>("events").short(&["ev"]).strategy(event::CoreEvents),
        row::<core::LimitRange>("limitranges")
            .strategy(quota::limit_range())
            .short(&["limits"]),
        row::<core::Namespace>("namespaces")
            .short(&["ns"])
            .verbs(&["create", "delete", "get", "list", "patch", "update", "watch"])
            .writes("finalize", &["update"])
            .status()
            .strategy(strategies::namespace::NamespaceStrategy),
        row::<core::Node>("nodes")
            .short(&["no"])
            .proxies("NodeProxyOptions")
            .status()
            .strategy(strategies::node::NodeStrategy),
        row::<core::PersistentVolumeClaim>("persistentvolumeclaims")
            .strategy(volumes::persistent_volume_claim())
            .short(&["pvc"])
            .status(),
        row::<core::PersistentVolume>("persistentvolumes")
            .strategy(volumes::persistent_volume())
            .short(&["pv"])
            .status(),
        row::<core::Pod>("pods")
            .strategy(strategies::pod::PodStrategy)
            .short(&["po"])
            .categories(ALL)
            .streams("attach", "PodAttachOptions")
            .creates::<core::Binding>("binding")
            .writable("ephemeralcontainers")
            .creates::<policy::Eviction>("eviction")
            .streams("exec", "PodExecOptions")
            .writes("log", &["get"])
            .streams("portforward", "PodPortForwardOptions")
            .proxies("PodProxyOptions")
            .writable("resize")
            .status(),
        row::<core::PodTemplate>("podtemplates").strategy(workloads::pod_template()),
        row::<core::ReplicationController>("replicationcontrollers")
            .strategy(workloads::replication_controller())
            .short(&["rc"])
            .categories(ALL)
            .scales()
            .status(),
        row::<core::ResourceQuota>("resourcequotas")
            .strategy(quota::resource_quota())
            .short(&["quota"])
            .status(),
        row::<core::Secret>("secrets").strategy(secret::strategy()),
        row::<core::ServiceAccount>("serviceaccounts")
            .short(&["sa"])
            .creates::<authentication::TokenRequest>("token")
            .strategy(Stored::new(core_columns::SERVICE_ACCOUNT).returns_deleted()),
        row::<core::Service>("services")
            .strategy(strategies::service::ServiceStrategy)
            .short(&["svc"])
            .categories(ALL)
            .proxies("ServiceProxyOptions")
            .status(),
        // apiregistration.k8s.io: the aggregator's own
        row::<apiregistration::APIService>("apiservices.apiregistration.k8s.io")
            .strategy(strategies::api_service::ApiServiceStrategy)
            .categories(API_EXTENSIONS)
            .status(),
        // apps
        row::<apps::ControllerRevision>("controllerrevisions.apps").strategy(workloads::controller_revision()),
        row::<apps::DaemonSet>("daemonsets.apps")
            .strategy(workloads::daemon_set())
            .short(&["ds"])
            .categories(ALL)
            .status(),
        row::<apps::Deployment>("deployments.apps")
            .strategy(workloads::deployment())
            .short(&["deploy"])
            .categories(ALL)
            .scales()
            .status(),
        row::<apps::ReplicaSet>("replicasets.apps")
            .strategy(workloads::replica_set())
            .short(&["rs"])
            .categories(ALL)
            .scales()
            .status(),
        row::<apps::StatefulSet>("statefulsets.apps")
            .strategy(strategies::stateful_set::stateful_set())
            .short(&["sts"])
            .categories(ALL)
            .scales()
            .status(),
        // events.k8s.io: the same objects as core's events
        row::<events::Event>("events")
            .short(&["ev"])
            .stored_in("v1")
            .strategy(event::EventsV1),
        // authentication.k8s.io, authorization.k8s.io
        review::<authentication::SelfSubjectReview>("selfsubjectreviews.authentication.k8s.io"),
        review::<authentication::TokenReview>("tokenreviews.authentication.k8s.io"),
        review::<authorization::LocalSubjectAccessReview>("localsubjectaccessreviews.authorization.k8s.io"),
        review::<authorization::SelfSubjectAccessReview>("selfsubjectaccessreviews.authorization.k8s.io"),
        review::<authorization::SelfSubjectRulesReview>("selfsubjectrulesreviews.authorization.k8s.io"),
        review::<authorization::SubjectAccessReview>("subjectaccessreviews.authorization.k8s.io"),
        // autoscaling
        row::<autoscaling::v2::HorizontalPodAutoscaler>("horizontalpodautoscalers.autoscaling")
            .strategy(cluster::horizontal_pod_autoscaler())
            .short(&["hpa"])
            .categories(ALL)
            .status(),
        row::<autoscaling::v1::HorizontalPodAutoscaler>("horizontalpodautoscalers.autoscaling")
            .stored_in("autoscaling/v2")
            .strategy(autoscaler_conversion::strategy())
            .short(&["hpa"])
            .categories(ALL)
            .status(),
        // batch
        row::<batch::CronJob>("cronjobs.batch")
            .strategy(batch_strategies::cron_job())
            .short(&["cj"])
            .categories(ALL)
            .status(),
        row::<batch::Job>("jobs.batch")
            .strategy(batch_strategies::JobStrategy)
            .categories(ALL)
            .status(),
        // certificates.k8s.io
        row::<certificates::CertificateSigningRequest>("certificatesigningrequests.certificates.k8s.io")
            .strategy(certificate_strategies::SigningRequestStrategy)
            .short(&["csr"])
            .writable("approval")
            .status(),
        row::<certificates::ClusterTrustBundle>("clustertrustbundles.certificates.k8s.io")
            .strategy(certificate_strategies::cluster_trust_bundle()),
        row::<certificates::PodCertificateRequest>("podcertificaterequests.certificates.k8s.io")
            .strategy(certificate_strategies::pod_certificate_request())
            .status(),
        // networking.k8s.io
        row::<networking::IngressClass>("ingressclasses.networking.k8s.io").strategy(cluster::ingress_class()),
        row::<networking::Ingress>("ingresses.networking.k8s.io")
            .strategy(cluster::ingress())
            .short(&["ing"])
            .status(),
        row::<networking::IPAddress>("ipaddresses.networking.k8s.io")
            .strategy(cluster::ip_address())
            .short(&["ip"]),
        row::<networking::NetworkPolicy>("networkpolicies.networking.k8s.io")
            .strategy(cluster::network_policy())
            .short(&["netpol"]),
        row::<networking::ServiceCIDR>("servicecidrs.networking.k8s.io")
            .strategy(cluster::service_cidr())
            .status(),
        // policy
        row::<policy::PodDisruptionBudget>("poddisruptionbudgets.policy")
            .strategy(cluster::pod_disruption_budget())
            .short(&["pdb"])
            .status(),
        // rbac.authorization.k8s.io
        row::<rbac::ClusterRoleBinding>("clusterrolebindings.rbac.authorization.k8s.io")
            .strategy(access::cluster_role_binding()),
        row::<rbac::ClusterRole>("clusterroles.rbac.authorization.k8s.io").strategy(access::cluster_role()),
        row::<rbac::RoleBinding>("rolebindings.rbac.authorization.k8s.io").strategy(access::role_binding()),
        row::<rbac::Role>("roles.rbac.authorization.k8s.io").strategy(access::role()),
        // storage.k8s.io
        row::<storage::CSIDriver>("csidrivers.storage.k8s.io").strategy(storage_rules::csi_driver()),
        row::<storage::CSINode>("csinodes.storage.k8s.io").strategy(storage_rules::csi_node()),
        row::<storage::CSIStorageCapacity>("csistoragecapacities.storage.k8s.io")
            .strategy(storage_rules::csi_storage_capacity()),
        row::<storage::StorageClass>("storageclasses.storage.k8s.io")
            .strategy(storage_rules::storage_class())
            .short(&["sc"]),
        row::<storage::VolumeAttachment>("volumeattachments.storage.k8s.io")
            .strategy(storage_rules::volume_attachment())
            .status(),
        row::<storage::VolumeAttributesClass>("volumeattributesclasses.storage.k8s.io")
            .strategy(storage_rules::volume_attributes_class())
            .short(&["vac"]),
        // admissionregistration.k8s.io
        row::<admissionregistration::MutatingAdmissionPolicy>("mutatingadmissionpolicies.admissionregistration.k8s.io")
            .strategy(policies::mutating_policy())
            .categories(API_EXTENSIONS),
        row::<admissionregistration::MutatingAdmissionPolicyBinding>(
            "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
        )
        .strategy(policies::mutating_binding())
        .categories(API_EXTENSIONS),
        row::<admissionregistration::MutatingWebhookConfiguration>(
            "mutatingwebhookconfigurations.admissionregistration.k8s.io",
        )
        .strategy(webhooks::configuration())
        .categories(API_EXTENSIONS),
        row::<admissionregistration::ValidatingAdmissionPolicy>(
            "validatingadmissionpolicies.admissionregistration.k8s.io",
        )
        .strategy(policies::validating_policy())
        .categories(API_EXTENSIONS)
        .status(),
        row::<admissionregistration::ValidatingAdmissionPolicyBinding>(
            "validatingadmissionpolicybindings.admissionregistration.k8s.io",
        )
        .strategy(policies::validating_binding())
        .categories(API_EXTENSIONS),
        row::<admissionregistration::ValidatingWebhookConfiguration>(
            "validatingwebhookconfigurations.admissionregistration.k8s.io",
        )
        .strategy(webhooks::configuration())
        .categories(API_EXTENSIONS),
        // apiextensions.k8s.io
        row::<apiextensions::CustomResourceDefinition>("customresourcedefinitions.apiextensions.k8s.io")
            .strategy(strategies::definition::DefinitionStrategy)
            .short(&["crd", "crds"])
            .categories(API_EXTENSIONS)
            .status(),
        // scheduling.k8s.io
        row::<scheduling::PriorityClass>("priorityclasses.scheduling.k8s.io")
            .strategy(cluster::priority_class())
            .short(&["pc"]),
        // coordination.k8s.io
        row::<coordination::Lease>("leases.coordination.k8s.io").strategy(lease::strategy()),
        // node.k8s.io
        row::<node::RuntimeClass>("runtimeclasses.node.k8s.io").strategy(cluster::runtime_class()),
        // discovery.k8s.io
        row::<discovery::EndpointSlice>("endpointslices.discovery.k8s.io").strategy(endpoints::endpoint_slice()),
        // flowcontrol.apiserver.k8s.io
        row::<flowcontrol::FlowSchema>("flowschemas.flowcontrol.apiserver.k8s.io")
            .strategy(flow_control::flow_schema())
            .status(),
        row::<flowcontrol::PriorityLevelConfiguration>("prioritylevelconfigurations.flowcontrol.apiserver.k8s.io")
            .strategy(flow_control::priority_level())
            .status(),
        // resource.k8s.io
        row::<resource::DeviceClass>("deviceclasses.resource.k8s.io").strategy(cluster::device_class()),
        row::<resource::DeviceTaintRule>("devicetaintrules.resource.k8s.io")
            .strategy(device_taint_rule::strategy())
            .status(),
        row::<resource::ResourceClaim>("resourceclaims.resource.k8s.io")
            .strategy(cluster::resource_claim())
            .status(),
        row::<resource::ResourceClaimTemplate>("resourceclaimtemplates.resource.k8s.io")
            .strategy(cluster::resource_claim_template()),
        row::<resource::ResourceSlice>("resourceslices.resource.k8s.io").strategy(cluster::resource_slice()),
        // storagemigration.k8s.io
        row::<storagemigration::StorageVersionMigration>("storageversionmigrations.storagemigration.k8s.io")
            .strategy(storage_migration::strategy())
            .status(),
        // metrics.k8s.io, made when it is asked for, see `apiserver::resource_metrics`; metrics-server names no singular.
        row::<resource_metrics::NodeMetrics>("nodes.metrics.k8s.io")
            .singular("")
            .verbs(&["get", "list"])
            .strategy(resource_metrics::node_strategy()),
        row::<resource_metrics::PodMetrics>("pods.metrics.k8s.io")
            .singular("")
            .verbs(&["get", "list"])
            .strategy(resource_metrics::pod_strategy()),
    ];
    rows.into_iter().map(Kind::from).collect()
}
