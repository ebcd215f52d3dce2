//! WebSocket frames (RFC 6455), the server's side, to and from bytes.
//!
//! The decoder hands out the payload of data frames as it arrives, unmasked: a client may send a message of any
//! size, and nobody has to keep it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const CONTROL_BYTES_MAX: usize = 125;

/// What a close frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    Normal = 1000,
    ProtocolError = 1002,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    #[error("a WebSocket frame has reserved bits set")]
    ReservedBits,
    #[error("a WebSocket frame has the unknown opcode {0}")]
    Opcode(u8),
    #[error("a client's WebSocket frame is not masked")]
    NotMasked,
    #[error("a WebSocket control frame is fragmented or too long")]
    Control,
    #[error("a WebSocket message is continued that was not begun, or begun before the last one ended")]
    Continuation,
    #[error("a WebSocket frame's length is not valid")]
    Length,
}

/// What the peer sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A piece of a message: `start` on its first piece, `end` on its last.
    Data {
        text: bool,
        start: bool,
        end: bool,
        payload: Bytes,
    },
    Ping(Bytes),
    Pong,
    Close,
}

/// What is sent; server's frames are not masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A whole message.
    Message {
        text: bool,
        payload: Bytes,
    },
    /// A whole binary message made of a channel byte and its payload, which saves copying them together.
    Channel {
        channel: u8,
        payload: Bytes,
    },
    Ping,
    Pong(Bytes),
    Close(CloseCode),
}

/// Reads frames out of a buffer of received bytes.
#[derive(Default)]
pub struct Decoder {
    /// The message that has begun and not ended: whether it is text.
    message: Option<bool>,
    frame: Option<OpenFrame>,
}

struct OpenFrame {
    text: bool,
    start: bool,
    fin: bool,
    remaining: u64,
    mask: [u8; 4],
    /// Bytes already unmasked, modulo 4.
    phase: usize,
}

struct Head {
    fin: bool,
    opcode: u8,
    length: u64,
    mask: [u8; 4],
}

impl Decoder {
    /// The next event; None when `input` does not hold it yet.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Received>, WebSocketError> {
        if let Some(frame) = self.frame.take() {
            return Ok(self.piece(frame, input));
        }
        let Some((head, head_bytes)) = parse_head(input)? else {
            return Ok(None);
        };
        if head.opcode >= 8 {
            let length = head.length as usize; // at most 125
            if input.len() < head_bytes + length {
                return Ok(None);
            }
            input.advance(head_bytes);
            let mut payload = input.split_to(length);
            unmask(&mut payload, head.mask, 0);
            return match head.opcode {
                8 => Ok(Some(Received::Close)),
                9 => Ok(Some(Received::Ping(payload.freeze()))),
                10 => Ok(Some(Received::Pong)),
                opcode => Err(WebSocketError::Opcode(opcode)),
            };
        }
        let (text, start) = match (head.opcode, self.message) {
            (0, Some(text)) => (text, false),
            (1, None) => (true, true),
            (2, None) => (false, true),
            (0..=2, _) => return Err(WebSocketError::Continuation),
            (opcode, _) => return Err(WebSocketError::Opcode(opcode)),
        };
        input.advance(head_bytes);
        self.message = Some(text);
        let frame = OpenFrame {
            text,
            start,
            fin: head.fin,
            remaining: head.length,
            mask: head.mask,
            phase: 0,
        };
        Ok(self.piece(frame, input))
    }

    fn piece(&mut self, mut frame: OpenFrame, input: &mut BytesMut) -> Option<Received> {
        if input.is_empty() && frame.remaining > 0 {
            self.frame = Some(frame);
            return None;
        }
        let length = usize::try_from(frame.remaining).unwrap_or(usize::MAX).min(input.len());
        let mut payload = input.split_to(length);
        unmask(&mut payload, frame.mask, frame.phase);
        frame.phase = (frame.phase + length) % 4;
        frame.remaining -= length as u64;
        let complete = frame.remaining == 0;
        let end = complete && frame.fin;
        let piece = Received::Data {
            text: frame.text,
            start: frame.start,
            end,
            payload: payload.freeze(),
        };
        frame.start = false;
        if end {
            self.message = None;
        }
        if !complete {
            self.frame = Some(frame);
        }
        Some(piece)
    }
}

/// The head of the next frame and its length in bytes.
fn parse_head(input: &[u8]) -> Result<Option<(Head, usize)>, WebSocketError> {
    let [first, second, ..] = *input else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err(WebSocketError::ReservedBits);
    }
    if second & 0x80 == 0 {
        return Err(WebSocketError::NotMasked);
    }
    let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
    let short = second & 0x7f;
    if opcode >= 8 && (!fin || usize::from(short) > CONTROL_BYTES_MAX) {
        return Err(WebSocketError::Control);
    }
    let length_bytes = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let head_bytes = 2 + length_bytes + 4;
    if input.len() < head_bytes {
        return Ok(None);
    }
    let mut rest = &input[2..head_bytes];
    let length = match short {
        126 => u64::from(rest.get_u16()),
        127 => rest.get_u64(),
        short => u64::from(short),
    };
    if length >> 63 != 0 {
        return Err(WebSocketError::Length);
    }
    let mut mask = [0; 4];
    rest.copy_to_slice(&mut mask);
    let head = Head {
        fin,
        opcode,
        length,
        mask,
    };
    Ok(Some((head, head_bytes)))
}

