//! Bodies of whole lists, joined once per change and shared by all who ask (upstream has no counterpart:
//! it serialises every list anew).

use super::Entry;
use bytes::Bytes;
use std::sync::Arc;

/// A piece of a body; a few are cheaper to hand on than one per object, and need no huge allocation.
const CHUNK_BYTES: usize = 256 << 10;
/// Larger bodies are not kept.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// The current objects of a scope as JSON.
#[derive(Clone, Debug)]
pub struct ListBody {
    /// The list's resourceVersion.
    pub revision: u64,
    /// See [`super::Snapshot::changed`].
    pub changed: u64,
    pub count: usize,
    /// One after the other they are the inside of `"items":[…]`: the objects with commas between them.
    pub chunks: Arc<[Bytes]>,
}

/// The place for one scope's body.
#[derive(Default)]
pub(super) struct Joined {
    body: Option<ListBody>,
    used: bool,
}

impl Joined {
    pub fn get(&mut self, revision: u64, changed: u64) -> Option<ListBody> {
        let body = self.body.as_ref().filter(|body| body.changed == changed)?;
        self.used = true;
        Some(ListBody {
            revision,
            ..body.clone()
        })
    }

    pub fn join(&mut self, revision: u64, changed: u64, entries: &[Arc<Entry>]) -> ListBody {
        let body = ListBody {
            revision,
            changed,
            count: entries.len(),
            chunks: join(entries),
        };
        let bytes: usize = body.chunks.iter().map(Bytes::len).sum();
        self.body = (bytes <= KEPT_BYTES_MAX).then(|| body.clone());
        self.used = true;
        body
    }

    /// Whether the body is of use still: asked for since the last call, and not stale.
    pub fn keep(&mut self, changed: u64) -> bool {
        std::mem::take(&mut self.used) && self.body.as_ref().is_some_and(|body| body.changed == changed)
    }
}

fn join(entries: &[Arc<Entry>]) -> Arc<[Bytes]> {
    let mut chunks = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let mut bytes = 0;
        let mut count = 0;
        for entry in rest {
            bytes += entry.bytes.len() + 1;
            count += 1;
            if bytes >= CHUNK_BYTES {
                break;
            }
        }
        let (these, others) = rest.split_at(count);
        let mut chunk = Vec::with_capacity(bytes);
        for (position, entry) in these.iter().enumerate() {
            if position > 0 || !chunks.is_empty() {
                chunk.push(b',');
            }
            chunk.extend_from_slice(&entry.bytes);
        }
        chunks.push(Bytes::from(chunk));
        rest = others;
    }
    chunks.into()
}
