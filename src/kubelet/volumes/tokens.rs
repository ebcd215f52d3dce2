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
/// Upstream's `maxJitter`: tokens of one time are not all asked for anew at one time.
const JITTER_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    pod_uid: String,
    audience: Option<String>,
    seconds: i64,
}

#[derive(Clone)]
struct Token {
    text: Vec<u8>,
    issued_at: SystemTime,
    renew_at: SystemTime,
    expires_at: SystemTime,
}

impl Token {
    /// Most of its time is over, or the clock was set back to before it.
    fn is_due(&self, now: SystemTime) -> bool {
        self.renew_at <= now || now < self.issued_at
    }
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
            audience: source.audience.clone().filter(|audience| !audience.is_empty()),
            seconds: source.expiration_seconds.unwrap_or(3600),
        };
        let held = self.0.lock().get(&key).cloned();
        let now = SystemTime::now();
        if let Some(held) = held.as_ref().filter(|held| !held.is_due(now)) {
            return Ok(held.text.clone());
        }
        match request(pod, &key, client, now).await {
            Ok(token) => {
                let text = token.text.clone();
                self.0.lock().insert(key, token);
                Ok(text)
            }
            Err(error) => match held {
                Some(held) if held.expires_at > now => {
                    tracing::warn!(pod = pod::full_name(pod), %error, "A token could not be renewed; the old one is still good");
                    Ok(held.text)
                }
                Some(_) => Err(SetUpError::TokenExpired {
                    token: key.shown(pod),
                    reason: error.to_string(),
                }),
                None => Err(SetUpError::TokenFetch(error.to_string())),
            },
        }
    }

    /// Whether one of the pod's is to be renewed.
    pub fn are_due(&self, pod_uid: &str, now: SystemTime) -> bool {
        let held = self.0.lock();
        held.iter()
            .any(|(key, token)| key.pod_uid == pod_uid && token.is_due(now))
    }

    pub fn forget(&self, pod_uid: &str) {
        self.0.lock().retain(|key, _| key.pod_uid != pod_uid);
    }
}

fn account(pod: &Pod) -> &str {
    let name = pod::spec(pod).service_account_name.as_deref();
    name.filter(|name| !name.is_empty()).unwrap_or("default")
}

impl Key {
    /// As upstream's errors name a token (`keyFunc`), in Go's syntax.
    fn shown(&self, pod: &Pod) -> String {
        let audiences = match &self.audience {
            Some(audience) => format!("[]string{{{audience:?}}}"),
            None => "[]string(nil)".to_owned(),
        };
        let reference = format!(
            "v1.BoundObjectReference{{Kind:\"Pod\", APIVersion:\"v1\", Name:{:?}, UID:{:?}}}",
            pod::name(pod),
            self.pod_uid
        );
        let (account, namespace) = (account(pod), pod::namespace(pod));
        format!("{account:?}/{namespace:?}/{audiences}/{}/{reference}", self.seconds)
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("{}", told(.0))]
    Refused(#[source] Box<kube::Error>),
    #[error("the answer holds no token")]
    NoToken,
}

/// What the API server says, without the words around it.
fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

async fn request(pod: &Pod, key: &Key, client: &kube::Client, now: SystemTime) -> Result<Token, RequestError> {
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
    let request = accounts.create_token_request(account(pod), &parameters, &request);
    let answer = request
        .await
        .map_err(|source| RequestError::Refused(Box::new(source)))?;
    let status = answer.status.unwrap_or_default();
    let text = status.token.filter(|token| !token.is_empty());
    let text = text.ok_or(RequestError::NoToken)?.into_bytes();
    let asked = now + Duration::from_secs(u64::try_from(key.seconds).unwrap_or(0));
    let expires_at = status.expiration_timestamp.map_or(asked, |time| time.0.into());
    Ok(Token {
        text,
        issued_at: expires_at.min(now),
        renew_at: renewal(now, expires_at, JITTER_MAX.mul_f64(rand::random())),
        expires_at,
    })
}

/// When four fifths of its time are over, and after a day at the latest; a little before that.
fn renewal(issued: SystemTime, expires: SystemTime, jitter: Duration) -> SystemTime {
    let life = expires.duration_since(issued).unwrap_or_default();
    issued + (life * 4 / 5).min(AGE_MAX).saturating_sub(jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_in_time() {
        let issued = SystemTime::UNIX_EPOCH;
        for (life, jitter, renewed) in [
            (3600, 0, 2880),
            (3600, 10, 2870),
            (600, 0, 480),
            (7 * 86_400, 0, 86_400),
            (7 * 86_400, 10, 86_390),
            (0, 10, 0),
        ] {
            let expires = issued + Duration::from_secs(life);
            assert_eq!(
                renewal(issued, expires, Duration::from_secs(jitter)),
                issued + Duration::from_secs(renewed),
                "{life}"
            );
        }
    }

    #[test]
    fn tokens_are_named_as_in_go() {
        let pod =
            serde_json::json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": {"containers": []}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let key = |audience: Option<&str>| Key {
            pod_uid: "u".to_owned(),
            audience: audience.map(str::to_owned),
            seconds: 3607,
        };
        let reference = r#"3607/v1.BoundObjectReference{Kind:"Pod", APIVersion:"v1", Name:"p", UID:"u"}"#;
        for (audience, shown) in [(None, "[]string(nil)"), (Some("a"), r#"[]string{"a"}"#)] {
            let expected = format!(r#""default"/"ns"/{shown}/{reference}"#);
            assert_eq!(key(audience).shown(&pod), expected);
        }
    }

    #[test]
    fn what_is_due_is_the_pods_own() {
        let now = SystemTime::now();
        let tokens = Tokens::default();
        let second = Duration::from_secs(1);
        for (pod, issued_at, renew_at) in [
            ("old", now - 2 * second, now - second),
            ("new", now - second, now + AGE_MAX),
            ("of the future", now + second, now + AGE_MAX),
        ] {
            let key = Key {
                pod_uid: pod.to_owned(),
                audience: None,
                seconds: 3600,
            };
            let token = Token {
                text: Vec::new(),
                issued_at,
                renew_at,
                expires_at: now + AGE_MAX,
            };
            tokens.0.lock().insert(key, token);
        }
        assert!(tokens.are_due("old", now) && !tokens.are_due("new", now));
        assert!(tokens.are_due("of the future", now), "the clock was set back");
        tokens.forget("old");
        assert!(!tokens.are_due("old", now));
    }
}
