//! A compressed answer whose middle is compressed once and whose ends are not: gzip lets parts that are stored as they
//! are stand beside parts that are compressed (RFC 1951, 1952).

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use std::sync::Arc;

/// No name, no time, no particular system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// What a stored block can hold.
const STORED_BYTES_MAX: usize = 65_535;

/// Bytes that were compressed by themselves and end at a byte's boundary.
pub struct Packed {
    pub deflated: Bytes,
    /// Of what they were before.
    crc: Crc,
}

impl Packed {
    pub fn new<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut compress = Compress::new(Compression::fast(), false);
        let (mut out, mut crc) = (Vec::new(), Crc::new());
        for chunk in chunks {
            crc.update(chunk);
            feed(&mut compress, chunk, &mut out, FlushCompress::None);
        }
        feed(&mut compress, &[], &mut out, FlushCompress::Sync);
        out.shrink_to_fit();
        Self {
            deflated: out.into(),
            crc,
        }
    }
}

impl Packed {
    /// How long it was before.
    pub fn length(&self) -> usize {
        self.crc.amount() as usize
    }
}

fn feed(compress: &mut Compress, mut input: &[u8], out: &mut Vec<u8>, flush: FlushCompress) {
    loop {
        out.reserve(32 * 1024);
        let before = (compress.total_in(), out.len());
        let status = compress.compress_vec(input, out, flush);
        let read = usize::try_from(compress.total_in() - before.0).unwrap_or(input.len());
        input = &input[read..];
        // Room that is left over says that nothing more comes out.
        let full = out.len() == out.capacity();
        let idle = read == 0 && out.len() == before.1;
        if (input.is_empty() && !full) || idle || !matches!(status, Ok(Status::Ok | Status::BufError)) {
            return;
        }
    }
}

/// The gzip member of `head`, what was packed, and `tail`.
pub fn member(head: &[u8], packed: &Arc<Packed>, tail: &[u8]) -> Vec<Bytes> {
    let mut crc = Crc::new();
    crc.update(head);
    crc.combine(&packed.crc);
    crc.update(tail);
    let mut start = HEADER.to_vec();
    for block in head.chunks(STORED_BYTES_MAX) {
        stored(&mut start, block, false);
    }
    let mut end = Vec::with_capacity(tail.len() + 16);
    stored(&mut end, tail, true);
    end.extend_from_slice(&crc.sum().to_le_bytes());
    end.extend_from_slice(&crc.amount().to_le_bytes());
    vec![start.into(), packed.deflated.clone(), end.into()]
}

/// `tail` is short, so that one block holds it.
fn stored(out: &mut Vec<u8>, block: &[u8], last: bool) {
    let length = block.len() as u16;
    out.push(u8::from(last));
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(block);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn any_reader_reads_it() {
        let text: String = (0..200_000).map(|n| format!("{n},")).collect();
        for (chunks, head) in [
            (
                vec![Bytes::from(text.clone()), Bytes::from(text)],
                "{\"items\":[".to_owned(),
            ),
            (vec![Bytes::from_static(b"one")], "h".repeat(200_000)),
            (vec![], String::new()),
        ] {
            let packed = Arc::new(Packed::new(chunks.iter().map(|chunk| &chunk[..])));
            let answer = member(head.as_bytes(), &packed, b"]}\n").concat();
            let mut read = String::new();
            // This reader takes one member and no more.
            let mut decoder = flate2::read::GzDecoder::new(&*answer);
            decoder.read_to_string(&mut read).unwrap();
            assert!(read == head + std::str::from_utf8(&chunks.concat()).unwrap() + "]}\n");
            assert!(decoder.into_inner().is_empty());
        }
    }
}
