//! Who may speak plain HTTP: the rule that makes `kubectl --server=http://localhost:6443` an administrator without
//! letting in other users of the machine, other machines, or a web page in the administrator's browser.
//! Upstream had this as the insecure port, without any of the checks.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::header::{self, HeaderMap, HeaderName};
use http::uri::Authority;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Why a plain-text peer or request is turned away. The text goes to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("Client sent an HTTP request to an HTTPS server: plain HTTP is for this machine only, use https://")]
    NotLoopback,
    #[error(
        "plain HTTP is for root and for the user that runs this server, and this connection belongs to user id {uid}: \
         use https:// and a kubeconfig (krust kubeconfig)"
    )]
    OtherUser { uid: u32 },
    #[error(
        "plain HTTP is for root and for the user that runs this server, and the owner of this connection can not be told: use https://"
    )]
    UnknownUser,
    #[error("plain HTTP on this port is not for web pages: the request comes from {from}")]
    CrossSite { from: String },
    #[error("plain HTTP on this port is for requests to localhost, not to {host:?}: use https://")]
    ForeignHost { host: String },
    #[error("plain HTTP on this port is not for requests forwarded for {from}: use https://")]
    Forwarded { from: String },
}

/// Decides about a connection: both ends are loopback, and the peer's socket belongs to root or to us.
pub fn admit_connection(peer: SocketAddr, local: SocketAddr) -> Result<(), Refusal> {
    if !peer.ip().to_canonical().is_loopback() || !local.ip().to_canonical().is_loopback() {
        return Err(Refusal::NotLoopback);
    }
    match socket_owner(peer, local) {
        Ok(Some(uid)) if uid == 0 || uid == nix::unistd::geteuid().as_raw() => Ok(()),
        Ok(Some(uid)) => Err(Refusal::OtherUser { uid }),
        Ok(None) => Err(Refusal::UnknownUser),
        Err(error) => {
            tracing::warn!(%error, "the owner of a loopback connection can not be looked up, so it is refused");
            Err(Refusal::UnknownUser)
        }
    }
}

/// Decides about a request on an admitted connection. A browser that runs as the administrator is a deputy of the
/// page it shows, so everything that tells of another site is refused: `Origin`, `Sec-Fetch-Site`, `Referer`, and a
/// `Host` that is not loopback (DNS rebinding). So is what a proxy on this machine forwards for other machines.
pub fn admit_request(uri: &http::Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut host = None;
    for value in headers.get_all(header::HOST) {
        host = Some(authority(value.as_bytes())?);
        admit_host(host.as_ref())?;
    }
    if let Some(authority) = uri.authority() {
        admit_host(Some(authority))?;
        host = Some(authority.clone());
    }
    for value in headers.get_all(SEC_FETCH_SITE) {
        if !matches!(value.as_bytes(), b"same-origin" | b"none") {
            return Err(Refusal::CrossSite {
                from: "another site".to_owned(),
            });
        }
    }
    for name in [header::ORIGIN, header::REFERER] {
        for value in headers.get_all(name) {
            let from = String::from_utf8_lossy(value.as_bytes()).into_owned();
            let origin: Option<http::Uri> = from.parse().ok();
            let origin = origin.as_ref().and_then(http::Uri::authority);
            if origin.is_none() || origin != host.as_ref() {
                return Err(Refusal::CrossSite { from });
            }
        }
    }
    for value in headers.get_all(X_FORWARDED_FOR) {
        let from = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let local = |hop: &str| {
            hop.trim()
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.to_canonical().is_loopback())
        };
        if !from.split(',').all(local) {
            return Err(Refusal::Forwarded { from });
        }
    }
    if headers.contains_key(header::FORWARDED) {
        return Err(Refusal::Forwarded {
            from: "another client".to_owned(),
        });
    }
    Ok(())
}

fn authority(host: &[u8]) -> Result<Authority, Refusal> {
    Authority::try_from(host).map_err(|_| Refusal::ForeignHost {
        host: String::from_utf8_lossy(host).into_owned(),
    })
}

fn admit_host(authority: Option<&Authority>) -> Result<(), Refusal> {
    let Some(authority) = authority else { return Ok(()) };
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    if loopback {
        Ok(())
    } else {
        Err(Refusal::ForeignHost { host: host.to_owned() })
    }
}

/// The user id that owns the client's end of a connection on this machine, from the kernel's tables. `None` when
/// the socket is not there (closed meanwhile).
fn socket_owner(peer: SocketAddr, local: SocketAddr) -> io::Result<Option<u32>> {
    let wanted = (canonical(peer), canonical(local));
    // A client that connects to an IPv4 address from an IPv6 socket stands in tcp6 with mapped addresses.
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let table = match std::fs::read_to_string(path) {
            Ok(table) => table,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if let Some(uid) = find_owner(&table, wanted) {
            return Ok(Some(uid));
        }
    }
    Ok(None)
}

