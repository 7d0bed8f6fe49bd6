//! ImagePolicyWebhook: another server decides whether the images of a pod may be run.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use client::Hook;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use stdx::Backoff;

use super::Operation;
use crate::app::Call;
use crate::config::Config;
use crate::status::{Failure, Result};
use crate::strategy::Part;
use crate::tree;

const PLUGIN: &str = "ImagePolicyWebhook";
/// Keys of what the audit log is told begin so.
const AUDIT: &str = "imagepolicywebhook.image-policy.k8s.io/";
/// Annotations whose keys have this in them are handed on.
const OWN: &str = ".image-policy.k8s.io/";
const API_VERSION: &str = "imagepolicy.k8s.io/v1alpha1";
/// Most answers that are remembered, as upstream.
const MAX_ANSWERS: usize = 1024;

/// Where the server is, and how it is asked. Times are as upstream spells them: 0 is the default, -1 is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Section {
    kube_config_file: PathBuf,
    #[serde(rename = "allowTTL")]
    allow_ttl: i64,
    #[serde(rename = "denyTTL")]
    deny_ttl: i64,
    retry_backoff: i64,
    default_allow: bool,
}

/// The plugin's document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Document {
    image_policy: Section,
}

/// Settings that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePolicySettings {
    kubeconfig: PathBuf,
    allow_ttl: Duration,
    deny_ttl: Duration,
    backoff: Duration,
    default_allow: bool,
}

const HALF_AN_HOUR: (Duration, &str) = (Duration::from_secs(30 * 60), "30m0s");
const FIVE_MINUTES: (Duration, &str) = (Duration::from_secs(5 * 60), "5m0s");
const SECOND: (Duration, &str) = (Duration::from_secs(1), "1s");
const NANOSECOND: (Duration, &str) = (Duration::from_nanos(1), "1ns");

impl TryFrom<Document> for ImagePolicySettings {
    type Error = String;

    fn try_from(document: Document) -> std::result::Result<Self, String> {
        let Section { kube_config_file, allow_ttl, deny_ttl, retry_backoff, default_allow } = document.image_policy;
        let seconds = |value: i64, default: u64| time(value, (SECOND.0, default), (SECOND, HALF_AN_HOUR));
        Ok(Self {
            kubeconfig: kube_config_file,
            backoff: time(retry_backoff, (Duration::from_millis(1), 500), (NANOSECOND, FIVE_MINUTES))?,
            allow_ttl: seconds(allow_ttl, 300)?,
            deny_ttl: seconds(deny_ttl, 30)?,
            default_allow,
        })
    }
}

