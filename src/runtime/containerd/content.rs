//! Writing to the daemon's content store (upstream: containerd's `core/content`, `client/content_writer`).

use super::super::registry::Document;
use super::{Engine, Result};
use containerd_client::services::v1::{
    AbortRequest, Info, UpdateRequest, WriteAction, WriteContentRequest, WriteContentResponse,
};
use containerd_client::tonic::{Code, Status, Streaming};
use prost_types::FieldMask;
use std::collections::HashMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// A blob that is being written to the daemon's store.
pub(super) struct ContentWriter {
    requests: mpsc::Sender<WriteContentRequest>,
    responses: Streaming<WriteContentResponse>,
    template: WriteContentRequest,
    pub offset: u64,
}

fn ingest(digest: &str) -> String {
    format!("krust-{digest}")
}

impl ContentWriter {
    /// None where it is there already; the lease then keeps it.
    pub async fn open(engine: &Engine, lease: &str, digest: &str, size: u64) -> Result<Option<ContentWriter>, Status> {
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

    pub async fn write(&mut self, data: Vec<u8>) -> Result<(), Status> {
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

    pub async fn commit(&mut self, labels: HashMap<String, String>) -> Result<(), Status> {
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

/// Takes away what was written of a blob that is not complete.
pub(super) async fn abort(engine: &Engine, digest: &str) {
    let request = engine.request(AbortRequest { r#ref: ingest(digest) });
    match engine.content().abort(request).await {
        Err(status) if status.code() != Code::NotFound => {
            let error = status.message();
            tracing::debug!(digest, error, "a part of a blob stays until it expires");
        }
        _ => {}
    }
}

/// Keeps a manifest or an index, with what it refers to.
pub(super) async fn store(
    engine: &Engine,
    lease: &str,
    document: &Document,
    labels: HashMap<String, String>,
) -> Result<()> {
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
pub(super) async fn label(engine: &Engine, digest: &str, labels: HashMap<String, String>) -> Result<()> {
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
