//! What probes and lifecycle hooks do: a command in the container, an HTTP request, a connection
//! (upstream: `pkg/probe`, `pkg/kubelet/lifecycle/handlers.go`).

pub mod grpc;
pub mod http;

use crate::runtime::{ExecRequest, Reader, Runtime, RuntimeError};
use k8s_openapi::api::core::v1::{Container, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// As much of a command's or server's answer as goes into an event.
const OUTPUT_BYTES_MAX: usize = 10 * 1024;

/// What came of a probe (upstream: `probe.Result`).
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// Good, and something is to be told.
    Warning(String),
    Failure(String),
    /// It could not be tried, which says nothing.
    Unknown(String),
}

/// How a command in a container ended, and the beginning of what it wrote.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command in the container.
pub async fn run(runtime: &dyn Runtime, container_id: &str, command: &[String]) -> Result<Ran, String> {
    let request = ExecRequest {
        command: command.to_vec(),
        stdin: false,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let text = |error: RuntimeError| error.to_string();
    let session = runtime.exec(container_id, &request).await.map_err(text)?;
    let (stdout, stderr) = tokio::join!(read(session.stdout), read(session.stderr));
    let code = session.control.wait().await.map_err(text)?;
    Ok(Ran { code, stdout, stderr })
}

/// The exit code of a command in the container decides.
pub async fn exec(runtime: &dyn Runtime, container_id: &str, command: &[String]) -> Outcome {
    match run(runtime, container_id, command).await {
        Ok(Ran { code: 0, .. }) => Outcome::Success,
        Ok(ran) => Outcome::Failure(ran.stdout + &ran.stderr),
        Err(error) => Outcome::Unknown(error),
    }
}

/// Reads to the end, so that the command is not held up; keeps the beginning.
async fn read(from: Option<Reader>) -> String {
    let Some(mut from) = from else {
        return String::new();
    };
    let mut kept = Vec::new();
    let limit = u64::try_from(OUTPUT_BYTES_MAX).unwrap_or(u64::MAX);
    // A stream that breaks off ends the output; the exit code says the rest.
    let _ = (&mut from).take(limit).read_to_end(&mut kept).await;
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
    number.ok_or_else(|| match port {
        IntOrString::Int(number) => format!("invalid port number: {number}"),
        // Upstream's, which takes it for a number in the end.
        IntOrString::String(name) => format!("strconv.Atoi: parsing {name:?}: invalid syntax"),
    })
}

/// `10.0.0.1:80`, `[fd00::1]:80`
fn authority(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let dialled = TcpStream::connect((host.trim_matches(['[', ']']), port)).await;
    dialled.map_err(|error| match errno(&error) {
        Some(reason) => format!("dial tcp {}: connect: {reason}", authority(host, port)),
        None => format!("dial tcp: lookup {host}: no such host"),
    })
}

/// In the words of Go.
fn errno(error: &std::io::Error) -> Option<String> {
    let text = nix::errno::Errno::from_raw(error.raw_os_error()?).desc();
    let mut letters = text.chars();
    let first = letters.next()?.to_ascii_lowercase();
    Some(std::iter::once(first).chain(letters).collect())
}

/// Where a probe of a socket goes.
pub fn socket(action: &TCPSocketAction, container: &Container, pod_ip: &str) -> Result<(String, u16), String> {
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
    Ok((host.to_owned(), port(&action.port, container)?))
}

/// A connection that can be made is a success.
pub async fn tcp_socket(action: &TCPSocketAction, container: &Container, pod_ip: &str) -> Outcome {
    let (host, port) = match socket(action, container, pod_ip) {
        Ok(found) => found,
        Err(reason) => return Outcome::Unknown(reason),
    };
    match connect(&host, port).await {
        Ok(_) => Outcome::Success,
        Err(reason) => Outcome::Failure(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_by_number_and_by_name() {
        let container = json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]});
        let container: Container = serde_json::from_value(container).unwrap();
        assert_eq!(port(&IntOrString::Int(80), &container), Ok(80));
        assert_eq!(port(&IntOrString::String("web".to_owned()), &container), Ok(8080));
        assert!(port(&IntOrString::String("none".to_owned()), &container).is_err());
        assert!(port(&IntOrString::Int(0), &container).is_err());
    }
}
