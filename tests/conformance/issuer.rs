//! How a pod checks a token without asking the API server about it: by OpenID discovery of the token's issuer (upstream:
//! agnhost's `test-service-account-issuer-discovery`).

use crate::dialing;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

const PLACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// `check-token FILE AUDIENCE`
pub fn check(words: &[String]) -> Result<String, String> {
    let [file, audience] = words else {
        return Err("check-token FILE AUDIENCE".to_owned());
    };
    let token = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let parts: Vec<&str> = token.trim().split('.').collect();
    let [head, claims, signature] = parts[..] else {
        return Err("this is no token".to_owned());
    };
    let (head_json, claims_json) = (decoded(head)?, decoded(claims)?);
    let issuer = claims_json["iss"].as_str().ok_or("no issuer")?;
    let document = get(&format!("{issuer}/.well-known/openid-configuration"))?;
    if document["issuer"] != issuer {
        return Err(format!("the issuer {issuer} says of itself: {document}"));
    }
    let keys = get(document["jwks_uri"].as_str().ok_or("no keys")?)?;
    let listed = keys["keys"].as_array().ok_or("no keys")?;
    let key = listed.iter().find(|key| key["kid"] == head_json["kid"]);
    let key = key.ok_or_else(|| format!("no key {} in {keys}", head_json["kid"]))?;
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|error| error.to_string());
    let coordinate = |name: &str| bytes(key[name].as_str().unwrap_or_default());
    let point = [vec![4], coordinate("x")?, coordinate("y")?].concat();
    aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED, point)
        .verify(format!("{head}.{claims}").as_bytes(), &bytes(signature)?)
        .map_err(|_| "the signature is wrong".to_owned())?;
    let audiences = &claims_json["aud"];
    match audiences
        .as_array()
        .is_some_and(|all| all.iter().any(|one| one == audience))
    {
        true => Ok(format!(
            "a token of {}",
            claims_json["sub"].as_str().unwrap_or_default()
        )),
        false => Err(format!("the token is for {audiences}")),
    }
}

fn decoded(part: &str) -> Result<Value, String> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

/// A document of the API server, by its certificate and with the pod's own token.
pub fn get(url: &str) -> Result<Value, String> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let rest = url
        .strip_prefix("https://")
        .ok_or_else(|| format!("{url} is not secure"))?;
    let (authority, path) = rest.split_once('/').ok_or("no path")?;
    let (host, port) = authority.split_once(':').unwrap_or((authority, "443"));
    let text = |error: &dyn std::fmt::Display| format!("{url}: {error}");
    let address = match host.parse::<std::net::IpAddr>() {
        Ok(_) => host.to_owned(),
        Err(_) => {
            let words = [format!("{host}."), "A".to_owned()];
            let found = dialing::resolve_words(&words)?;
            found.rsplit(' ').next().unwrap_or_default().trim().to_owned()
        }
    };
    let authorities = std::fs::read(format!("{PLACE}/ca.crt")).map_err(|error| text(&error))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&authorities) {
        roots
            .add(certificate.map_err(|error| text(&error))?)
            .map_err(|error| text(&error))?;
    }
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|error| text(&error))?;
    let connection = rustls::ClientConnection::new(Arc::new(config), name).map_err(|error| text(&error))?;
    let stream = TcpStream::connect(format!("{address}:{port}")).map_err(|error| text(&error))?;
    let mut stream = rustls::StreamOwned::new(connection, stream);
    let token = std::fs::read_to_string(format!("{PLACE}/token")).map_err(|error| text(&error))?;
    write!(
        stream,
        "GET /{path} HTTP/1.0\r\nHost: {host}\r\nAuthorization: Bearer {}\r\n\r\n",
        token.trim()
    )
    .map_err(|error| text(&error))?;
    let mut answer = Vec::new();
    // Whoever closes without a farewell has said all by then.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| text(&"no answer"))?;
    if !head.contains(" 200 ") {
        return Err(text(&answer));
    }
    serde_json::from_str(body).map_err(|error| text(&format!("{error}: {answer}")))
}
