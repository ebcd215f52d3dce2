//! What the server in the test images asks others: over HTTP and UDP, and names of DNS by a client of its own.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);
/// A question of UDP may be lost.
const TRIES: u32 = 3;

/// `dial http|udp HOST PORT REQUEST`: prints the answer.
pub fn dial(words: &[String]) -> Result<String, String> {
    let [protocol, host, port, request] = words else {
        return Err("dial http|udp HOST PORT REQUEST".to_owned());
    };
    let port = port.parse().map_err(|_| format!("{port} is no port"))?;
    ask(protocol, host, port, request)
}

pub fn ask(protocol: &str, host: &str, port: u16, request: &str) -> Result<String, String> {
    let address = match host.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => {
            let found = resolve(host, "A", false)?;
            let first = found.iter().find_map(|record| record.rsplit(' ').next()?.parse().ok());
            first.ok_or_else(|| format!("{host} has no address"))?
        }
    };
    let server = SocketAddr::from((address, port));
    let answer = match protocol {
        "udp" => by_udp(server, request.as_bytes()),
        _ => by_http(server, request).map(|answer| answer.into_bytes()),
    };
    let answer = answer.map_err(|error| format!("{protocol} {server}: {error}"))?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn by_http(server: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let path = request.trim_start_matches('/');
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    body.ok_or_else(|| std::io::Error::other("no answer"))
}

fn by_udp(server: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE / TRIES))?;
    socket.connect(server)?;
    let mut answer = vec![0; 4096];
    let mut last = std::io::Error::other("not asked");
    for _ in 0..TRIES {
        match socket.send(request).and_then(|_| socket.recv(&mut answer)) {
            Ok(length) => {
                answer.truncate(length);
                return Ok(answer);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `resolve [--tcp] NAME TYPE`: prints the records, a line each: name, type and what they say.
pub fn resolve_words(words: &[String]) -> Result<String, String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let found = match words[..] {
        ["--tcp", name, kind] => resolve(name, kind, true),
        [name, kind] => resolve(name, kind, false),
        _ => Err("resolve [--tcp] NAME TYPE".to_owned()),
    };
    found.map(|records| records.join("\n"))
}

const KINDS: [(&str, u16); 5] = [("A", 1), ("CNAME", 5), ("PTR", 12), ("TXT", 16), ("SRV", 33)];

fn kind_name(kind: u16) -> &'static str {
    KINDS
        .iter()
        .find(|(_, number)| *number == kind)
        .map_or("?", |(name, _)| name)
}

/// The search list of resolv.conf is gone through as libc does it.
fn resolve(name: &str, kind: &str, tcp: bool) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string("/etc/resolv.conf").map_err(|error| error.to_string())?;
    let words = |key: &str| {
        let line = text.lines().rev().find_map(|line| line.trim().strip_prefix(key));
        line.map(|rest| rest.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .unwrap_or_default()
    };
    let server = words("nameserver ").first().cloned().ok_or("no server of DNS")?;
    let server: IpAddr = server.parse().map_err(|_| format!("{server} is no address"))?;
    let dots = words("options ")
        .iter()
        .find_map(|option| option.strip_prefix("ndots:")?.parse().ok());
    let dots: usize = dots.unwrap_or(1);
    let (_, number) = KINDS
        .iter()
        .find(|(known, _)| *known == kind)
        .ok_or("an unknown type")?;
    let below = words("search ").into_iter().map(|domain| format!("{name}.{domain}"));
    let names: Vec<String> = match name.strip_suffix('.') {
        Some(whole) => vec![whole.to_owned()],
        None if name.matches('.').count() >= dots => std::iter::once(name.to_owned()).chain(below).collect(),
        None => below.chain(std::iter::once(name.to_owned())).collect(),
    };
    let mut why = "nothing was asked".to_owned();
    for name in names {
        let question = question(&name, *number);
        let asked = match tcp {
            true => by_tcp((server, 53).into(), &question),
            false => by_udp((server, 53).into(), &question),
        };
        let answer = asked.map_err(|error| format!("{name}: {error}"))?;
        match read(&answer) {
            Ok(records) if !records.is_empty() => return Ok(records),
            Ok(_) => why = format!("{name}: no record"),
            Err(reason) => why = format!("{name}: {reason}"),
        }
    }
    Err(why)
}

fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0x4b, 0x52, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    message
}

fn by_tcp(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&(question.len() as u16).to_be_bytes())?;
    stream.write_all(question)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn number(message: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([message[at], message[at + 1]]))
}

fn name(message: &[u8], mut at: usize) -> (String, usize) {
    let (mut labels, mut after) = (Vec::new(), None);
    loop {
        match usize::from(message[at]) {
            0 => return (labels.join("."), after.unwrap_or(at + 1)),
            length if length >= 0xc0 => {
                after.get_or_insert(at + 2);
                at = number(message, at) & 0x3fff;
            }
            length => {
                labels.push(String::from_utf8_lossy(&message[at + 1..at + 1 + length]).into_owned());
                at += length + 1;
            }
        }
    }
}

fn read(message: &[u8]) -> Result<Vec<String>, String> {
    match message[3] & 15 {
        0 => {}
        3 => return Err("NXDOMAIN".to_owned()),
        code => return Err(format!("the code {code}")),
    }
    let mut at = name(message, 12).1 + 4;
    let mut records = Vec::new();
    for _ in 0..number(message, 6) {
        let (owner, end) = name(message, at);
        let (kind, data) = (number(message, end) as u16, end + 10);
        let length = number(message, end + 8);
        let says = match kind {
            1 => Ipv4Addr::new(message[data], message[data + 1], message[data + 2], message[data + 3]).to_string(),
            5 | 12 => name(message, data).0,
            16 => String::from_utf8_lossy(&message[data + 1..data + length]).into_owned(),
            33 => format!("{} {}", number(message, data + 4), name(message, data + 6).0),
            _ => String::new(),
        };
        records.push(format!("{owner} {} {says}", kind_name(kind)));
        at = data + length;
    }
    Ok(records)
}
