//! Frames of SPDY/3.1 to and from bytes (upstream: `moby/spdystream/spdy`).
//!
//! The decoder hands out the payload of a data frame as it arrives: a frame may hold 16 MiB, and nobody has to
//! keep that.

use super::SpdyError;
use super::headers::{HeaderReader, HeaderWriter, Headers};
use bytes::{Buf, BufMut, Bytes, BytesMut};

const VERSION: u16 = 3;
const HEADER_BYTES: usize = 8;
/// Bound on control frames; the largest that clients send is a SYN_STREAM of some hundred bytes.
const CONTROL_BYTES_MAX: usize = 16 * 1024;
const FLAG_FIN: u8 = 0x01;
const STREAM_ID_MASK: u32 = 0x7fff_ffff;
const SETTINGS_INITIAL_WINDOW_SIZE: u32 = 7;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Status codes of RST_STREAM that this side sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetReason {
    ProtocolError = 1,
    InvalidStream = 2,
    RefusedStream = 3,
    Cancel = 5,
}

/// One frame, or a piece of a data frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    SynReply {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    RstStream {
        stream: u32,
        status: u32,
    },
    /// `initial_window` if the settings name it.
    Settings {
        initial_window: Option<u32>,
    },
    Ping {
        id: u32,
    },
    GoAway {
        last_good_stream: u32,
    },
    Headers {
        stream: u32,
        fin: bool,
    },
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
    /// `fin` is set on the last piece only.
    Data {
        stream: u32,
        fin: bool,
        payload: Bytes,
    },
}

/// Reads frames out of a buffer of received bytes.
#[derive(Default)]
pub struct Decoder {
    headers: HeaderReader,
    data: Option<OpenData>,
}

/// A data frame of which bytes are still to come.
struct OpenData {
    stream: u32,
    fin: bool,
    remaining: usize,
}

impl Decoder {
    /// The next frame; None when `input` does not hold it yet. Frames of unknown type are skipped.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, SpdyError> {
        loop {
            if let Some(open) = self.data.take() {
                return Ok(self.data_piece(open, input));
            }
            if input.len() < HEADER_BYTES {
                return Ok(None);
            }
            let first = u32::from_be_bytes([input[0], input[1], input[2], input[3]]);
            let flags = input[4];
            let length = u32::from_be_bytes([0, input[5], input[6], input[7]]) as usize;
            if first >> 31 == 0 {
                input.advance(HEADER_BYTES);
                self.data = Some(OpenData {
                    stream: first & STREAM_ID_MASK,
                    fin: flags & FLAG_FIN != 0,
                    remaining: length,
                });
                continue;
            }
            let (version, kind) = ((first >> 16) as u16 & 0x7fff, first as u16);
            if version != VERSION {
                return Err(SpdyError::Version(version));
            }
            if length > CONTROL_BYTES_MAX {
                return Err(SpdyError::TooLarge(length));
            }
            if input.len() < HEADER_BYTES + length {
                return Ok(None);
            }
            input.advance(HEADER_BYTES);
            let mut payload = input.split_to(length).freeze();
            if let Some(frame) = self.control(kind, flags, &mut payload)? {
                return Ok(Some(frame));
            }
        }
    }

    fn data_piece(&mut self, mut open: OpenData, input: &mut BytesMut) -> Option<Frame> {
        if input.is_empty() && open.remaining > 0 {
            self.data = Some(open);
            return None;
        }
        let payload = input.split_to(open.remaining.min(input.len())).freeze();
        open.remaining -= payload.len();
        let complete = open.remaining == 0;
        let frame = Frame::Data {
            stream: open.stream,
            fin: open.fin && complete,
            payload,
        };
        if !complete {
            self.data = Some(open);
        }
        Some(frame)
    }

    fn control(&mut self, kind: u16, flags: u8, payload: &mut Bytes) -> Result<Option<Frame>, SpdyError> {
        let fin = flags & FLAG_FIN != 0;
        let need = |payload: &Bytes, bytes: usize| {
            if payload.len() < bytes {
                Err(SpdyError::Truncated(kind))
            } else {
                Ok(())
            }
        };
        Ok(Some(match kind {
            SYN_STREAM => {
                need(payload, 10)?;
                let stream = payload.get_u32() & STREAM_ID_MASK;
                payload.advance(6); // associated stream, priority, slot
                Frame::SynStream {
                    stream,
                    fin,
                    headers: self.headers.read(payload)?,
                }
            }
            SYN_REPLY => {
                need(payload, 4)?;
                Frame::SynReply {
                    stream: payload.get_u32() & STREAM_ID_MASK,
                    fin,
                    headers: self.headers.read(payload)?,
                }
            }
            HEADERS => {
                need(payload, 4)?;
                let stream = payload.get_u32() & STREAM_ID_MASK;
                self.headers.read(payload)?; // keeps the compression state in step
                Frame::Headers { stream, fin }
            }
            RST_STREAM => {
                need(payload, 8)?;
                Frame::RstStream {
                    stream: payload.get_u32() & STREAM_ID_MASK,
                    status: payload.get_u32(),
                }
            }
            SETTINGS => {
                need(payload, 4)?;
                let entries = payload.get_u32() as usize;
                if payload.len() / 8 < entries {
                    return Err(SpdyError::Truncated(kind));
                }
                let mut initial_window = None;
                for _ in 0..entries {
                    let id = payload.get_u32() & 0x00ff_ffff;
                    let value = payload.get_u32();
                    if id == SETTINGS_INITIAL_WINDOW_SIZE {
                        initial_window = Some(value);
                    }
                }
                Frame::Settings { initial_window }
            }
            PING => {
                need(payload, 4)?;
                Frame::Ping { id: payload.get_u32() }
            }
            GOAWAY => {
                need(payload, 4)?;
                Frame::GoAway {
                    last_good_stream: payload.get_u32() & STREAM_ID_MASK,
                }
            }
            WINDOW_UPDATE => {
                need(payload, 8)?;
                Frame::WindowUpdate {
                    stream: payload.get_u32() & STREAM_ID_MASK,
                    delta: payload.get_u32() & STREAM_ID_MASK,
                }
            }
            _ => return Ok(None),
        }))
    }
}

