//! Pulls from a registry of the test's own, which asks for a password.

use crate::subject::Subject;
use base64::Engine;
use krust::runtime::*;
use poem::http::{StatusCode, header};
use poem::listener::{Acceptor, Listener, TcpListener};
use poem::{Request, Response, Server, endpoint::make_sync};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// An image with one file, as blobs by digest, and its manifest.
fn image(user: &str) -> (HashMap<String, Vec<u8>>, Vec<u8>) {
    let mut header = tar::Header::new_ustar();
    header.set_size(3);
    header.set_mode(0o644);
    let mut layer = tar::Builder::new(Vec::new());
    layer.append_data(&mut header, "file", b"abc".as_slice()).unwrap();
    let layer = layer.into_inner().unwrap();
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zipped.write_all(&layer).unwrap();
    let zipped = zipped.finish().unwrap();
    let config = serde_json::json!({
        "architecture": pause::Architecture::host().unwrap().oci_name(),
        "os": "linux",
        "config": { "User": user },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    })
    .to_string()
    .into_bytes();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": config.len(), "digest": digest(&config),
        },
        "layers": [{
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "size": zipped.len(), "digest": digest(&zipped),
        }],
    })
    .to_string()
    .into_bytes();
    (
        [config, zipped].into_iter().map(|blob| (digest(&blob), blob)).collect(),
        manifest,
    )
}

/// Serves the image as `team/app`, tag `v1`, and returns `127.0.0.1:port`, which engines take without TLS.
async fn serve(blobs: HashMap<String, Vec<u8>>, manifest: Vec<u8>) -> String {
    let password = base64::engine::general_purpose::STANDARD.encode("user:secret");
    let endpoint = make_sync(move |request: Request| {
        let given = request.header(header::AUTHORIZATION);
        if given != Some(&format!("Basic {password}")) {
            return Response::builder()
                .status(StatusCode::UNAUTHORIZED)
                .header(header::WWW_AUTHENTICATE, "Basic realm=\"test\"")
                .finish();
        }
        let path = request.uri().path();
        let found = if path == "/v2/" {
            Some(("application/json", b"{}".to_vec()))
        } else if let Some(name) = path.strip_prefix("/v2/team/app/manifests/") {
            (name == "v1" || name == digest(&manifest)).then(|| (MANIFEST_TYPE, manifest.clone()))
        } else {
            let blob = path
                .strip_prefix("/v2/team/app/blobs/")
                .and_then(|name| blobs.get(name));
            blob.map(|blob| ("application/octet-stream", blob.clone()))
        };
        match found {
            Some((content_type, body)) => Response::builder()
                .content_type(content_type)
                .header("Docker-Content-Digest", digest(&body))
                .header(header::CONTENT_LENGTH, body.len())
                .body(body),
            None => Response::builder().status(StatusCode::NOT_FOUND).finish(),
        }
    });
    let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.unwrap();
    let address = acceptor.local_addr()[0].as_socket_addr().unwrap().to_string();
    tokio::spawn(Server::new_with_acceptor(acceptor).run(endpoint));
    address
}

pub async fn pulls_with_a_password(subject: &Subject) {
    let (blobs, manifest) = image("1234:5");
    let by_digest = digest(&manifest);
    let registry = serve(blobs, manifest).await;
    let name = format!("{registry}/team/app:v1");
    let runtime = &subject.runtime;
    let auth = RegistryAuth {
        username: "user".to_string(),
        password: "secret".to_string(),
        server: registry.clone(),
    };
    let error = runtime
        .pull_image(&name, None, &PullProgress::default())
        .await
        .unwrap_err();
    assert!(
        matches!(error, RuntimeError::Failed { operation: "pull", .. }),
        "{error}"
    );
    assert!(runtime.image_status(&name).await.unwrap().is_none());

    // Several pods want it at the same time.
    let progress = PullProgress::default();
    let pulls = (0..8).map(|_| runtime.pull_image(&name, Some(&auth), &progress));
    let ids = futures_util::future::try_join_all(pulls).await.unwrap();
    let id = ids[0].clone();
    assert!(ids.iter().all(|other| *other == id), "{ids:?}");
    let status = runtime.image_status(&name).await.unwrap().unwrap();
    assert_eq!((&status.id, status.user.as_str()), (&id, "1234:5"));
    let reference = format!("{registry}/team/app@{by_digest}");
    assert_eq!(status.repo_digests, std::slice::from_ref(&reference));
    assert_eq!(
        runtime
            .pull_image(&reference, Some(&auth), &PullProgress::default())
            .await
            .unwrap(),
        id
    );

    // Containers tell the digest that they run.
    let config = subject.pod("pulled");
    let sandbox = subject.sandbox(&config).await;
    let container = ContainerConfig {
        image: name.clone(),
        ..subject.script("app", "true")
    };
    let container = runtime.create_container(&sandbox, &container, &config).await.unwrap();
    let status = subject.status(&container).await;
    assert_eq!((status.image, status.image_ref), (name, reference));

    let absent = format!("{registry}/team/app:v2");
    let error = runtime
        .pull_image(&absent, Some(&auth), &PullProgress::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("v2"), "{error}");
    for invalid in ["", "Upper/Case", "a b", "../../containers/json"] {
        let pulled = runtime.pull_image(invalid, None, &PullProgress::default()).await;
        assert!(matches!(pulled, Err(RuntimeError::InvalidImageName(name)) if name == invalid));
        let status = runtime.image_status(invalid).await;
        assert!(matches!(status, Err(RuntimeError::InvalidImageName(name)) if name == invalid));
    }
}

