//! Tokens: issued to service accounts, kept in a file, and known again
//! (upstream: `pkg/serviceaccount`, `apiserver/pkg/authentication/token`). The filter that asks them is
//! [`crate::apiserver::filters::authentication`].
//!
//! - [`jwt`]: the signing key and signed tokens.
//! - [`service_accounts`]: what tokens of service accounts say, and until when they hold.
//! - [`token_file`]: fixed tokens.
//! - [`request_header`]: users that a front proxy has signed in.
//! - [`discovery`]: how others check our tokens.

pub mod discovery;
pub mod jwt;
pub mod request_header;
pub mod service_accounts;
pub mod token_file;

use crate::apiserver::request::User;

/// What a token was taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUser {
    pub user: User,
    /// For whom the token is meant, of those that were asked for; empty where tokens name nobody.
    pub audiences: Vec<String>,
}
