//! What is in a volume that is made of files. Pure.

use std::collections::BTreeMap;

use api::Quantity;
use api::core::v1::{ConfigMap, DownwardApiVolumeFile, KeyToPath, Secret, Volume};

use crate::environment::Referenced;
use crate::fields::{LiveFields, pod_field};
use crate::pod::PodView;
use crate::resources::resource_field;
use crate::security::run_as;

const DEFAULT_MODE: i32 = 0o644;
/// Seconds that a service account token lasts if the pod does not say.
const TOKEN_SECONDS: i64 = 3600;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileContent {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
    /// Owner, where it is not root.
    pub(crate) owner: Option<u32>,
}

/// Files by their path in the volume.
pub(crate) type Payload = BTreeMap<String, FileContent>;

/// Which token a pod asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TokenKey {
    pub(crate) audience: String,
    pub(crate) seconds: i64,
}

/// Everything contents come from.
pub(crate) struct PayloadInput<'a> {
    pub(crate) view: &'a PodView,
    pub(crate) referenced: &'a Referenced,
    pub(crate) live: &'a LiveFields,
    pub(crate) allocatable: &'a BTreeMap<String, Quantity>,
    pub(crate) tokens: &'a BTreeMap<TokenKey, String>,
}

/// The tokens that the pod's volumes hold.
pub(crate) fn token_keys(view: &PodView) -> Vec<TokenKey> {
    let projected = view.spec().volumes.iter().filter_map(|v| v.volume_source.projected.as_ref());
    let parts = projected.flat_map(|p| &p.sources).filter_map(|s| s.service_account_token.as_ref());
    parts
        .map(|t| TokenKey {
            audience: t.audience.clone(),
            seconds: t.expiration_seconds.filter(|s| *s > 0).unwrap_or(TOKEN_SECONDS),
        })
        .collect()
}

/// The files of a volume, or why it cannot be made.
pub(crate) fn payload(volume: &Volume, input: &PayloadInput<'_>) -> Result<Payload, String> {
    let mut files = Payload::new();
    let source = &volume.volume_source;
    if let Some(map) = &source.config_map {
        let name = &map.local_object_reference.name;
        let wanted = Wanted::new(&map.items, map.default_mode, map.optional);
        add_config_map(&mut files, input, name, &wanted)?;
    } else if let Some(secret) = &source.secret {
        let wanted = Wanted::new(&secret.items, secret.default_mode, secret.optional);
        add_secret(&mut files, input, &secret.secret_name, &wanted)?;
    } else if let Some(downward) = &source.downward_api {
        add_downward(&mut files, input, &downward.items, downward.default_mode)?;
    } else if let Some(projected) = &source.projected {
        for part in &projected.sources {
            add_projection(&mut files, input, part, projected.default_mode)?;
        }
    }
    Ok(files)
}

fn add_projection(
    files: &mut Payload,
    input: &PayloadInput<'_>,
    part: &api::core::v1::VolumeProjection,
    default_mode: Option<i32>,
) -> Result<(), String> {
    if let Some(map) = &part.config_map {
        let wanted = Wanted::new(&map.items, default_mode, map.optional);
        add_config_map(files, input, &map.local_object_reference.name, &wanted)?;
    }
    if let Some(secret) = &part.secret {
        let wanted = Wanted::new(&secret.items, default_mode, secret.optional);
        add_secret(files, input, &secret.local_object_reference.name, &wanted)?;
    }
    if let Some(downward) = &part.downward_api {
        add_downward(files, input, &downward.items, default_mode)?;
    }
    if let Some(token) = &part.service_account_token {
        let seconds = token.expiration_seconds.filter(|s| *s > 0).unwrap_or(TOKEN_SECONDS);
        let key = TokenKey { audience: token.audience.clone(), seconds };
        let text = input.tokens.get(&key).ok_or_else(|| {
            format!("failed to fetch token for service account {:?}", input.view.spec().service_account_name)
        })?;
        files.insert(token.path.clone(), token_file(input.view, text, default_mode));
    }
    if part.cluster_trust_bundle.is_some() || part.pod_certificate.is_some() {
        return Err("clusterTrustBundle and podCertificate projections are not supported by this node".to_owned());
    }
    Ok(())
}

