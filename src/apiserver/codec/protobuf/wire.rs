//! The fields of a protobuf message as they stand in the bytes.

use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint, encoded_len_varint};

/// One field of a message.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    pub number: u32,
    value: Wire<'a>,
    /// The message's name, for errors.
    message: &'a str,
}

#[derive(Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

/// Iterates over the fields of a message.
pub struct Fields<'a> {
    rest: &'a [u8],
    message: &'a str,
}

impl<'a> Fields<'a> {
    /// `message` is the name that errors show.
    pub fn new(bytes: &'a [u8], message: &'a str) -> Self {
        Self { rest: bytes, message }
    }

    fn read(&mut self) -> Result<Field<'a>, String> {
        let fail = |what: &str| format!("proto: {}: {what}", self.message);
        let (number, wire_type) = decode_key(&mut self.rest).map_err(|error| fail(&error.to_string()))?;
        let value = match wire_type {
            WireType::Varint => Wire::Varint(decode_varint(&mut self.rest).map_err(|error| fail(&error.to_string()))?),
            WireType::SixtyFourBit => {
                let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| fail("unexpected EOF"))?;
                self.rest = rest;
                Wire::Fixed64(u64::from_le_bytes(*bytes))
            }
            WireType::ThirtyTwoBit => {
                self.rest = self.rest.get(4..).ok_or_else(|| fail("unexpected EOF"))?;
                Wire::Fixed32
            }
            WireType::LengthDelimited => {
                let length = decode_varint(&mut self.rest).map_err(|error| fail(&error.to_string()))?;
                let split = usize::try_from(length)
                    .ok()
                    .and_then(|length| self.rest.split_at_checked(length));
                let (bytes, rest) = split.ok_or_else(|| fail("unexpected EOF"))?;
                self.rest = rest;
                Wire::Bytes(bytes)
            }
            WireType::StartGroup | WireType::EndGroup => return Err(fail("groups are not supported")),
        };
        Ok(Field {
            number,
            value,
            message: self.message,
        })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, String>;

    /// Ends after the first error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

impl<'a> Field<'a> {
    fn wrong_type(&self, expected: &str) -> String {
        format!("proto: {}: field {} is not {expected}", self.message, self.number)
    }

    /// A message or a string.
    pub fn bytes(&self) -> Result<&'a [u8], String> {
        match self.value {
            Wire::Bytes(bytes) => Ok(bytes),
            _ => Err(self.wrong_type("length-delimited")),
        }
    }

    pub fn text(&self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()?).map_err(|_| self.wrong_type("valid UTF-8"))
    }

    /// int32, int64, bool and enums, as they stand there.
    pub fn varint(&self) -> Result<u64, String> {
        match self.value {
            Wire::Varint(value) => Ok(value),
            _ => Err(self.wrong_type("a varint")),
        }
    }

    pub fn int64(&self) -> Result<i64, String> {
        self.varint().map(u64::cast_signed)
    }

    pub fn int32(&self) -> Result<i32, String> {
        i32::try_from(self.int64()?).map_err(|_| self.wrong_type("a 32-bit integer"))
    }

    pub fn double(&self) -> Result<f64, String> {
        match self.value {
            Wire::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(self.wrong_type("a double")),
        }
    }

    /// The numbers of a packed list; this field alone if it is not packed.
    pub fn unpack(self) -> Result<Vec<Field<'a>>, String> {
        let Wire::Bytes(mut bytes) = self.value else {
            return Ok(vec![self]);
        };
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let value = decode_varint(&mut bytes).map_err(|error| format!("proto: {}: {error}", self.message))?;
            fields.push(Field {
                number: self.number,
                value: Wire::Varint(value),
                message: self.message,
            });
        }
        Ok(fields)
    }
}

/// Appends a number, a boolean or an enum.
pub fn varint(out: &mut Vec<u8>, number: u32, value: u64) {
    encode_key(number, WireType::Varint, out);
    encode_varint(value, out);
}

pub fn double(out: &mut Vec<u8>, number: u32, value: f64) {
    encode_key(number, WireType::SixtyFourBit, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a string, bytes, or a message that is encoded already.
pub fn bytes(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    head(out, number, content.len());
    out.extend_from_slice(content);
}

/// Appends what comes before the content of a field of `length` bytes.
pub fn head(out: &mut Vec<u8>, number: u32, length: usize) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

/// Appends a message whose fields `write` appends. Its length is put in front afterwards: most messages are so short
/// that nothing is moved for it.
pub fn message(
    out: &mut Vec<u8>,
    number: u32,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), String>,
) -> Result<(), String> {
    encode_key(number, WireType::LengthDelimited, out);
    let at = out.len();
    out.push(0);
    write(out)?;
    let length = out.len() - at - 1;
    let extra = encoded_len_varint(length as u64) - 1;
    if extra > 0 {
        out.resize(out.len() + extra, 0);
        out.copy_within(at + 1..at + 1 + length, at + 1 + extra);
    }
    encode_varint(length as u64, &mut &mut out[at..=at + extra]);
    Ok(())
}
