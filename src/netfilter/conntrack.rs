//! Forgets tracked connections whose translation is not right any more (upstream: `pkg/proxy/conntrack/cleanup.go`).
//!
//! Only UDP needs it: what goes on between the same ports counts as one connection, so a client that asks again and again
//! would be led to where its first question was.

use super::NetfilterError;
use super::netlink::{HEADER_BYTES, find, messages, number_u32, open};
use std::collections::HashSet;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

const CTNETLINK: u16 = 1 << 8;
const GET: u16 = CTNETLINK | 1;
const DELETE: u16 = CTNETLINK | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_V4_SOURCE: u16 = 1;
const IP_V4_DESTINATION: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_SOURCE_PORT: u16 = 2;
const PROTOCOL_DESTINATION_PORT: u16 = 3;
const NESTED: u16 = 1 << 15;
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A tracked connection of UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where the client sent to.
    pub asked: (Ipv4Addr, u16),
    /// Who answers.
    pub answers: (Ipv4Addr, u16),
}

/// Forgets the flows of UDP that are so.
pub async fn forget(is_stale: impl Fn(&Flow) -> bool + Send + 'static) -> Result<usize, NetfilterError> {
    let forgotten = tokio::task::spawn_blocking(move || forget_now(&is_stale)).await;
    let forgotten = forgotten.unwrap_or_else(|error| Err(io::Error::other(error)));
    forgotten.map_err(NetfilterError::Conntrack)
}

/// For flows to host ports: those to any of these ports.
pub fn to_ports(ports: HashSet<u16>) -> impl Fn(&Flow) -> bool + Send + 'static {
    move |flow| ports.contains(&flow.asked.1)
}

fn forget_now(is_stale: &dyn Fn(&Flow) -> bool) -> io::Result<usize> {
    let socket = open(0)?;
    let mut stale = Vec::new();
    let dump = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    exchange(&socket, &message(GET, dump, &[]), &mut |body| {
        if let Some((flow, tuple)) = read(body)
            && is_stale(&flow)
        {
            stale.push(tuple);
        }
    })?;
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    for tuple in &stale {
        match exchange(&socket, &message(DELETE, flags, tuple), &mut |_| {}) {
            // It has ended meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            other => other?,
        }
    }
    Ok(stale.len())
}

/// A message about IPv4 connections with the attributes.
fn message(kind: u16, flags: i32, attributes: &[u8]) -> Vec<u8> {
    let length = HEADER_BYTES + 4 + attributes.len();
    let mut message = Vec::with_capacity(length);
    message.extend_from_slice(&u32::try_from(length).unwrap_or_default().to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&u16::try_from(flags).unwrap_or_default().to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    // nfgenmsg: family, version, resource.
    message.extend_from_slice(&[libc::AF_INET as u8, 0, 0, 0]);
    message.extend_from_slice(attributes);
    message
}

/// Sends a request and hands on the answer's messages until the last one.
fn exchange(socket: &OwnedFd, request: &[u8], each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    // SAFETY: the buffers are as long as is said.
    let sent = unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    if sent == -1 {
        return Err(io::Error::last_os_error());
    }
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    loop {
        // SAFETY: as above.
        let received = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for (kind, body) in messages(buffer.get(..received).unwrap_or_default()) {
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => {
                    // Without an error it is the acknowledgement.
                    let code = number_u32(body).unwrap_or_default() as i32;
                    return match code {
                        0 => Ok(()),
                        code => Err(io::Error::from_raw_os_error(-code)),
                    };
                }
                _ => each(body),
            }
        }
    }
}

/// A flow of UDP, and the attribute that names it.
fn read(body: &[u8]) -> Option<(Flow, Vec<u8>)> {
    let attributes = body.get(4..)?;
    let original = find(attributes, TUPLE_ORIGINAL)?;
    let asked = tuple(original, IP_V4_DESTINATION, PROTOCOL_DESTINATION_PORT)?;
    let answers = tuple(find(attributes, TUPLE_REPLY)?, IP_V4_SOURCE, PROTOCOL_SOURCE_PORT)?;
    let mut named = Vec::with_capacity(original.len() + 4);
    named.extend_from_slice(&u16::try_from(original.len() + 4).ok()?.to_ne_bytes());
    named.extend_from_slice(&(TUPLE_ORIGINAL | NESTED).to_ne_bytes());
    named.extend_from_slice(original);
    Some((Flow { asked, answers }, named))
}

fn tuple(tuple: &[u8], address: u16, port: u16) -> Option<(Ipv4Addr, u16)> {
    let protocol = find(tuple, TUPLE_PROTOCOL)?;
    if i32::from(*find(protocol, PROTOCOL_NUMBER)?.first()?) != libc::IPPROTO_UDP {
        return None;
    }
    let address: [u8; 4] = find(find(tuple, TUPLE_IP)?, address)?.get(..4)?.try_into().ok()?;
    let port: [u8; 2] = find(protocol, port)?.get(..2)?.try_into().ok()?;
    Some((address.into(), u16::from_be_bytes(port)))
}

#[cfg(test)]
mod tests {
    use super::super::netlink::number_u16;
    use super::*;

    fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(content.len() + 4).unwrap().to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn side(protocol: u8, from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
        let ip = [attribute(IP_V4_SOURCE, &from.0), attribute(IP_V4_DESTINATION, &to.0)].concat();
        let ports = [
            attribute(PROTOCOL_NUMBER, &[protocol]),
            attribute(PROTOCOL_SOURCE_PORT, &from.1.to_be_bytes()),
            attribute(PROTOCOL_DESTINATION_PORT, &to.1.to_be_bytes()),
        ]
        .concat();
        [
            attribute(TUPLE_IP | NESTED, &ip),
            attribute(TUPLE_PROTOCOL | NESTED, &ports),
        ]
        .concat()
    }

    #[test]
    fn flows_are_read_from_the_kernels_form() {
        let body = |protocol: u8| {
            let original = side(protocol, ([10, 0, 0, 1], 5000), ([10, 43, 0, 9], 53));
            let reply = side(protocol, ([10, 42, 0, 3], 5353), ([10, 0, 0, 1], 5000));
            let mut body = vec![2, 0, 0, 0];
            body.extend(attribute(TUPLE_ORIGINAL | NESTED, &original));
            body.extend(attribute(TUPLE_REPLY | NESTED, &reply));
            body
        };
        let (flow, named) = read(&body(17)).unwrap();
        assert_eq!(flow.asked, ([10, 43, 0, 9].into(), 53));
        assert_eq!(flow.answers, ([10, 42, 0, 3].into(), 5353));
        assert_eq!(number_u16(&named[2..]), Some(TUPLE_ORIGINAL | NESTED));
        assert!(read(&body(6)).is_none(), "TCP is not looked at");
        assert!(read(&[2, 0, 0, 0, 9]).is_none());
    }
}
