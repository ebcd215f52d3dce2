//! Watches over WebSocket, on a real socket.

use crate::harness::{CONFIG_MAPS, Server};
use futures_util::{SinkExt, StreamExt};
use krust::apiserver::codec::protobuf;
use krust::transport::Peer;
use poem::EndpointExt;
use poem::listener::TcpAcceptor;
use serde_json::{Value, json};
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// The address of the server.
fn listen(server: &Server) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let endpoint = server.endpoint().before(|mut request: poem::Request| async move {
        request.extensions_mut().insert(Peer::TrustedLoopback);
        Ok(request)
    });
    let acceptor = TcpAcceptor::from_std(listener).unwrap();
    tokio::spawn(poem::Server::new_with_acceptor(acceptor).run(endpoint));
    format!("ws://{address}")
}

async fn connect(address: &str, uri: &str, accept: &'static str) -> Socket {
    let mut request = format!("{address}{uri}").into_client_request().unwrap();
    request.headers_mut().insert("accept", accept.parse().unwrap());
    tokio_tungstenite::connect_async(request).await.unwrap().0
}

async fn next(socket: &mut Socket) -> Option<Message> {
    let message = tokio::time::timeout(Duration::from_secs(10), socket.next());
    message.await.expect("no message in time").map(Result::unwrap)
}

fn text(message: Option<Message>) -> Value {
    match message {
        Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_event_a_message() {
    let server = Server::start().await;
    let address = listen(&server);
    server.config_map("a", json!({})).await;
    server.config_map("b", json!({})).await;
    let mut socket = connect(&address, &format!("{CONFIG_MAPS}?watch=1"), "application/json").await;
    for name in ["a", "b"] {
        let event = text(next(&mut socket).await);
        assert_eq!(
            (&event["type"], &event["object"]["metadata"]["name"]),
            (&json!("ADDED"), &json!(name))
        );
    }
    let typed = "application/vnd.kubernetes.protobuf";
    let uri = format!(
        "{CONFIG_MAPS}?watch=1&resourceVersion={}",
        server.api.storage.revision()
    );
    let mut binary = connect(&address, &uri, typed).await;
    server.delete(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    let event = text(next(&mut socket).await);
    assert_eq!(event["type"], "DELETED");
    match next(&mut binary).await {
        Some(Message::Binary(frame)) => {
            // The type, and then the object in its envelope; no length in front.
            assert!(frame.starts_with(b"\x0a\x07DELETED\x12"), "{frame:?}");
            let at = frame.windows(4).position(|window| window == protobuf::MAGIC).unwrap();
            let (_, kind, object) = protobuf::decode(&frame[at..]).unwrap();
            assert_eq!((kind.as_str(), &object["metadata"]["name"]), ("ConfigMap", &json!("a")));
        }
        other => panic!("{other:?}"),
    }
    // Clients that go are noticed, and the server says farewell when it goes.
    binary.send(Message::Close(None)).await.unwrap();
    server.api.begin_shutdown();
    assert!(matches!(next(&mut socket).await, Some(Message::Close(_))));
}

#[tokio::test]
async fn a_watch_that_cannot_be_opened_is_a_plain_answer() {
    let server = Server::start().await;
    let address = listen(&server);
    let request = format!("{address}{CONFIG_MAPS}?watch=1&labelSelector=%24%24").into_client_request();
    match tokio_tungstenite::connect_async(request.unwrap()).await {
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => assert_eq!(response.status(), 400),
        other => panic!("{other:?}"),
    }
}
