//! The engine's images for the commands that need no server (upstream: `crictl images`, `ctr images import`).

use super::{AppError, node};
use crate::config::Settings;
pub use crate::runtime::Image;
use crate::runtime::ImageStore;
pub use crate::runtime::archive::{Archive, ArchiveError};
use crate::runtime::choose::choose_images;
pub use crate::runtime::reference::Reference;
use std::path::PathBuf;
use std::sync::Arc;

/// What the engine keeps for this command while it runs is marked so; a server's own is left alone.
const OWNER: &str = "krust-image-command";

/// Images of the engine that the settings name.
pub struct EngineImages {
    store: Arc<dyn ImageStore>,
    /// Where the engine answered.
    pub endpoint: String,
}

impl EngineImages {
    pub async fn connect(settings: &Settings) -> Result<EngineImages, AppError> {
        let options = node::runtime_options(settings, OWNER.to_owned(), PathBuf::new());
        let found = choose_images(&options).await;
        let found = found.map_err(|error| AppError::Runtime(Box::new(error)))?;
        let (store, endpoint) = found.ok_or_else(|| AppError::Setting {
            key: "runtime.kind",
            reason: "\"none\" has no images: name the engine with --runtime".to_owned(),
        })?;
        Ok(EngineImages { store, endpoint })
    }

    pub async fn list(&self) -> Result<Vec<Image>, AppError> {
        Ok(self.store.list().await?)
    }

    /// Returns the names of what was loaded.
    pub async fn load(&self, archive: Archive) -> Result<Vec<String>, AppError> {
        Ok(self.store.load(Arc::new(archive)).await?)
    }
}
