//! HTTP requests of probes and lifecycle hooks (upstream: `pkg/probe/http`, `pkg/kubelet/lifecycle`), and what went wrong in
//! the words of Go's client.

use super::{OUTPUT_BYTES_MAX, Outcome, authority, connect, errno, port};
use crate::transport::unverified;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use std::fmt;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// As Go's client has it.
const REDIRECTS_MAX: usize = 10;
/// What Go's client says of it.
const PLAIN_ANSWER: &str = "http: server gave HTTP response to HTTPS client";

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    tls: bool,
    host: String,
    port: u16,
    /// With its query.
    path: String,
}

impl Url {
    pub fn of(action: &HTTPGetAction, container: &Container, pod_ip: &str) -> Result<Url, String> {
        let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
        let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
        Ok(Url {
            tls: action.scheme.as_deref() == Some("HTTPS"),
            host: host.to_owned(),
            port: port(&action.port, container)?,
            path: match path.starts_with('/') {
                true => path.to_owned(),
                false => format!("/{path}"),
            },
        })
    }

    fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    /// Where a redirect leads; None if it cannot be followed.
    fn redirected(&self, location: &str) -> Option<Url> {
        let target: hyper::Uri = location.parse().ok()?;
        let path = target.path_and_query().map_or("/", |path| path.as_str());
        let Some(host) = target.host() else {
            return Some(Url {
                path: path.to_owned(),
                ..self.clone()
            });
        };
        let tls = match target.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => self.tls,
        };
        Some(Url {
            tls,
            host: host.to_owned(),
            port: target.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// The answer to a request; redirects on the same host were followed.
struct Answer {
    status: u16,
    location: Option<String>,
    /// Its beginning.
    body: String,
}

/// 200 to 399 is a success.
pub async fn probe(action: &HTTPGetAction, container: &Container, pod_ip: &str, agent: &str) -> Outcome {
    let url = match Url::of(action, container, pod_ip) {
        Ok(url) => url,
        Err(reason) => return Outcome::Unknown(reason),
    };
    match get(action, url, agent).await {
        Ok(answer) => match answer.status {
            200..300 => Outcome::Success,
            300..400 => Outcome::Warning(format!("Probe terminated redirects, Response body: {}", answer.body)),
            status => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
        },
        Err(reason) => Outcome::Failure(reason),
    }
}

/// Whatever the answer, the hook has run. `told`: a server without TLS was asked for it, and then without.
pub async fn hook(
    action: &HTTPGetAction,
    container: &Container,
    pod_ip: &str,
    agent: &str,
    told: impl FnOnce(String),
) -> Result<(), String> {
    let url = Url::of(action, container, pod_ip)?;
    match get(action, url.clone(), agent).await {
        Err(reason) if reason.ends_with(PLAIN_ANSWER) => {
            let host = url.authority();
            let plain = Url { tls: false, ..url };
            // The first failure is the one that is told.
            get(action, plain, agent).await.map_err(|_| reason)?;
            told(format!(
                "request to HTTPS lifecycle hook {host} got HTTP response, retry with HTTP succeeded"
            ));
            Ok(())
        }
        asked => asked.map(drop),
    }
}

async fn get(action: &HTTPGetAction, mut url: Url, agent: &str) -> Result<Answer, String> {
    let first = url.host.clone();
    for _ in 0..=REDIRECTS_MAX {
        let answer = get_once(action, &url, agent).await;
        let answer = answer.map_err(|reason| format!("Get \"{url}\": {reason}"))?;
        let leads = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
        let location = answer.location.as_deref().filter(|_| leads);
        match location.and_then(|location| url.redirected(location)) {
            Some(next) if next.host == first => url = next,
            _ => return Ok(answer),
        }
    }
    Err(format!("Get \"{url}\": stopped after {REDIRECTS_MAX} redirects"))
}

async fn get_once(action: &HTTPGetAction, url: &Url, agent: &str) -> Result<Answer, String> {
    let own = action.http_headers.iter().flatten();
    let mut request = hyper::Request::get(&url.path);
    // An empty one takes the default away.
    let unwanted = |name: &str, value: &str| name.eq_ignore_ascii_case("Accept") && value.is_empty();
    for header in own.clone().filter(|header| !unwanted(&header.name, &header.value)) {
        request = request.header(&header.name, &header.value);
    }
    let has = |name: &str| own.clone().any(|header| header.name.eq_ignore_ascii_case(name));
    for (name, value) in [
        ("Host", url.authority().as_str()),
        ("User-Agent", agent),
        ("Accept", "*/*"),
        // No connection is kept.
        ("Connection", "close"),
    ] {
        if !has(name) {
            request = request.header(name, value);
        }
    }
    let request = request
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    let stream = connect(&url.host, url.port).await?;
    if !url.tls {
        return send(stream, request).await;
    }
    let name = ServerName::try_from(url.host.trim_matches(['[', ']']).to_owned()).map_err(|error| error.to_string())?;
    let stream = unverified_tls().connect(name, stream).await;
    send(stream.map_err(|error| tls_failed(&error))?, request).await
}

/// What is no TLS at all is most often an answer in plain HTTP.
fn tls_failed(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(tokio_rustls::rustls::Error::InvalidMessage(_)) => PLAIN_ANSWER.to_owned(),
        _ if error.kind() == std::io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        _ => error.to_string(),
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: hyper::Request<Empty<bytes::Bytes>>,
) -> Result<Answer, String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broke_off(&error))?;
    // Driven beside the request, and dropped with it: no task is left behind.
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| broke_off(&error))?;
        let location = answer.headers().get(hyper::header::LOCATION);
        let (status, location) = (
            answer.status().as_u16(),
            location.and_then(|value| value.to_str().ok()).map(str::to_owned),
        );
        // A server that sees its answer read does not log a broken connection.
        let mut kept = Vec::new();
        let mut body = answer.into_body();
        while let Some(Ok(frame)) = body.frame().await
            && kept.len() < OUTPUT_BYTES_MAX
        {
            kept.extend(frame.into_data().unwrap_or_default());
        }
        kept.truncate(OUTPUT_BYTES_MAX);
        Ok(Answer {
            status,
            location,
            body: String::from_utf8_lossy(&kept).into_owned(),
        })
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(broke_off(&error)),
        },
    }
}

