//! WebSocket clients other than kubectl: kube-rs, and the forms of older Python clients by hand.

use crate::cluster::Cluster;
use crate::forward::echo_server;
use futures_util::{SinkExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// TLS of the administrator.
pub fn client_tls(cluster: &Cluster) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(cluster.pki.authority_pem().as_bytes()).unwrap();
    roots.add(authority).unwrap();
    let admin = cluster.pki.admin();
    let certificate = CertificateDer::from_pem_slice(admin.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(admin.key.as_bytes()).unwrap();
    rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .unwrap()
}

/// A connection as the administrator.
pub async fn connect_tls(cluster: &Cluster, port: u16) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connector = TlsConnector::from(Arc::new(client_tls(cluster)));
    connector.connect(name, tcp).await.unwrap()
}

async fn connect(cluster: &Cluster, path: &str, protocol: &str) -> Result<(Socket, String), Error> {
    let url = format!(
        "ws://127.0.0.1:{}/api/v1/namespaces/default/pods/p/{path}",
        cluster.api_port
    );
    let mut request = url.into_client_request().unwrap();
    if !protocol.is_empty() {
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol.parse().unwrap());
    }
    let stream = connect_tls(cluster, cluster.api_port).await;
    let (socket, response) = tokio_tungstenite::client_async(request, stream).await?;
    let chosen = response.headers().get("sec-websocket-protocol");
    Ok((
        socket,
        chosen
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default(),
    ))
}

/// Everything up to the close: the bytes of each channel, and the close code.
async fn read_channels(socket: &mut Socket) -> ([Vec<u8>; 4], Option<CloseCode>) {
    let mut channels = <[Vec<u8>; 4]>::default();
    while let Some(message) = socket.next().await {
        match message.unwrap() {
            Message::Binary(data) => channels[usize::from(data[0])].extend_from_slice(&data[1..]),
            Message::Close(frame) => return (channels, frame.map(|frame| frame.code)),
            other => panic!("{other:?}"),
        }
    }
    (channels, None)
}

const CAT: &str = "exec?container=c&stdin=true&stdout=true&stderr=true&command=";

