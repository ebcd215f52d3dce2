//! Getting a container's image (upstream: `pkg/kubelet/images/image_manager.go`).

use crate::client::events::{Level, Recorder};
use crate::kubelet::back_off::BackOff;
use crate::kubelet::container::ConfigError;
use crate::kubelet::state::FailureKind;
use crate::kubelet::{image_secrets, pod};
use crate::runtime::{Image, Runtime, RuntimeError};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Semaphore;

/// Pulls at the same time; engines share layers between them.
const PULLS_MAX: usize = 4;
/// How soon an image that must already be there is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Why the container cannot have its image: reason and message of state.waiting.
#[derive(Debug)]
pub struct ImageError {
    pub kind: FailureKind,
    pub reason: &'static str,
    pub message: String,
    pub retry_at: Option<SystemTime>,
}

pub struct Images {
    runtime: Arc<dyn Runtime>,
    client: kube::Client,
    recorder: Recorder,
    pulls: Semaphore,
    /// By pod uid and image.
    back_off: Mutex<BackOff>,
}

impl Images {
    pub fn new(runtime: Arc<dyn Runtime>, client: kube::Client, recorder: Recorder) -> Self {
        Self {
            runtime,
            client,
            recorder,
            pulls: Semaphore::new(PULLS_MAX),
            back_off: Mutex::new(BackOff::upstream()),
        }
    }

    /// Makes the image present as the pull policy demands.
    pub async fn ensure(
        &self,
        pod: &Pod,
        field_path: &str,
        image: &str,
        policy: Option<&str>,
    ) -> Result<Image, ImageError> {
        let event = |level, reason, message| {
            self.recorder
                .event_at(pod, Some(field_path.to_owned()), level, reason, message);
        };
        let present = match self.runtime.image_status(image).await {
            Ok(present) => present,
            Err(RuntimeError::InvalidImageName(detail)) => {
                let message =
                    format!("Failed to apply default image tag {image:?}: couldn't parse image name {detail:?}");
                event(Level::Warning, "InspectFailed", message.clone());
                return Err(ImageError {
                    kind: FailureKind::Image,
                    reason: "InvalidImageName",
                    message,
                    retry_at: None,
                });
            }
            Err(error) => {
                let message = format!("Failed to inspect image {image:?}: {error}");
                event(Level::Warning, "InspectFailed", message.clone());
                return Err(ImageError {
                    kind: FailureKind::Image,
                    reason: "ImageInspectError",
                    message,
                    retry_at: Some(SystemTime::now() + LOOK_AGAIN),
                });
            }
        };
        match (Policy::parse(policy), present) {
            (Policy::IfNotPresent | Policy::Never, Some(present)) => {
                event(
                    Level::Normal,
                    "Pulled",
                    format!("Container image {image:?} already present on machine"),
                );
                Ok(present)
            }
            (Policy::Never, None) => {
                let message = format!("Container image {image:?} is not present with pull policy of Never");
                event(Level::Warning, "ErrImageNeverPull", message.clone());
                Err(ImageError {
                    kind: FailureKind::Image,
                    reason: "ErrImageNeverPull",
                    message,
                    retry_at: Some(SystemTime::now() + LOOK_AGAIN),
                })
            }
            (_, present) => self.pull(pod, image, present.is_some(), &event).await,
        }
    }

    async fn pull(
        &self,
        pod: &Pod,
        image: &str,
        present: bool,
        event: &(impl Fn(Level, &'static str, String) + Sync),
    ) -> Result<Image, ImageError> {
        let asked = Instant::now();
        // The semaphore is never closed; without a permit the pull would only be unlimited.
        let _permit = self.pulls.acquire().await.ok();
        event(Level::Normal, "Pulling", format!("Pulling image {image:?}"));
        let started = Instant::now();
        let key = format!("{}_{image}", pod::uid(pod));
        let pulled = self.pull_with_secrets(pod, image).await;
        let status = match pulled {
            Ok(()) => self
                .runtime
                .image_status(image)
                .await
                .map_err(|error| error.to_string()),
            Err(message) => Err(message),
        };
        let message = match status {
            Ok(Some(status)) => {
                let (took, waited) = (seconds(started.elapsed()), seconds(asked.elapsed()));
                let text = format!(
                    "Successfully pulled image {image:?} in {took} ({waited} including waiting). Image size: {} bytes.",
                    status.size_bytes
                );
                event(Level::Normal, "Pulled", text);
                self.back_off.lock().reset(&key);
                return Ok(status);
            }
            Ok(None) => "the image is not on the node after it was pulled".to_owned(),
            Err(message) => message,
        };
        let hint = match present {
            true => "; image is present on the node; set imagePullPolicy: IfNotPresent to use it",
            false => "",
        };
        event(
            Level::Warning,
            "Failed",
            format!("Failed to pull image {image:?}: {message}{hint}"),
        );
        event(Level::Warning, "Failed", "Error: ErrImagePull".to_owned());
        let now = SystemTime::now();
        let delay = self.back_off.lock().advance(&key, now, now);
        Err(ImageError {
            kind: FailureKind::ImagePull,
            reason: "ErrImagePull",
            message: format!("{message}{hint}"),
            retry_at: Some(now + delay),
        })
    }

    /// Tries every matching pull secret, then without one.
    async fn pull_with_secrets(&self, pod: &Pod, image: &str) -> Result<(), String> {
        let auths = image_secrets::find(&self.client, pod, image).await;
        let auths = auths.map_err(|error: ConfigError| error.to_string())?;
        let mut last = None;
        for auth in auths.iter().map(Some).chain([None]) {
            match self.runtime.pull_image(image, auth).await {
                Ok(_) => return Ok(()),
                // The refusal of a secret says more than the one without.
                Err(error) => last = last.or(Some(error.to_string())),
            }
        }
        Err(last.unwrap_or_default())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Always,
    IfNotPresent,
    Never,
}

impl Policy {
    /// The API server sets it, by the tag, where the user did not.
    fn parse(text: Option<&str>) -> Self {
        match text {
            Some("Always") => Self::Always,
            Some("Never") => Self::Never,
            _ => Self::IfNotPresent,
        }
    }
}

/// As upstream prints durations in events: milliseconds below a second, else seconds.
fn seconds(duration: Duration) -> String {
    match duration.as_millis() {
        millis if millis < 1000 => format!("{millis}ms"),
        millis => format!("{}.{:03}s", millis / 1000, millis % 1000),
    }
}
