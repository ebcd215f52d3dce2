//! What goes over the wire: media types, bodies in, answers out
//! (upstream: `apiserver/pkg/endpoints/handlers/negotiation`, `apimachinery/pkg/runtime/serializer`).

pub mod protobuf;
