//! Tells when somebody takes nftables' tables away, as `nft flush ruleset` and restarts of firewalls do.

use super::netlink;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};
use tokio::io::unix::AsyncFd;

/// `NFNLGRP_NFTABLES` as a bit.
const GROUP: u32 = 1 << 6;
/// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_DELTABLE`.
const DELETED_TABLE: u16 = 10 << 8 | 2;
const TABLE_NAME: u16 = 1;
const MESSAGES_BYTES_MAX: usize = 64 * 1024;

pub struct Watch {
    socket: AsyncFd<OwnedFd>,
}

impl Watch {
    pub fn open() -> io::Result<Self> {
        let socket = netlink::open(libc::SOCK_NONBLOCK)?;
        // SAFETY: an address without anything in it is valid.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = GROUP;
        let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: the address is as long as is said.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        match bound {
            0 => Ok(Self {
                // SAFETY: the descriptor is a socket's, which is open as long as it is owned.
                socket: unsafe { AsyncFd::register(socket) }?,
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Returns when a table of this name may have gone: it may be there again by now.
    pub async fn table_goes(&self, name: &str) -> io::Result<()> {
        let mut buffer = vec![0; MESSAGES_BYTES_MAX];
        loop {
            let mut ready = self.socket.readable().await?;
            let received = ready.try_io(|socket| {
                // SAFETY: the buffer is as long as is said.
                let received = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
                usize::try_from(received).map_err(|_| io::Error::last_os_error())
            });
            match received {
                Ok(Ok(length)) if names_a_deleted_table(buffer.get(..length).unwrap_or_default(), name) => {
                    return Ok(());
                }
                Ok(Ok(_)) => {}
                // Some were lost.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                // Nothing was there after all.
                Err(_) => {}
            }
        }
    }
}

fn names_a_deleted_table(messages: &[u8], name: &str) -> bool {
    netlink::messages(messages).any(|(kind, body)| {
        let attributes = body.get(4..).unwrap_or_default();
        let found = netlink::find(attributes, TABLE_NAME);
        // With a zero at its end.
        let found = found.map(|found| found.strip_suffix(&[0]).unwrap_or(found));
        kind == DELETED_TABLE && found == Some(name.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::super::netlink::HEADER_BYTES;
    use super::*;

    #[test]
    fn deleted_tables_are_told_from_others() {
        let message = |kind: u16, name: &[u8]| {
            let mut attribute = u16::try_from(name.len() + 4).unwrap().to_ne_bytes().to_vec();
            attribute.extend_from_slice(&TABLE_NAME.to_ne_bytes());
            attribute.extend_from_slice(name);
            attribute.resize(attribute.len().next_multiple_of(4), 0);
            let length = u32::try_from(HEADER_BYTES + 4 + attribute.len()).unwrap();
            let mut message = length.to_ne_bytes().to_vec();
            message.extend_from_slice(&kind.to_ne_bytes());
            message.resize(HEADER_BYTES + 4, 0);
            message.extend(attribute);
            message
        };
        let both = [message(DELETED_TABLE, b"other\0"), message(DELETED_TABLE, b"ours\0")].concat();
        assert!(names_a_deleted_table(&both, "ours"));
        assert!(!names_a_deleted_table(&both, "our"));
        assert!(!names_a_deleted_table(&message(10 << 8, b"ours\0"), "ours"));
        assert!(!names_a_deleted_table(&both[..10], "ours"));
    }
}
