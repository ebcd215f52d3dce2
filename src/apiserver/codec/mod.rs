//! What goes over the wire: media types, bodies in, answers out
//! (upstream: `apiserver/pkg/endpoints/handlers/negotiation`, `…/responsewriters`, `…/response.go`).
//!
//! - [`accept`]: which form of answer the client wants.
//! - [`body`]: reads and decodes request bodies.
//! - [`depth`]: how deep bodies may nest.
//! - [`yaml`]: YAML in and out.
//! - [`protobuf`]: protobuf in and out.
//! - [`respond`]: bytes to a response: pretty-printing, YAML, gzip; failures in the form that was asked for.
//! - [`shared`]: what many readers get is encoded once.
//! - [`stored`]: stored bytes in the version of the URL.
//! - [`table`] and [`partial`]: the server-side transforms.

pub mod accept;
pub mod body;
pub mod depth;
pub mod partial;
pub mod protobuf;
pub mod respond;
pub mod shared;
pub mod stored;
pub mod table;
pub mod yaml;
