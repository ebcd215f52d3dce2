//! Tokens of pods' service accounts: asked for when there is none, and anew when most of its time is over
//! (upstream: `pkg/kubelet/token/token_manager.go`).

use super::SetUpError;
use crate::kubelet::pod;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// Upstream's `maxTTL`: an older token is replaced however long it is good for.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    pod_uid: String,
    audience: Option<String>,
    seconds: i64,
}

#[derive(Clone)]
struct Token {
    text: Vec<u8>,
    renew_at: SystemTime,
    expires_at: SystemTime,
}

/// Those of this node's pods, by what their volumes ask for.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<Key, Token>>);

impl Tokens {
    /// The one that is held as long as it is young enough; an older one that cannot be had anew yet, while it is good.
    pub async fn get(
        &self,
        pod: &Pod,
        source: &ServiceAccountTokenProjection,
        client: &kube::Client,
    ) -> Result<Vec<u8>, SetUpError> {
        let key = Key {
            pod_uid: pod::uid(pod).to_owned(),
            audience: source.audience.clone(),
            seconds: source.expiration_seconds.unwrap_or(3600),
        };
        let held = self.0.lock().get(&key).cloned();
        let now = SystemTime::now();
        if let Some(held) = held.as_ref().filter(|held| held.renew_at > now) {
            return Ok(held.text.clone());
        }
        match request(pod, &key, client, now).await {
            Ok(token) => {
                let text = token.text.clone();
                self.0.lock().insert(key, token);
                Ok(text)
            }
            Err(error) => match held.filter(|held| held.expires_at > now) {
                Some(held) => {
                    tracing::warn!(pod = pod::full_name(pod), %error, "A token could not be renewed; the old one is still good");
                    Ok(held.text)
                }
                None => Err(error),
            },
        }
    }

    /// Whether one of the pod's is to be renewed.
    pub fn are_due(&self, pod_uid: &str, now: SystemTime) -> bool {
        let held = self.0.lock();
        held.iter()
            .any(|(key, token)| key.pod_uid == pod_uid && token.renew_at <= now)
    }

    pub fn forget(&self, pod_uid: &str) {
        self.0.lock().retain(|key, _| key.pod_uid != pod_uid);
    }
}

async fn request(pod: &Pod, key: &Key, client: &kube::Client, now: SystemTime) -> Result<Token, SetUpError> {
    let account = pod::spec(pod)
        .service_account_name
        .as_deref()
        .filter(|name| !name.is_empty());
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), pod::namespace(pod));
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: key.audience.clone().map(|audience| vec![audience]),
            expiration_seconds: Some(key.seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod::name(pod).to_owned()),
                uid: Some(pod::uid(pod).to_owned()),
            }),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let parameters = PostParams::default();
    let request = accounts.create_token_request(account.unwrap_or("default"), &parameters, &request);
    let answer = request.await.map_err(|source| SetUpError::Token(Box::new(source)))?;
    let status = answer.status.unwrap_or_default();
    let text = status.token.filter(|token| !token.is_empty());
    let text = text.ok_or(SetUpError::NoToken)?.into_bytes();
    let asked = now + Duration::from_secs(u64::try_from(key.seconds).unwrap_or(0));
    let expires_at = status.expiration_timestamp.map_or(asked, |time| time.0.into());
    Ok(Token {
        text,
        renew_at: renewal(now, expires_at),
        expires_at,
    })
}

/// When four fifths of its time are over, and after a day at the latest.
fn renewal(issued: SystemTime, expires: SystemTime) -> SystemTime {
    let life = expires.duration_since(issued).unwrap_or_default();
    issued + (life * 4 / 5).min(AGE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_in_time() {
        let issued = SystemTime::UNIX_EPOCH;
        for (life, renewed) in [(3600, 2880), (600, 480), (7 * 86_400, 86_400), (0, 0)] {
            let expires = issued + Duration::from_secs(life);
            assert_eq!(
                renewal(issued, expires),
                issued + Duration::from_secs(renewed),
                "{life}"
            );
        }
    }

    #[test]
    fn what_is_due_is_the_pods_own() {
        let now = SystemTime::now();
        let tokens = Tokens::default();
        for (pod, renew_at) in [("old", now - Duration::from_secs(1)), ("new", now + AGE_MAX)] {
            let key = Key {
                pod_uid: pod.to_owned(),
                audience: None,
                seconds: 3600,
            };
            let token = Token {
                text: Vec::new(),
                renew_at,
                expires_at: now + AGE_MAX,
            };
            tokens.0.lock().insert(key, token);
        }
        assert!(tokens.are_due("old", now) && !tokens.are_due("new", now));
        tokens.forget("old");
        assert!(!tokens.are_due("old", now));
    }
}
