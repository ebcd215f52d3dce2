//! Paths and queries of the kubelet's API.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What may stand in a path segment as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path with a query, put together.
#[derive(Clone, Debug)]
pub struct KubeletUrl {
    text: String,
    has_query: bool,
}

impl KubeletUrl {
    pub fn new(segments: &[&str]) -> KubeletUrl {
        let mut text = String::new();
        for segment in segments {
            text.push('/');
            text.extend(utf8_percent_encode(segment, SEGMENT));
        }
        KubeletUrl { text, has_query: false }
    }

    pub fn query(&mut self, name: &str, value: &str) {
        self.text.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        self.text.extend(form_urlencoded::byte_serialize(name.as_bytes()));
        self.text.push('=');
        self.text.extend(form_urlencoded::byte_serialize(value.as_bytes()));
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}
