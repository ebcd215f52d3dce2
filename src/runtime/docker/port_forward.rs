//! Connections to a port of a pod (upstream: CRI's `PortForward`, which enters the pod's network namespace).

use super::{Duplex, Engine, Result, failed, sandbox};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// From within the pod's namespace where krust may enter it, which reaches what listens on its loopback only;
/// else through the pod's address.
pub(super) async fn connect(engine: &Engine, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>> {
    let found = sandbox::inspect(engine, sandbox_id).await?;
    let state = found.state.unwrap_or_default();
    if state.running != Some(true) {
        return Err(failed("port-forward", sandbox_id, "the sandbox does not run"));
    }
    let pid = state.pid.and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
    if let Some(namespace) = network_namespace(pid, sandbox_id) {
        match connect_within(namespace, port).await {
            Ok(stream) => return Ok(Box::new(stream)),
            Err(Within::Connect(error)) => return Err(refused(port, sandbox_id, &error)),
            Err(Within::Enter(error)) => {
                tracing::debug!(%error, sandbox_id, "cannot enter the pod's network namespace")
            }
        }
    }
    let address = found
        .network_settings
        .and_then(|settings| settings.networks)
        .into_iter()
        .flatten()
        .find_map(|(_, endpoint)| endpoint.ip_address?.parse::<IpAddr>().ok());
    let Some(address) = address else {
        return Err(failed(
            "port-forward",
            sandbox_id,
            "the pod has no address that can be reached from here",
        ));
    };
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((address, port)))
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    match connected {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(refused(port, sandbox_id, &error)),
    }
}

fn refused(port: u16, sandbox_id: &str, error: &std::io::Error) -> super::RuntimeError {
    let message = format!("failed to connect to localhost:{port} inside the pod: {error}");
    failed("port-forward", sandbox_id, message)
}

/// Whether a process id of the engine's means that process here too: krust may be in another process namespace, or
/// on another machine.
pub(super) fn is_process_of(pid: i32, container_id: &str) -> bool {
    pid > 0
        && !container_id.is_empty()
        && std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|cgroup| cgroup.contains(container_id))
}

fn network_namespace(pid: i32, sandbox_id: &str) -> Option<File> {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).ok()?;
    // After opening: a process that has been replaced since is not mistaken for it.
    is_process_of(pid, sandbox_id).then_some(namespace)
}

enum Within {
    Enter(std::io::Error),
    Connect(std::io::Error),
}

/// Connects on a thread of its own, since a namespace belongs to a thread; the socket stays in it.
async fn connect_within(namespace: File, port: u16) -> Result<TcpStream, Within> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("port-forward".to_string())
        .spawn(move || {
            // The receiver may have given up.
            let _ = sender.send(connect_on_this_thread(&namespace, port));
        })
        .map_err(Within::Enter)?;
    let stream = receiver
        .await
        .unwrap_or_else(|_| Err(Within::Enter(std::io::ErrorKind::Other.into())))?;
    stream.set_nonblocking(true).map_err(Within::Connect)?;
    TcpStream::from_std(stream).map_err(Within::Connect)
}

fn connect_on_this_thread(namespace: &File, port: u16) -> Result<std::net::TcpStream, Within> {
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|error| Within::Enter(error.into()))?;
    let connect =
        |address: IpAddr| std::net::TcpStream::connect_timeout(&SocketAddr::new(address, port), CONNECT_TIMEOUT);
    connect(Ipv4Addr::LOCALHOST.into())
        .or_else(|error| connect(Ipv6Addr::LOCALHOST.into()).map_err(|_| error))
        .map_err(Within::Connect)
}
