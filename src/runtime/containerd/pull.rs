//! Brings images into the daemon's content store: pulls, archives, and what other namespaces have (upstream:
//! containerd's `client/pull.go`, `client/import.go`, `core/remotes/handlers.go`).
//!
//! The same for every version of the daemon: it is given the content, checks its digest, and unpacks it. Content that
//! another namespace has is shared, not copied, where the daemon's policy allows that. What a pull has got when its
//! registry breaks off stays for as long as its lease, and the next one goes on from there.

use super::super::reference::Reference;
use super::super::registry::{Document, Repository};
use super::content::{ContentWriter, abort, label, store};
use super::sources::{Source, SourceError};
use super::{Engine, ImageStore, Parts, PullProgress, RegistryAuth, Result, RuntimeError, failed, images, snapshots};
use crate::runtime::Image;
use crate::runtime::archive::{Archive, ArchivedImage};
use async_trait::async_trait;
use containerd_client::services::v1::{self, CreateImageRequest, UpdateImageRequest};
use containerd_client::tonic::Code;
use containerd_client::types::Descriptor as EngineDescriptor;
use futures_util::{StreamExt, TryStreamExt, stream};
use oci_spec::image::{ImageIndex, ImageManifest};
use parking_lot::Mutex;
use prost_types::FieldMask;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Of one image at the same time, as containerd.
const BLOBS_AT_ONCE: usize = 3;
/// Tries of a blob that bring nothing new, until the pull is given up.
const TRIES_MAX: u32 = 5;
const RETRY: Duration = Duration::from_millis(500);
const PIECE_BYTES: usize = 512 << 10;
const GC_CONTENT: &str = "containerd.io/gc.ref.content";

/// What pulls share.
#[derive(Default)]
pub(super) struct Pulls {
    /// Blobs under way, one writer for each: images share layers.
    turns: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// Leases of pulls that broke off, by image.
    kept: Mutex<HashMap<String, String>>,
}

impl Pulls {
    fn turn(&self, digest: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.turns.lock();
        if let Some(known) = all.get(digest).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        all.insert(digest.to_string(), Arc::downgrade(&turn));
        turn
    }
}

/// Why an image could not be brought in.
struct Failure {
    error: RuntimeError,
    /// What is there already is of use to the next try.
    may_go_on: bool,
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Failure {
        let may_go_on = false;
        Failure { error, may_go_on }
    }
}

/// Why a try did not get the whole of a blob; so much of it is there.
struct Broken {
    failure: Failure,
    offset: u64,
    /// Another try may bring more.
    again: bool,
}

/// One image on its way in.
struct Import<'a> {
    engine: &'a Engine,
    pulls: &'a Pulls,
    source: Source<'a>,
    lease: &'a str,
    /// What it is called in errors.
    subject: &'a str,
    root: &'a Document,
    progress: &'a PullProgress,
}

impl Parts {
    pub(super) async fn pull(
        &self,
        image: &str,
        auth: Option<&RegistryAuth>,
        progress: &PullProgress,
    ) -> Result<String> {
        let reference = Reference::parse(image)?;
        let name = match &reference.digest {
            Some(digest) => format!("{}@{digest}", reference.repository()),
            None => reference.to_string(),
        };
        let told = |text: String| {
            let message = format!("failed to pull and unpack image {name:?}: {text}");
            failed("pull", image, message)
        };
        let settings = &self.engine.options.registries_dir;
        let repository = Repository::open(settings, &reference, auth).map_err(|error| told(error.to_string()))?;
        let resolved = repository.resolve().await;
        let root = resolved.map_err(|error| told(format!("failed to resolve reference {name:?}: {error}")))?;
        // By its digest it is there when the tag has moved on.
        let by_digest = format!("{}@{}", reference.repository(), root.digest);
        let source = Source::Registry(&repository);
        let names = [name.clone(), by_digest];
        let done = bring_in(&self.engine, &self.pulls, source, &names, &root, progress).await;
        done.map_err(|error| match error {
            RuntimeError::Failed { message, .. } => told(message),
            error => error,
        })
    }

    /// An image by id or reference. One that only another namespace has is brought into this krust's.
    pub(super) async fn image(&self, image: &str) -> Result<Option<images::Found>> {
        let (engine, cache) = (&self.engine, &self.images);
        if let Some(found) = images::find(engine, cache, image).await? {
            return Ok(Some(found));
        }
        let Some((namespace, stored)) = images::find_elsewhere(engine, cache, image).await? else {
            return Ok(None);
        };
        let target = stored.target.unwrap_or_default();
        let root = Document {
            bytes: images::read_document(engine, &namespace, &stored.name, &target.digest).await?,
            media_type: target.media_type,
            digest: target.digest,
        };
        tracing::debug!(
            image = stored.name,
            ?namespace,
            "taking an image from another namespace"
        );
        let source = Source::Namespace(namespace);
        let names = [stored.name];
        bring_in(engine, &self.pulls, source, &names, &root, &PullProgress::default()).await?;
        images::find(engine, cache, image).await
    }
}

