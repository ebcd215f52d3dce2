//! Sockets and messages of nfnetlink, as far as they are needed here.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

pub const HEADER_BYTES: usize = 16;

/// A socket with these flags.
pub fn open(flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call; the descriptor is nobody else's.
    unsafe {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | flags;
        match libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_NETFILTER) {
            -1 => Err(io::Error::last_os_error()),
            descriptor => Ok(OwnedFd::from_raw_fd(descriptor)),
        }
    }
}

/// Kind and body of each message; what is cut off is left out.
pub fn messages(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = number_u32(rest)? as usize;
        let kind = number_u16(rest.get(4..)?)?;
        let body = rest.get(HEADER_BYTES..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The content of the attribute.
pub fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(number_u16(attributes)?);
        let kind = number_u16(attributes.get(2..)?)?;
        let content = attributes.get(4..length)?;
        // The upper two bits are flags.
        if kind & 0x3fff == wanted {
            return Some(content);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

pub fn number_u16(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?))
}

pub fn number_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}
