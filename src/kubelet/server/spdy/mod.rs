//! SPDY/3.1, the server's side, as far as Kubernetes' clients use it (upstream: `moby/spdystream`, and
//! `kubernetes/streaming/pkg/httpstream/spdy`).

mod flow;
mod frame;
mod headers;
mod session;

pub use frame::ResetReason;
pub use session::{Session, Stream};

/// What is wrong with bytes that should be SPDY.
#[derive(Debug, thiserror::Error)]
pub enum SpdyError {
    #[error("SPDY version {0} is not 3")]
    Version(u16),
    #[error("a SPDY frame of {0} bytes is too large")]
    TooLarge(usize),
    #[error("a SPDY frame of type {0} is too short")]
    Truncated(u16),
    #[error("SPDY headers: {0}")]
    Headers(&'static str),
    #[error("SPDY stream {0} was opened out of order")]
    StreamOrder(u32),
}
