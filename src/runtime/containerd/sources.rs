//! Where the content of an image comes from: a registry, an archive, or another namespace of the same daemon.

use super::super::archive::Archive;
use super::super::registry::{Document, RegistryError, Repository};
use super::engine::Namespace;
use super::{Engine, Result, failed, images};
use bytes::Bytes;
use containerd_client::services::v1::{ReadContentRequest, ReadContentResponse};
use containerd_client::tonic::Streaming;
use std::sync::Arc;

const PIECE_BYTES: usize = 512 << 10;

pub(super) enum Source<'a> {
    Registry(&'a Repository),
    Archive(Arc<Archive>),
    Namespace(Namespace),
}

/// What a source failed with.
pub(super) struct SourceError {
    pub error: super::RuntimeError,
    /// Another try may bring more.
    pub may_go_on: bool,
}

pub(super) enum Blob {
    Registry {
        response: reqwest::Response,
        /// Bytes before those that were asked for.
        skip: u64,
    },
    Archive {
        archive: Arc<Archive>,
        digest: String,
        offset: u64,
    },
    Content(Box<Streaming<ReadContentResponse>>),
}

fn final_error(digest: &str, error: impl ToString) -> SourceError {
    SourceError {
        error: failed("pull", digest, error),
        may_go_on: false,
    }
}

impl Source<'_> {
    /// A manifest or an index.
    pub async fn document(&self, engine: &Engine, media_type: &str, digest: &str) -> Result<Document> {
        match self {
            Source::Registry(repository) => {
                let found = repository.manifest(digest).await;
                found.map_err(|error| failed("pull", digest, error))
            }
            Source::Archive(archive) => {
                let found = archive.document(digest);
                found.map_err(|error| failed("load", digest, error))
            }
            Source::Namespace(namespace) => Ok(Document {
                media_type: media_type.to_string(),
                digest: digest.to_string(),
                bytes: images::read_document(engine, namespace, digest, digest).await?,
            }),
        }
    }

    /// A blob from `offset` on.
    pub async fn blob(&self, engine: &Engine, digest: &str, offset: u64) -> Result<Blob, SourceError> {
        match self {
            Source::Registry(repository) => match repository.blob(digest, offset).await {
                Ok((response, begins)) => Ok(Blob::Registry {
                    response,
                    skip: offset - begins,
                }),
                Err(error) => Err(SourceError {
                    may_go_on: matches!(error, RegistryError::Request { .. } | RegistryError::Status { .. }),
                    error: failed("pull", digest, error),
                }),
            },
            Source::Archive(archive) => Ok(Blob::Archive {
                archive: archive.clone(),
                digest: digest.to_string(),
                offset,
            }),
            Source::Namespace(namespace) => {
                let read = ReadContentRequest {
                    digest: digest.to_string(),
                    offset: i64::try_from(offset).unwrap_or(i64::MAX),
                    ..Default::default()
                };
                let stream = engine.content().read(engine.request_in(namespace, read)).await;
                let stream = stream.map_err(|status| final_error(digest, status.message()))?;
                Ok(Blob::Content(Box::new(stream.into_inner())))
            }
        }
    }
}

impl Blob {
    /// The next piece; None at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        match self {
            Blob::Registry { response, skip } => loop {
                let read = response.chunk().await.map_err(|error| SourceError {
                    error: failed("pull", response.url().path(), format!("failed to copy: {error}")),
                    may_go_on: true,
                });
                let Some(mut bytes) = read? else {
                    return Ok(None);
                };
                let skipped = usize::try_from(*skip).unwrap_or(usize::MAX).min(bytes.len());
                *skip -= skipped as u64;
                let rest = bytes.split_off(skipped);
                if !rest.is_empty() {
                    return Ok(Some(rest));
                }
            },
            Blob::Archive {
                archive,
                digest,
                offset,
            } => {
                let (reader, name, at) = (archive.clone(), digest.clone(), *offset);
                let read = tokio::task::spawn_blocking(move || reader.read_blob(&name, at, PIECE_BYTES)).await;
                let read = read.map_err(|error| final_error(digest, error))?;
                let bytes = read.map_err(|error| final_error(digest, error))?;
                *offset += bytes.len() as u64;
                Ok((!bytes.is_empty()).then_some(bytes))
            }
            Blob::Content(stream) => {
                let piece = stream.message().await;
                let piece = piece.map_err(|status| final_error("content", status.message()))?;
                Ok(piece.map(|piece| piece.data.into()))
            }
        }
    }
}