/// Writes frames as bytes.
#[derive(Default)]
pub struct Encoder {
    headers: HeaderWriter,
}

impl Encoder {
    /// Appends the frame to `output`. A payload over 16 MiB does not fit a frame: callers send far less.
    pub fn encode(&mut self, frame: &Frame, output: &mut BytesMut) -> Result<(), SpdyError> {
        match frame {
            Frame::SynStream { stream, fin, headers } => {
                let block = self.headers.write(headers)?;
                control(output, SYN_STREAM, *fin, 10 + block.len());
                output.put_u32(*stream);
                output.put_slice(&[0; 6]);
                output.put_slice(&block);
            }
            Frame::SynReply { stream, fin, headers } => {
                let block = self.headers.write(headers)?;
                control(output, SYN_REPLY, *fin, 4 + block.len());
                output.put_u32(*stream);
                output.put_slice(&block);
            }
            Frame::Headers { stream, fin } => {
                let block = self.headers.write(&Headers::default())?;
                control(output, HEADERS, *fin, 4 + block.len());
                output.put_u32(*stream);
                output.put_slice(&block);
            }
            Frame::RstStream { stream, status } => {
                control(output, RST_STREAM, false, 8);
                output.put_u32(*stream);
                output.put_u32(*status);
            }
            Frame::Settings { initial_window } => {
                let entries = initial_window.iter().count();
                control(output, SETTINGS, false, 4 + 8 * entries);
                output.put_u32(entries as u32);
                if let Some(window) = initial_window {
                    output.put_u32(SETTINGS_INITIAL_WINDOW_SIZE);
                    output.put_u32(*window);
                }
            }
            Frame::Ping { id } => {
                control(output, PING, false, 4);
                output.put_u32(*id);
            }
            Frame::GoAway { last_good_stream } => {
                control(output, GOAWAY, false, 8);
                output.put_u32(*last_good_stream);
                output.put_u32(0);
            }
            Frame::WindowUpdate { stream, delta } => {
                control(output, WINDOW_UPDATE, false, 8);
                output.put_u32(*stream);
                output.put_u32(*delta);
            }
            Frame::Data { stream, fin, payload } => {
                if payload.len() > 0x00ff_ffff {
                    return Err(SpdyError::TooLarge(payload.len()));
                }
                output.put_u32(*stream);
                flags_and_length(output, *fin, payload.len());
                output.put_slice(payload);
            }
        }
        Ok(())
    }
}

fn control(output: &mut BytesMut, kind: u16, fin: bool, length: usize) {
    output.put_u16(0x8000 | VERSION);
    output.put_u16(kind);
    flags_and_length(output, fin, length);
}

