//! The accept loop with real sockets and real TLS.

use std::sync::atomic::{AtomicUsize, Ordering};

use poem::endpoint::make;
use poem::{Error, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::transport::pki::{Pki, ServerNames};

struct Running {
    address: SocketAddr,
    pki: Pki,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

/// Starts a server that answers `/slow` after a while, panics at `/panic`, and else says who asks.
async fn start(plain_http: PlainHttp) -> Running {
    let endpoint = make(|request: Request| async move {
        match request.uri().path() {
            "/slow" => tokio::time::sleep(Duration::from_millis(300)).await,
            "/panic" => panic!("as asked"),
            _ => {}
        }
        let peer = request.extensions().get::<Peer>().cloned();
        Ok::<_, Error>(Response::builder().body(match peer {
            Some(Peer::Certificate(certificate)) => certificate.common_name.clone(),
            other => format!("{other:?}"),
        }))
    });
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(directory.path(), ServerNames::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let options = ServeOptions {
        drain_timeout: Duration::from_secs(2),
        ..ServeOptions::new("test", plain_http)
    };
    let served = serve(
        listener,
        pki.api_server_tls("").unwrap(),
        Arc::new(endpoint),
        options,
        shutdown.clone(),
    );
    Running {
        address,
        pki,
        shutdown,
        task: tokio::spawn(served),
        _directory: directory,
    }
}

fn client(pki: &Pki, identity: Option<&Pki>) -> reqwest::Client {
    // Another test may have been first: the provider is the process's.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let authority = reqwest::Certificate::from_pem(pki.authority_pem().as_bytes()).unwrap();
    let mut builder = reqwest::Client::builder().tls_certs_only([authority]);
    if let Some(owner) = identity {
        let admin = owner.admin();
        let pem = format!("{}{}", admin.certificate, admin.key);
        builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
    }
    builder.build().unwrap()
}

async fn get(client: &reqwest::Client, url: String) -> (u16, http::Version, String) {
    let response = client.get(url).send().await.unwrap();
    (
        response.status().as_u16(),
        response.version(),
        response.text().await.unwrap(),
    )
}

#[tokio::test]
async fn tls_tells_administrators_strangers_and_nobody_apart() {
    let server = start(PlainHttp::Refuse).await;
    let url = format!("https://localhost:{}/", server.address.port());
    let admin = get(&client(&server.pki, Some(&server.pki)), url.clone()).await;
    assert_eq!(admin, (200, http::Version::HTTP_2, "kubernetes-admin".to_owned()));
    assert_eq!(get(&client(&server.pki, None), url.clone()).await.2, "Some(Anonymous)");
    let other = tempfile::tempdir().unwrap();
    let stranger = Pki::load_or_create(other.path(), ServerNames::default()).unwrap();
    assert_eq!(
        get(&client(&server.pki, Some(&stranger)), url).await.2,
        "Some(UntrustedCertificate)"
    );
}

#[tokio::test]
async fn plain_http_is_for_us_and_not_for_web_pages() {
    let server = start(PlainHttp::TrustedLoopback).await;
    let url = format!("http://localhost:{}/", server.address.port());
    let client = client(&server.pki, None);
    assert_eq!(get(&client, url.clone()).await.2, "Some(TrustedLoopback)");
    let page = client
        .get(&url)
        .header("origin", "http://evil.example")
        .send()
        .await
        .unwrap();
    assert_eq!(page.status(), 403);
    assert!(page.text().await.unwrap().contains("http://evil.example"));
}

#[tokio::test]
async fn plain_http_is_refused_with_a_reason_where_it_is_off() {
    let server = start(PlainHttp::Refuse).await;
    let answer = get(&client(&server.pki, None), format!("http://{}/", server.address)).await;
    assert_eq!(answer.0, 403);
    assert!(answer.2.contains("use https://"), "{}", answer.2);
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_server_goes_on() {
    let server = start(PlainHttp::TrustedLoopback).await;
    let client = client(&server.pki, None);
    assert_eq!(get(&client, format!("http://{}/panic", server.address)).await.0, 500);
    assert_eq!(get(&client, format!("https://{}/", server.address)).await.0, 200);
}

#[tokio::test]
async fn silence_and_rubbish_do_not_hold_a_connection() {
    let mut server = start(PlainHttp::TrustedLoopback).await;
    server.shutdown.cancel();
    server.task.await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    server.address = listener.local_addr().unwrap();
    let options = ServeOptions {
        handshake_timeout: Duration::from_millis(100),
        ..ServeOptions::new("test", PlainHttp::TrustedLoopback)
    };
    let endpoint = Arc::new(make(|_| async { Ok::<_, Error>("served") }));
    server.shutdown = CancellationToken::new();
    let tls = server.pki.api_server_tls("").unwrap();
    server.task = tokio::spawn(serve(listener, tls, endpoint, options, server.shutdown.clone()));
    // Silence, half a TLS record, and something that is no HTTP.
    for opening in [&b""[..], &b"\x16\x03\x01"[..], &b"\x00\x01rubbish\r\n\r\n"[..]] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(opening).await.unwrap();
        let mut answer = Vec::new();
        let ended = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        assert!(
            ended.is_ok(),
            "the server kept a connection that began with {opening:?}"
        );
    }
}

#[tokio::test]
async fn shutdown_lets_requests_end_and_closes_idle_connections() {
    let server = start(PlainHttp::TrustedLoopback).await;
    let client = client(&server.pki, None);
    let ended = Arc::new(AtomicUsize::new(0));
    for scheme in ["http", "https"] {
        let (client, ended) = (client.clone(), ended.clone());
        let url = format!("{scheme}://localhost:{}/slow", server.address.port());
        tokio::spawn(async move {
            assert_eq!(get(&client, url).await.0, 200);
            ended.fetch_add(1, Ordering::SeqCst);
        });
    }
    let _idle = TcpStream::connect(server.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(150)).await;
    server.shutdown.cancel();
    server.task.await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(ended.load(Ordering::SeqCst), 2);
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "nobody listens any more"
    );
}
