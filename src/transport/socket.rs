//! What every TCP connection of ours is set to, accepted or dialled (upstream: `net.ListenConfig` and `net.Dialer` of
//! `apiserver/pkg/server/options` and `client-go/rest`).

use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use tokio::net::TcpStream;

/// No delay for small frames, and probes for peers that vanished.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &60)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &15)?;
    setsockopt(stream, sockopt::TcpKeepCount, &4)?;
    Ok(())
}
