//! Who converts custom resources between their versions (upstream: `apiextensions-apiserver/pkg/apiserver/conversion`).
//! The exchange itself is the API server's.

use crate::registry::client_config::ClientConfig;
use crate::registry::strategy::Object;
use serde::Deserialize;

/// A webhook that is asked.
#[derive(Debug, PartialEq, Eq)]
pub struct WebhookConversion {
    pub client: ClientConfig,
    /// Of ConversionReview, the first of those that the webhook knows which is known here, too.
    pub review_version: Option<&'static str>,
}

/// `spec.conversion` of a definition.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Conversion {
    strategy: String,
    webhook: Webhook,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Webhook {
    client_config: Object,
    conversion_review_versions: Vec<String>,
}

impl Conversion {
    /// None: versions differ by their names only.
    pub fn webhook(&self) -> Option<WebhookConversion> {
        if self.strategy != "Webhook" {
            return None;
        }
        let mut versions = self.webhook.conversion_review_versions.iter();
        let known = versions.find_map(|version| match version.as_str() {
            "v1" => Some("apiextensions.k8s.io/v1"),
            "v1beta1" => Some("apiextensions.k8s.io/v1beta1"),
            _ => None,
        });
        Some(WebhookConversion {
            client: ClientConfig::of(&self.webhook.client_config),
            review_version: known,
        })
    }
}
