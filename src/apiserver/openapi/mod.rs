//! The OpenAPI documents of the API (upstream: `kube-openapi`, `apiserver/pkg/server/routes/openapi.go`).
//!
//! They are made from the table of kinds through poem-openapi, when a client first asks:
//!
//! 1. [`operations`] and [`parameters`]: every route and what its operations take and give.
//! 2. [`schemas`]: k8s-openapi's schemas, as poem-openapi has them.
//! 3. [`table`]: both as a poem-openapi API, which writes one document.
//! 4. [`decorate`]: Kubernetes' extensions and texts, which poem-openapi cannot express.
//! 5. [`documents`]: cut by group-version for `/openapi/v3`; [`swagger`] and [`gnostic`] for `/openapi/v2`.
//! 6. [`custom`]: what is said of custom resources; [`published`]: all documents together, by their hashes.
//! 7. [`merged`]: what the servers of other groups say of them.
//! 8. [`endpoint`] and [`docs`]: what HTTP clients and readers get.

mod custom;
mod decorate;
mod defaults;
mod docs;
mod documents;
mod endpoint;
mod gnostic;
mod merged;
mod operations;
mod parameters;
mod published;
mod schemas;
mod swagger;
mod table;
#[cfg(test)]
mod tests;

pub use documents::{Document, OpenApiDocuments, OpenApiError};
pub use endpoint::serve;
pub use merged::Extensions;
