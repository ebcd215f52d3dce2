//! Tokens of service accounts: what they say, and until when they hold
//! (upstream: `pkg/serviceaccount/{claims,jwt,legacy}.go`).
//!
//! A signature is checked once and remembered; whether the account and what the token is bound to are still there
//! is looked up in memory on every request.

use super::TokenUser;
use super::jwt::{self, KeyError, SigningKey};
use crate::apiserver::filters::impersonation::{account_groups, service_account};
use crate::apiserver::request::User;
use crate::registry::json::text;
use crate::registry::strategy::Object;
use crate::storage::{Entry, Storage};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;

/// Who signs, as tokens name it, where nothing else is configured.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// The type of Secrets that hold a token.
pub const SECRET_TYPE: &str = "kubernetes.io/service-account-token";
/// The label of a token in a Secret that was not used for long, and holds no longer.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// Clocks differ by so much.
const LEEWAY_SECONDS: i64 = 60;
/// So many checked signatures are remembered.
const REMEMBERED_MAX: usize = 4096;

/// What a token refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub uid: String,
}

/// The claims about the cluster's objects; fields in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectClaims {
    #[serde(default)]
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    #[serde(default)]
    pub serviceaccount: Reference,
    /// From then on the token should have been replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// The claims of a token; times are unix seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    #[serde(default, deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub aud: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat: Option<i64>,
    #[serde(default)]
    pub iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    #[serde(default, rename = "kubernetes.io")]
    pub objects: ObjectClaims,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    #[serde(default)]
    pub sub: String,
}

/// The claims of a token in a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct LegacyClaims {
    iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
    sub: String,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::deserialize(deserializer)? {
        Some(Audience::One(one)) => vec![one],
        Some(Audience::Many(many)) => many,
        None => Vec::new(),
    })
}

/// Signs tokens and knows them again.
pub struct TokenAuthority {
    key: SigningKey,
    issuer: String,
    keys_url: String,
    /// Audiences of the API server itself.
    audiences: Vec<String>,
    /// Digests of tokens whose signature was checked.
    checked: Mutex<HashMap<[u8; 32], Arc<Checked>>>,
}

enum Checked {
    Bound(Box<Claims>),
    Legacy(LegacyClaims),
}

