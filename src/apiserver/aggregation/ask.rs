//! What this server asks other servers by itself, under the aggregator's name.

use super::proxy::name_user;
use crate::apiserver::authorization::PRIVILEGED_GROUP;
use crate::apiserver::request::User;
use crate::transport::dial::empty_body;
use crate::transport::extension::{Destination, ExtensionClient};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use poem::http::{HeaderMap, HeaderName, Request, StatusCode, header};
use std::time::Duration;

const NAME: &str = "system:kube-aggregator";
/// For the whole answer.
const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: HeaderName) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }
}

/// GETs a path. Err says in Go's words why there is no answer.
pub async fn get(
    client: &ExtensionClient,
    to: &Destination,
    path: &str,
    accept: &str,
    known: Option<&str>,
) -> Result<Answer, String> {
    let shown = format!("https://{}{path}", to.address);
    let answer = tokio::time::timeout(PATIENCE, exchange(client, to, path, accept, known)).await;
    let answer = answer.unwrap_or_else(|_| {
        Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned())
    });
    answer.map_err(|why| format!("Get {shown:?}: {why}"))
}

async fn exchange(
    client: &ExtensionClient,
    to: &Destination,
    path: &str,
    accept: &str,
    known: Option<&str>,
) -> Result<Answer, String> {
    let mut request = Request::get(path)
        .header(header::ACCEPT, accept)
        .header(header::USER_AGENT, "kube-apiserver");
    if let Some(etag) = known {
        request = request.header(header::IF_NONE_MATCH, etag);
    }
    let mut request = request.body(empty_body()).map_err(|error| error.to_string())?;
    let user = User {
        name: NAME.to_owned(),
        // It always has the right.
        groups: vec![PRIVILEGED_GROUP.to_owned()],
        ..User::default()
    };
    name_user(request.headers_mut(), &user).map_err(|error| error.to_string())?;
    let answer = client.request(to, request).await.map_err(|error| error.to_string())?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body: body.map_err(|error| error.to_string())?.to_bytes(),
    })
}
