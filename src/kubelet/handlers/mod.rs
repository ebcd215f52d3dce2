//! What probes and lifecycle hooks do: a command in the container, an HTTP request, a connection
//! (upstream: `pkg/probe`, `pkg/kubelet/lifecycle/handlers.go`).

pub mod grpc;

use crate::runtime::{ExecRequest, Reader, Runtime};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

/// As much of a command's or server's answer as goes into an event.
const OUTPUT_BYTES_MAX: u64 = 10 * 1024;

/// The output, or why it failed.
pub type Outcome = Result<String, String>;

/// Runs a command in the container; its exit code decides.
pub async fn exec(runtime: &dyn Runtime, container_id: &str, command: &[String]) -> Outcome {
    let request = ExecRequest {
        command: command.to_vec(),
        stdin: false,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let session = runtime
        .exec(container_id, &request)
        .await
        .map_err(|error| error.to_string())?;
    let (stdout, stderr) = tokio::join!(read(session.stdout), read(session.stderr));
    let code = session.control.wait().await.map_err(|error| error.to_string())?;
    let output = format!("{stdout}{stderr}").trim().to_owned();
    match code {
        0 => Ok(output),
        code if output.is_empty() => Err(format!("command exited with code {code}")),
        _ => Err(output),
    }
}

/// Reads to the end, so that the command is not held up; keeps the beginning.
async fn read(from: Option<Reader>) -> String {
    let Some(mut from) = from else {
        return String::new();
    };
    let mut kept = Vec::new();
    // A stream that breaks off ends the output; the exit code says the rest.
    let _ = (&mut from).take(OUTPUT_BYTES_MAX).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}

fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => match name.parse() {
            Ok(number) => Some(number),
            Err(_) => {
                let ports = container.ports.iter().flatten();
                ports
                    .filter(|p| p.name.as_ref() == Some(name))
                    .map(|p| p.container_port)
                    .next()
            }
        },
    };
    let number = number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0);
    number.ok_or_else(|| format!("invalid port {port:?}"))
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let dialled = TcpStream::connect((host.trim_matches(['[', ']']), port)).await;
    dialled.map_err(|error| format!("dial tcp {host}:{port}: {error}"))
}

/// A connection that can be made is a success.
pub async fn tcp_socket(action: &TCPSocketAction, container: &Container, pod_ip: &str) -> Outcome {
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
    connect(host, port(&action.port, container)?)
        .await
        .map(|_| String::new())
}

/// 200 to 399 is a success; redirects are not followed.
pub async fn http_get(action: &HTTPGetAction, container: &Container, pod_ip: &str, agent: &str) -> Outcome {
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
    let port = port(&action.port, container)?;
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let own = action.http_headers.iter().flatten();
    let mut request = hyper::Request::get(&path);
    for header in own.clone() {
        request = request.header(&header.name, &header.value);
    }
    let has = |name: &str| own.clone().any(|header| header.name.eq_ignore_ascii_case(name));
    for (name, value) in [
        ("Host", format!("{host}:{port}").as_str()),
        ("User-Agent", agent),
        ("Accept", "*/*"),
    ] {
        if !has(name) {
            request = request.header(name, value);
        }
    }
    let request = request
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    let stream = connect(host, port).await?;
    let status = match action.scheme.as_deref() {
        Some("HTTPS") => {
            let name =
                ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|error| error.to_string())?;
            let stream = unverified_tls()?
                .connect(name, stream)
                .await
                .map_err(|error| error.to_string())?;
            send(stream, request).await?
        }
        _ => send(stream, request).await?,
    };
    match status {
        200..400 => Ok(String::new()),
        status => Err(format!("HTTP probe failed with statuscode: {status}")),
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: hyper::Request<Empty<bytes::Bytes>>,
) -> Result<u16, String> {
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(text)?;
    // Driven beside the request, and dropped with it: no task is left behind.
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(text)?;
        let status = answer.status().as_u16();
        // A server that sees its answer read does not log a broken connection.
        let _ = http_body_util::Limited::new(answer.into_body(), 10 * 1024)
            .collect()
            .await;
        Ok(status)
    };
    tokio::pin!(exchange);
    tokio::select! {
        status = &mut exchange => status,
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(text(error)),
        },
    }
}

/// Probes do not verify certificates, as upstream's do not.
fn unverified_tls() -> Result<TlsConnector, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    let config = config
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)));
    Ok(TlsConnector::from(Arc::new(config.with_no_client_auth())))
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, tokio_rustls::rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    #[test]
    fn ports_by_number_and_by_name() {
        let container = json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]});
        let container: Container = serde_json::from_value(container).unwrap();
        assert_eq!(port(&IntOrString::Int(80), &container), Ok(80));
        assert_eq!(port(&IntOrString::String("web".to_owned()), &container), Ok(8080));
        assert!(port(&IntOrString::String("none".to_owned()), &container).is_err());
        assert!(port(&IntOrString::Int(0), &container).is_err());
    }

    async fn answer(status: &'static str) -> Outcome {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let action = json!({"port": port, "path": "healthz", "httpHeaders": [{"name": "X-A", "value": "1"}]});
        let action = serde_json::from_value(action).unwrap();
        let outcome = http_get(&action, &Container::default(), "127.0.0.1", "kube-probe/1.37").await;
        let request = server.await.unwrap().to_lowercase();
        assert!(request.starts_with("get /healthz http/1.1"), "{request}");
        assert!(
            request.contains("user-agent: kube-probe/1.37") && request.contains("x-a: 1"),
            "{request}"
        );
        outcome
    }

    #[tokio::test]
    async fn the_status_decides() {
        assert!(answer("200 OK").await.is_ok());
        assert!(answer("302 Found").await.is_ok());
        let refused = answer("503 Service Unavailable").await;
        assert_eq!(refused, Err("HTTP probe failed with statuscode: 503".to_owned()));
    }

    #[tokio::test]
    async fn a_closed_port_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let action: TCPSocketAction = serde_json::from_value(json!({"port": port})).unwrap();
        assert!(tcp_socket(&action, &Container::default(), "127.0.0.1").await.is_ok());
        drop(listener);
        assert!(tcp_socket(&action, &Container::default(), "127.0.0.1").await.is_err());
    }
}
