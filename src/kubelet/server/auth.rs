//! Who may call the kubelet: whoever the API server knows and lets (upstream: `pkg/kubelet/server/auth.go`,
//! `cmd/kubelet/app/auth.go`). Client certificates of the cluster's authority and bearer tokens name callers; each
//! subresource of the node that a path stands for is asked about. Anonymous callers are refused.

use super::error::ServerError;
use super::route::{subresources, verb};
use crate::transport::Peer;
use async_trait::async_trait;
use http::header::AUTHORIZATION;
use http::{Method, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use poem::Request;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// May do everything, by a rule of the API server that does not change: it need not be asked.
const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";

/// How long answers hold: upstream's `authentication.webhook.cacheTTL` and its counterparts of authorization.
const TOKEN_TTL: Duration = Duration::from_secs(120);
const ALLOWED_TTL: Duration = Duration::from_secs(300);
const DENIED_TTL: Duration = Duration::from_secs(30);
/// Answers that are remembered.
const REMEMBERED_MAX: usize = 1024;

/// A caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What somebody wants to do with a subresource of the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wish {
    pub verb: &'static str,
    pub subresource: &'static str,
    pub node: String,
}

/// Knows tokens and permissions.
#[async_trait]
pub trait Access: Send + Sync + 'static {
    /// The owner of a bearer token; None if it is not valid.
    async fn authenticate(&self, token: &str) -> Result<Option<User>, String>;
    async fn allows(&self, user: &User, wish: &Wish) -> Result<bool, String>;
}

/// When it was asked about, and whose it is: None if nobody's.
type KnownToken = (Instant, Option<User>);

/// Asks the API server, and remembers its answers.
pub struct ApiAccess {
    tokens: Api<TokenReview>,
    permissions: Api<SubjectAccessReview>,
    known_tokens: Mutex<HashMap<[u8; 32], KnownToken>>,
    known_permissions: Mutex<HashMap<(User, Wish), (Instant, bool)>>,
}

impl ApiAccess {
    pub fn new(client: kube::Client) -> ApiAccess {
        ApiAccess {
            tokens: Api::all(client.clone()),
            permissions: Api::all(client),
            known_tokens: Mutex::default(),
            known_permissions: Mutex::default(),
        }
    }
}

/// Keeps an answer until a time; what is outdated goes, and if that is not enough, all of it.
fn remember<K: Eq + Hash, V>(known: &Mutex<HashMap<K, (Instant, V)>>, key: K, value: V, ttl: Duration) {
    let (mut known, now) = (known.lock(), Instant::now());
    if known.len() >= REMEMBERED_MAX {
        known.retain(|_, (until, _)| *until > now);
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
    }
    known.insert(key, (now + ttl, value));
}

fn recall<K: Eq + Hash, V: Clone>(known: &Mutex<HashMap<K, (Instant, V)>>, key: &K) -> Option<V> {
    let known = known.lock();
    let (until, value) = known.get(key)?;
    (*until > Instant::now()).then(|| value.clone())
}

#[async_trait]
impl Access for ApiAccess {
    async fn authenticate(&self, token: &str) -> Result<Option<User>, String> {
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(user) = recall(&self.known_tokens, &key) {
            return Ok(user);
        }
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: None,
            },
            ..TokenReview::default()
        };
        let answer = self.tokens.create(&PostParams::default(), &review).await;
        let status = answer.map_err(|error| error.to_string())?.status.unwrap_or_default();
        let user = status
            .user
            .filter(|_| status.authenticated == Some(true))
            .map(|user| User {
                name: user.username.unwrap_or_default(),
                uid: user.uid.unwrap_or_default(),
                groups: user.groups.unwrap_or_default(),
                extra: user.extra.unwrap_or_default(),
            });
        remember(&self.known_tokens, key, user.clone(), TOKEN_TTL);
        Ok(user)
    }

    async fn allows(&self, user: &User, wish: &Wish) -> Result<bool, String> {
        let key = (user.clone(), wish.clone());
        if let Some(allowed) = recall(&self.known_permissions, &key) {
            return Ok(allowed);
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: Some(user.uid.clone()),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(wish.verb.to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(wish.subresource.to_owned()),
                    name: Some(wish.node.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = self.permissions.create(&PostParams::default(), &review).await;
        let allowed = answer
            .map_err(|error| error.to_string())?
            .status
            .is_some_and(|status| status.allowed);
        let ttl = if allowed { ALLOWED_TTL } else { DENIED_TTL };
        remember(&self.known_permissions, key, allowed, ttl);
        Ok(allowed)
    }
}

/// What of a request says who calls and what for.
pub struct Caller {
    peer: Option<Peer>,
    token: Option<String>,
    method: Method,
    path: String,
}

impl Caller {
    pub fn of(request: &Request) -> Caller {
        let header = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| {
            let (scheme, token) = value.trim().split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        });
        Caller {
            peer: request.extensions().get::<Peer>().cloned(),
            token: token.filter(|token| !token.is_empty()),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
        }
    }

    async fn user(&self, access: &dyn Access) -> Result<User, ServerError> {
        let unauthorized = || ServerError::new(StatusCode::UNAUTHORIZED, "Unauthorized");
        match (&self.peer, &self.token) {
            (Some(Peer::Certificate(certificate)), _) => {
                let mut groups = certificate.organizations.clone();
                groups.push(AUTHENTICATED.to_owned());
                Ok(User {
                    name: certificate.common_name.clone(),
                    uid: certificate.uid.clone(),
                    groups,
                    extra: BTreeMap::new(),
                })
            }
            // Plain HTTP is not served here, and a peer on loopback is no reason for trust.
            (Some(Peer::Anonymous), Some(token)) => match access.authenticate(token).await {
                Ok(user) => user.ok_or_else(unauthorized),
                Err(error) => {
                    tracing::warn!(error, "The API server could not be asked whose token it is");
                    Err(unauthorized())
                }
            },
            _ => Err(unauthorized()),
        }
    }

    /// Allows the request or says why not.
    pub async fn authorize(&self, access: &dyn Access, node: &str) -> Result<(), ServerError> {
        let user = self.user(access).await?;
        if user.groups.iter().any(|group| group == MASTERS) {
            return Ok(());
        }
        let (verb, asked) = (verb(&self.method), subresources(&self.path));
        let text = |what: &str| {
            let (name, list) = (&user.name, asked.join(" "));
            format!("{what} (user={name}, verb={verb}, resource=nodes, subresource(s)=[{list}])")
        };
        for subresource in asked {
            let wish = Wish {
                verb,
                subresource,
                node: node.to_owned(),
            };
            match access.allows(&user, &wish).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(
                        user = user.name,
                        error,
                        "The API server could not be asked for a permission"
                    );
                    let text = text("Authorization error");
                    return Err(ServerError::new(StatusCode::INTERNAL_SERVER_ERROR, text));
                }
            }
        }
        Err(ServerError::new(StatusCode::FORBIDDEN, text("Forbidden")))
    }
}