fn broke_off(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "EOF".to_owned();
    }
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    match cause.and_then(errno) {
        Some(reason) => format!("read: {reason}"),
        None => error.to_string(),
    }
}

/// Probes do not verify certificates, as upstream's do not, and say nothing of protocols.
fn unverified_tls() -> TlsConnector {
    let mut config = unverified::config(None);
    config.alpn_protocols.clear();
    TlsConnector::from(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::super::tcp_socket;
    use super::*;
    use k8s_openapi::api::core::v1::TCPSocketAction;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn answer(head: &'static str) -> Outcome {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            // The second request is that of a redirect.
            let mut requests = Vec::new();
            for head in [head, "200 OK"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap();
                requests.push(String::from_utf8_lossy(&request[..read]).to_lowercase());
                let answer = format!("HTTP/1.1 {head}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
                stream.write_all(answer.as_bytes()).await.unwrap();
                if !head.contains("Location: /") {
                    break;
                }
            }
            requests
        });
        let action = json!({"port": port, "path": "healthz", "httpHeaders": [{"name": "X-A", "value": "1"}]});
        let action = serde_json::from_value(action).unwrap();
        let outcome = probe(&action, &Container::default(), "127.0.0.1", "kube-probe/1.37").await;
        let requests = server.await.unwrap();
        assert!(requests[0].starts_with("get /healthz http/1.1"), "{requests:?}");
        for request in &requests {
            let has = |text| request.contains(text);
            assert!(has("user-agent: kube-probe/1.37") && has("x-a: 1"), "{request}");
            assert!(has("accept: */*") && has("connection: close"), "{request}");
        }
        assert!(
            requests
                .iter()
                .skip(1)
                .all(|request| request.starts_with("get /there?x=1 "))
        );
        outcome
    }

    #[tokio::test]
    async fn the_status_decides() {
        assert_eq!(answer("200 OK").await, Outcome::Success);
        assert_eq!(
            answer("302 Found\r\nLocation: /there?x=1").await,
            Outcome::Success,
            "a redirect on the host is followed"
        );
        assert_eq!(
            answer("302 Found\r\nLocation: http://other.example/").await,
            Outcome::Warning("Probe terminated redirects, Response body: ok".to_owned())
        );
        let refused = answer("503 Service Unavailable").await;
        assert_eq!(
            refused,
            Outcome::Failure("HTTP probe failed with statuscode: 503".to_owned())
        );
    }

    /// Nobody vouches for the certificate, and it is another host's.
    #[tokio::test]
    async fn certificates_are_not_verified() {
        use tokio_rustls::rustls::{ServerConfig, crypto::aws_lc_rs};
        let own = rcgen::generate_simple_self_signed(vec!["other.example".to_owned()]).unwrap();
        let key = tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth();
        let config = config.with_single_cert(vec![own.cert.der().clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
            String::from_utf8_lossy(&request[..read]).to_lowercase()
        });
        let headers = json!([{"name": "Host", "value": "own.example"}, {"name": "Accept", "value": ""}]);
        let action = json!({"port": port, "scheme": "HTTPS", "httpHeaders": headers});
        let action: HTTPGetAction = serde_json::from_value(action).unwrap();
        let asked = probe(&action, &Container::default(), "127.0.0.1", "kube-probe/1.37").await;
        assert_eq!(asked, Outcome::Success);
        let request = server.await.unwrap();
        assert!(request.contains("host: own.example\r\n"), "{request}");
        assert!(
            !request.contains("accept:") && !request.contains("127.0.0.1"),
            "{request}"
        );
    }

    #[test]
    fn where_redirects_lead() {
        let url = Url {
            tls: false,
            host: "10.0.0.1".to_owned(),
            port: 8080,
            path: "/a".to_owned(),
        };
        for (location, expected) in [
            ("/b?c=d", Some("http://10.0.0.1:8080/b?c=d")),
            ("https://10.0.0.1/b", Some("https://10.0.0.1:443/b")),
            ("http://other:81/", Some("http://other:81/")),
            ("not a uri", None),
        ] {
            let found = url.redirected(location).map(|url| url.to_string());
            assert_eq!(found.as_deref(), expected, "{location}");
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let action: TCPSocketAction = serde_json::from_value(json!({"port": port})).unwrap();
        let container = Container::default();
        assert_eq!(tcp_socket(&action, &container, "127.0.0.1").await, Outcome::Success);
        drop(listener);
        let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(
            tcp_socket(&action, &container, "127.0.0.1").await,
            Outcome::Failure(refused.clone())
        );
        let action: HTTPGetAction = serde_json::from_value(json!({"port": port, "path": "/x"})).unwrap();
        let refused = format!("Get \"http://127.0.0.1:{port}/x\": {refused}");
        assert_eq!(
            probe(&action, &container, "127.0.0.1", "a").await,
            Outcome::Failure(refused)
        );
        let action: HTTPGetAction = serde_json::from_value(json!({"port": "none"})).unwrap();
        let unknown = "strconv.Atoi: parsing \"none\": invalid syntax".to_owned();
        assert_eq!(
            probe(&action, &container, "127.0.0.1", "a").await,
            Outcome::Unknown(unknown)
        );
    }

    #[tokio::test]
    async fn a_hook_has_run_whatever_the_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let _ = stream.read(&mut request).await.unwrap();
                let answer = b"HTTP/1.1 500 Sorry\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
        });
        let action: HTTPGetAction = serde_json::from_value(json!({"port": port, "scheme": "HTTPS"})).unwrap();
        let mut told = None;
        let ran = hook(&action, &Container::default(), "127.0.0.1", "a", |text| {
            told = Some(text)
        })
        .await;
        assert_eq!(ran, Ok(()));
        let text =
            format!("request to HTTPS lifecycle hook 127.0.0.1:{port} got HTTP response, retry with HTTP succeeded");
        assert_eq!(told, Some(text));
        server.await.unwrap();
    }
}
