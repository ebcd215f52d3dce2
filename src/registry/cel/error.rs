//! What goes wrong while an expression is evaluated.

/// An error of an evaluation. `&&`, `||` and the macros let an error pass where the rest decides.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A value of a type that the function does not take.
    #[error("no such overload")]
    NoSuchOverload,
    #[error("{0}")]
    Other(String),
    /// The evaluation took too long; nothing lets this pass.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimit,
}

impl Error {
    pub(super) fn of(text: impl Into<String>) -> Self {
        Self::Other(text.into())
    }
}
