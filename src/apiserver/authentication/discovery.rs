//! How others check our tokens: OpenID discovery and the keys (upstream: `pkg/serviceaccount/openidmetadata.go`).

use super::jwt::ALGORITHM;
use super::service_accounts::TokenAuthority;
use poem::Response;
use poem::http::header;
use serde_json::{Value, json};

/// Below the server's address.
pub const KEYS_PATH: &str = "/openid/v1/jwks";
const CACHED: &str = "public, max-age=3600";

pub fn configuration(authority: &TokenAuthority) -> Response {
    let document = json!({
        "issuer": authority.issuer(),
        "jwks_uri": authority.keys_url(),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
    });
    answer("application/json", &document)
}

pub fn keys(authority: &TokenAuthority) -> Response {
    answer("application/jwk-set+json", &json!({ "keys": [authority.key().jwk()] }))
}

fn answer(content_type: &'static str, document: &Value) -> Response {
    Response::builder()
        .content_type(content_type)
        .header(header::CACHE_CONTROL, CACHED)
        .body(document.to_string())
}
