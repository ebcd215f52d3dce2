//! What registries want to see before they answer (upstream: containerd's `core/remotes/docker/auth`; the distribution
//! specification's token authentication).

use super::super::RegistryAuth;
use super::{RegistryError, Result, request_failed};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use std::collections::BTreeMap;

/// A `WWW-Authenticate` header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    /// In lower case.
    scheme: String,
    parameters: BTreeMap<String, String>,
}

impl Challenge {
    pub fn parse(header: &str) -> Option<Challenge> {
        let (scheme, mut rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        let mut parameters = BTreeMap::new();
        while let Some((key, value)) = rest.split_once('=') {
            let (value, after) = match value.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => value.split_at(value.find(',').unwrap_or(value.len())),
            };
            let key = key.trim_matches([' ', ',']).to_ascii_lowercase();
            parameters.insert(key, value.trim().to_string());
            rest = after;
        }
        Some(Challenge {
            scheme: scheme.to_ascii_lowercase(),
            parameters,
        })
    }

    /// The `Authorization` header that meets it; None where it cannot be met.
    pub async fn answer(
        &self,
        client: &reqwest::Client,
        credentials: Option<&RegistryAuth>,
        scope: &str,
    ) -> Result<Option<HeaderValue>> {
        match self.scheme.as_str() {
            "basic" => Ok(credentials.and_then(basic)),
            "bearer" => self.token(client, credentials, scope).await,
            _ => Ok(None),
        }
    }

    async fn token(
        &self,
        client: &reqwest::Client,
        credentials: Option<&RegistryAuth>,
        scope: &str,
    ) -> Result<Option<HeaderValue>> {
        let Some(realm) = self.parameters.get("realm") else {
            return Ok(None);
        };
        let request = match credentials.and_then(RegistryAuth::identity_token) {
            Some(token) => client
                .post(realm)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(self.form(scope, token)),
            None => {
                let separator = if realm.contains('?') { '&' } else { '?' };
                let request = client.get(format!("{realm}{separator}{}", self.query(scope)));
                match credentials.and_then(basic) {
                    Some(authorization) => request.header(AUTHORIZATION, authorization),
                    None => request,
                }
            }
        };
        let response = request.send().await.map_err(|error| request_failed(realm, &error))?;
        let status = response.status();
        if matches!(status.as_u16(), 401 | 403) {
            return Err(RegistryError::Denied(
                "insufficient_scope: authorization failed".to_string(),
            ));
        }
        if !status.is_success() {
            let url = realm.clone();
            return Err(RegistryError::Status { url, status });
        }
        let answer: serde_json::Value = response.json().await.map_err(|error| request_failed(realm, &error))?;
        let token = ["token", "access_token"]
            .into_iter()
            .find_map(|key| answer.get(key)?.as_str());
        Ok(token.and_then(|token| sensitive(&format!("Bearer {token}"))))
    }
}

impl Challenge {
    /// What is asked of the realm.
    fn query(&self, scope: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(service) = self.parameters.get("service") {
            query.append_pair("service", service);
        }
        let wanted = self.parameters.get("scope").map_or(scope, String::as_str);
        for scope in wanted.split(' ') {
            query.append_pair("scope", scope);
        }
        query.finish()
    }

    /// What is asked of the realm with an identity token (RFC 6749 §6).
    fn form(&self, scope: &str, token: &str) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token")
            .append_pair("refresh_token", token)
            .append_pair("client_id", "krust");
        if let Some(service) = self.parameters.get("service") {
            form.append_pair("service", service);
        }
        form.append_pair("scope", self.parameters.get("scope").map_or(scope, String::as_str));
        form.finish()
    }
}

fn basic(credentials: &RegistryAuth) -> Option<HeaderValue> {
    if credentials.identity_token().is_some() {
        return None;
    }
    let pair = format!("{}:{}", credentials.username, credentials.password);
    sensitive(&format!("Basic {}", STANDARD.encode(pair)))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let header =
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        let found = Challenge::parse(header).unwrap();
        assert_eq!(found.scheme, "bearer");
        let parameter = |key: &str| found.parameters.get(key).map(String::as_str);
        assert_eq!(parameter("realm"), Some("https://auth.example/token"));
        assert_eq!(parameter("service"), Some("registry.example"));
        assert_eq!(parameter("scope"), Some("repository:a/b:pull,push"));
        let found = Challenge::parse("Basic realm=plain, charset=UTF-8").unwrap();
        assert_eq!(found.parameters["realm"], "plain");
        assert_eq!(found.parameters["charset"], "UTF-8");
        assert_eq!(Challenge::parse("Negotiate").unwrap().scheme, "negotiate");
    }
    #[tokio::test]
    async fn an_identity_token_gets_another() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let realm = format!("http://{}/token", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = String::new();
            while !request.contains("scope=") {
                let mut piece = [0; 4096];
                let read = stream.read(&mut piece).await.unwrap();
                request += &String::from_utf8_lossy(&piece[..read]);
            }
            let answer = r#"{"access_token": "short"}"#;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
            stream.write_all((head + answer).as_bytes()).await.unwrap();
            request
        });
        let header = format!(r#"Bearer realm="{realm}",service="s""#);
        let credentials = RegistryAuth {
            username: RegistryAuth::TOKEN_USER.to_string(),
            password: "long".to_string(),
            server: String::new(),
        };
        let client = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
        let challenge = Challenge::parse(&header).unwrap();
        let answer = challenge.answer(&client, Some(&credentials), "repository:a:pull").await;
        assert_eq!(answer.unwrap().unwrap(), "Bearer short");
        let request = server.await.unwrap();
        assert!(request.starts_with("POST /token "), "{request}");
        let form = "grant_type=refresh_token&refresh_token=long&client_id=krust&service=s&scope=repository%3Aa%3Apull";
        assert!(request.ends_with(form), "{request}");
        let plain = Challenge::parse("Basic realm=x").unwrap();
        assert!(plain.answer(&client, Some(&credentials), "").await.unwrap().is_none());
    }
}
