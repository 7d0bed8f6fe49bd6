//! The volumes and references of one pod, kept current.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::core::v1::{ConfigMap, Secret};
use tokio::sync::Notify;

use crate::clock;
use crate::context::NodeContext;
use crate::environment::{self, Referenced};
use crate::fields::LiveFields;
use crate::pod::PodView;
use crate::sources::{Fetched, Watched};
use crate::tokens::PodTokens;
use crate::volumes::apply::{apply_payload, apply_volume};
use crate::volumes::payload::{PayloadInput, payload};
use crate::volumes::{self, VolumeKind, VolumePlan, plan_volumes};

/// How long a start waits for the first answer about an object.
const LOADING_PATIENCE: Duration = Duration::from_secs(10);

/// Why a volume is not in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountFailure {
    pub(crate) message: String,
}

/// One pod's volumes.
pub(crate) struct PodVolumes {
    node: Arc<NodeContext>,
    changed: Arc<Notify>,
    config_maps: BTreeMap<String, Arc<Watched<ConfigMap>>>,
    secrets: BTreeMap<String, Arc<Watched<Secret>>>,
    tokens: PodTokens,
    last_stamp: i64,
}

impl PodVolumes {
    /// `changed` is notified when an object that the pod refers to changes.
    pub(crate) fn new(node: Arc<NodeContext>, changed: Arc<Notify>) -> Self {
        let (config_maps, secrets, tokens) = (BTreeMap::new(), BTreeMap::new(), PodTokens::default());
        Self { node, changed, config_maps, secrets, tokens, last_stamp: 0 }
    }

    /// Begins to watch everything that the pod refers to.
    pub(crate) fn watch_references(&mut self, view: &PodView) {
        let (mut maps, mut secrets) = volumes::references(view);
        for container in &view.containers {
            let (more_maps, more_secrets) = environment::references(&container.spec);
            maps.extend(more_maps);
            secrets.extend(more_secrets);
        }
        secrets.extend(view.spec().image_pull_secrets.iter().map(|s| s.name.clone()));
        let sources = &self.node.sources;
        for name in maps {
            let watch = |name: &String| sources.config_maps.watch(view.namespace(), name, &self.changed);
            self.config_maps.entry(name).or_insert_with_key(watch);
        }
        for name in secrets {
            let watch = |name: &String| sources.secrets.watch(view.namespace(), name, &self.changed);
            self.secrets.entry(name).or_insert_with_key(watch);
        }
    }

    /// What is known of the referenced objects, or the first one about which nothing is known yet.
    fn collect(&self) -> Result<Referenced, String> {
        let mut referenced = Referenced::default();
        for (name, watched) in &self.config_maps {
            let object = match watched.state() {
                Fetched::Loading => return Err(format!("failed to sync configmap cache: {name} has not been fetched")),
                Fetched::Missing => None,
                Fetched::Present(object) => Some(object),
            };
            referenced.config_maps.insert(name.clone(), object);
        }
        for (name, watched) in &self.secrets {
            let object = match watched.state() {
                Fetched::Loading => return Err(format!("failed to sync secret cache: {name} has not been fetched")),
                Fetched::Missing => None,
                Fetched::Present(object) => Some(object),
            };
            referenced.secrets.insert(name.clone(), object);
        }
        Ok(referenced)
    }

    /// The referenced objects, once something is known of each.
    pub(crate) async fn referenced(&self) -> Result<Referenced, String> {
        let loaded = async {
            for watched in self.config_maps.values() {
                watched.loaded().await;
            }
            for watched in self.secrets.values() {
                watched.loaded().await;
            }
        };
        // Which one is late is told by `collect`.
        drop(tokio::time::timeout(LOADING_PATIENCE, loaded).await);
        self.collect()
    }

    /// Puts all volumes in place with their newest content. Idempotent.
    pub(crate) async fn sync(&mut self, view: &PodView, live: &LiveFields) -> Result<(), MountFailure> {
        self.watch_references(view);
        let plans = plan_volumes(view, &self.node.config.root_dir);
        if plans.is_empty() {
            return Ok(());
        }
        let fail = |volume: &str, why: String| MountFailure {
            message: format!("MountVolume.SetUp failed for volume \"{volume}\" : {why}"),
        };
        let needs_content = plans.iter().any(|p| matches!(p.kind, VolumeKind::Files { .. }));
        let first = plans.first().map(|p| p.name.clone()).unwrap_or_default();
        let mut referenced = Referenced::default();
        if needs_content {
            referenced = self.referenced().await.map_err(|error| fail(&first, error))?;
            self.tokens.refresh(&self.node.client, view, clock::now()).await.map_err(|error| {
                fail(&token_volume(view), format!("failed to fetch token: {}", stdx::chain(&error)))
            })?;
        }
        let fs_group = view.security().and_then(|s| s.fs_group).and_then(|group| u32::try_from(group).ok());
        let (tokens, allocatable) = (self.tokens.texts(), self.node.allocatable());
        let input = PayloadInput { view, referenced: &referenced, live, allocatable: &allocatable, tokens: &tokens };
        for (volume, plan) in view.spec().volumes.iter().zip(&plans) {
            self.put(volume, plan, &input, fs_group).await.map_err(|why| fail(&plan.name, why))?;
        }
        Ok(())
    }

    async fn put(
        &mut self,
        volume: &api::core::v1::Volume,
        plan: &VolumePlan,
        input: &PayloadInput<'_>,
        fs_group: Option<u32>,
    ) -> Result<(), String> {
        let files = match plan.kind {
            VolumeKind::Files { .. } => Some(payload(volume, input)?),
            VolumeKind::EmptyDir { .. }
            | VolumeKind::HostPath { .. }
            | VolumeKind::Image { .. }
            | VolumeKind::Unsupported { .. } => None,
        };
        let (system, plan, stamp) = (self.node.system.clone(), plan.clone(), self.stamp());
        let work = move || {
            apply_volume(system.as_ref(), &plan, fs_group)?;
            match files {
                Some(files) => apply_payload(&plan.path, &files, &stamp, fs_group).map(drop),
                None => Ok(()),
            }
        };
        let done = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
        done.map_err(|error| stdx::chain(&error).to_string())
    }

    /// A name for the next set of files, later than all before.
    fn stamp(&mut self) -> String {
        self.last_stamp = clock::now().max(self.last_stamp + 1);
        let time = jiff::Timestamp::from_nanosecond(i128::from(self.last_stamp)).unwrap_or_default();
        time.strftime("%Y_%m_%d_%H_%M_%S.%9f").to_string()
    }

    /// How long until a token has to be renewed.
    pub(crate) fn next_renewal(&self) -> Option<Duration> {
        self.tokens.next_renewal(clock::now())
    }

    /// Where each volume lies.
    pub(crate) fn paths(&self, view: &PodView) -> BTreeMap<String, PathBuf> {
        plan_volumes(view, &self.node.config.root_dir).into_iter().map(|plan| (plan.name, plan.path)).collect()
    }
}

/// The name of the volume that holds a token, for the message.
fn token_volume(view: &PodView) -> String {
    let has_token = |v: &&api::core::v1::Volume| {
        let projected = v.volume_source.projected.as_ref();
        projected.is_some_and(|p| p.sources.iter().any(|s| s.service_account_token.is_some()))
    };
    view.spec().volumes.iter().find(has_token).map(|v| v.name.clone()).unwrap_or_default()
}