impl TokenAuthority {
    /// `keys_url` is where others read the public key.
    pub fn new(key: SigningKey, keys_url: String) -> Self {
        Self {
            key,
            issuer: ISSUER.to_owned(),
            keys_url,
            audiences: vec![ISSUER.to_owned()],
            checked: Mutex::default(),
        }
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    pub fn keys_url(&self) -> &str {
        &self.keys_url
    }

    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Signs claims; issuer and id are put in.
    pub fn issue(&self, mut claims: Claims) -> Result<String, KeyError> {
        claims.iss.clone_from(&self.issuer);
        claims.jti = uuid::Uuid::new_v4().to_string();
        self.key.sign(&claims)
    }

    /// A token that holds as long as its Secret.
    pub fn issue_legacy(&self, namespace: &str, account: &Reference, secret: &str) -> Result<String, KeyError> {
        self.key.sign(&LegacyClaims {
            iss: LEGACY_ISSUER.to_owned(),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            account: account.name.clone(),
            uid: account.uid.clone(),
            sub: format!("system:serviceaccount:{namespace}:{}", account.name),
        })
    }

    /// Whose token it is. None: not one of ours; an error: it is, but it does not hold (any more).
    pub fn authenticate(
        &self,
        storage: &Storage,
        token: &str,
        audiences: &[String],
        now: i64,
    ) -> Option<Result<TokenUser, String>> {
        let checked = self.check(token)?;
        Some(match &*checked {
            Checked::Bound(claims) => self.bound(storage, claims, audiences, now),
            Checked::Legacy(claims) => self.legacy(storage, claims, token, audiences),
        })
    }

    /// The claims of a token that we signed.
    fn check(&self, token: &str) -> Option<Arc<Checked>> {
        #[derive(Deserialize)]
        struct Issuer {
            #[serde(default)]
            iss: String,
        }
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.checked.lock().get(&digest) {
            return Some(known.clone());
        }
        let issuer: Issuer = jwt::claims(token)?;
        if issuer.iss != self.issuer && issuer.iss != LEGACY_ISSUER || !self.key.signed(token) {
            return None;
        }
        let checked = Arc::new(if issuer.iss == LEGACY_ISSUER {
            Checked::Legacy(jwt::claims(token)?)
        } else {
            Checked::Bound(jwt::claims(token)?)
        });
        let mut known = self.checked.lock();
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(digest, checked.clone());
        Some(checked)
    }

    fn bound(&self, storage: &Storage, claims: &Claims, wanted: &[String], now: i64) -> Result<TokenUser, String> {
        let audiences: Vec<String> = wanted
            .iter()
            .filter(|audience| claims.aud.contains(audience))
            .cloned()
            .collect();
        if audiences.is_empty() {
            return Err(format!(
                "token audiences {} is invalid for the target audiences {}",
                go_list(&claims.aud),
                go_list(wanted)
            ));
        }
        if claims.exp.is_some_and(|expiry| now > expiry + LEEWAY_SECONDS) {
            return Err("service account token has expired".to_owned());
        }
        if claims.nbf.is_some_and(|start| now + LEEWAY_SECONDS < start) {
            return Err("service account token is not valid yet".to_owned());
        }
        if claims.iat.is_some_and(|issued| now + LEEWAY_SECONDS < issued) {
            return Err("service account token is issued in the future".to_owned());
        }
        let objects = &claims.objects;
        let namespace = objects.namespace.as_str();
        live_account(storage, namespace, &objects.serviceaccount, now)?;
        let invalidated = || "service account token has been invalidated".to_owned();
        if let Some(secret) = &objects.secret {
            live(storage, "secrets", namespace, secret, now).map_err(|found| match found {
                Some(uid) => format!(
                    "secret UID ({uid}) does not match service account secret ref claim ({})",
                    secret.uid
                ),
                None => invalidated(),
            })?;
        }
        if let Some(pod) = &objects.pod {
            live(storage, "pods", namespace, pod, now).map_err(|found| match found {
                Some(uid) => format!(
                    "pod UID ({uid}) does not match service account pod ref claim ({})",
                    pod.uid
                ),
                None => invalidated(),
            })?;
        }
        // The node of a pod's token goes with the pod; only a token of the node itself depends on it.
        if let Some(node) = objects.node.as_ref().filter(|_| objects.pod.is_none()) {
            live(storage, "nodes", "", node, now).map_err(|found| match found {
                Some(uid) => format!(
                    "node UID ({uid}) does not match service account node ref claim ({})",
                    node.uid
                ),
                None => invalidated(),
            })?;
        }
        let mut user = account_user(namespace, &objects.serviceaccount);
        let mut extra = |key: &str, value: &str| {
            if !value.is_empty() {
                let key = format!("authentication.kubernetes.io/{key}");
                user.extra.insert(key, vec![value.to_owned()]);
            }
        };
        if !claims.jti.is_empty() {
            extra("credential-id", &format!("JTI={}", claims.jti));
        }
        if let Some(pod) = &objects.pod {
            extra("pod-name", &pod.name);
            extra("pod-uid", &pod.uid);
        }
        if let Some(node) = &objects.node {
            extra("node-name", &node.name);
            extra("node-uid", &node.uid);
        }
        Ok(TokenUser { user, audiences })
    }

    fn legacy(
        &self,
        storage: &Storage,
        claims: &LegacyClaims,
        token: &str,
        wanted: &[String],
    ) -> Result<TokenUser, String> {
        let invalidated = || "Token has been invalidated".to_owned();
        // They are for the API server alone.
        let audiences: Vec<String> = wanted
            .iter()
            .filter(|audience| self.audiences.contains(audience))
            .cloned()
            .collect();
        if audiences.is_empty() {
            return Err(format!(
                "token audiences {} is invalid for the target audiences {}",
                go_list(&self.audiences),
                go_list(wanted)
            ));
        }
        if service_account(&claims.sub) != Some((claims.namespace.as_str(), claims.account.as_str())) {
            return Err("sub claim is invalid".to_owned());
        }
        let secret = storage.get("secrets", &claims.namespace, &claims.secret);
        let secret = secret.as_deref().and_then(read).ok_or_else(invalidated)?;
        let deleted = !text(&secret, &["metadata", "deletionTimestamp"]).is_empty();
        let invalid = !text(&secret, &["metadata", "labels", INVALID_SINCE]).is_empty();
        let kept = base64_text(text(&secret, &["data", "token"]));
        if deleted || invalid || kept.as_deref() != Some(token.as_bytes()) {
            return Err(invalidated());
        }
        let account = Reference {
            name: claims.account.clone(),
            uid: claims.uid.clone(),
        };
        let now = jiff::Timestamp::now().as_second();
        live_account(storage, &claims.namespace, &account, now)?;
        Ok(TokenUser {
            user: account_user(&claims.namespace, &account),
            audiences,
        })
    }
}

fn base64_text(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// Go's `%q` of a list.
fn go_list(entries: &[String]) -> String {
    let quoted: Vec<String> = entries.iter().map(|entry| format!("{entry:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn account_user(namespace: &str, account: &Reference) -> User {
    User {
        name: format!("system:serviceaccount:{namespace}:{}", account.name),
        uid: account.uid.clone(),
        groups: account_groups(namespace).to_vec(),
        ..User::default()
    }
}

fn live_account(storage: &Storage, namespace: &str, account: &Reference, now: i64) -> Result<(), String> {
    let Some(entry) = storage.get("serviceaccounts", namespace, &account.name) else {
        return Err(format!("serviceaccounts {:?} not found", account.name));
    };
    if is_long_deleted(&entry, now) {
        return Err(format!("service account {namespace}/{} has been deleted", account.name));
    }
    if entry.index.uid != account.uid {
        return Err(format!(
            "service account UID ({}) does not match claim ({})",
            entry.index.uid, account.uid
        ));
    }
    Ok(())
}

/// The object is there and is the one that was bound to; else the uid of what stands in its place.
fn live(
    storage: &Storage,
    resource: &str,
    namespace: &str,
    reference: &Reference,
    now: i64,
) -> Result<(), Option<String>> {
    match storage.get(resource, namespace, &reference.name) {
        None => Err(None),
        Some(entry) if is_long_deleted(&entry, now) => Err(None),
        Some(entry) if entry.index.uid != reference.uid => Err(Some(entry.index.uid.clone())),
        Some(_) => Ok(()),
    }
}

/// It was marked for deletion, and not just now. The object is read only if it has the mark.
fn is_long_deleted(entry: &Entry, now: i64) -> bool {
    const MARK: &[u8] = b"\"deletionTimestamp\"";
    if !entry.bytes.windows(MARK.len()).any(|window| window == MARK) {
        return false;
    }
    let Some(object) = read(entry) else { return true };
    let deleted: Option<jiff::Timestamp> = text(&object, &["metadata", "deletionTimestamp"]).parse().ok();
    deleted.is_some_and(|deleted| deleted.as_second() < now - LEEWAY_SECONDS)
}

fn read(entry: &Entry) -> Option<Object> {
    serde_json::from_slice(&entry.bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Registry, metadata_index};
    use crate::storage::{Draft, Key, Operation, Options};
    use serde_json::{Value, json};

    const NOW: i64 = 1_800_000_000;

    async fn storage(objects: &[(&str, &str, &str, Value)]) -> Arc<Storage> {
        let storage = Storage::open(Options::memory(), Registry::builtin()).await.unwrap();
        for (resource, namespace, name, rest) in objects {
            let mut object = json!({"metadata": {"name": name, "uid": format!("{name}-uid")}});
            for (key, value) in rest.as_object().unwrap() {
                object["metadata"][key] = value.clone();
            }
            let object = object.as_object().unwrap();
            let draft = Draft::new(object, metadata_index(object));
            let key = Key::new(resource, namespace, name);
            storage.write(Operation::Create { key, draft }).await.unwrap();
        }
        storage
    }

    fn authority() -> TokenAuthority {
        TokenAuthority::new(SigningKey::generate().unwrap(), "https://x/keys".into())
    }

    fn reference(name: &str) -> Reference {
        Reference {
            name: name.into(),
            uid: format!("{name}-uid"),
        }
    }

    fn claims(change: impl FnOnce(&mut Claims)) -> Claims {
        let mut claims = Claims {
            aud: vec![ISSUER.into()],
            exp: Some(NOW + 3600),
            nbf: Some(NOW),
            iat: Some(NOW),
            sub: "system:serviceaccount:a:robot".into(),
            objects: ObjectClaims {
                namespace: "a".into(),
                serviceaccount: reference("robot"),
                ..ObjectClaims::default()
            },
            ..Claims::default()
        };
        change(&mut claims);
        claims
    }

    #[tokio::test]
    async fn tokens_hold_as_long_as_what_they_name() {
        let long_ago = jiff::Timestamp::from_second(NOW - 61).unwrap().to_string();
        let just_now = jiff::Timestamp::from_second(NOW - 5).unwrap().to_string();
        let storage = storage(&[
            ("serviceaccounts", "a", "robot", json!({})),
            ("serviceaccounts", "a", "going", json!({"deletionTimestamp": just_now})),
            ("serviceaccounts", "a", "gone", json!({"deletionTimestamp": long_ago})),
            ("pods", "a", "web", json!({})),
            ("secrets", "a", "s", json!({})),
            ("nodes", "", "n1", json!({})),
        ])
        .await;
        let authority = authority();
        let situations: Vec<(Claims, i64, Result<(), &str>)> = vec![
            (claims(|_| {}), NOW, Ok(())),
            (claims(|_| {}), NOW + 3600 + 60, Ok(())),
            (
                claims(|_| {}),
                NOW + 3600 + 61,
                Err("service account token has expired"),
            ),
            (claims(|_| {}), NOW - 61, Err("service account token is not valid yet")),
            (
                claims(|c| c.nbf = None),
                NOW - 61,
                Err("service account token is issued in the future"),
            ),
            (
                claims(|c| c.objects.serviceaccount = reference("lost")),
                NOW,
                Err("serviceaccounts \"lost\" not found"),
            ),
            (
                claims(|c| c.objects.serviceaccount.uid = "other".into()),
                NOW,
                Err("service account UID (robot-uid) does not match claim (other)"),
            ),
            (claims(|c| c.objects.serviceaccount = reference("going")), NOW, Ok(())),
            (
                claims(|c| c.objects.serviceaccount = reference("gone")),
                NOW,
                Err("service account a/gone has been deleted"),
            ),
            (claims(|c| c.objects.pod = Some(reference("web"))), NOW, Ok(())),
            (
                claims(|c| c.objects.pod = Some(reference("lost"))),
                NOW,
                Err("service account token has been invalidated"),
            ),
            (claims(|c| c.objects.secret = Some(reference("s"))), NOW, Ok(())),
            (claims(|c| c.objects.node = Some(reference("n1"))), NOW, Ok(())),
            (
                claims(|c| c.objects.node = Some(reference("n2"))),
                NOW,
                Err("service account token has been invalidated"),
            ),
            (
                claims(|c| c.aud = vec!["vault".into()]),
                NOW,
                Err(
                    "token audiences [\"vault\"] is invalid for the target audiences [\"https://kubernetes.default.svc.cluster.local\"]",
                ),
            ),
        ];
        for (claims, now, expected) in situations {
            let token = authority.issue(claims.clone()).unwrap();
            for _ in 0..2 {
                let got = authority
                    .authenticate(&storage, &token, authority.audiences(), now)
                    .unwrap();
                assert_eq!(got.map(|_| ()), expected.map_err(str::to_owned), "{claims:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_user_is_the_account_with_what_the_token_is_bound_to() {
        let storage = storage(&[
            ("serviceaccounts", "a", "robot", json!({})),
            ("pods", "a", "web", json!({})),
        ])
        .await;
        let authority = authority();
        let token = authority.issue(claims(|c| {
            c.objects.pod = Some(reference("web"));
            c.objects.node = Some(reference("n1"));
            c.aud = vec!["vault".into(), ISSUER.into()];
        }));
        let token = token.unwrap();
        let wanted = ["x".to_owned(), "vault".to_owned()];
        let found = authority.authenticate(&storage, &token, &wanted, NOW).unwrap().unwrap();
        assert_eq!(found.audiences, ["vault"]);
        let user = found.user;
        assert_eq!(
            (user.name.as_str(), user.uid.as_str()),
            ("system:serviceaccount:a:robot", "robot-uid")
        );
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:a"]);
        let extra = |key: &str| user.extra[&format!("authentication.kubernetes.io/{key}")][0].clone();
        assert_eq!((extra("pod-name"), extra("node-uid")), ("web".into(), "n1-uid".into()));
        assert!(extra("credential-id").starts_with("JTI="));
    }

    #[tokio::test]
    async fn tokens_of_others_are_nobodys() {
        let (storage, other) = (storage(&[]).await, authority());
        let authority = authority();
        let token = other.issue(claims(|_| {})).unwrap();
        for token in [token.as_str(), "x", "a.b.c", ""] {
            assert!(authority.authenticate(&storage, token, &[], NOW).is_none(), "{token}");
        }
    }
}
