//! Kinds that come from CustomResourceDefinitions (upstream: `kubernetes/apiextensions-apiserver`).
//!
//! - [`versions`]: which version of a group is preferred.

mod versions;

pub use versions::compare_versions;

/// What a custom kind's row has beyond a built-in one's.
#[derive(Debug, Default)]
pub struct CustomKind {
    /// The version can be asked for. The stored version has a row also if it cannot.
    pub served: bool,
    /// The scale subresource, if there is one.
    pub scale: Option<ScalePaths>,
}

/// Where the numbers of the scale subresource stand: simple JSON paths, `.spec.replicas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub label_selector: Option<String>,
}
