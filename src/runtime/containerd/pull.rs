//! Pulls into the daemon's content store (upstream: containerd's `client/pull.go`, `core/remotes/handlers.go`).
//!
//! The same for every version of the daemon: it is given the content, checks its digest, and unpacks it. What a pull
//! that broke off has got stays for as long as its lease, and the next one goes on from there.

use super::super::reference::Reference;
use super::super::registry::{Document, Repository};
use super::{Engine, Parts, RegistryAuth, Result, failed, images, snapshots};
use containerd_client::services::v1::{
    self, AbortRequest, CreateImageRequest, Info, UpdateImageRequest, UpdateRequest, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use containerd_client::tonic::{Code, Status, Streaming};
use containerd_client::types::Descriptor as EngineDescriptor;
use futures_util::{StreamExt, TryStreamExt, stream};
use oci_spec::image::{ImageIndex, ImageManifest};
use parking_lot::Mutex;
use prost_types::FieldMask;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Of one image at the same time, as containerd.
const BLOBS_AT_ONCE: usize = 3;
/// Tries of a blob that bring nothing new, until the pull is given up.
const TRIES_MAX: u32 = 5;
const RETRY: Duration = Duration::from_millis(500);
const PIECE_BYTES: usize = 512 << 10;
const GC_CONTENT: &str = "containerd.io/gc.ref.content";

/// Blobs under way, one writer for each: images share layers.
#[derive(Default)]
pub(super) struct Pulls(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Pulls {
    fn turn(&self, digest: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.0.lock();
        if let Some(known) = all.get(digest).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        all.insert(digest.to_string(), Arc::downgrade(&turn));
        turn
    }
}

/// Why a try did not get the whole of a blob.
enum Broken {
    /// Not what it should be, or not there: the next try would be the same.
    Final(super::RuntimeError),
    /// So much is there; another try may bring more.
    At(u64, super::RuntimeError),
}

impl Parts {
    pub(super) async fn pull(&self, image: &str, auth: Option<&RegistryAuth>) -> Result<String> {
        let reference = Reference::parse(image)?;
        let name = match &reference.digest {
            Some(digest) => format!("{}@{digest}", reference.repository()),
            None => reference.to_string(),
        };
        let told = |text: String| {
            failed(
                "pull",
                image,
                format!("failed to pull and unpack image {name:?}: {text}"),
            )
        };
        let settings = &self.engine.options.registries_dir;
        let repository = Repository::open(settings, &reference, auth).map_err(|error| told(error.to_string()))?;
        let resolved = repository.resolve().await;
        let root = resolved.map_err(|error| told(format!("failed to resolve reference {name:?}: {error}")))?;
        let lease = snapshots::create_lease(&self.engine).await?;
        match self.pull_leased(&lease, &repository, &reference, &name, &root).await {
            Ok(id) => {
                snapshots::delete_lease(&self.engine, &lease).await;
                Ok(id)
            }
            // The lease stays until it expires, and what was got with it.
            Err(super::RuntimeError::Failed { message, .. }) => Err(told(message)),
            Err(error) => Err(error),
        }
    }

    async fn pull_leased(
        &self,
        lease: &str,
        repository: &Repository,
        reference: &Reference,
        name: &str,
        root: &Document,
    ) -> Result<String> {
        let engine = &self.engine;
        let mut parents = Vec::new();
        let mut fetched = None;
        for _ in 0..images::INDEX_DEPTH_MAX {
            let current = fetched.as_ref().unwrap_or(root);
            if !images::is_index(&current.media_type) {
                break;
            }
            let index: ImageIndex = parse(name, current)?;
            let digest = images::for_this_platform(&index);
            let digest = digest.ok_or_else(|| failed("pull", name, "no match for platform in manifest: not found"))?;
            let next = repository.manifest(&digest).await;
            let next = next.map_err(|error| failed("pull", name, error))?;
            parents.extend(fetched.replace(next).map(|index| (index, digest.clone())));
            if parents.is_empty() {
                parents.push((
                    Document {
                        media_type: root.media_type.clone(),
                        digest: root.digest.clone(),
                        bytes: root.bytes.clone(),
                    },
                    digest,
                ));
            }
        }
        let manifest_document = fetched.as_ref().unwrap_or(root);
        let manifest: ImageManifest = parse(name, manifest_document)?;
        let config = manifest.config();
        let blobs = std::iter::once(config).chain(manifest.layers());
        let mut blobs: Vec<(String, u64)> = blobs.map(|blob| (blob.digest().to_string(), blob.size())).collect();
        blobs.sort();
        blobs.dedup();
        let fetches = stream::iter(blobs).map(|(digest, size)| async move {
            let _turn = self.pulls.turn(&digest).lock_owned().await;
            fetch(engine, lease, repository, &digest, size).await
        });
        fetches.buffer_unordered(BLOBS_AT_ONCE).try_collect::<Vec<()>>().await?;
        let layers = manifest.layers().iter().enumerate();
        let mut labels: HashMap<String, String> = layers
            .map(|(index, layer)| (format!("{GC_CONTENT}.l.{index}"), layer.digest().to_string()))
            .collect();
        labels.insert(format!("{GC_CONTENT}.config"), config.digest().to_string());
        store(engine, lease, manifest_document, labels).await?;
        for (index, chosen) in parents.iter().rev() {
            let labels = HashMap::from([(format!("{GC_CONTENT}.m.0"), chosen.clone())]);
            store(engine, lease, index, labels).await?;
        }
        let target = EngineDescriptor {
            media_type: root.media_type.clone(),
            digest: root.digest.clone(),
            size: i64::try_from(root.bytes.len()).unwrap_or(i64::MAX),
            annotations: HashMap::new(),
        };
        let content = images::read_content(engine, name, &target).await?;
        let snapshot = snapshots::unpacked(engine, lease, &content).await?;
        keep_snapshot(engine, &content.id, snapshot).await?;
        // By its digest it is there when the tag has moved on.
        let by_digest = format!("{}@{}", reference.repository(), root.digest);
        for name in [name, by_digest.as_str()] {
            name_image(engine, lease, name, &target).await?;
        }
        Ok(content.id)
    }
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, document: &Document) -> Result<T> {
    serde_json::from_slice(&document.bytes)
        .map_err(|error| failed("pull", name, format!("{}: {error}", document.digest)))
}

/// Gets a blob, from where an earlier try broke off.
async fn fetch(engine: &Engine, lease: &str, repository: &Repository, digest: &str, size: u64) -> Result<()> {
    let (mut tries, mut reached) = (0, 0);
    loop {
        match try_fetch(engine, lease, repository, digest, size).await {
            Ok(()) => return Ok(()),
            Err(Broken::Final(error)) => return Err(error),
            Err(Broken::At(offset, error)) => {
                tries = if offset > reached { 0 } else { tries + 1 };
                reached = reached.max(offset);
                if tries >= TRIES_MAX {
                    return Err(error);
                }
                tracing::debug!(digest, offset, %error, "a blob broke off; going on from there");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn try_fetch(
    engine: &Engine,
    lease: &str,
    repository: &Repository,
    digest: &str,
    size: u64,
) -> Result<(), Broken> {
    let at = |offset: u64| move |error: Status| Broken::At(offset, engine.error("write", "content", digest, error));
    let Some(mut writer) = ContentWriter::open(engine, lease, digest, size).await.map_err(at(0))? else {
        return Ok(());
    };
    if writer.offset < size {
        let offset = writer.offset;
        let (mut response, begins) = match repository.blob(digest, offset).await {
            Ok(found) => found,
            Err(
                error @ (super::super::registry::RegistryError::Request { .. }
                | super::super::registry::RegistryError::Status { .. }),
            ) => {
                return Err(Broken::At(offset, failed("pull", digest, error)));
            }
            Err(error) => return Err(Broken::Final(failed("pull", digest, error))),
        };
        let mut skip = offset - begins;
        let mut piece = Vec::new();
        loop {
            let read = response.chunk().await;
            let more = matches!(read, Ok(Some(_)));
            if let Ok(Some(bytes)) = &read {
                let skipped = skip.min(bytes.len() as u64);
                skip -= skipped;
                piece.extend_from_slice(&bytes[skipped as usize..]);
            }
            if !piece.is_empty() && (!more || piece.len() >= PIECE_BYTES) {
                let offset = writer.offset;
                writer.write(std::mem::take(&mut piece)).await.map_err(at(offset))?;
            }
            match read {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    let message = format!("failed to copy: {error}");
                    return Err(Broken::At(writer.offset, failed("pull", digest, message)));
                }
            }
        }
        if writer.offset < size {
            let message = format!("failed to copy: unexpected EOF at {} of {size} bytes", writer.offset);
            return Err(Broken::At(writer.offset, failed("pull", digest, message)));
        }
    }
    let offset = writer.offset;
    match writer.commit(HashMap::new()).await {
        Ok(()) => Ok(()),
        // The content is not what it should be: nothing of it is of use.
        Err(status) if status.code() == Code::FailedPrecondition => {
            abort(engine, digest).await;
            Err(Broken::Final(failed("pull", digest, status.message())))
        }
        Err(status) => Err(at(offset)(status)),
    }
}

/// A blob that is being written to the daemon's store.
struct ContentWriter {
    requests: mpsc::Sender<WriteContentRequest>,
    responses: Streaming<WriteContentResponse>,
    template: WriteContentRequest,
    offset: u64,
}

fn ingest(digest: &str) -> String {
    format!("krust-{digest}")
}

impl ContentWriter {
    /// None where it is there already; the lease then keeps it.
    async fn open(engine: &Engine, lease: &str, digest: &str, size: u64) -> Result<Option<ContentWriter>, Status> {
        let template = WriteContentRequest {
            r#ref: ingest(digest),
            total: i64::try_from(size).unwrap_or(i64::MAX),
            expected: digest.to_string(),
            ..Default::default()
        };
        let (requests, receiver) = mpsc::channel(1);
        let opened = async {
            let stat = WriteContentRequest {
                action: WriteAction::Stat.into(),
                ..template.clone()
            };
            // The receiver is below, so there is one.
            let _ = requests.send(stat).await;
            let stream = engine.leased(lease, ReceiverStream::new(receiver));
            let mut responses = engine.content().write(stream).await?.into_inner();
            let first = responses
                .message()
                .await?
                .ok_or_else(|| Status::unavailable("the stream ended"))?;
            Ok((responses, first))
        };
        match opened.await {
            Ok((responses, first)) => Ok(Some(ContentWriter {
                requests,
                responses,
                template,
                offset: u64::try_from(first.offset).unwrap_or(0),
            })),
            Err(status) if Status::code(&status) == Code::AlreadyExists => Ok(None),
            Err(status) => Err(status),
        }
    }

    async fn send(&mut self, request: WriteContentRequest) -> Result<WriteContentResponse, Status> {
        // A stream that has ended says why below.
        let _ = self.requests.send(request).await;
        let answer = self.responses.message().await?;
        answer.ok_or_else(|| Status::unavailable("the stream ended"))
    }

    async fn write(&mut self, data: Vec<u8>) -> Result<(), Status> {
        let end = self.offset + data.len() as u64;
        let request = WriteContentRequest {
            action: WriteAction::Write.into(),
            offset: i64::try_from(self.offset).unwrap_or(i64::MAX),
            data,
            ..self.template.clone()
        };
        self.send(request).await?;
        self.offset = end;
        Ok(())
    }

    async fn commit(&mut self, labels: HashMap<String, String>) -> Result<(), Status> {
        let request = WriteContentRequest {
            action: WriteAction::Commit.into(),
            offset: i64::try_from(self.offset).unwrap_or(i64::MAX),
            labels,
            ..self.template.clone()
        };
        match self.send(request).await {
            Err(status) if status.code() != Code::AlreadyExists => Err(status),
            _ => Ok(()),
        }
    }
}

async fn abort(engine: &Engine, digest: &str) {
    let request = engine.request(AbortRequest { r#ref: ingest(digest) });
    if let Err(status) = engine.content().abort(request).await {
        tracing::debug!(
            digest,
            error = status.message(),
            "content that is wrong stays until it expires"
        );
    }
}

/// Keeps a manifest or an index, with what it refers to.
async fn store(engine: &Engine, lease: &str, document: &Document, labels: HashMap<String, String>) -> Result<()> {
    let digest = &document.digest;
    let error = |status| engine.error("write", "content", digest, status);
    let size = document.bytes.len() as u64;
    let Some(mut writer) = ContentWriter::open(engine, lease, digest, size).await.map_err(error)? else {
        // Somebody else's may refer to other parts of it.
        return label(engine, digest, labels).await;
    };
    let rest = document
        .bytes
        .get(writer.offset as usize..)
        .unwrap_or_default()
        .to_vec();
    if !rest.is_empty() {
        writer.write(rest).await.map_err(error)?;
    }
    writer.commit(labels).await.map_err(error)
}

/// Sets labels of content; the others stay.
async fn label(engine: &Engine, digest: &str, labels: HashMap<String, String>) -> Result<()> {
    let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
    let request = UpdateRequest {
        info: Some(Info {
            digest: digest.to_string(),
            labels,
            ..Default::default()
        }),
        update_mask: Some(FieldMask { paths }),
    };
    let updated = engine.content().update(engine.request(request)).await;
    updated
        .map(drop)
        .map_err(|status| engine.error("label", "content", digest, status))
}

/// The unpacked layers stay as long as the image.
async fn keep_snapshot(engine: &Engine, config: &str, snapshot: String) -> Result<()> {
    if snapshot.is_empty() {
        return Ok(());
    }
    let key = format!("containerd.io/gc.ref.snapshot.{}", snapshots::SNAPSHOTTER);
    label(engine, config, HashMap::from([(key, snapshot)])).await
}

async fn name_image(engine: &Engine, lease: &str, name: &str, target: &EngineDescriptor) -> Result<()> {
    let image = v1::Image {
        name: name.to_string(),
        target: Some(target.clone()),
        ..Default::default()
    };
    let create = CreateImageRequest {
        image: Some(image.clone()),
        ..Default::default()
    };
    let created = engine.images().create(engine.leased(lease, create)).await.map(drop);
    let named = match created {
        Err(status) if status.code() == Code::AlreadyExists => {
            let update = UpdateImageRequest {
                image: Some(image),
                update_mask: Some(FieldMask {
                    paths: vec!["target".to_string()],
                }),
                ..Default::default()
            };
            engine.images().update(engine.leased(lease, update)).await.map(drop)
        }
        other => other,
    };
    named.map_err(|status| engine.error("name", "image", name, status))
}
