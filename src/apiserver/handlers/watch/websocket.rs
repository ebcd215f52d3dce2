//! Watches over WebSocket: one event a message, text if it is JSON (upstream: `WatchServer.HandleWS`).

use super::stream::WatchStream;
use crate::apiserver::codec::accept::Format;
use crate::apiserver::error::ApiError;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use poem::http::header;
use poem::web::websocket::{CloseCode, Message, WebSocket};
use poem::{FromRequest, IntoResponse, Request, Response};

/// Whether the client wants to change to WebSocket.
pub fn is_requested(request: &Request) -> bool {
    let has = |name, wanted: &str| {
        let values = request.headers().get_all(name).iter();
        values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    has(header::CONNECTION, "upgrade") && has(header::UPGRADE, "websocket")
}

/// The half-open connection; taken before anything is sent.
pub async fn accept(request: &Request) -> Result<WebSocket, ApiError> {
    WebSocket::from_request_without_body(request)
        .await
        .map_err(|error| ApiError::bad_request(format!("the WebSocket handshake is not valid: {error}")))
}

/// What is sent.
pub enum Source {
    Stream(Box<WatchStream>),
    /// Only this event.
    Last(Bytes),
}

impl Source {
    /// The next events, and whether they are the last ones.
    async fn next(&mut self) -> (Vec<Bytes>, bool) {
        match self {
            Self::Stream(stream) => stream.next().await,
            Self::Last(event) => (vec![event.clone()], true),
        }
    }
}

/// Answers the handshake and sends events until the watch or the client ends.
pub fn respond(socket: WebSocket, mut source: Source, format: Format) -> Response {
    let serve = move |socket: poem::web::websocket::WebSocketStream| async move {
        let (mut sender, mut receiver) = socket.split();
        loop {
            let (events, ended) = tokio::select! {
                next = source.next() => next,
                // What clients say is of no interest, only that they are there.
                message = receiver.next() => match message {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => continue,
                },
            };
            for event in events {
                let message = match format {
                    Format::Json => Message::Text(String::from_utf8_lossy(&event).into_owned()),
                    _ => Message::Binary(event.to_vec()),
                };
                if sender.send(message).await.is_err() {
                    return;
                }
            }
            if ended {
                // A client that is gone already needs no farewell.
                let _ = sender
                    .send(Message::Close(Some((CloseCode::Normal, String::new()))))
                    .await;
                return;
            }
        }
    };
    socket.on_upgrade(serve).into_response()
}
