//! `/proxy` of pods and nodes.

use crate::cluster::Cluster;
use poem::http::{HeaderMap, StatusCode};
use poem::{Endpoint, EndpointExt, IntoResponse, Request, Response};
use std::sync::Arc;

/// Tells what it was asked; below `/away` it redirects to `/there`.
async fn tell(mut request: Request) -> Response {
    if request.uri().path() == "/away" {
        return StatusCode::FOUND.with_header("location", "/there").into_response();
    }
    let forwarded = |headers: &HeaderMap| headers["x-forwarded-uri"].to_str().unwrap().to_owned();
    let body = request.take_body().into_string().await.unwrap();
    format!(
        "{} {} {} {body}",
        request.method(),
        request.uri(),
        forwarded(request.headers())
    )
    .into_response()
}

/// A plain HTTP server on every address.
async fn backend() -> u16 {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let endpoint = Arc::new(poem::endpoint::make(tell).map_to_response());
    tokio::spawn(async move {
        while let Ok((stream, remote)) = listener.accept().await {
            let endpoint = endpoint.clone();
            let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let endpoint = endpoint.clone();
                async move {
                    let address = poem::Addr::SocketAddr(remote);
                    let request = (
                        request,
                        poem::web::LocalAddr(address.clone()),
                        poem::web::RemoteAddr(address),
                        poem::http::uri::Scheme::HTTP,
                    );
                    let response = endpoint.get_response(request.into()).await;
                    let response: hyper::Response<http_body_util::combinators::BoxBody<_, std::io::Error>> =
                        response.into();
                    Ok::<_, std::convert::Infallible>(response)
                }
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_reach_the_pod_and_the_kubelet() {
    let cluster = Cluster::start().await;
    let port = backend().await;
    let client = kube_client(&cluster).await;
    let prefix = format!("/api/v1/namespaces/default/pods/p:{port}/proxy");
    let send = |method: &str, path: &str, body: &str| {
        let request = poem::http::Request::builder().method(method).uri(path);
        client.request_text(request.body(body.as_bytes().to_vec()).unwrap())
    };
    let answer = send("GET", &format!("{prefix}/a%20b/c?d=e"), "").await.unwrap();
    assert_eq!(answer, format!("GET /a%20b/c?d=e {prefix}/a%20b/c "));
    let answer = send("POST", &format!("{prefix}/"), "body").await.unwrap();
    assert_eq!(answer, format!("POST / {prefix}/ body"));

    let client = http_client(&cluster);
    let url = |path: &str| format!("https://127.0.0.1:{}{path}", cluster.api_port);
    for (path, status, location) in [
        (prefix.clone(), 301, format!("{prefix}/")),
        (format!("{prefix}/away"), 302, format!("{prefix}/there")),
    ] {
        let answer = client.get(url(&path)).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["location"].to_str().unwrap()),
            (status, &*location)
        );
    }
    let pods = client.get(url("/api/v1/nodes/n/proxy/pods")).send().await.unwrap();
    let pods: serde_json::Value = serde_json::from_str(&pods.text().await.unwrap()).unwrap();
    assert_eq!(
        (pods["kind"].as_str(), pods["items"][0]["metadata"]["name"].as_str()),
        (Some("PodList"), Some("p"))
    );
    let unused = crate::support::free_port();
    let path = format!("/api/v1/namespaces/default/pods/p:{unused}/proxy/");
    let answer = client.get(url(&path)).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let status: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .starts_with("error trying to reach service: dial tcp"),
        "{status}"
    );
}

async fn kube_client(cluster: &Cluster) -> kube::Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default())
        .await
        .unwrap();
    kube::Client::try_from(config).unwrap()
}

/// A client that does not follow redirects.
fn http_client(cluster: &Cluster) -> reqwest::Client {
    let tls = crate::websocket::client_tls(cluster);
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}
