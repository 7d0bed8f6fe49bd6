//! Getting images: pull policies, one pull at a time per image, back-off after failures.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::core::v1::Secret;
use cri::{Logins, Runtime, v1};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::registry_auth::credentials;

/// Pulls that run at the same time.
const PARALLEL_PULLS: usize = 4;
const BACKOFF_FIRST: Duration = Duration::from_secs(10);
const BACKOFF_LONGEST: Duration = Duration::from_secs(300);

/// Why an image is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImageError {
    /// The policy forbids pulling, and it is absent.
    NeverPull(String),
    /// The name is none.
    InvalidName(String),
    /// A pull failed just now.
    Pull(String),
    /// A pull failed before and it is too early for another; with the wait.
    BackOff(String, Duration),
    /// The runtime could not say whether it is there.
    Inspect(String),
}

impl ImageError {
    /// Upstream's waiting reason.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NeverPull(_) => "ErrImageNeverPull",
            Self::InvalidName(_) => "InvalidImageName",
            Self::Pull(_) => "ErrImagePull",
            Self::BackOff(..) => "ImagePullBackOff",
            Self::Inspect(_) => "ImageInspectError",
        }
    }

    pub(crate) fn message(&self) -> &str {
        match self {
            Self::NeverPull(m) | Self::InvalidName(m) | Self::Pull(m) | Self::BackOff(m, _) | Self::Inspect(m) => m,
        }
    }
}

/// What happened on the way, for events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImageStep {
    Present,
    Pulling,
    Pulled { took: Duration, waited: Duration, bytes: u64 },
    Failed(String),
    BackingOff,
}

struct Failure {
    delay: Duration,
    until: Instant,
    error: String,
}

/// One wish for an image.
pub(crate) struct ImageRequest<'a> {
    pub(crate) image: &'a str,
    pub(crate) policy: &'a str,
    pub(crate) handler: &'a str,
    pub(crate) secrets: &'a [Arc<Secret>],
    pub(crate) sandbox: Option<v1::PodSandboxConfig>,
    /// Who asks: back-off is per asker and image.
    pub(crate) asker: &'a str,
}

/// The node's images.
pub(crate) struct Images {
    runtime: Arc<dyn Runtime>,
    /// The node's own credentials, after those of pods.
    logins: Logins,
    slots: Semaphore,
    pulling: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    failures: Mutex<HashMap<String, Failure>>,
}

impl Images {
    pub(crate) fn new(runtime: Arc<dyn Runtime>, logins: Logins) -> Self {
        Self {
            runtime,
            logins,
            slots: Semaphore::new(PARALLEL_PULLS),
            pulling: Mutex::new(HashMap::new()),
            failures: Mutex::new(HashMap::new()),
        }
    }

    /// Makes sure that an image is here; `tell` hears of the steps. Dropping the future gives the pull up.
    pub(crate) async fn ensure(
        &self,
        request: &ImageRequest<'_>,
        tell: &(dyn Fn(ImageStep) + Send + Sync),
    ) -> Result<v1::Image, ImageError> {
        verify_name(request.image)?;
        let policy = effective_policy(request.policy, request.image);
        if policy != "Always"
            && let Some(image) = self.find(request).await?
        {
            tell(ImageStep::Present);
            return Ok(image);
        }
        if policy == "Never" {
            let text = format!("Container image \"{}\" is not present with pull policy of Never", request.image);
            return Err(ImageError::NeverPull(text));
        }
        let key = format!("{}_{}", request.asker, request.image);
        if let Some((wait, last)) = self.back_off(&key) {
            tell(ImageStep::BackingOff);
            let text = format!("Back-off pulling image \"{}\": ErrImagePull: {last}", request.image);
            return Err(ImageError::BackOff(text, wait));
        }
        let asked = Instant::now();
        let gate = self.gate(request.image);
        let _one_at_a_time = gate.lock().await;
        let _slot = self.slots.acquire().await;
        if policy != "Always"
            && let Some(image) = self.find(request).await?
        {
            tell(ImageStep::Present);
            return Ok(image);
        }
        tell(ImageStep::Pulling);
        let began = Instant::now();
        match self.pull(request).await {
            Ok(image) => {
                self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                tell(ImageStep::Pulled { took: began.elapsed(), waited: asked.elapsed(), bytes: image.size });
                Ok(image)
            }
            Err(error) => {
                self.note_failure(&key, &error);
                tell(ImageStep::Failed(error.clone()));
                Err(ImageError::Pull(error))
            }
        }
    }

