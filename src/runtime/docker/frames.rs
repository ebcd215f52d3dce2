//! The engine's framing of stdout and stderr on one stream: eight bytes (stream, three zeros, length in big-endian),
//! then the payload. Only streams without a TTY have it; those with one are raw.

use super::super::LogStream;
use bytes::{Buf, Bytes, BytesMut};

const HEADER_BYTES: usize = 8;
/// The longest payload that is believed; the engine's own are far shorter.
const PAYLOAD_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum FrameError {
    #[error("stream {0} in a frame")]
    Stream(u8),
    #[error("a frame of {0} bytes")]
    Length(usize),
}

/// Cuts a byte stream into frames.
#[derive(Default)]
pub struct Frames {
    pending: BytesMut,
}

impl Frames {
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next complete frame.
    pub fn next_frame(&mut self) -> Result<Option<(LogStream, Bytes)>, FrameError> {
        if self.pending.len() < HEADER_BYTES {
            return Ok(None);
        }
        let stream = match self.pending[0] {
            // Stdin's echo counts as stdout, as in Docker's own reader.
            0 | 1 => LogStream::Stdout,
            // 3 is the engine's own errors.
            2 | 3 => LogStream::Stderr,
            other => return Err(FrameError::Stream(other)),
        };
        let length = (&self.pending[4..HEADER_BYTES]).get_u32() as usize;
        if length > PAYLOAD_BYTES_MAX {
            return Err(FrameError::Length(length));
        }
        if self.pending.len() < HEADER_BYTES + length {
            self.pending.reserve(HEADER_BYTES + length - self.pending.len());
            return Ok(None);
        }
        self.pending.advance(HEADER_BYTES);
        Ok(Some((stream, self.pending.split_to(length).freeze())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_pieces() {
        let mut bytes = vec![1, 0, 0, 0, 0, 0, 0, 3];
        bytes.extend(b"abc");
        bytes.extend([2, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([2, 0, 0, 0, 0, 0, 0, 1, b'e']);
        for size in [1, 2, 7, 8, 9, 100] {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                frames.push(piece);
                while let Some(frame) = frames.next_frame().unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(
                found,
                [
                    (LogStream::Stdout, Bytes::from_static(b"abc")),
                    (LogStream::Stderr, Bytes::new()),
                    (LogStream::Stderr, Bytes::from_static(b"e")),
                ]
            );
        }
    }

    #[test]
    fn what_is_not_a_frame() {
        let mut frames = Frames::default();
        frames.push(b"hello world");
        assert_eq!(frames.next_frame(), Err(FrameError::Stream(b'h')));
        let mut frames = Frames::default();
        frames.push(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(frames.next_frame(), Err(FrameError::Length(0xffff_ffff)));
    }
}
