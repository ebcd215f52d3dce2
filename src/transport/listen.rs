//! Binding a listening socket (upstream: `apiserver/pkg/server/options/serving.go`).

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket};

/// How many connections the kernel may hold for us before we accept them.
const BACKLOG_CONNECTIONS: u32 = 1024;

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("{address} is taken: another program (another krust, or another Kubernetes?) listens on port {}", address.port())]
    Taken { address: SocketAddr },
    #[error("may not listen on {address}: ports below 1024 are for root")]
    Denied { address: SocketAddr },
    #[error("cannot listen on {address}: {source}")]
    Failed { address: SocketAddr, source: io::Error },
}

/// Listens on `address`. The unspecified IPv6 address takes IPv4 too; where the machine has no IPv6 it falls back
/// to the unspecified IPv4 address.
pub fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    match try_listen(address) {
        Err(error) if address.ip().is_unspecified() && address.is_ipv6() && no_ipv6(&error) => {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            try_listen(address).map_err(|source| explain(address, source))
        }
        other => other.map_err(|source| explain(address, source)),
    }
}

/// As [`listen`], but a taken port is replaced by one that the kernel chooses.
pub fn listen_or_any_port(address: SocketAddr) -> Result<TcpListener, ListenError> {
    match listen(address) {
        Err(ListenError::Taken { .. }) => listen(SocketAddr::new(address.ip(), 0)),
        other => other,
    }
}

fn try_listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restart must not wait for connections of the previous process to leave TIME_WAIT.
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        setsockopt(&socket.as_fd(), sockopt::Ipv6V6Only, &false)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG_CONNECTIONS)
}

fn no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
}

fn explain(address: SocketAddr, source: io::Error) -> ListenError {
    match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken { address },
        io::ErrorKind::PermissionDenied => ListenError::Denied { address },
        _ => ListenError::Failed { address, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_and_can_be_replaced() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = listen(address).unwrap_err();
        assert!(matches!(error, ListenError::Taken { .. }));
        assert!(
            error.to_string().contains(&format!("port {}", address.port())),
            "{error}"
        );
        let other = listen_or_any_port(address).unwrap();
        assert_ne!(other.local_addr().unwrap().port(), address.port());
    }

    #[tokio::test]
    async fn the_unspecified_ipv6_address_takes_ipv4_too() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    }
}
