//! Label and field selectors of list, watch and deletecollection
//! (upstream: `apimachinery/pkg/labels`, `apimachinery/pkg/fields`).

mod field;
mod label;

pub use field::FieldSelector;
pub use label::LabelSelector;

#[cfg(test)]
mod tests;
