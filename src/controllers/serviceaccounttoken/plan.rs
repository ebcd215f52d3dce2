//! What a Secret for a token lacks.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::ResourceExt;

/// The type of such Secrets.
pub const TYPE: &str = "kubernetes.io/service-account-token";
/// Names the account.
pub const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";
const TOKEN: &str = "token";
const AUTHORITY: &str = "ca.crt";
const NAMESPACE: &str = "namespace";

/// What is to happen to a Secret.
#[derive(Debug, PartialEq)]
pub enum Step {
    Nothing,
    /// Its account is not there, or is another one.
    Delete,
    Update(Box<Secret>),
}

/// `issue` signs a token for the account's uid; None if that failed, which is told by whoever signs.
pub fn next_step(
    secret: &Secret,
    account: Option<&ServiceAccount>,
    authority: &str,
    issue: impl FnOnce(&str) -> Option<String>,
) -> Step {
    let named = secret.annotations().get(NAME).is_some_and(|name| !name.is_empty());
    if secret.type_.as_deref() != Some(TYPE) || !named || secret.metadata.deletion_timestamp.is_some() {
        return Step::Nothing;
    }
    let known = secret.annotations().get(UID).filter(|uid| !uid.is_empty());
    let uid = account.and_then(|account| account.metadata.uid.clone());
    let Some(uid) = uid.filter(|uid| known.is_none_or(|known| known == uid)) else {
        return Step::Delete;
    };
    let mut filled = secret.clone();
    let has = |key: &str, wanted: Option<&[u8]>| {
        let held = secret.data.as_ref().and_then(|data| data.get(key));
        held.is_some_and(|held| !held.0.is_empty() && wanted.is_none_or(|wanted| held.0 == wanted))
    };
    let data = filled.data.get_or_insert_default();
    if !has(AUTHORITY, Some(authority.as_bytes())) {
        data.insert(AUTHORITY.to_owned(), ByteString(authority.as_bytes().to_vec()));
    }
    if !has(NAMESPACE, None) {
        let namespace = secret.namespace().unwrap_or_default();
        data.insert(NAMESPACE.to_owned(), ByteString(namespace.into_bytes()));
    }
    if !has(TOKEN, None)
        && let Some(token) = issue(&uid)
    {
        data.insert(TOKEN.to_owned(), ByteString(token.into_bytes()));
    }
    filled.annotations_mut().insert(UID.to_owned(), uid);
    if filled == *secret {
        Step::Nothing
    } else {
        Step::Update(Box::new(filled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn secret(rest: Value) -> Secret {
        let mut secret = json!({
            "metadata": {"name": "s", "namespace": "a", "annotations": {NAME: "robot"}}, "type": TYPE});
        for (key, value) in rest.as_object().unwrap() {
            secret[key] = value.clone();
        }
        serde_json::from_value(secret).unwrap()
    }

    fn account(uid: &str) -> ServiceAccount {
        serde_json::from_value(json!({"metadata": {"name": "robot", "uid": uid}})).unwrap()
    }

    fn step(secret: &Secret, account: Option<&ServiceAccount>) -> Step {
        next_step(secret, account, "CA", |uid| Some(format!("token of {uid}")))
    }

    #[test]
    fn a_secret_is_filled_once_and_follows_the_authority() {
        let account = account("u");
        let Step::Update(filled) = step(&secret(json!({})), Some(&account)) else {
            panic!("no update")
        };
        let data = filled.data.clone().unwrap();
        assert_eq!(data[TOKEN].0, b"token of u");
        assert_eq!(
            (&data[AUTHORITY].0[..], &data[NAMESPACE].0[..]),
            (&b"CA"[..], &b"a"[..])
        );
        assert_eq!(filled.annotations()[UID], "u");
        assert_eq!(step(&filled, Some(&account)), Step::Nothing);
        let renewed = next_step(&filled, Some(&account), "other", |_| None);
        let Step::Update(renewed) = renewed else {
            panic!("no update")
        };
        assert_eq!(renewed.data.unwrap()[AUTHORITY].0, b"other");
    }

    #[test]
    fn without_its_account_a_secret_goes() {
        assert_eq!(step(&secret(json!({})), None), Step::Delete);
        let of_another = secret(json!({"metadata": {"annotations": {NAME: "robot", UID: "old"}}}));
        assert_eq!(step(&of_another, Some(&account("u"))), Step::Delete);
        assert_eq!(step(&secret(json!({"type": "Opaque"})), None), Step::Nothing);
        assert_eq!(step(&secret(json!({"metadata": {}})), None), Step::Nothing);
    }
}