/// The daemon's images by themselves.
pub(super) struct Store {
    pub engine: Engine,
    pub images: images::Cache,
    pub pulls: Pulls,
}

#[async_trait]
impl ImageStore for Store {
    async fn list(&self) -> Result<Vec<Image>> {
        images::list(&self.engine, &self.images).await
    }

    async fn load(&self, archive: Arc<Archive>) -> Result<Vec<String>> {
        let mut loaded = Vec::new();
        for ArchivedImage { names, root } in &archive.images {
            let source = Source::Archive(archive.clone());
            let progress = PullProgress::default();
            bring_in(&self.engine, &self.pulls, source, names, root, &progress).await?;
            loaded.extend(names.iter().cloned());
        }
        Ok(loaded)
    }
}

/// Returns the image's id.
async fn bring_in(
    engine: &Engine,
    pulls: &Pulls,
    source: Source<'_>,
    names: &[String],
    root: &Document,
    progress: &PullProgress,
) -> Result<String> {
    let lease = snapshots::create_lease(engine).await?;
    let subject = names.first().map_or(root.digest.as_str(), String::as_str);
    let import = Import {
        engine,
        pulls,
        source,
        lease: &lease,
        subject,
        root,
        progress,
    };
    let done = import.run(names).await;
    let kept = match &done {
        Err(failure) if failure.may_go_on => pulls.kept.lock().insert(subject.to_string(), lease.clone()),
        Err(_) => {
            snapshots::delete_lease_and_content(engine, &lease).await;
            pulls.kept.lock().remove(subject)
        }
        Ok(_) => {
            snapshots::delete_lease(engine, &lease).await;
            pulls.kept.lock().remove(subject)
        }
    };
    // What an earlier try got is this one's now, or of no use any more.
    if let Some(earlier) = kept {
        snapshots::delete_lease(engine, &earlier).await;
    }
    done.map_err(|failure| failure.error)
}

