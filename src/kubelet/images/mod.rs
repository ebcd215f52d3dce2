//! Getting a container's image (upstream: `pkg/kubelet/images/image_manager.go`, `puller.go`).

mod docker_config;
pub mod garbage;
pub mod garbage_plan;
mod keyring;
mod pulled;

use crate::client::events::{Level, Recorder};
use crate::kubelet::back_off::BackOff;
use crate::kubelet::container::ConfigError;
use crate::kubelet::objects::{Objects, References};
use crate::kubelet::pod;
use crate::kubelet::state::FailureKind;
use crate::runtime::reference::Reference;
use crate::runtime::{Image, PullProgress, Runtime, RuntimeError};
use k8s_openapi::api::core::v1::{Pod, Secret};
use keyring::{Credential, Keyring};
use parking_lot::Mutex;
use pulled::Pulled;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Semaphore;

/// How soon an image that must already be there is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// A pull that takes so long tells how far it is; the next time after twice as long.
const TELL_AFTER: Duration = Duration::from_secs(10);

/// How images are got.
#[derive(Clone, Debug)]
pub struct ImagePolicy {
    /// Pulls at the same time; engines share layers between them. 1 is upstream's `serializeImagePulls`, more its
    /// `maxParallelImagePulls`, 0 has no bound.
    pub pulls_max: usize,
    /// Files with the node's own credentials, the first that is there counts.
    pub credentials: Vec<PathBuf>,
    pub garbage: garbage_plan::Policy,
}

impl Default for ImagePolicy {
    fn default() -> Self {
        Self {
            pulls_max: 4,
            credentials: Vec::new(),
            garbage: garbage_plan::Policy::default(),
        }
    }
}

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
    credentials: Vec<PathBuf>,
    pulled: Pulled,
    pulls: Semaphore,
    /// By pod uid and image.
    back_off: Mutex<BackOff>,
}

impl Images {
    /// It is kept in `data_dir` who may use which image.
    pub fn new(
        runtime: Arc<dyn Runtime>,
        client: kube::Client,
        recorder: Recorder,
        policy: &ImagePolicy,
        data_dir: &Path,
    ) -> Self {
        let pulls_max = match policy.pulls_max {
            0 => Semaphore::MAX_PERMITS,
            max => max.min(Semaphore::MAX_PERMITS),
        };
        Self {
            runtime,
            client,
            recorder,
            credentials: policy.credentials.clone(),
            pulled: Pulled::open(&data_dir.join("image-pulls.json")),
            pulls: Semaphore::new(pulls_max),
            back_off: Mutex::new(BackOff::upstream()),
        }
    }