#[tokio::test(flavor = "multi_thread")]
async fn each_subprotocol_ends_in_its_own_way() {
    let cluster = Cluster::start().await;
    let script = format!("{CAT}sh&command=-c&command=echo%20out;echo%20err%20%3E%262;exit%203");
    let (mut socket, chosen) = connect(&cluster, &script, "v5.channel.k8s.io, v4.channel.k8s.io")
        .await
        .unwrap();
    assert_eq!(chosen, "v5.channel.k8s.io");
    let ([_, out, err, status], code) = read_channels(&mut socket).await;
    assert_eq!(
        (out.as_slice(), err.as_slice(), code),
        (&b"out\n"[..], &b"err\n"[..], Some(CloseCode::Normal))
    );
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "3");

    for protocol in ["", "channel.k8s.io"] {
        let (mut socket, chosen) = connect(&cluster, &script, protocol).await.unwrap();
        assert_eq!(chosen, protocol);
        let ([_, _, _, error], code) = read_channels(&mut socket).await;
        assert!(error.ends_with(b"exit code 3"), "{protocol:?}");
        assert_eq!(code, Some(CloseCode::Normal));
    }
    match connect(&cluster, &script, "v9.channel.k8s.io").await.err() {
        Some(Error::Http(response)) => assert_eq!(response.status(), 403),
        other => panic!("{other:?}"),
    }
    cluster.sessions_end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn base64_and_text_messages_carry_stdin() {
    let cluster = Cluster::start().await;
    let path = format!("{CAT}head&command=-n1");
    let (mut socket, _) = connect(&cluster, &path, "v4.base64.channel.k8s.io").await.unwrap();
    socket.send(Message::text("0aGVs")).await.unwrap();
    socket.send(Message::text("0bG8K")).await.unwrap();
    let mut texts = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Text(text) => texts.push(text.to_string()),
            Message::Close(_) => break,
            other => panic!("{other:?}"),
        }
    }
    // Readiness, the output, and {"metadata":{},"status":"Success"}.
    assert_eq!(
        texts,
        ["1", "1aGVsbG8K", "3eyJtZXRhZGF0YSI6e30sInN0YXR1cyI6IlN1Y2Nlc3MifQ=="]
    );

    // Python's client sends text as text.
    let (mut socket, _) = connect(&cluster, &path, "v4.channel.k8s.io").await.unwrap();
    socket.send(Message::text("\0hello\n")).await.unwrap();
    let ([_, out, ..], _) = read_channels(&mut socket).await;
    assert_eq!(out, b"hello\n");
    cluster.sessions_end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_are_answered_resizes_applied_and_unknown_channels_dropped() {
    let cluster = Cluster::start().await;
    let path = "exec?container=c&stdin=true&stdout=true&tty=true&command=sh&command=-c&command=read%20x;stty%20size";
    let (mut socket, _) = connect(&cluster, path, "v4.channel.k8s.io").await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(vec![1]));
    socket.send(Message::Ping(b"x"[..].into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong(b"x"[..].into()));
    socket.send(Message::binary(b"\x09nothing".to_vec())).await.unwrap();
    socket.send(Message::binary(b"\xff\0".to_vec())).await.unwrap();
    socket
        .send(Message::binary(b"\x04{\"Width\":132,\"Height\":50}".to_vec()))
        .await
        .unwrap();
    // Both queues are read at once: the size needs a moment of its own.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    socket.send(Message::binary(b"\0go\n".to_vec())).await.unwrap();
    let ([_, out, ..], code) = read_channels(&mut socket).await;
    let out = String::from_utf8(out).unwrap();
    assert!(out.contains("50 132"), "{out:?}");
    assert_eq!(code, Some(CloseCode::Normal));
    cluster.sessions_end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded_on_channels() {
    let cluster = Cluster::start().await;
    let (echo, unused) = (echo_server().await, crate::support::free_port());
    let path = format!("portforward?ports={echo}&ports={unused}");
    let (mut socket, _) = connect(&cluster, &path, "v4.channel.k8s.io").await.unwrap();
    let mut firsts = Vec::new();
    let mut failure = Vec::new();
    while firsts.len() < 4 || failure.is_empty() {
        let data = socket.next().await.unwrap().unwrap().into_data();
        if firsts.iter().any(|first: &Vec<u8>| first[0] == data[0]) {
            assert_eq!(data[0], 3);
            failure.extend_from_slice(&data[1..]);
        } else {
            firsts.push(data.to_vec());
        }
    }
    firsts.sort();
    let name = |channel: u8, port: u16| [vec![channel], port.to_le_bytes().to_vec()].concat();
    assert_eq!(firsts, [name(0, echo), name(1, echo), name(2, unused), name(3, unused)]);
    assert!(String::from_utf8(failure).unwrap().contains("Connection refused"));
    drop(socket);
    match connect(&cluster, "portforward", "v4.channel.k8s.io").await.err() {
        Some(Error::Http(response)) => assert_eq!(response.status(), 400),
        other => panic!("{other:?}"),
    }
    cluster.sessions_end().await;
}

pub async fn kube_client(cluster: &Cluster) -> Api<Pod> {
    let kubeconfig = kube::config::Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default())
        .await
        .unwrap();
    Api::default_namespaced(kube::Client::try_from(config).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_rs_can_exec_and_forward() {
    let cluster = Cluster::start().await;
    let pods = kube_client(&cluster).await;
    let parameters = AttachParams::default().container("c").stdin(true).stderr(false);
    let mut attached = pods.exec("p", ["cat"], &parameters).await.unwrap();
    let mut stdin = attached.stdin().unwrap();
    stdin.write_all(b"hello").await.unwrap();
    stdin.shutdown().await.unwrap();
    let mut out = String::new();
    attached.stdout().unwrap().read_to_string(&mut out).await.unwrap();
    assert_eq!(out, "hello");
    let status = attached.take_status().unwrap().await.unwrap();
    assert_eq!(status.status.as_deref(), Some("Success"));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 5];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(&request).await.unwrap();
    });
    let mut forwarder = pods.portforward("p", &[port]).await.unwrap();
    let mut stream = forwarder.take_stream(port).unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "hello");
    drop((stream, forwarder));
    cluster.sessions_end().await;
}
