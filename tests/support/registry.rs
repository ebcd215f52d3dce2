//! A registry on loopback, which engines take without TLS. It asks for a password if it is told to, breaks connections, and
//! gives out what is not what it should be.
#![allow(dead_code)]

use super::images::{Image, digest};
use base64::Engine;
use poem::endpoint::make_sync;
use poem::http::{StatusCode, header};
use poem::listener::{Acceptor, Listener, TcpListener};
use poem::{Request, Response, Server};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, mpsc};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[derive(Default)]
struct State {
    /// By `manifests/TAG`, `manifests/DIGEST` and `blobs/DIGEST` below the repository.
    files: HashMap<String, (&'static str, bytes::Bytes)>,
    password: Option<String>,
    /// Answers of larger blobs break off after so many bytes.
    cut_after: Option<usize>,
    /// Method and path of what was asked for, with the range.
    requests: Vec<String>,
}

pub struct Registry {
    /// `127.0.0.1:PORT`
    pub address: String,
    state: Arc<Mutex<State>>,
}

impl Registry {
    /// Serves until the process ends.
    pub fn start() -> Registry {
        let state: Arc<Mutex<State>> = Arc::default();
        let (sender, receiver) = mpsc::channel();
        let served = state.clone();
        // On a thread of its own: the caller may be within an async runtime, or not.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.unwrap();
                let address = acceptor.local_addr()[0].as_socket_addr().unwrap().to_string();
                sender.send(address).unwrap();
                let endpoint = make_sync(move |request: Request| served.lock().unwrap().answer(&request));
                Server::new_with_acceptor(acceptor).run(endpoint).await.unwrap();
            });
        });
        let address = receiver.recv().unwrap();
        Registry { address, state }
    }

    /// Takes an image in as `repository:tag`; returns the manifest's digest.
    pub fn push(&self, repository: &str, tag: &str, image: &Image<'_>) -> String {
        let (config, manifest) = image.documents();
        let by_digest = digest(&manifest);
        let mut state = self.state.lock().unwrap();
        let mut put = |path: String, kind: &'static str, bytes: &[u8]| {
            let bytes = bytes::Bytes::copy_from_slice(bytes);
            state.files.insert(format!("{repository}/{path}"), (kind, bytes));
        };
        for blob in [image.layer, &config] {
            put(format!("blobs/{}", digest(blob)), "application/octet-stream", blob);
        }
        for version in [tag, &by_digest] {
            put(format!("manifests/{version}"), MANIFEST, &manifest);
        }
        by_digest
    }

    /// From now on the layer is something else.
    pub fn corrupt(&self, repository: &str, image: &Image<'_>) {
        let mut other = image.layer.to_vec();
        let middle = other.len() / 2;
        other[middle] ^= 1;
        let path = format!("{repository}/blobs/{}", digest(image.layer));
        let mut state = self.state.lock().unwrap();
        state.files.insert(path, ("application/octet-stream", other.into()));
    }

    /// The password of the user `user`.
    pub fn set_password(&self, password: Option<&str>) {
        self.state.lock().unwrap().password = password.map(str::to_owned);
    }

    pub fn cut_after(&self, bytes: Option<usize>) {
        self.state.lock().unwrap().cut_after = bytes;
    }

    /// What was asked for since the last time.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Response {
        let path = request.uri().path().trim_start_matches("/v2/").to_owned();
        let range = request.header(header::RANGE).unwrap_or_default().to_owned();
        self.requests.push(format!("{} {path} {range}", request.method()));
        if let Some(password) = &self.password {
            let wanted = base64::engine::general_purpose::STANDARD.encode(format!("user:{password}"));
            if request.header(header::AUTHORIZATION) != Some(&format!("Basic {wanted}")) {
                return Response::builder()
                    .status(StatusCode::UNAUTHORIZED)
                    .header(header::WWW_AUTHENTICATE, "Basic realm=\"test\"")
                    .finish();
            }
        }
        if path.is_empty() {
            return Response::builder().content_type("application/json").body("{}");
        }
        let Some((kind, bytes)) = self.files.get(&path) else {
            return Response::builder().status(StatusCode::NOT_FOUND).finish();
        };
        let from = range
            .strip_prefix("bytes=")
            .and_then(|range| range.split('-').next()?.parse().ok());
        let rest = bytes.slice(from.unwrap_or(0).min(bytes.len())..);
        let mut response = Response::builder()
            .content_type(kind)
            .header("Docker-Content-Digest", digest(bytes))
            .header(header::ACCEPT_RANGES, "bytes")
            .header(header::CONTENT_LENGTH, rest.len());
        if from.is_some_and(|from: usize| from > 0) {
            let (from, size) = (from.unwrap_or(0), bytes.len());
            response = response.status(StatusCode::PARTIAL_CONTENT).header(
                header::CONTENT_RANGE,
                format!("bytes {from}-{}/{size}", size.saturating_sub(1)),
            );
        }
        match self.cut_after {
            Some(cut) if rest.len() > cut && request.method() == "GET" => {
                let pieces = [Ok(rest.slice(..cut)), Err(std::io::Error::other("cut"))];
                response.body(poem::Body::from_bytes_stream(futures_util::stream::iter(pieces)))
            }
            _ => response.body(rest),
        }
    }
}
