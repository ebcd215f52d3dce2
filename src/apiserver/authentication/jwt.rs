//! Signed tokens: the server's key, and JSON Web Tokens of it (upstream: `pkg/serviceaccount/jwt.go`).
//!
//! The key is ECDSA on P-256, made in microseconds where RSA takes a good part of a start.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PublicKeyData};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The only algorithm that this server signs with.
pub const ALGORITHM: &str = "ES256";

const KEY_FILE: &str = "sa.key";
const PUBLIC_FILE: &str = "sa.pub";
/// An uncompressed point: a mark and two coordinates.
const POINT_BYTES: usize = 65;
const COORDINATE_BYTES: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot {operation} {}: {source}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the signing key {} is not usable: {reason}", path.display())]
    Unusable { path: PathBuf, reason: String },
    #[error("cannot make a signing key: {0}")]
    Generate(String),
    #[error("cannot sign a token: {0}")]
    Sign(String),
}

/// The key that tokens are signed with and by which they are known again.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    point: Vec<u8>,
    id: String,
}

/// Keys stay out of logs.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

impl SigningKey {
    /// A key that lives as long as the process.
    pub fn generate() -> Result<SigningKey, KeyError> {
        let pair = KeyPair::generate().map_err(|error| KeyError::Generate(error.to_string()))?;
        Self::from_pair(&pair).map_err(KeyError::Generate)
    }

    /// The key in the directory of certificates, under kubeadm's names; made if there is none.
    pub fn load_or_create(
        directory: &Path,
        write: impl Fn(&Path, &[u8]) -> std::io::Result<()>,
    ) -> Result<SigningKey, KeyError> {
        let path = directory.join(KEY_FILE);
        let unusable = |reason| KeyError::Unusable {
            path: path.clone(),
            reason,
        };
        match std::fs::read_to_string(&path) {
            Ok(pem) => {
                let pair = KeyPair::from_pem(&pem).map_err(|error| unusable(error.to_string()))?;
                Self::from_pair(&pair).map_err(unusable)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let pair = KeyPair::generate().map_err(|error| KeyError::Generate(error.to_string()))?;
                for (path, pem) in [
                    (&path, pair.serialize_pem()),
                    (&directory.join(PUBLIC_FILE), pair.public_key_pem()),
                ] {
                    write(path, pem.as_bytes()).map_err(|source| KeyError::File {
                        operation: "write",
                        path: path.clone(),
                        source,
                    })?;
                }
                Self::from_pair(&pair).map_err(KeyError::Generate)
            }
            Err(source) => Err(KeyError::File {
                operation: "read",
                path,
                source,
            }),
        }
    }

    fn from_pair(pair: &KeyPair) -> Result<SigningKey, String> {
        let info = pair.subject_public_key_info();
        let point = info
            .len()
            .checked_sub(POINT_BYTES)
            .map(|start| info[start..].to_vec())
            .filter(|point| point.first() == Some(&4))
            .ok_or("it must be an ECDSA key on P-256")?;
        let der = pair.serialize_der();
        let signer = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der);
        Ok(SigningKey {
            pair: signer.map_err(|_| "it must be an ECDSA key on P-256")?,
            point,
            id: URL_SAFE_NO_PAD.encode(Sha256::digest(&info)),
        })
    }

    /// What tells the key from others: the digest of its public half.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn sign<T: Serialize>(&self, claims: &T) -> Result<String, KeyError> {
        let failed = |error: &dyn std::fmt::Display| KeyError::Sign(error.to_string());
        let header = json!({"alg": ALGORITHM, "kid": self.id}).to_string();
        let claims = serde_json::to_vec(claims).map_err(|error| failed(&error))?;
        let mut token = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.pair.sign(&SystemRandom::new(), token.as_bytes());
        let signature = signature.map_err(|error| failed(&error))?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// Whether the key signed the token.
    pub fn signed(&self, token: &str) -> bool {
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let Some((signed, signature)) = token.rsplit_once('.') else {
            return false;
        };
        let header = signed.split('.').next().and_then(decode);
        let header: Option<Header> = header.and_then(|header| serde_json::from_slice(&header).ok());
        if !header.is_some_and(|header| header.alg == ALGORITHM && (header.kid.is_empty() || header.kid == self.id)) {
            return false;
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point);
        decode(signature).is_some_and(|signature| key.verify(signed.as_bytes(), &signature).is_ok())
    }

    /// The public half as others read it.
    pub fn jwk(&self) -> Value {
        let coordinate = |start: usize| URL_SAFE_NO_PAD.encode(&self.point[start..start + COORDINATE_BYTES]);
        json!({
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": ALGORITHM,
            "x": coordinate(1), "y": coordinate(1 + COORDINATE_BYTES),
        })
    }
}

/// The claims of a token, whoever signed it; None if it is no token.
pub fn claims<T: DeserializeOwned>(token: &str) -> Option<T> {
    let mut parts = token.split('.');
    let (_header, claims, _signature, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next());
    if rest.is_some() {
        return None;
    }
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_key_and_no_other() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let token = key.sign(&json!({"sub": "x"})).unwrap();
        assert!(key.signed(&token) && !other.signed(&token));
        assert_eq!(claims::<Value>(&token).unwrap()["sub"], "x");
        let (head, signature) = token.rsplit_once('.').unwrap();
        let mut parts: Vec<&str> = head.split('.').collect();
        let forged = URL_SAFE_NO_PAD.encode(r#"{"sub":"y"}"#);
        parts[1] = &forged;
        assert!(!key.signed(&format!("{}.{signature}", parts.join("."))));
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        assert!(!key.signed(&format!("{none}.{forged}.")));
        for garbage in ["", "a", "a.b", "a.b.c", "...", "a.b.c.d"] {
            assert!(!key.signed(garbage) && claims::<Value>(garbage).is_none(), "{garbage}");
        }
    }

    #[test]
    fn the_key_is_kept_in_files_for_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let write = |path: &Path, bytes: &[u8]| crate::transport::pki::write_private(path, bytes);
        let first = SigningKey::load_or_create(directory.path(), write).unwrap();
        let again = SigningKey::load_or_create(directory.path(), write).unwrap();
        assert_eq!(first.id(), again.id());
        assert!(again.signed(&first.sign(&json!({})).unwrap()));
        let public = std::fs::read_to_string(directory.path().join(PUBLIC_FILE)).unwrap();
        assert!(public.starts_with("-----BEGIN PUBLIC KEY-----"));
        std::fs::write(directory.path().join(KEY_FILE), "nonsense").unwrap();
        let error = SigningKey::load_or_create(directory.path(), write).unwrap_err();
        assert!(error.to_string().contains(KEY_FILE), "{error}");
    }

    #[test]
    fn the_public_half_is_a_web_key() {
        let key = SigningKey::generate().unwrap();
        let jwk = key.jwk();
        let decode = |field: &str| URL_SAFE_NO_PAD.decode(jwk[field].as_str().unwrap()).unwrap();
        let point = [vec![4], decode("x"), decode("y")].concat();
        assert_eq!(point, key.point);
        assert_eq!(jwk["kid"], key.id());
    }
}