fn canonical(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

/// Finds the row of an established connection whose own end is `wanted.0`. Columns: slot, local, remote, state,
/// queues, timer, retransmits, uid (Documentation/networking/proc_net_tcp.rst).
fn find_owner(table: &str, wanted: ((IpAddr, u16), (IpAddr, u16))) -> Option<u32> {
    const ESTABLISHED: &str = "01";
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, local, remote, state, _, _, _, uid, ..] = columns.as_slice() else {
            return None;
        };
        let matches = *state == ESTABLISHED && parse_end(local)? == wanted.0 && parse_end(remote)? == wanted.1;
        if matches { uid.parse().ok() } else { None }
    })
}

/// Parses `0100007F:192B` or its IPv6 form: address words in the machine's byte order, then the port.
fn parse_end(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        u32::from_str_radix(address.get(at..at + 8)?, 16)
            .ok()
            .map(u32::to_ne_bytes)
    };
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut octets = [0; 16];
            for index in 0..4 {
                octets[index * 4..index * 4 + 4].copy_from_slice(&word(index * 8)?);
            }
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some((ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, headers: &[(&'static str, &str)]) -> Result<(), Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        admit_request(&target.parse().unwrap(), &map)
    }

    #[test]
    fn ordinary_clients_pass() {
        for host in [
            "localhost:6443",
            "LOCALHOST",
            "127.0.0.1:6443",
            "127.8.8.8",
            "[::1]:6443",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert_eq!(request("/api", &[("host", host)]), Ok(()), "{host}");
        }
        assert_eq!(
            request("/api", &[]),
            Ok(()),
            "HTTP/1.0 has no Host, and no browser speaks it"
        );
        assert_eq!(request("http://localhost:6443/api", &[]), Ok(()));
        assert_eq!(
            request("/api", &[("host", "localhost"), ("x-forwarded-for", "127.0.0.1, ::1")]),
            Ok(())
        );
    }

    #[test]
    fn our_own_page_in_a_browser_passes() {
        let own = [
            ("host", "localhost:6443"),
            ("origin", "http://localhost:6443"),
            ("sec-fetch-site", "same-origin"),
        ];
        assert_eq!(request("/api", &own), Ok(()));
        assert_eq!(
            request("/docs", &[("host", "localhost:6443"), ("sec-fetch-site", "none")]),
            Ok(())
        );
    }

    #[test]
    fn other_sites_are_refused() {
        for headers in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("origin", "http://localhost:3000"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("referer", "http://evil.example/page"),
        ] {
            let refusal = request("/api", &[("host", "localhost:6443"), headers]).unwrap_err();
            assert!(matches!(refusal, Refusal::CrossSite { .. }), "{headers:?}: {refusal:?}");
        }
    }

    #[test]
    fn rebound_names_and_forwarded_requests_are_refused() {
        for host in [
            "evil.example:6443",
            "localhost.evil.example",
            "10.0.0.1",
            "0.0.0.0:6443",
            "a b",
        ] {
            let refusal = request("/api", &[("host", host)]).unwrap_err();
            assert!(matches!(refusal, Refusal::ForeignHost { .. }), "{host}: {refusal:?}");
        }
        assert!(request("http://evil.example/api", &[("host", "localhost")]).is_err());
        assert!(request("/api", &[("host", "localhost"), ("host", "evil.example")]).is_err());
        assert!(
            request(
                "/api",
                &[("host", "localhost"), ("x-forwarded-for", "127.0.0.1, 10.0.0.9")]
            )
            .is_err()
        );
        assert!(request("/api", &[("host", "localhost"), ("forwarded", "for=10.0.0.9")]).is_err());
    }

    #[test]
    fn the_owner_is_found_by_both_ends() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n\
            \x20  1: 0100007F:192B 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 2 1\n\
            \x20  2: 0100007F:C350 0100007F:192B 01 00000000:00000000 00:00000000 00000000  1000        0 3 1\n";
        let end = |port| (IpAddr::from([127, 0, 0, 1]), port);
        assert_eq!(find_owner(table, (end(50000), end(6443))), Some(1000));
        assert_eq!(find_owner(table, (end(50001), end(6443))), None);
        let mapped = parse_end("0000000000000000FFFF00000100007F:192B");
        assert_eq!(mapped, Some(end(6443)));
        assert_eq!(
            parse_end("00000000000000000000000001000000:0001"),
            Some((IpAddr::from(Ipv6Addr::LOCALHOST), 1))
        );
    }

    #[tokio::test]
    async fn a_connection_of_our_own_is_admitted() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = tokio::net::TcpListener::bind(address).await.unwrap();
            let _client = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
                .await
                .unwrap();
            let (server, peer) = listener.accept().await.unwrap();
            assert_eq!(admit_connection(peer, server.local_addr().unwrap()), Ok(()));
        }
        let far = "192.0.2.1:5".parse().unwrap();
        assert_eq!(
            admit_connection(far, "127.0.0.1:6443".parse().unwrap()),
            Err(Refusal::NotLoopback)
        );
    }

    /// Needs root, like the whole test-suite: sockets are owned by the file system user of the thread that makes them.
    #[test]
    fn a_connection_of_another_user_is_refused() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connect = move || {
            nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
            std::net::TcpStream::connect(address).unwrap()
        };
        let _client = std::thread::spawn(connect).join().unwrap();
        let (_server, peer) = listener.accept().unwrap();
        assert_eq!(admit_connection(peer, address), Err(Refusal::OtherUser { uid: 65534 }));
    }
}
