//! How a webhook is reached, as configurations and definitions say it (upstream: `WebhookClientConfig`,
//! `apiserver/pkg/util/webhook.ClientConfig`).

use super::json::{integer, map, text};
use super::strategy::Object;
use base64::Engine as _;
use std::sync::Arc;

const PORT: u16 = 443;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    pub target: Target,
    /// Whose certificates are believed, in PEM.
    pub authorities: Arc<[u8]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Url(String),
    Service {
        namespace: String,
        name: String,
        port: u16,
        path: String,
    },
}

impl ClientConfig {
    /// `clientConfig` of anything that has one.
    pub fn of(config: &Object) -> Self {
        let target = match map(config, &["service"]) {
            Some(service) => Target::Service {
                namespace: text(service, &["namespace"]).to_owned(),
                name: text(service, &["name"]).to_owned(),
                port: integer(service, &["port"])
                    .and_then(|port| u16::try_from(port).ok())
                    .unwrap_or(PORT),
                path: text(service, &["path"]).to_owned(),
            },
            None => Target::Url(text(config, &["url"]).to_owned()),
        };
        let bundle = base64::engine::general_purpose::STANDARD.decode(text(config, &["caBundle"]));
        Self {
            target,
            authorities: bundle.unwrap_or_default().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(config: Value) -> ClientConfig {
        ClientConfig::of(config.as_object().unwrap())
    }

    #[test]
    fn a_service_has_its_default_port() {
        let config = read(json!({"service": {"namespace": "a", "name": "b", "path": "/c"}, "caBundle": "UEVN"}));
        let target = Target::Service {
            namespace: "a".to_owned(),
            name: "b".to_owned(),
            port: 443,
            path: "/c".to_owned(),
        };
        assert_eq!((config.target, &*config.authorities), (target, &b"PEM"[..]));
        let config = read(json!({"url": "https://host/path"}));
        assert_eq!(config.target, Target::Url("https://host/path".to_owned()));
        assert!(config.authorities.is_empty());
    }
}
