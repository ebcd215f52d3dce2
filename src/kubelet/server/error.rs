//! Errors of the kubelet's server: a status code and a line of text, as upstream's `http.Error` writes them.
//! (Status objects are the API server's business, which turns these into some.)

use crate::kubelet::LookupError;
use crate::runtime::RuntimeError;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use poem::Response;

#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct ServerError {
    status: StatusCode,
    text: String,
    header: Option<(&'static str, String)>,
}

impl ServerError {
    pub fn new(status: StatusCode, text: impl Into<String>) -> ServerError {
        ServerError {
            status,
            text: text.into(),
            header: None,
        }
    }

    pub fn bad_request(text: impl Into<String>) -> ServerError {
        ServerError::new(StatusCode::BAD_REQUEST, text)
    }

    pub fn not_found(text: impl Into<String>) -> ServerError {
        ServerError::new(StatusCode::NOT_FOUND, text)
    }

    pub fn with_header(mut self, name: &'static str, value: String) -> ServerError {
        self.header = Some((name, value));
        self
    }

    pub fn into_response(self) -> Response {
        let mut response = Response::builder()
            .status(self.status)
            .header(CONTENT_TYPE, "text/plain; charset=utf-8");
        if let Some((name, value)) = self.header {
            response = response.header(name, value);
        }
        response.body(self.text + "\n")
    }
}

impl From<LookupError> for ServerError {
    fn from(error: LookupError) -> ServerError {
        let status = match error {
            LookupError::PodNotFound { .. } => StatusCode::NOT_FOUND,
            LookupError::NotInPod { .. }
            | LookupError::NoPrevious { .. }
            | LookupError::Waiting { .. }
            | LookupError::NoLogsYet { .. } => StatusCode::BAD_REQUEST,
        };
        ServerError::new(status, error.to_string())
    }
}

impl From<RuntimeError> for ServerError {
    fn from(error: RuntimeError) -> ServerError {
        let status = match error {
            RuntimeError::NotFound { .. } => StatusCode::NOT_FOUND,
            RuntimeError::InvalidImageName(_) => StatusCode::BAD_REQUEST,
            RuntimeError::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            RuntimeError::Failed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            RuntimeError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        };
        ServerError::new(status, error.to_string())
    }
}