type Named = (Duration, &'static str);

fn time(
    value: i64,
    (unit, default): (Duration, u64),
    (least, most): (Named, Named),
) -> std::result::Result<Duration, String> {
    let times = |count: u64| unit.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
    match value {
        -1 => Ok(Duration::ZERO),
        0 => Ok(times(default)),
        _ => {
            let found = u64::try_from(value).map(times).ok().filter(|found| (least.0..=most.0).contains(found));
            found.ok_or_else(|| format!("valid value is between {} and {}, got {value} of {unit:?}", least.1, most.1))
        }
    }
}

/// The server, and what it said.
pub struct ImagePolicy {
    settings: ImagePolicySettings,
    hook: Hook,
    answers: Mutex<HashMap<String, (Instant, Value)>>,
}

impl ImagePolicy {
    /// Reads the kubeconfig, if the plugin is on; nothing is asked yet.
    ///
    /// # Errors
    /// When there are no settings, or they cannot be used.
    pub fn new(config: &Config) -> std::result::Result<Option<Self>, crate::Error> {
        if !config.plugins.has(PLUGIN) {
            return Ok(None);
        }
        let failed = |reason: String| crate::Error::Admission { plugin: PLUGIN, reason };
        let settings = config.admission.image_policy.clone().ok_or_else(|| failed("no config specified".to_owned()))?;
        let hook = Hook::from_kubeconfig(&settings.kubeconfig, "image-policy");
        let hook = hook.map_err(|e| failed(format!("{}: {}", settings.kubeconfig.display(), stdx::chain(&e))))?;
        Ok(Some(Self { settings, hook, answers: Mutex::default() }))
    }

    /// What the server says of a review, now or a while ago.
    async fn status(&self, spec: Value) -> std::result::Result<Value, String> {
        let key = spec.to_string();
        if let Some((_, known)) = self.answers.lock().get(&key).filter(|(until, _)| Instant::now() < *until) {
            return Ok(known.clone());
        }
        let review = json!({
            "kind": "ImageReview", "apiVersion": API_VERSION, "metadata": {}, "spec": spec, "status": {"allowed": false},
        });
        let backoff = Backoff { initial: self.settings.backoff, factor: 1.5, max: FIVE_MINUTES.0, jitter: 0.2 };
        let answer = self.hook.post_patiently(review.to_string().into(), &backoff).await;
        let answer = answer.map_err(|error| stdx::chain(&error).to_string())?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
        if answer["kind"] != "ImageReview" || answer["apiVersion"] != API_VERSION {
            let (kind, version) = (tree::text(&answer, "/kind"), tree::text(&answer, "/apiVersion"));
            return Err(format!("the answer is no ImageReview of {API_VERSION}, but {kind:?} of {version:?}"));
        }
        self.remember(key, &answer["status"]);
        Ok(answer["status"].clone())
    }

    fn remember(&self, key: String, status: &Value) {
        let ttl = if status["allowed"] == true { self.settings.allow_ttl } else { self.settings.deny_ttl };
        let (now, mut answers) = (Instant::now(), self.answers.lock());
        if answers.len() >= MAX_ANSWERS {
            answers.retain(|_, (until, _)| now < *until);
            if answers.len() >= MAX_ANSWERS {
                answers.clear();
            }
        }
        answers.insert(key, (now + ttl, status.clone()));
    }
}

/// Refuses pods whose images the server does not allow.
pub(super) async fn check(call: &Call, operation: Operation, pod: &Value) -> Result<()> {
    let Some(policy) = call.app.image_policy.as_ref() else { return Ok(()) };
    let lists: &[&str] = match operation {
        Operation::Create | Operation::Update(Part::Main) => &["/spec/containers", "/spec/initContainers"],
        Operation::Update(Part::EphemeralContainers) => &["/spec/ephemeralContainers"],
        Operation::Update(_) => return Ok(()),
    };
    if (call.kind.group, call.kind.plural) != ("", "pods") {
        return Ok(());
    }
    let refuse = |why: &str| Err(Failure::forbidden(call.subject(), tree::name_given(pod), why));
    let status = match policy.status(spec(call, pod, lists)).await {
        Ok(status) => status,
        Err(error) if policy.settings.default_allow => {
            tracing::warn!(error, "the webhook that judges images could not be asked; the pod is allowed");
            call.record.annotate(&format!("{AUDIT}failed-open"), "true".to_owned());
            return Ok(());
        }
        Err(error) => return refuse(&error),
    };
    for (key, text) in status["auditAnnotations"].as_object().into_iter().flatten() {
        call.record.annotate(&format!("{AUDIT}{key}"), text.as_str().unwrap_or_default().to_owned());
    }
    match tree::text(&status, "/reason") {
        _ if status["allowed"] == true => Ok(()),
        "" => refuse("one or more images rejected by webhook backend"),
        reason => refuse(&format!("image policy webhook backend denied one or more images: {reason}")),
    }
}

/// What is asked about, as `ImageReview` spells it.
fn spec(call: &Call, pod: &Value, lists: &[&str]) -> Value {
    let containers = lists.iter().flat_map(|list| tree::list(pod, list));
    let images: Vec<Value> = containers.map(|container| json!({"image": container["image"]})).collect();
    let annotations = pod["metadata"]["annotations"].as_object().into_iter().flatten();
    let own: serde_json::Map<String, Value> =
        annotations.filter(|(key, _)| key.contains(OWN)).map(|(key, text)| (key.clone(), text.clone())).collect();
    let mut spec = json!({"containers": images, "namespace": call.namespace()});
    if !own.is_empty() {
        spec["annotations"] = own.into();
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(section: Value) -> std::result::Result<ImagePolicySettings, String> {
        let document: Document = serde_json::from_value(json!({"imagePolicy": section})).unwrap();
        document.try_into()
    }

    #[test]
    fn times_have_defaults_and_bounds() {
        let found = settings(json!({"allowTTL": 50, "denyTTL": -1})).unwrap();
        assert_eq!(found.allow_ttl, Duration::from_secs(50));
        assert_eq!((found.deny_ttl, found.backoff), (Duration::ZERO, Duration::from_millis(500)));
        assert!(
            settings(json!({"allowTTL": 1801})).unwrap_err().starts_with("valid value is between 1s and 30m0s, got")
        );
        assert!(
            settings(json!({"retryBackoff": 300_001})).unwrap_err().starts_with("valid value is between 1ns and 5m0s")
        );
        assert!(settings(json!({"denyTTL": -2})).is_err());
    }
}
