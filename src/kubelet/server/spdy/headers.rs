//! Header blocks of SPDY/3.1: name/value pairs, compressed by one zlib stream per direction and connection
//! that starts from the protocol's dictionary (upstream: `moby/spdystream/spdy/{dictionary,read,write}.go`).

use super::SpdyError;
use bytes::{Buf, BufMut};
use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateError, InflateFlush, Status};

/// Bound on a block after decompression: a block of a few bytes can expand a thousandfold.
const BLOCK_BYTES_MAX: usize = 64 * 1024;
const PAIRS_MAX: usize = 256;
const WINDOW_BITS: u8 = 15;

/// The words that make up the first part of the dictionary, each with its length before it.
const DICTIONARY_WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];

/// The rest of the dictionary, one run of text.
const DICTIONARY_TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417\
    502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
    403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr \
    May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,\
    image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=\
    gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1423);
    for word in DICTIONARY_WORDS {
        bytes.put_u32(word.len() as u32);
        bytes.put_slice(word.as_bytes());
    }
    bytes.put_slice(DICTIONARY_TEXT.as_bytes());
    bytes
}

/// Header names (lower case) and values of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The value of a header; `name` in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(have, _)| have == name)
            .map(|(_, value)| value.as_str())
    }
}

impl FromIterator<(String, String)> for Headers {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(pairs: T) -> Headers {
        Headers(
            pairs
                .into_iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
        )
    }
}

/// The decompressing half of a connection. Every block must pass it, in order, even those of refused streams.
pub struct HeaderReader {
    zlib: Inflate,
}

impl Default for HeaderReader {
    fn default() -> HeaderReader {
        HeaderReader {
            zlib: Inflate::new(true, WINDOW_BITS),
        }
    }
}

impl HeaderReader {
    pub fn read(&mut self, compressed: &[u8]) -> Result<Headers, SpdyError> {
        parse(&self.inflate(compressed)?)
    }

    fn inflate(&mut self, mut input: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let mut block = Vec::new();
        let mut chunk = [0u8; 4096];
        loop {
            let (consumed, produced) = (self.zlib.total_in(), self.zlib.total_out());
            let step = self.zlib.decompress(input, &mut chunk, InflateFlush::SyncFlush);
            input = &input[(self.zlib.total_in() - consumed) as usize..];
            let written = (self.zlib.total_out() - produced) as usize;
            block.extend_from_slice(&chunk[..written]);
            if block.len() > BLOCK_BYTES_MAX {
                return Err(SpdyError::Headers("the block is too large"));
            }
            match step {
                Ok(Status::StreamEnd) => return Err(SpdyError::Headers("the compressed stream ended")),
                // A full chunk means that there may be more, even when all input is taken.
                Ok(Status::Ok | Status::BufError) if written == chunk.len() => {}
                Ok(Status::Ok) if !input.is_empty() => {}
                Ok(_) if input.is_empty() => return Ok(block),
                Ok(_) => return Err(SpdyError::Headers("the compressed data does not decode")),
                Err(InflateError::NeedDict { .. }) => {
                    self.zlib
                        .set_dictionary(&dictionary())
                        .map_err(|_| SpdyError::Headers("the compression dictionary is not SPDY/3's"))?;
                }
                Err(_) => return Err(SpdyError::Headers("the compressed data does not decode")),
            }
        }
    }
}

fn parse(mut block: &[u8]) -> Result<Headers, SpdyError> {
    fn text(block: &mut &[u8]) -> Result<String, SpdyError> {
        let length = number(block)?;
        if block.len() < length {
            return Err(SpdyError::Headers("a length exceeds the block"));
        }
        let (text, rest) = block.split_at(length);
        *block = rest;
        String::from_utf8(text.to_vec()).map_err(|_| SpdyError::Headers("a name or value is not UTF-8"))
    }
    fn number(block: &mut &[u8]) -> Result<usize, SpdyError> {
        if block.len() < 4 {
            return Err(SpdyError::Headers("the block is cut off"));
        }
        Ok(block.get_u32() as usize)
    }
    let count = number(&mut block)?;
    if count > PAIRS_MAX {
        return Err(SpdyError::Headers("there are too many headers"));
    }
    (0..count).map(|_| Ok((text(&mut block)?, text(&mut block)?))).collect()
}

/// The compressing half of a connection.
pub struct HeaderWriter {
    zlib: Deflate,
}

impl Default for HeaderWriter {
    fn default() -> HeaderWriter {
        let mut zlib = Deflate::new(6, true, WINDOW_BITS);
        // Fails only on a stream that has been used.
        let _adler32 = zlib.set_dictionary(&dictionary());
        HeaderWriter { zlib }
    }
}

impl HeaderWriter {
    pub fn write(&mut self, headers: &Headers) -> Result<Vec<u8>, SpdyError> {
        let mut block = Vec::new();
        block.put_u32(headers.0.len() as u32);
        for text in headers.0.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(text.len() as u32);
            block.put_slice(text.as_bytes());
        }
        let mut input = block.as_slice();
        let mut output = Vec::new();
        let mut chunk = [0u8; 1024];
        loop {
            let (consumed, produced) = (self.zlib.total_in(), self.zlib.total_out());
            self.zlib
                .compress(input, &mut chunk, DeflateFlush::SyncFlush)
                .map_err(|_| SpdyError::Headers("compression failed"))?;
            input = &input[(self.zlib.total_in() - consumed) as usize..];
            let written = (self.zlib.total_out() - produced) as usize;
            output.extend_from_slice(&chunk[..written]);
            // Room left in the chunk is zlib's sign that the flush is complete.
            if written < chunk.len() && input.is_empty() {
                return Ok(output);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    #[test]
    fn dictionary_is_the_one_of_the_specification() {
        let dictionary = dictionary();
        assert_eq!(dictionary.len(), 1423);
        let mut zlib = Deflate::new(6, true, WINDOW_BITS);
        assert_eq!(zlib.set_dictionary(&dictionary), Ok(0xe3c6_a7c2));
    }

    #[test]
    fn blocks_of_one_connection_round_trip() {
        let mut writer = HeaderWriter::default();
        let mut reader = HeaderReader::default();
        for round in 0..50 {
            let long = "x".repeat(round * 331);
            let sent = headers(&[
                ("streamType", "data"),
                ("port", "80"),
                ("requestID", "7"),
                ("long", &long),
            ]);
            let received = reader.read(&writer.write(&sent).unwrap()).unwrap();
            assert_eq!(received, sent);
            assert_eq!(received.get("streamtype"), Some("data"));
        }
        assert_eq!(
            reader.read(&writer.write(&Headers::default()).unwrap()).unwrap(),
            Headers::default()
        );
    }

    #[test]
    fn a_small_block_that_expands_without_bound_is_refused() {
        let mut writer = HeaderWriter::default();
        let bomb = headers(&[("bomb", &"0".repeat(1 << 20))]);
        let compressed = writer.write(&bomb).unwrap();
        assert!(compressed.len() < 8 * 1024);
        assert!(HeaderReader::default().read(&compressed).is_err());
    }

    #[test]
    fn a_foreign_dictionary_is_refused() {
        let mut zlib = Deflate::new(6, true, WINDOW_BITS);
        zlib.set_dictionary(b"another dictionary").unwrap();
        let mut output = [0; 256];
        zlib.compress(b"\0\0\0\0", &mut output, DeflateFlush::SyncFlush)
            .unwrap();
        let length = zlib.total_out() as usize;
        assert!(HeaderReader::default().read(&output[..length]).is_err());
    }
}
