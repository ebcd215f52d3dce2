//! The filters around every request (upstream: `DefaultBuildHandlerChain`).

pub mod authentication;
pub mod authorization;