/// An index with a variant for this machine, whose connection breaks in the middle of the layer, and a layer that is
/// not what it should be.
pub async fn pulls_go_on_and_are_checked(subject: &Subject) {
    let layer: Vec<u8> = {
        let content: Vec<u8> = (0..3u32 << 18)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes())
            .collect();
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        let mut layer = tar::Builder::new(Vec::new());
        layer.append_data(&mut header, "file", content.as_slice()).unwrap();
        layer.into_inner().unwrap()
    };
    let architecture = pause::Architecture::host().unwrap().oci_name();
    let describe = |kind: &str, bytes: &[u8]| {
        let media_type = format!("application/vnd.oci.image.{kind}");
        serde_json::json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
    };
    let manifest_of = |layer: &[u8], config: &[u8]| {
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("config.v1+json", config), "layers": [describe("layer.v1.tar", layer)],
        });
        manifest.to_string().into_bytes()
    };
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    });
    let config = config.to_string().into_bytes();
    let manifest = manifest_of(&layer, &config);
    let mut entry = describe("manifest.v1+json", &manifest);
    entry["platform"] = serde_json::json!({"architecture": architecture, "os": "linux"});
    let mut other = describe("manifest.v1+json", b"another machine's");
    other["platform"] = serde_json::json!({"architecture": "s390x", "os": "linux"});
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [other, entry],
    });
    let index = index.to_string().into_bytes();
    // The digest of this layer promises something else.
    let promised = b"promised".to_vec();
    let bad = manifest_of(&promised, &config);
    let served: HashMap<String, (String, Vec<u8>)> = [
        (
            "manifests/v1".to_string(),
            ("application/vnd.oci.image.index.v1+json", index),
        ),
        (
            format!("manifests/{}", digest(&manifest)),
            ("application/vnd.oci.image.manifest.v1+json", manifest),
        ),
        (
            "manifests/bad".to_string(),
            ("application/vnd.oci.image.manifest.v1+json", bad),
        ),
        (
            format!("blobs/{}", digest(&config)),
            ("application/octet-stream", config),
        ),
        (
            format!("blobs/{}", digest(&layer)),
            ("application/octet-stream", layer.clone()),
        ),
        (
            format!("blobs/{}", digest(&promised)),
            ("application/octet-stream", b"brought!".to_vec()),
        ),
    ]
    .map(|(path, (kind, bytes))| (path, (kind.to_string(), bytes)))
    .into();
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&ranges);
    let endpoint = make_sync(move |request: Request| {
        let path = request.uri().path().trim_start_matches("/v2/team/big/").to_string();
        let Some((kind, bytes)) = served.get(&path) else {
            return Response::builder().status(StatusCode::NOT_FOUND).finish();
        };
        let range = request.header(header::RANGE).map(str::to_string);
        let from = range
            .as_deref()
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let from: usize = from.unwrap_or(0);
        let rest = bytes::Bytes::copy_from_slice(&bytes[from..]);
        let response = Response::builder()
            .content_type(kind)
            .header(header::CONTENT_LENGTH, rest.len());
        let response = match range {
            Some(_) => response.status(StatusCode::PARTIAL_CONTENT),
            None => response,
        };
        if rest.len() < 1 << 20 {
            return response.body(rest);
        }
        // The connection breaks after a megabyte.
        seen.lock().unwrap().push(from);
        let pieces = [Ok(rest.slice(..1 << 20)), Err(std::io::Error::other("cut"))];
        response.body(poem::Body::from_bytes_stream(futures_util::stream::iter(pieces)))
    });
    let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.unwrap();
    let registry = acceptor.local_addr()[0].as_socket_addr().unwrap().to_string();
    tokio::spawn(Server::new_with_acceptor(acceptor).run(endpoint));
    let name = format!("{registry}/team/big:v1");
    let id = subject
        .runtime
        .pull_image(&name, None, &PullProgress::default())
        .await
        .unwrap();
    assert_eq!(subject.runtime.image_status(&name).await.unwrap().unwrap().id, id);
    let ranges = ranges.lock().unwrap().clone();
    assert!(ranges.len() > 1 && ranges[0] == 0, "{ranges:?}");
    assert!(
        ranges.windows(2).all(|pair| pair[0] < pair[1]),
        "nothing is got twice: {ranges:?}"
    );

    let bad = format!("{registry}/team/big:bad");
    let error = subject
        .runtime
        .pull_image(&bad, None, &PullProgress::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("failed to pull and unpack image"), "{error}");
    assert!(subject.runtime.image_status(&bad).await.unwrap().is_none());
    let absent = format!("{registry}/team/big:absent");
    let error = subject
        .runtime
        .pull_image(&absent, None, &PullProgress::default())
        .await
        .unwrap_err()
        .to_string();
    let expected = format!(
        "failed to pull and unpack image {absent:?}: failed to resolve reference {absent:?}: {absent}: not found"
    );
    assert!(error.ends_with(&expected), "{error}");
}
