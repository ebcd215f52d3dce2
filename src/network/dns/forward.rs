//! Questions that this host's own servers of DNS are asked (upstream: CoreDNS' plug-in `forward`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

const PORT: u16 = 53;
/// How long one of them may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whom to ask.
pub struct Upstream {
    /// Read for each question: it changes with the networks that a host is in.
    file: Option<PathBuf>,
    fixed: Vec<SocketAddr>,
    /// Our own address, which is not asked.
    own: Option<Ipv4Addr>,
}

impl Upstream {
    pub fn new(file: PathBuf, own: Ipv4Addr) -> Self {
        Self {
            file: Some(file),
            fixed: Vec::new(),
            own: Some(own),
        }
    }

    #[cfg(test)]
    pub fn fixed(servers: Vec<SocketAddr>) -> Self {
        Self {
            file: None,
            fixed: servers,
            own: None,
        }
    }

    /// The first answer, as it came; None if nobody gives one.
    pub async fn ask(&self, question: &[u8], udp: bool) -> Option<Vec<u8>> {
        for server in self.servers() {
            let asked = async {
                match udp {
                    true => by_udp(server, question).await,
                    // A server without TCP is asked all the same.
                    false => match by_tcp(server, question).await {
                        Err(_) => by_udp(server, question).await,
                        answered => answered,
                    },
                }
            };
            match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%error, %server, "a server of DNS does not answer"),
                Err(_) => tracing::debug!(%server, "a server of DNS does not answer in time"),
            }
        }
        None
    }

    fn servers(&self) -> Vec<SocketAddr> {
        let Some(file) = &self.file else {
            return self.fixed.clone();
        };
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let own = self.own.map(IpAddr::from);
        let servers = servers(&text).into_iter().filter(|server| Some(*server) != own);
        servers.map(|server| SocketAddr::from((server, PORT))).collect()
    }
}

fn servers(text: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        words.next()?.parse().ok()
    });
    lines.collect()
}

async fn by_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A port that nobody can guess, and answers from this server only.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut answer).await?;
        if answer.get(..2) == question.get(..2) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn by_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes()[..], question].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_a_host_asks() {
        let text = "# comment\nnameserver 127.0.0.53\noptions edns0\nnameserver 10.43.0.10\nnameserver ::1\n";
        assert_eq!(servers(text).len(), 3);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("resolv.conf");
        std::fs::write(&file, text).unwrap();
        let upstream = Upstream::new(file, [10, 43, 0, 10].into());
        let asked: Vec<String> = upstream.servers().iter().map(ToString::to_string).collect();
        assert_eq!(asked, ["127.0.0.53:53", "[::1]:53"]);
    }
}