    /// Makes the image present as the pull policy demands. What happens is told of the field, or of the pod.
    pub async fn ensure(
        &self,
        pod: &Pod,
        field_path: Option<&str>,
        image: &str,
        policy: Option<&str>,
    ) -> Result<Image, ImageError> {
        let event = |level, reason, message| {
            self.recorder
                .event_at(pod, field_path.map(str::to_owned), level, reason, message);
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
                let message = format!("Failed to inspect image {image:?}: {}", error.cause());
                event(Level::Warning, "InspectFailed", message.clone());
                return Err(ImageError {
                    kind: FailureKind::Image,
                    reason: "ImageInspectError",
                    message,
                    retry_at: Some(SystemTime::now() + LOOK_AGAIN),
                });
            }
        };
        let policy = Policy::parse(policy);
        let present = match present {
            Some(found) if policy != Policy::Always && !self.may_use(pod, image, &found).await => None,
            other => other,
        };
        match (policy, present) {
            (Policy::IfNotPresent | Policy::Never, Some(present)) => {
                event(
                    Level::Normal,
                    "Pulled",
                    format!("Container image {image:?} already present on machine and can be accessed by the pod"),
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
            (_, _) => self.pull(pod, image, &event).await,
        }
    }

    async fn pull(
        &self,
        pod: &Pod,
        image: &str,
        event: &(impl Fn(Level, &'static str, String) + Sync),
    ) -> Result<Image, ImageError> {
        let asked = Instant::now();
        event(Level::Normal, "Pulling", format!("Pulling image {image:?}"));
        // The semaphore is never closed; without a permit the pull would only be unlimited.
        let permit = self.pulls.acquire().await.ok();
        let started = Instant::now();
        let key = format!("{}_{image}", pod::uid(pod));
        let progress = PullProgress::default();
        let pull = self.pull_with_credentials(pod, image, &progress);
        let pulled = tell_how_far(pull, &progress, TELL_AFTER, |text| {
            event(Level::Normal, "Pulling", format!("Pulling image {image:?}: {text}"));
        });
        let pulled = pulled.await;
        let took = started.elapsed();
        drop(permit);
        let status = match &pulled {
            Ok(_) => self.runtime.image_status(image).await.map_err(|error| error.cause()),
            Err(message) => Err(message.clone()),
        };
        match (&status, &pulled) {
            (Ok(Some(found)), Ok(with)) => self.note(image, found, with.as_ref()).await,
            _ => self.pulled.fail(image),
        }
        let message = match status {
            Ok(Some(status)) => {
                let (took, waited) = (seconds(took), seconds(asked.elapsed()));
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
        let text = format!("Failed to pull image {image:?}: {message}");
        event(Level::Warning, "Failed", text);
        let now = SystemTime::now();
        let delay = self.back_off.lock().advance(&key, now, now);
        Err(ImageError {
            kind: FailureKind::ImagePull,
            reason: "ErrImagePull",
            message,
            retry_at: Some(now + delay),
        })
    }

    /// Whether a pod may have an image that is there: it could pull it, or everybody could.
    async fn may_use(&self, pod: &Pod, image: &str, found: &Image) -> bool {
        let Ok(reference) = Reference::parse(image) else {
            return true;
        };
        let repository = reference.repository();
        if !self.pulled.is_restricted(image, &found.id, &repository) {
            return true;
        }
        let credentials = self.credentials_for(pod, image).await.unwrap_or_default();
        self.pulled.is_known(&found.id, &repository, &credentials)
    }

    /// Keeps who has got an image.
    async fn note(&self, image: &str, found: &Image, with: Option<&Credential>) {
        let Ok(reference) = Reference::parse(image) else {
            return;
        };
        self.pulled.succeed(image, &found.id, &reference.repository(), with);
        if self.pulled.is_long()
            && let Ok(images) = self.runtime.list_images().await
        {
            let ids: HashSet<String> = images.into_iter().map(|image| image.id).collect();
            self.pulled.keep(&ids);
        }
    }

    /// Tries all credentials that fit; without any, as nobody. Returns the one that was taken.
    async fn pull_with_credentials(
        &self,
        pod: &Pod,
        image: &str,
        progress: &PullProgress,
    ) -> Result<Option<Credential>, String> {
        let found = self.credentials_for(pod, image).await;
        let found: Vec<Credential> = found.map_err(|error| error.to_string())?;
        if found.iter().any(|credential| credential.secret.is_some()) {
            self.pulled.begin(image);
        }
        let tries: Vec<Option<&Credential>> = match found.is_empty() {
            true => vec![None],
            false => found.iter().map(Some).collect(),
        };
        let mut errors: Vec<String> = Vec::new();
        for with in tries {
            let auth = with.map(|credential| &credential.auth);
            match self.runtime.pull_image(image, auth, progress).await {
                Ok(_) => return Ok(with.cloned()),
                Err(error) => {
                    let error = error.cause();
                    if !errors.contains(&error) {
                        errors.push(error);
                    }
                }
            }
        }
        Err(match errors.len() {
            1 => errors.remove(0),
            _ => format!("[{}]", errors.join(", ")),
        })
    }

    /// Those of the pod's pull secrets, then the node's own.
    async fn credentials_for(&self, pod: &Pod, image: &str) -> Result<Vec<Credential>, ConfigError> {
        let Ok(reference) = Reference::parse(image) else {
            return Ok(Vec::new());
        };
        let secrets = self.pull_secrets(pod).await?;
        let mut found = Keyring::of_secrets(&secrets).find(&reference);
        found.extend(docker_config::find(&self.credentials, &reference).await);
        let mut distinct: Vec<Credential> = Vec::new();
        for one in found {
            let of = |credential: &Credential| (credential.auth.username.clone(), credential.auth.password.clone());
            if !distinct.iter().any(|known| of(known) == of(&one)) {
                distinct.push(one);
            }
        }
        Ok(distinct)
    }

    /// Those that there are: the pull itself says what is wrong without the others.
    async fn pull_secrets(&self, pod: &Pod) -> Result<Vec<Secret>, ConfigError> {
        let named = pod::spec(pod).image_pull_secrets.iter().flatten();
        let names: Vec<String> = named.map(|secret| secret.name.clone()).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let references = References {
            secrets: names.iter().cloned().collect(),
            ..References::default()
        };
        let objects = Objects::fetch(&self.client, pod::namespace(pod), references).await?;
        let (mut secrets, mut missing) = (Vec::new(), Vec::new());
        for name in names {
            match objects.secret(&name)? {
                Some(secret) => secrets.push(secret.clone()),
                None => missing.push(name),
            }
        }
        if !missing.is_empty() {
            let text = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            self.recorder
                .event(pod, Level::Warning, "FailedToRetrieveImagePullSecret", text);
        }
        Ok(secrets)
    }
}

/// Runs a pull, and tells now and then how far it is if it takes long.
async fn tell_how_far<T>(
    pull: impl Future<Output = T>,
    progress: &PullProgress,
    mut pause: Duration,
    tell: impl Fn(String),
) -> T {
    let mut pull = std::pin::pin!(pull);
    loop {
        tokio::select! {
            done = &mut pull => return done,
            () = tokio::time::sleep(pause) => {}
        }
        pause *= 2;
        let (got, total) = progress.read();
        if total > 0 {
            let mega = |bytes: u64| bytes as f64 / 1e6;
            tell(format!("{:.1} of {:.1} MB", mega(got), mega(total)));
        }
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

/// As upstream prints durations in events: Go's form, in milliseconds.
fn seconds(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (minutes, millis) = (millis / 60_000, millis % 60_000);
    let fraction = format!("{:03}", millis % 1000);
    let seconds = match fraction.trim_end_matches('0') {
        "" => format!("{}s", millis / 1000),
        fraction => format!("{}.{fraction}s", millis / 1000),
    };
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_prints_them() {
        for (millis, text) in [
            (0, "0s"),
            (393, "393ms"),
            (1000, "1s"),
            (1200, "1.2s"),
            (61_034, "1m1.034s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(seconds(Duration::from_millis(millis)), text);
        }
    }

    #[tokio::test]
    async fn a_long_pull_tells_how_far_it_is() {
        let progress = PullProgress::default();
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let pull = async {
            // Nothing is told as long as nothing is known.
            tokio::time::sleep(Duration::from_millis(5)).await;
            progress.set_total(20_000_000);
            progress.add(5_000_000);
            heard.recv().await
        };
        let tell = |text| drop(told.send(text));
        let first = tell_how_far(pull, &progress, Duration::from_millis(1), tell).await;
        assert!(
            matches!(first.as_deref(), Some("5.0 of 20.0 MB" | "0.0 of 20.0 MB")),
            "{first:?}"
        );
    }
}
