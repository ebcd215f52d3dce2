//! Tables as sea-orm entities: the log of changes, the current objects, and what the store remembers of itself.

pub(super) mod change;
pub(super) mod meta;
pub(super) mod object;