impl Import<'_> {
    async fn run(&self, names: &[String]) -> Result<String, Failure> {
        let engine = self.engine;
        let parents = self.manifests().await?;
        let manifest_document = parents.manifest.as_ref().unwrap_or(self.root);
        let manifest: ImageManifest = self.parse(manifest_document)?;
        let config = manifest.config();
        let blobs = std::iter::once(config).chain(manifest.layers());
        let mut blobs: Vec<(String, u64)> = blobs.map(|blob| (blob.digest().to_string(), blob.size())).collect();
        blobs.sort();
        blobs.dedup();
        self.progress.set_total(blobs.iter().map(|(_, size)| size).sum());
        let fetches = stream::iter(blobs.clone()).map(|(digest, size)| async move {
            let _turn = self.pulls.turn(&digest).lock_owned().await;
            self.fetch(&digest, size).await
        });
        let fetched = fetches.buffer_unordered(BLOBS_AT_ONCE).try_collect::<Vec<()>>().await;
        if let Err(failure) = fetched {
            if !failure.may_go_on {
                self.give_up(&blobs).await;
            }
            return Err(failure);
        }
        let layers = manifest.layers().iter().enumerate();
        let mut labels: HashMap<String, String> = layers
            .map(|(index, layer)| (format!("{GC_CONTENT}.l.{index}"), layer.digest().to_string()))
            .collect();
        labels.insert(format!("{GC_CONTENT}.config"), config.digest().to_string());
        self.store(manifest_document, labels).await?;
        for (index, chosen) in parents.indexes.iter().rev() {
            let labels = HashMap::from([(format!("{GC_CONTENT}.m.0"), chosen.clone())]);
            self.store(index, labels).await?;
        }
        let target = EngineDescriptor {
            media_type: self.root.media_type.clone(),
            digest: self.root.digest.clone(),
            size: i64::try_from(self.root.bytes.len()).unwrap_or(i64::MAX),
            annotations: HashMap::new(),
        };
        let content = images::read_content(engine, &engine.namespace, self.subject, &target).await?;
        let snapshot = snapshots::unpacked(engine, self.lease, &content).await?;
        keep_snapshot(engine, &content.id, snapshot).await?;
        for name in names {
            name_image(engine, self.lease, name, &target).await?;
        }
        Ok(content.id)
    }

    /// The manifest for this machine, and the indexes that lead to it.
    async fn manifests(&self) -> Result<Manifests> {
        let mut found = Manifests::default();
        for _ in 0..images::INDEX_DEPTH_MAX {
            let current = found.manifest.as_ref().unwrap_or(self.root);
            if !images::is_index(&current.media_type) {
                break;
            }
            let index: ImageIndex = self.parse(current)?;
            let entry = images::entry_for_this_platform(&index);
            let entry =
                entry.ok_or_else(|| failed("pull", self.subject, "no match for platform in manifest: not found"))?;
            let digest = entry.digest().to_string();
            let media_type = entry.media_type().to_string();
            let next = self.source.document(self.engine, &media_type, &digest).await?;
            let index = found.manifest.replace(next).unwrap_or_else(|| self.root.clone());
            found.indexes.push((index, digest));
        }
        Ok(found)
    }

    /// Keeps a manifest or an index, which several pulls may want to at the same time.
    async fn store(&self, document: &Document, labels: HashMap<String, String>) -> Result<()> {
        let _turn = self.pulls.turn(&document.digest).lock_owned().await;
        store(self.engine, self.lease, document, labels).await
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, document: &Document) -> Result<T> {
        serde_json::from_slice(&document.bytes)
            .map_err(|error| failed("pull", self.subject, format!("{}: {error}", document.digest)))
    }

    /// Takes away the parts of blobs that nobody else is writing.
    async fn give_up(&self, blobs: &[(String, u64)]) {
        for (digest, _) in blobs {
            if let Ok(_turn) = self.pulls.turn(digest).try_lock_owned() {
                abort(self.engine, digest).await;
            }
        }
    }

    /// Gets a blob, from where an earlier try broke off.
    async fn fetch(&self, digest: &str, size: u64) -> Result<(), Failure> {
        let (mut tries, mut reached) = (0, 0);
        loop {
            let before = reached;
            let broken = match self.try_fetch(digest, size, &mut reached).await {
                Ok(()) => {
                    self.progress.add(size.saturating_sub(reached));
                    return Ok(());
                }
                Err(broken) => broken,
            };
            self.count(&mut reached, broken.offset);
            tries = if reached > before { 0 } else { tries + 1 };
            if !broken.again || tries >= TRIES_MAX {
                return Err(broken.failure);
            }
            let (offset, error) = (broken.offset, &broken.failure.error);
            tracing::debug!(digest, offset, %error, "a blob broke off; going on from there");
            tokio::time::sleep(RETRY).await;
        }
    }

    fn count(&self, reached: &mut u64, offset: u64) {
        if offset > *reached {
            self.progress.add(offset - *reached);
            *reached = offset;
        }
    }

    async fn try_fetch(&self, digest: &str, size: u64, reached: &mut u64) -> Result<(), Broken> {
        let engine = self.engine;
        let of_engine = |offset: u64| {
            move |status| {
                let error = engine.error("write", "content", digest, status);
                Broken {
                    offset,
                    // Somebody else may hold the blob for a moment.
                    again: matches!(error, RuntimeError::Unavailable { .. }),
                    failure: error.into(),
                }
            }
        };
        let of_source = |offset: u64| {
            move |SourceError { error, may_go_on }| Broken {
                offset,
                again: may_go_on,
                failure: Failure { error, may_go_on },
            }
        };
        let opened = ContentWriter::open(engine, self.lease, digest, size).await;
        let Some(mut writer) = opened.map_err(of_engine(0))? else {
            return Ok(());
        };
        if writer.offset < size {
            let mut blob = self
                .source
                .blob(engine, digest, writer.offset)
                .await
                .map_err(of_source(writer.offset))?;
            let mut piece = Vec::new();
            loop {
                let read = blob.next().await;
                if let Ok(Some(bytes)) = &read {
                    piece.extend_from_slice(bytes);
                }
                if !piece.is_empty() && (!matches!(read, Ok(Some(_))) || piece.len() >= PIECE_BYTES) {
                    let offset = writer.offset;
                    let written = writer.write(std::mem::take(&mut piece)).await;
                    written.map_err(of_engine(offset))?;
                    self.count(reached, writer.offset);
                }
                match read {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => return Err(of_source(writer.offset)(error)),
                }
            }
            if writer.offset < size {
                let message = format!("failed to copy: unexpected EOF at {} of {size} bytes", writer.offset);
                let error = failed("pull", digest, message);
                return Err(of_source(writer.offset)(SourceError { error, may_go_on: true }));
            }
        }
        let offset = writer.offset;
        match writer.commit(HashMap::new()).await {
            Ok(()) => Ok(()),
            // The content is not what it should be: nothing of it is of use.
            Err(status) if status.code() == Code::FailedPrecondition => {
                abort(engine, digest).await;
                let error = failed("pull", digest, status.message());
                Err(of_source(0)(SourceError {
                    error,
                    may_go_on: false,
                }))
            }
            Err(status) => Err(of_engine(offset)(status)),
        }
    }
}

/// None of a manifest: the root is one.
#[derive(Default)]
struct Manifests {
    manifest: Option<Document>,
    /// From the root on, each with the digest that it led to.
    indexes: Vec<(Document, String)>,
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