    fn gate(&self, image: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut pulling = self.pulling.lock().unwrap_or_else(PoisonError::into_inner);
        pulling.retain(|_, gate| Arc::strong_count(gate) > 1);
        pulling.entry(image.to_owned()).or_default().clone()
    }

    async fn find(&self, request: &ImageRequest<'_>) -> Result<Option<v1::Image>, ImageError> {
        let found = self.runtime.image_status(spec(request)).await;
        found.map_err(|error| ImageError::Inspect(format!("Failed to inspect image {:?}: {error}", request.image)))
    }

    async fn pull(&self, request: &ImageRequest<'_>) -> Result<v1::Image, String> {
        let own = self.logins.of(request.image);
        let mut candidates: Vec<_> =
            credentials(request.image, request.secrets).into_iter().chain(own).map(Some).collect();
        if candidates.is_empty() {
            candidates.push(None);
        }
        let mut last = String::new();
        for auth in candidates {
            let pull =
                v1::PullImageRequest { image: Some(spec(request)), auth, sandbox_config: request.sandbox.clone() };
            match self.runtime.pull_image(pull).await {
                Ok(reference) => {
                    let found = self.find(request).await.map_err(|error| error.message().to_owned())?;
                    return Ok(found.unwrap_or(v1::Image { id: reference, ..v1::Image::default() }));
                }
                Err(error) => last = error.message(),
            }
        }
        Err(last)
    }

    fn back_off(&self, key: &str) -> Option<(Duration, String)> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = failures.get(key)?;
        let wait = failure.until.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero())?;
        Some((wait, failure.error.clone()))
    }

    fn note_failure(&self, key: &str, error: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        failures.retain(|_, failure| failure.until + BACKOFF_LONGEST * 2 > now);
        let delay = failures.get(key).map_or(BACKOFF_FIRST, |f| (f.delay * 2).min(BACKOFF_LONGEST));
        failures.insert(key.to_owned(), Failure { delay, until: now + delay, error: error.to_owned() });
    }
}

fn spec(request: &ImageRequest<'_>) -> v1::ImageSpec {
    v1::ImageSpec {
        image: request.image.to_owned(),
        user_specified_image: request.image.to_owned(),
        runtime_handler: request.handler.to_owned(),
        ..v1::ImageSpec::default()
    }
}

/// `Always` for images without a fixed tag, unless the pod says otherwise.
fn effective_policy<'a>(policy: &'a str, image: &str) -> &'a str {
    if !policy.is_empty() {
        return policy;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    let is_latest = !last.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest");
    if is_latest { "Always" } else { "IfNotPresent" }
}

fn verify_name(image: &str) -> Result<(), ImageError> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "./:@_-[]+".contains(c);
    let name = image.split('@').next().unwrap_or_default();
    let repository = name.rsplit_once('/').map_or("", |(path, _)| path).split_once('/').map_or("", |(_, path)| path);
    if image.is_empty() || !image.chars().all(is_fine) || repository.chars().any(|c| c.is_ascii_uppercase()) {
        let text = format!(
            "Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": invalid reference format"
        );
        return Err(ImageError::InvalidName(text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_follows_the_tag_where_none_is_given() {
        for (image, policy) in [
            ("a", "Always"),
            ("a:latest", "Always"),
            ("r:5000/a", "Always"),
            ("r:5000/a:1", "IfNotPresent"),
            ("a@sha256:0", "IfNotPresent"),
        ] {
            assert_eq!(effective_policy("", image), policy, "{image}");
        }
    }

    #[test]
    fn names_with_blanks_are_refused() {
        assert!(verify_name("registry.k8s.io/pause:3.10").is_ok());
        assert!(matches!(verify_name("not a name"), Err(ImageError::InvalidName(_))));
        assert!(verify_name("").is_err());
    }
}
