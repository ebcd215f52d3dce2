//! Image archives: what `docker save` writes, and OCI image layouts, plain or gzip'd (upstream: containerd's
//! `core/images/archive`; the image specification's image layout).
//!
//! An archive is indexed, not unpacked: blobs are read from where they lie in the file.

mod files;
#[cfg(test)]
mod tests;

use super::reference::Reference;
use super::registry::Document;
use bytes::Bytes;
use files::{Place, entries, normal, temporary, uncompressed};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// The list of images that `docker save` writes.
pub const DOCKER_LIST: &str = "manifest.json";
/// Descriptions of images are far smaller.
const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
const LINKS_MAX: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("cannot read the archive: {0}")]
    Read(#[from] io::Error),
    #[error("this is no image archive: it is no tar archive")]
    NoArchive,
    #[error("this is no image archive: it has neither an index.json nor a manifest.json")]
    NoImages,
    #[error("the archive is compressed with {0}, which is not supported; gzip is")]
    Compression(&'static str),
    #[error("the archive is incomplete: {0} is missing")]
    Missing(String),
    #[error("the archive's {name}: {reason}")]
    Content { name: String, reason: String },
    #[error("the archive does not say what its image is called; say it with --name")]
    NoName,
    #[error("--name is for archives with one image that has no name; this one has {0}")]
    Named(String),
}
type Result<T, E = ArchiveError> = std::result::Result<T, E>;

/// An image of an archive.
#[derive(Clone, Debug)]
pub struct ArchivedImage {
    /// In full: `docker.io/library/nginx:1.27`.
    pub names: Vec<String>,
    /// Its manifest or index.
    pub root: Document,
}

/// See the module's description.
#[derive(Debug)]
pub struct Archive {
    file: Arc<File>,
    /// Files by their paths.
    entries: BTreeMap<String, Place>,
    blobs: HashMap<String, Content>,
    renamed: bool,
    pub images: Vec<ArchivedImage>,
}

/// Where a blob is.
#[derive(Clone, Debug)]
enum Content {
    At {
        offset: u64,
        size: u64,
    },
    /// Made here.
    Here(Bytes),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

impl Archive {
    /// Reads an archive that comes as a stream. It is kept in a temporary file meanwhile.
    pub fn from_stream(mut stream: impl Read) -> Result<Archive> {
        let mut file = temporary()?;
        io::copy(&mut stream, &mut file)?;
        Archive::open(file)
    }

    pub fn open(file: File) -> Result<Archive> {
        let file = uncompressed(file)?;
        let mut archive = Archive {
            entries: entries(&file)?,
            file: Arc::new(file),
            blobs: HashMap::new(),
            renamed: false,
            images: Vec::new(),
        };
        if archive.entries.contains_key("index.json") {
            archive.read_layout()?;
        } else if archive.entries.contains_key(DOCKER_LIST) {
            archive.read_docker()?;
        } else {
            return Err(ArchiveError::NoImages);
        }
        Ok(archive)
    }

    /// Gives its image a name, or sees that all have one.
    pub fn name(&mut self, name: Option<&Reference>) -> Result<()> {
        let unnamed = self.images.iter().filter(|image| image.names.is_empty()).count();
        match (name, self.images.as_mut_slice()) {
            (None, _) if unnamed == 0 => Ok(()),
            (None, _) => Err(ArchiveError::NoName),
            (Some(name), [image]) if image.names.is_empty() => {
                image.names.push(name.to_string());
                self.renamed = true;
                Ok(())
            }
            (Some(_), [image]) => Err(ArchiveError::Named(image.names.join(", "))),
            (Some(_), images) => Err(ArchiveError::Named(format!("{} images", images.len()))),
        }
    }

    /// Whether it has Docker's own list of images.
    pub fn is_dockers(&self) -> bool {
        self.entries.contains_key(DOCKER_LIST)
    }

    /// Whether it does not say the names itself.
    pub fn is_renamed(&self) -> bool {
        self.renamed
    }

    /// Docker's list of the images, for an archive that has none.
    pub fn docker_list(&self, for_this_platform: impl Fn(&Value) -> Option<String>) -> Result<Vec<u8>> {
        let mut list = Vec::new();
        for image in &self.images {
            let mut document = image.root.clone();
            while let Some(digest) = is_index(&document)
                .then(|| for_this_platform(&parsed(&document)?))
                .flatten()
            {
                document = self.document(&digest)?;
            }
            let manifest = parsed(&document).unwrap_or_default();
            let path = |descriptor: &Value| {
                let digest = descriptor["digest"].as_str().unwrap_or_default();
                let (algorithm, hex) = digest.split_once(':').unwrap_or_default();
                format!("blobs/{algorithm}/{hex}")
            };
            let layers: Vec<String> = manifest["layers"].as_array().into_iter().flatten().map(path).collect();
            list.push(json!({"Config": path(&manifest["config"]), "RepoTags": image.names, "Layers": layers}));
        }
        Ok(Value::from(list).to_string().into_bytes())
    }

    /// The archive itself, which is not compressed, from its beginning.
    pub fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// A manifest or an index.
    pub fn document(&self, digest: &str) -> Result<Document> {
        let content = self.blobs.get(digest);
        let bytes = match content.ok_or_else(|| ArchiveError::Missing(digest.to_owned()))? {
            Content::Here(bytes) => bytes.to_vec(),
            Content::At { offset, size } => self.bytes(digest, *offset, *size)?,
        };
        if digest_of(&bytes) != digest {
            return Err(ArchiveError::Content {
                name: digest.to_owned(),
                reason: format!("the content's digest is {}", digest_of(&bytes)),
            });
        }
        let said: Value = serde_json::from_slice(&bytes).map_err(|error| wrong(digest, error))?;
        let media_type = said["mediaType"].as_str().map(str::to_owned);
        let media_type = media_type.unwrap_or_else(|| match said.get("manifests") {
            Some(_) => INDEX.to_owned(),
            None => MANIFEST.to_owned(),
        });
        Ok(Document {
            media_type,
            digest: digest.to_owned(),
            bytes,
        })
    }

    /// At most `bytes_max` bytes of a blob; none are left when there are none. Blocks the thread.
    pub fn read_blob(&self, digest: &str, offset: u64, bytes_max: usize) -> Result<Bytes> {
        let content = self.blobs.get(digest);
        match content.ok_or_else(|| ArchiveError::Missing(digest.to_owned()))? {
            Content::Here(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(from..bytes.len().min(from.saturating_add(bytes_max))))
            }
            Content::At { offset: start, size } => {
                let left = size.saturating_sub(offset).min(bytes_max as u64);
                let mut bytes = vec![0; left as usize];
                self.file.read_exact_at(&mut bytes, start + offset)?;
                Ok(bytes.into())
            }
        }
    }

    /// Where a path leads to.
    fn place(&self, path: &str) -> Result<(u64, u64)> {
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            match self.entries.get(&path) {
                Some(Place::File { offset, size }) => return Ok((*offset, *size)),
                Some(Place::Link(target)) => path.clone_from(target),
                None => break,
            }
        }
        Err(ArchiveError::Missing(path))
    }

    fn bytes(&self, name: &str, offset: u64, size: u64) -> Result<Vec<u8>> {
        if size > DOCUMENT_BYTES_MAX {
            return Err(wrong(name, "it is too large for an image's description"));
        }
        let mut bytes = vec![0; size as usize];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn text(&self, path: &str) -> Result<Vec<u8>> {
        let (offset, size) = self.place(path)?;
        self.bytes(path, offset, size)
    }

    fn read_layout(&mut self) -> Result<()> {
        for path in self.entries.keys() {
            let mut parts = path.split('/');
            if let (Some("blobs"), Some(algorithm), Some(hex), None) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            {
                let (offset, size) = self.place(path)?;
                self.blobs
                    .insert(format!("{algorithm}:{hex}"), Content::At { offset, size });
            }
        }
        let index = self.text("index.json")?;
        let index: Value = serde_json::from_slice(&index).map_err(|error| wrong("index.json", error))?;
        let tags = self.docker_names()?;
        let mut images: Vec<ArchivedImage> = Vec::new();
        for entry in index["manifests"].as_array().into_iter().flatten() {
            let digest = entry["digest"].as_str().unwrap_or_default();
            let mut root = self.document(digest)?;
            if let Some(media_type) = entry["mediaType"].as_str() {
                root.media_type = media_type.to_owned();
            }
            let annotation = |key: &str| entry["annotations"][key].as_str();
            // The second may be a tag alone, which is no name.
            let named = annotation("io.containerd.image.name")
                .or_else(|| annotation("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':'])));
            let mut names: Vec<String> = match named {
                Some(name) => vec![full_name(name)?],
                None => Vec::new(),
            };
            let config = parsed(&root).and_then(|manifest| Some(manifest["config"]["digest"].as_str()?.to_owned()));
            if let Some(more) = config.and_then(|config| tags.get(&config)) {
                names.extend(
                    more.iter()
                        .filter(|name| !names.contains(name))
                        .cloned()
                        .collect::<Vec<_>>(),
                );
            }
            match images.iter_mut().find(|known| known.root.digest == root.digest) {
                Some(known) => known.names.extend(names),
                None => images.push(ArchivedImage { names, root }),
            }
        }
        if images.is_empty() {
            return Err(ArchiveError::NoImages);
        }
        self.images = images;
        Ok(())
    }

    fn docker_images(&self) -> Result<Vec<DockerImage>> {
        serde_json::from_slice(&self.text(DOCKER_LIST)?).map_err(|error| wrong(DOCKER_LIST, error))
    }

    /// Names by the digests of configurations, from Docker's list if there is one.
    fn docker_names(&self) -> Result<HashMap<String, Vec<String>>> {
        if !self.is_dockers() {
            return Ok(HashMap::new());
        }
        let mut names = HashMap::new();
        for image in self.docker_images()? {
            let config = digest_of(&self.text(&normal(Path::new(&image.config)))?);
            let tags = image.repo_tags.unwrap_or_default();
            let tags = tags.iter().map(|tag| full_name(tag)).collect::<Result<Vec<_>>>()?;
            names.insert(config, tags);
        }
        Ok(names)
    }

    /// Makes the manifests that such an archive lacks.
    fn read_docker(&mut self) -> Result<()> {
        let mut known: HashMap<(u64, u64), (String, &str)> = HashMap::new();
        for image in self.docker_images()? {
            let config = self.text(&normal(Path::new(&image.config)))?;
            let mut layers = Vec::new();
            for path in &image.layers {
                let place = self.place(&normal(Path::new(path)))?;
                let (digest, media_type) = match known.get(&place) {
                    Some(found) => found.clone(),
                    None => self.hash(place)?,
                };
                known.insert(place, (digest.clone(), media_type));
                let (offset, size) = place;
                self.blobs.insert(digest.clone(), Content::At { offset, size });
                layers.push(json!({"mediaType": media_type, "digest": digest, "size": size}));
            }
            let config_digest = digest_of(&config);
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
                "config": {"mediaType": CONFIG, "digest": config_digest, "size": config.len()},
            });
            self.blobs.insert(config_digest, Content::Here(config.into()));
            let bytes = manifest.to_string().into_bytes();
            let digest = digest_of(&bytes);
            self.blobs.insert(digest.clone(), Content::Here(bytes.clone().into()));
            let names = image.repo_tags.unwrap_or_default();
            let names = names.iter().map(|name| full_name(name)).collect::<Result<Vec<_>>>()?;
            let media_type = MANIFEST.to_owned();
            let root = Document {
                media_type,
                digest,
                bytes,
            };
            self.images.push(ArchivedImage { names, root });
        }
        match self.images.is_empty() {
            true => Err(ArchiveError::NoImages),
            false => Ok(()),
        }
    }

    /// Digest and media type of a layer.
    fn hash(&self, (offset, size): (u64, u64)) -> Result<(String, &'static str)> {
        let (mut hash, mut at, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
        let mut media_type = LAYER;
        while at < size {
            let piece = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
            self.file.read_exact_at(&mut buffer[..piece], offset + at)?;
            if at == 0 && buffer[..piece].starts_with(&[0x1f, 0x8b]) {
                media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
            }
            hash.update(&buffer[..piece]);
            at += piece as u64;
        }
        Ok((format!("sha256:{}", hex::encode(hash.finalize())), media_type))
    }
}

fn is_index(document: &Document) -> bool {
    document.media_type.ends_with("image.index.v1+json") || document.media_type.ends_with("manifest.list.v2+json")
}

fn parsed(document: &Document) -> Option<Value> {
    serde_json::from_slice(&document.bytes).ok()
}

fn wrong(name: &str, reason: impl ToString) -> ArchiveError {
    ArchiveError::Content {
        name: name.to_owned(),
        reason: reason.to_string(),
    }
}

fn full_name(name: &str) -> Result<String> {
    let reference = Reference::parse(name).map_err(|error| wrong("list of images", error))?;
    Ok(reference.to_string())
}
