//! The labels that tell who keeps Endpoints and their slices, and the names of our own controllers there (upstream:
//! `pkg/controller/endpoint`, `endpointslice`, `endpointslicemirroring`). A leaf: the controllers write them, and the
//! API server trusts what they write.

pub const ENDPOINTS: &str = "endpoints.kubernetes.io/managed-by";
/// The value of [`ENDPOINTS`] on those made from a Service's pods.
pub const ENDPOINT_CONTROLLER: &str = "endpoint-controller";

pub const ENDPOINT_SLICES: &str = "endpointslice.kubernetes.io/managed-by";
/// The value of [`ENDPOINT_SLICES`] on slices made from a Service's pods.
pub const ENDPOINT_SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// The value of [`ENDPOINT_SLICES`] on slices that mirror Endpoints.
pub const ENDPOINT_SLICE_MIRRORING_CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