/// A token is for the pod's processes only: where those are known, nobody else may read it.
fn token_file(view: &PodView, text: &str, default_mode: Option<i32>) -> FileContent {
    let users: Vec<Option<i64>> = view.containers.iter().map(|c| run_as(view, &c.spec).user).collect();
    let common = users.first().copied().flatten().filter(|user| users.iter().all(|u| *u == Some(*user)));
    let fs_group = view.security().and_then(|s| s.fs_group);
    let mode = if common.is_some() || fs_group.is_some() { 0o600 } else { mode(default_mode, None) };
    let owner = common.and_then(|user| u32::try_from(user).ok());
    FileContent { bytes: text.as_bytes().to_vec(), mode, owner }
}

fn mode(default: Option<i32>, own: Option<i32>) -> u32 {
    u32::try_from(own.or(default).unwrap_or(DEFAULT_MODE)).unwrap_or(0) & 0o777
}

struct Wanted<'a> {
    items: &'a [KeyToPath],
    default_mode: Option<i32>,
    is_optional: bool,
}

impl<'a> Wanted<'a> {
    fn new(items: &'a [KeyToPath], default_mode: Option<i32>, optional: Option<bool>) -> Self {
        Self { items, default_mode, is_optional: optional == Some(true) }
    }

    /// Adds the wanted keys of `all` (every key if none is named).
    fn select(&self, files: &mut Payload, all: &BTreeMap<&str, &[u8]>, what: &str) -> Result<(), String> {
        let file =
            |bytes: &[u8], own| FileContent { bytes: bytes.to_vec(), mode: mode(self.default_mode, own), owner: None };
        if self.items.is_empty() {
            files.extend(all.iter().map(|(key, bytes)| ((*key).to_owned(), file(bytes, None))));
            return Ok(());
        }
        for item in self.items {
            match all.get(item.key.as_str()) {
                Some(bytes) => {
                    files.insert(clean(&item.path)?, file(bytes, item.mode));
                }
                None if self.is_optional => {}
                None => return Err(format!("{what} references non-existent config key: {}", item.key)),
            }
        }
        Ok(())
    }
}

/// A path that stays within the volume.
fn clean(path: &str) -> Result<String, String> {
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(format!("path {path:?} leaves the volume"));
    }
    Ok(path.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/"))
}

fn add_config_map(
    files: &mut Payload,
    input: &PayloadInput<'_>,
    name: &str,
    wanted: &Wanted<'_>,
) -> Result<(), String> {
    match input.referenced.config_map(name) {
        Some(map) => wanted.select(files, &config_map_bytes(map), "configmap"),
        None if wanted.is_optional => Ok(()),
        None => Err(format!("configmap \"{name}\" not found")),
    }
}

fn config_map_bytes(map: &ConfigMap) -> BTreeMap<&str, &[u8]> {
    let text = map.data.iter().map(|(key, value)| (key.as_str(), value.as_bytes()));
    text.chain(map.binary_data.iter().map(|(key, value)| (key.as_str(), value.as_slice()))).collect()
}

fn add_secret(files: &mut Payload, input: &PayloadInput<'_>, name: &str, wanted: &Wanted<'_>) -> Result<(), String> {
    match input.referenced.secret(name) {
        Some(secret) => wanted.select(files, &secret_bytes(secret), "secret"),
        None if wanted.is_optional => Ok(()),
        None => Err(format!("secret \"{name}\" not found")),
    }
}

fn secret_bytes(secret: &Secret) -> BTreeMap<&str, &[u8]> {
    secret.data.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect()
}

fn add_downward(
    files: &mut Payload,
    input: &PayloadInput<'_>,
    items: &[DownwardApiVolumeFile],
    default_mode: Option<i32>,
) -> Result<(), String> {
    for item in items {
        let text = if let Some(field) = &item.field_ref {
            pod_field(&input.view.pod, &field.field_path, input.live)?
        } else if let Some(field) = &item.resource_field_ref {
            let container = input.view.container(&field.container_name);
            let container = container.ok_or_else(|| format!("container {} not found", field.container_name))?;
            resource_field(&container.spec, &field.resource, &field.divisor, input.allocatable)
                .ok_or_else(|| format!("unsupported container resource : {}", field.resource))?
        } else {
            return Err(format!("downward API item {:?} has no source", item.path));
        };
        let content = FileContent { bytes: text.into_bytes(), mode: mode(default_mode, item.mode), owner: None };
        files.insert(clean(&item.path)?, content);
    }
    Ok(())
}