fn flags_and_length(output: &mut BytesMut, fin: bool, length: usize) {
    output.put_u32(u32::from(if fin { FLAG_FIN } else { 0 }) << 24 | length as u32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, RngCore, SeedableRng};

    fn headers() -> Headers {
        [
            ("streamType".to_owned(), "data".to_owned()),
            ("port".to_owned(), "80".to_owned()),
        ]
        .into_iter()
        .collect()
    }

    fn frames() -> Vec<Frame> {
        vec![
            Frame::Settings {
                initial_window: Some(1 << 20),
            },
            Frame::SynStream {
                stream: 1,
                fin: true,
                headers: headers(),
            },
            Frame::SynStream {
                stream: 3,
                fin: false,
                headers: headers(),
            },
            Frame::SynReply {
                stream: 3,
                fin: false,
                headers: Headers::default(),
            },
            Frame::Ping { id: 7 },
            Frame::WindowUpdate {
                stream: 3,
                delta: 65536,
            },
            Frame::Headers { stream: 3, fin: true },
            Frame::RstStream {
                stream: 3,
                status: ResetReason::Cancel as u32,
            },
            Frame::GoAway { last_good_stream: 3 },
        ]
    }

    fn wire(frames: &[Frame]) -> BytesMut {
        let (mut encoder, mut output) = (Encoder::default(), BytesMut::new());
        for frame in frames {
            encoder.encode(frame, &mut output).unwrap();
        }
        output
    }

    #[test]
    fn frames_round_trip_in_pieces_of_any_size() {
        let wire = wire(&frames());
        for step in [1, 2, 5, 1000] {
            let (mut decoder, mut input, mut received) = (Decoder::default(), BytesMut::new(), Vec::new());
            for chunk in wire.chunks(step) {
                input.extend_from_slice(chunk);
                while let Some(frame) = decoder.decode(&mut input).unwrap() {
                    received.push(frame);
                }
            }
            assert_eq!(received, frames());
        }
    }

    #[test]
    fn data_is_handed_out_as_it_arrives() {
        let payload = Bytes::from(vec![7; 1000]);
        let data = Frame::Data {
            stream: 5,
            fin: true,
            payload: payload.clone(),
        };
        let wire = wire(&[
            data,
            Frame::Data {
                stream: 7,
                fin: true,
                payload: Bytes::new(),
            },
        ]);
        let mut decoder = Decoder::default();
        let mut input = BytesMut::from(&wire[..300]);
        let first = decoder.decode(&mut input).unwrap().unwrap();
        assert_eq!(
            first,
            Frame::Data {
                stream: 5,
                fin: false,
                payload: payload.slice(..292)
            }
        );
        assert_eq!(decoder.decode(&mut input).unwrap(), None);
        input.extend_from_slice(&wire[300..]);
        let second = decoder.decode(&mut input).unwrap().unwrap();
        assert_eq!(
            second,
            Frame::Data {
                stream: 5,
                fin: true,
                payload: payload.slice(292..)
            }
        );
        let end = decoder.decode(&mut input).unwrap().unwrap();
        assert_eq!(
            end,
            Frame::Data {
                stream: 7,
                fin: true,
                payload: Bytes::new()
            }
        );
    }

    #[test]
    fn large_control_frames_and_other_versions_are_refused() {
        let mut large = BytesMut::from(&b"\x80\x03\0\x01\0\xff\xff\xff"[..]);
        assert!(matches!(
            Decoder::default().decode(&mut large),
            Err(SpdyError::TooLarge(_))
        ));
        let mut version = BytesMut::from(&b"\x80\x02\0\x06\0\0\0\x04\0\0\0\x01"[..]);
        assert!(matches!(
            Decoder::default().decode(&mut version),
            Err(SpdyError::Version(2))
        ));
        let mut unknown = BytesMut::from(&b"\x80\x03\x77\x77\0\0\0\x01!"[..]);
        assert_eq!(Decoder::default().decode(&mut unknown).unwrap(), None);
        assert!(unknown.is_empty());
    }

    #[test]
    fn random_and_mutated_bytes_never_panic_and_progress() {
        let mut random = rand::rngs::StdRng::seed_from_u64(11);
        let valid = wire(&frames());
        let mut decoded = 0;
        for _ in 0..20_000 {
            let mut bytes = valid.to_vec();
            if random.random_bool(0.2) {
                random.fill_bytes(&mut bytes);
            } else {
                for _ in 0..random.random_range(1..8) {
                    let position = random.random_range(0..bytes.len());
                    bytes[position] = random.random();
                }
                bytes.truncate(random.random_range(1..=bytes.len()));
            }
            let (mut decoder, mut input) = (Decoder::default(), BytesMut::from(&bytes[..]));
            let mut frames = 0;
            while let Ok(Some(_)) = decoder.decode(&mut input) {
                frames += 1;
                assert!(frames <= bytes.len());
            }
            decoded += frames;
        }
        assert!(decoded > 1000, "{decoded}");
    }
}
