//! Settings of admission plugins: upstream's `AdmissionConfiguration`, a document or file for each.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::event_rate::Limit;
use super::image_policy::{Document, ImagePolicySettings};
use super::node_selector::NodeSelectors;
use super::pod_security::PodSecuritySettings;
use super::tolerations::TolerationSettings;
use crate::status::FieldError;

/// Settings of the plugins that have some.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdmissionSettings {
    /// What namespaces without labels demand of pods.
    pub(super) pod_security: PodSecuritySettings,
    /// How many events may be written.
    pub(super) event_limits: Vec<Limit>,
    /// Where pods of namespaces may run.
    pub(super) node_selectors: NodeSelectors,
    /// What pods tolerate in namespaces that say nothing.
    pub(super) tolerations: TolerationSettings,
    /// Who judges images.
    pub(super) image_policy: Option<ImagePolicySettings>,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("unable to read admission control configuration from {path:?} [{source}]")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is something else.
    #[error("{what}: {reason}")]
    Parse {
        /// What it should be.
        what: &'static str,
        /// Why it is not.
        reason: String,
    },
    /// It says what cannot be.
    #[error("{plugin}: {}", match .errors.as_slice() { [one] => one.clone(), many => format!("[{}]", many.join(", ")) })]
    Invalid {
        /// The plugin.
        plugin: &'static str,
        /// Why, field by field.
        errors: Vec<String>,
    },
    /// The plugin has no settings here.
    #[error("{0} takes no configuration here: {1}")]
    Unsupported(String, &'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AdmissionConfiguration {
    api_version: String,
    kind: String,
    #[serde(default)]
    plugins: Vec<Plugin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plugin {
    name: String,
    #[serde(default)]
    path: PathBuf,
    #[serde(default)]
    configuration: Value,
}

/// Plugins whose settings upstream reads and this server does not.
const UNSUPPORTED: [(&str, &str); 3] = [
    ("MutatingAdmissionWebhook", "webhooks are asked without credentials"),
    ("ResourceQuota", "nothing is forbidden for want of a quota"),
    ("ValidatingAdmissionWebhook", "webhooks are asked without credentials"),
];

impl AdmissionSettings {
    /// How many events may be written.
    #[must_use]
    pub(crate) fn event_limits(&self) -> &[Limit] {
        &self.event_limits
    }

    /// Reads a file and those that it names.
    ///
    /// # Errors
    /// When one of them cannot be read, or says what cannot be.
    pub fn from_file(path: &Path) -> Result<Self, SettingsError> {
        const WHAT: &str = "AdmissionConfiguration";
        let wrong = |reason: String| SettingsError::Parse { what: WHAT, reason };
        let file: AdmissionConfiguration =
            serde_yaml_ng::from_str(&read(path)?).map_err(|error| wrong(error.to_string()))?;
        let version = file.api_version.strip_prefix("apiserver.config.k8s.io/");
        if !matches!(version, Some("v1" | "v1alpha1")) || file.kind != WHAT {
            let named = format!("no kind {:?} is registered for version {:?}", file.kind, file.api_version);
            return Err(wrong(named));
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut settings = Self::default();
        for plugin in file.plugins {
            settings.take(folder, plugin)?;
        }
        Ok(settings)
    }

    fn take(&mut self, folder: &Path, plugin: Plugin) -> Result<(), SettingsError> {
        let has_settings = !plugin.configuration.is_null() || !plugin.path.as_os_str().is_empty();
        if let Some((name, why)) = UNSUPPORTED.iter().find(|(name, _)| *name == plugin.name).filter(|_| has_settings) {
            return Err(SettingsError::Unsupported((*name).to_owned(), why));
        }
        let Some((name, read_into)) =
            SETTINGS.into_iter().find(|(name, _)| *name == plugin.name).filter(|_| has_settings)
        else {
            return Ok(());
        };
        let value = match plugin.configuration {
            Value::Null => serde_yaml_ng::from_str(&read(&folder.join(&plugin.path))?)
                .map_err(|error| SettingsError::Parse { what: "configuration", reason: error.to_string() })?,
            value => value,
        };
        read_into(self, value).map_err(|errors| errors.of(name))
    }
}

/// Plugins with settings, and how theirs are read.
const SETTINGS: [(&str, Read); 5] = [
    ("PodSecurity", |settings, value| {
        let names = [&["v1", "v1beta1", "v1alpha1"][..], &["PodSecurityConfiguration"]];
        settings.pod_security = typed::<PodSecuritySettings>(value, "pod-security.admission.config.k8s.io", names)?;
        valid(&settings.pod_security.errors())
    }),
    ("EventRateLimit", |settings, value| {
        let names = [&["v1alpha1"][..], &["Configuration"]];
        settings.event_limits = typed::<Limits>(value, "eventratelimit.admission.k8s.io", names)?.limits;
        valid(&super::event_rate::errors(&settings.event_limits))
    }),
    ("PodTolerationRestriction", |settings, value| {
        let names = [&["v1alpha1"][..], &["Configuration"]];
        settings.tolerations = typed(value, "podtolerationrestriction.admission.k8s.io", names)?;
        valid(&settings.tolerations.errors())
    }),
    // These two have no version.
    ("PodNodeSelector", |settings, value| {
        settings.node_selectors = plain("podNodeSelectorPluginConfig", value)?;
        Ok(())
    }),
    ("ImagePolicyWebhook", |settings, value| {
        let document: Document = plain("imagePolicy", value)?;
        let reason = |reason: String| Wrong::Fields(vec![reason]);
        settings.image_policy = Some(document.try_into().map_err(reason)?);
        Ok(())
    }),
];

type Read = fn(&mut AdmissionSettings, Value) -> Result<(), Wrong>;

/// What is wrong with a plugin's settings.
enum Wrong {
    Form(SettingsError),
    Fields(Vec<String>),
}

impl Wrong {
    fn of(self, plugin: &'static str) -> SettingsError {
        match self {
            Self::Form(error) => error,
            Self::Fields(errors) => SettingsError::Invalid { plugin, errors },
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    #[serde(default)]
    limits: Vec<Limit>,
}

fn read(path: &Path) -> Result<String, SettingsError> {
    std::fs::read_to_string(path).map_err(|source| SettingsError::Read { path: path.to_owned(), source })
}

/// A document of a group, in one of its versions and of its kind.
fn typed<T: DeserializeOwned>(
    mut value: Value,
    group: &'static str,
    [versions, kinds]: [&[&str]; 2],
) -> Result<T, Wrong> {
    let wrong = |reason: String| Wrong::Form(SettingsError::Parse { what: group, reason });
    let map = value.as_object_mut().ok_or_else(|| wrong("no object".to_owned()))?;
    let mut text = |key: &str| map.remove(key).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let known = version.strip_prefix(group).and_then(|rest| rest.strip_prefix('/'));
    if !known.is_some_and(|known| versions.contains(&known)) || !kinds.contains(&kind.as_str()) {
        return Err(wrong(format!("no kind {kind:?} is registered for version {version:?}")));
    }
    serde_json::from_value(value).map_err(|error| wrong(error.to_string()))
}

/// A document without a version, of which upstream reads what it knows.
fn plain<T: DeserializeOwned>(what: &'static str, value: Value) -> Result<T, Wrong> {
    let wrong = |error: serde_json::Error| Wrong::Form(SettingsError::Parse { what, reason: error.to_string() });
    serde_json::from_value(value).map_err(wrong)
}

fn valid(errors: &[FieldError]) -> Result<(), Wrong> {
    if errors.is_empty() { Ok(()) } else { Err(Wrong::Fields(errors.iter().map(ToString::to_string).collect())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(plugins: &str) -> Result<AdmissionSettings, String> {
        let folder = tempfile::tempdir().unwrap();
        let limits = "{apiVersion: eventratelimit.admission.k8s.io/v1alpha1, kind: Configuration, \
                      limits: [{type: Namespace, qps: 1, burst: 2}]}";
        std::fs::write(folder.path().join("limits.yaml"), limits).unwrap();
        let path = folder.path().join("admission.yaml");
        let text =
            format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins: [{plugins}]");
        std::fs::write(&path, text).unwrap();
        AdmissionSettings::from_file(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn each_plugin_takes_its_own() {
        let found = settings(
            "{name: PodSecurity, configuration: {apiVersion: pod-security.admission.config.k8s.io/v1, \
             kind: PodSecurityConfiguration, defaults: {enforce: baseline}, exemptions: {usernames: [a]}}}, \
             {name: EventRateLimit, path: limits.yaml}, {name: LimitRanger}",
        )
        .unwrap();
        assert_eq!(found.event_limits.len(), 1);
        assert_ne!(found.pod_security, PodSecuritySettings::default());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let security = |rest: &str| {
            let text = format!(
                "{{name: PodSecurity, configuration: {{apiVersion: pod-security.admission.config.k8s.io/v1, \
                 kind: PodSecurityConfiguration, {rest}}}}}"
            );
            settings(&text).unwrap_err()
        };
        assert_eq!(
            security("defaults: {warn: all}"),
            "PodSecurity: defaults.warn: Invalid value: \"all\": must be one of privileged, baseline, restricted"
        );
        assert_eq!(
            security("exemptions: {namespaces: [a, a]}"),
            "PodSecurity: exemptions.namespaces[1]: Duplicate value: \"a\""
        );
        assert!(security("other: 1").contains("unknown field"));
        assert!(settings("{name: ResourceQuota, configuration: {}}").unwrap_err().contains("takes no configuration"));
    }
}