fn unmask(payload: &mut [u8], mask: [u8; 4], phase: usize) {
    // Aligned to the mask, whole words go at once.
    let mask = [0, 1, 2, 3].map(|index| mask[(phase + index) % 4]);
    let mut words = payload.chunks_exact_mut(4);
    for word in &mut words {
        for (byte, mask) in word.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// Appends a frame to `output`.
pub fn encode(frame: &Sent, output: &mut BytesMut) {
    match frame {
        Sent::Message { text, payload } => {
            head(output, if *text { 1 } else { 2 }, payload.len());
            output.put_slice(payload);
        }
        Sent::Channel { channel, payload } => {
            head(output, 2, payload.len() + 1);
            output.put_u8(*channel);
            output.put_slice(payload);
        }
        Sent::Ping => head(output, 9, 0),
        Sent::Pong(payload) => {
            head(output, 10, payload.len());
            output.put_slice(payload);
        }
        Sent::Close(code) => {
            head(output, 8, 2);
            output.put_u16(*code as u16);
        }
    }
}

fn head(output: &mut BytesMut, opcode: u8, length: usize) {
    output.put_u8(0x80 | opcode);
    if length < 126 {
        output.put_u8(length as u8);
    } else if let Ok(length) = u16::try_from(length) {
        output.put_u8(126);
        output.put_u16(length);
    } else {
        output.put_u8(127);
        output.put_u64(length as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, RngCore, SeedableRng};

    /// A client's frame.
    fn masked(first: u8, payload: &[u8]) -> BytesMut {
        let mut output = BytesMut::new();
        head(&mut output, 0, payload.len());
        output[0] = first;
        output[1] |= 0x80;
        let mask = [1, 2, 3, 4];
        output.put_slice(&mask);
        let start = output.len();
        output.put_slice(payload);
        unmask(&mut output[start..], mask, 0);
        output
    }

    #[test]
    fn a_message_in_pieces_of_any_size_arrives_whole() {
        let message: Vec<u8> = (0..100_000u32).map(|index| index as u8).collect();
        for step in [1, 3, 7, 4096, 200_000] {
            let mut wire = masked(0x02, &message[..70_000]);
            wire.unsplit(masked(0x89, b"in between"));
            wire.unsplit(masked(0x80, &message[70_000..]));
            let (mut decoder, mut input) = (Decoder::default(), BytesMut::new());
            let (mut received, mut ended, mut pings) = (Vec::new(), false, 0);
            for chunk in wire.chunks(step) {
                input.extend_from_slice(chunk);
                while let Some(event) = decoder.decode(&mut input).unwrap() {
                    match event {
                        Received::Data {
                            start,
                            end,
                            payload,
                            text,
                        } => {
                            assert!(!ended && !text);
                            assert_eq!(start, received.is_empty());
                            received.extend_from_slice(&payload);
                            ended = end;
                        }
                        Received::Ping(payload) => {
                            assert_eq!(&payload[..], b"in between");
                            pings += 1;
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            assert!(ended && pings == 1);
            assert_eq!(received, message);
        }
    }

    #[test]
    fn what_the_standard_forbids_is_an_error() {
        let decode = |mut wire: BytesMut| Decoder::default().decode(&mut wire);
        assert_eq!(decode(masked(0xc2, b"x")), Err(WebSocketError::ReservedBits));
        assert_eq!(decode(masked(0x83, b"x")), Err(WebSocketError::Opcode(3)));
        assert_eq!(decode(masked(0x8b, b"x")), Err(WebSocketError::Opcode(11)));
        assert_eq!(decode(masked(0x80, b"x")), Err(WebSocketError::Continuation));
        assert_eq!(decode(masked(0x09, b"x")), Err(WebSocketError::Control));
        assert_eq!(decode(masked(0x89, &[0; 126])), Err(WebSocketError::Control));
        assert_eq!(
            decode(BytesMut::from(&b"\x82\x01x"[..])),
            Err(WebSocketError::NotMasked)
        );
        let endless = BytesMut::from(&b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0"[..]);
        assert_eq!(decode(endless), Err(WebSocketError::Length));
    }

    #[test]
    fn random_bytes_never_panic_and_progress() {
        let mut random = rand::rngs::StdRng::seed_from_u64(7);
        let mut events = 0;
        for _ in 0..20_000 {
            let mut wire = vec![0; random.random_range(0..64)];
            random.fill_bytes(&mut wire);
            if random.random_bool(0.7) && wire.len() > 2 {
                wire[0] = [0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8a][random.random_range(0..9)];
                wire[1] |= 0x80;
            }
            let (mut decoder, mut input) = (Decoder::default(), BytesMut::from(&wire[..]));
            // Each event takes at least a head, or a byte of an open frame.
            let mut frames = 0;
            while let Ok(Some(_)) = decoder.decode(&mut input) {
                frames += 1;
                assert!(frames <= wire.len());
            }
            events += frames;
        }
        assert!(events > 1000, "{events}");
    }
}
