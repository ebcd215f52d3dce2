//! Objects that are known not to exist, the latest of them (upstream: `uid_cache.go`). Unique ids are never used
//! again, so what is absent once stays absent.

use super::identity::Identity;
use std::collections::{HashSet, VecDeque};

const CAPACITY: usize = 500;

#[derive(Debug, Default)]
pub struct Absent {
    known: HashSet<Identity, ahash::RandomState>,
    order: VecDeque<Identity>,
}

impl Absent {
    pub fn add(&mut self, identity: Identity) {
        if self.known.insert(identity.clone()) {
            self.order.push_back(identity);
        }
        if self.order.len() > CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    pub fn has(&self, identity: &Identity) -> bool {
        self.known.contains(identity)
    }
}
