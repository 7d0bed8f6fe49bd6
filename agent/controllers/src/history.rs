//! ControllerRevisions: the former templates of DaemonSets and StatefulSets.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Resource;
use api::apps::v1::ControllerRevision;
use api::core::v1::PodTemplateSpec;
use api::labels::Selector;
use api::transcode::{Report, to_json, value_to_proto};
use client::{DeleteOptions, Patch};
use prost::Message;
use serde_json::{Value, json};

use crate::caches::BY_CONTROLLER;
use crate::controller::Context;
use crate::error::{During, Error};
use crate::owner::{adoption, controller_of, controller_reference};

/// Marks a strategic merge patch that replaces: `kubectl rollout undo` applies a revision's data as one.
const DIRECTIVE: &str = "$patch";

/// A short name for a template, salted after collisions. Only letters that make no words.
pub(crate) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut sum: u32 = 0x811c_9dc5;
    let salt = collisions.map(i32::to_le_bytes).into_iter().flatten();
    for byte in template.encode_to_vec().into_iter().chain(salt) {
        sum = (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    sum.to_string().bytes().map(|digit| char::from(LETTERS[usize::from(digit) % LETTERS.len()])).collect()
}

/// What a revision keeps of its owner: a patch that brings the owner's template back.
pub(crate) fn data_of<K: Resource>(owner: &K) -> Value {
    let whole: Value = serde_json::from_slice(&to_json(K::KIND.schema(), owner, None)).unwrap_or_default();
    let mut template = whole.get("spec").and_then(|spec| spec.get("template")).cloned().unwrap_or_default();
    if let Some(fields) = template.as_object_mut() {
        fields.insert(DIRECTIVE.to_owned(), "replace".into());
    }
    json!({"spec": {"template": template}})
}

/// The template that a revision keeps; `None` where it holds none that can be read.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut data: Value = serde_json::from_slice(revision.data.raw.as_deref()?).ok()?;
    let template = data.get_mut("spec")?.get_mut("template")?;
    template.as_object_mut()?.remove(DIRECTIVE);
    let schema = api::schema::message("k8s.io.api.core.v1.PodTemplateSpec")?;
    let bytes = value_to_proto(schema, template, &mut Report::default()).ok()?;
    PodTemplateSpec::decode(bytes.as_slice()).ok()
}

/// Whether the revision keeps this.
pub(crate) fn holds(revision: &ControllerRevision, data: &Value) -> bool {
    revision.data.raw.as_deref().and_then(|raw| serde_json::from_slice::<Value>(raw).ok()).as_ref() == Some(data)
}

/// A revision to be found or made.
pub(crate) struct Wanted {
    pub(crate) data: Value,
    /// Hash of the template with the owner's salt.
    pub(crate) hash: String,
    /// The template's labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Label that gets the hash.
    pub(crate) hash_label: &'static str,
}

/// What came of looking for a revision.
pub(crate) enum Found {
    Revision(Arc<ControllerRevision>),
    /// Something else has the name: the owner's salt has to change.
    Collision,
}

/// The revisions of all owners.
#[derive(Clone)]
pub(crate) struct History {
    context: Context,
}

impl History {
    pub(crate) fn new(context: Context) -> Self {
        Self { context }
    }

    /// The owner's revisions by their number; adopts matching orphans.
    pub(crate) async fn claim<K: Resource>(
        &self,
        owner: &K,
        selector: &Selector,
    ) -> Result<Vec<Arc<ControllerRevision>>, Error> {
        let (meta, cache) = (owner.metadata(), &self.context.caches.revisions);
        let mut revisions = cache.by_index(BY_CONTROLLER, &meta.uid);
        if meta.deletion_timestamp.is_none() {
            for orphan in cache.list_namespace(&meta.namespace) {
                let free = controller_of(&orphan.metadata).is_none() && orphan.metadata.deletion_timestamp.is_none();
                if free && selector.matches(&orphan.metadata.labels) {
                    let patch = Patch::Strategic(adoption(owner, &orphan.metadata));
                    let name = &orphan.metadata.name;
                    let adopted = self.context.client.patch(Some(&meta.namespace), name, None, &patch).await;
                    revisions.push(Arc::new(adopted.during("adopting a revision")?));
                }
            }
        }
        revisions.sort_by_key(|r| (r.revision, r.metadata.creation_timestamp.unix(), r.metadata.name.clone()));
        Ok(revisions)
    }

    /// The revision that keeps what is wanted, as the newest; made where there is none. `revisions` are in order.
    pub(crate) async fn ensure<K: Resource>(
        &self,
        owner: &K,
        revisions: &[Arc<ControllerRevision>],
        wanted: Wanted,
    ) -> Result<Found, Error> {
        let newest = revisions.last().map_or(0, |r| r.revision);
        // Of several the oldest: its hash is on the pods.
        let age = |r: &&Arc<ControllerRevision>| (r.metadata.creation_timestamp.unix(), r.metadata.name.clone());
        let Some(same) = revisions.iter().filter(|r| holds(r, &wanted.data)).min_by_key(age) else {
            return self.create(owner, newest + 1, wanted).await;
        };
        let others = revisions.iter().filter(|r| r.metadata.uid != same.metadata.uid);
        if others.map(|r| r.revision).max().is_none_or(|other| other < same.revision) {
            return Ok(Found::Revision(same.clone()));
        }
        let changed = ControllerRevision { revision: newest + 1, ..(**same).clone() };
        let renumbered = self.context.client.update(&changed).await.during("renumbering a revision")?;
        Ok(Found::Revision(Arc::new(renumbered)))
    }

    async fn create<K: Resource>(&self, owner: &K, number: i64, wanted: Wanted) -> Result<Found, Error> {
        let meta = owner.metadata();
        let mut made = ControllerRevision { revision: number, ..ControllerRevision::default() };
        made.metadata.name = format!("{}-{}", meta.name, wanted.hash);
        made.metadata.namespace.clone_from(&meta.namespace);
        made.metadata.annotations.clone_from(&meta.annotations);
        made.metadata.labels = wanted.labels;
        made.metadata.labels.insert(wanted.hash_label.to_owned(), wanted.hash);
        made.metadata.owner_references = vec![controller_reference(owner)];
        made.data.raw = Some(wanted.data.to_string().into_bytes());
        match self.context.client.create(&made).await {
            Ok(created) => Ok(Found::Revision(Arc::new(created))),
            Err(error) if error.is_already_exists() => {
                let namespace = Some(meta.namespace.as_str());
                let there: ControllerRevision =
                    self.context.client.get(namespace, &made.metadata.name).await.during("reading a revision")?;
                let ours = controller_of(&there.metadata).is_some_and(|o| o.uid == meta.uid);
                let same = ours && holds(&there, &wanted.data);
                Ok(if same { Found::Revision(Arc::new(there)) } else { Found::Collision })
            }
            Err(error) => Err(error).during("creating a revision"),
        }
    }

    /// Deletes the oldest of those that nothing uses, down to `limit`.
    pub(crate) async fn truncate(
        &self,
        revisions: &[Arc<ControllerRevision>],
        limit: Option<i32>,
        is_used: impl Fn(&ControllerRevision) -> bool,
    ) -> Result<(), Error> {
        let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
        let unused: Vec<_> = revisions.iter().filter(|r| !is_used(r)).collect();
        for revision in unused.iter().take(unused.len().saturating_sub(limit)) {
            let meta = &revision.metadata;
            let options = DeleteOptions { uid: Some(meta.uid.clone()), ..DeleteOptions::default() };
            let (namespace, name) = (Some(meta.namespace.as_str()), meta.name.as_str());
            let done = self.context.client.delete::<ControllerRevision>(namespace, name, &options);
            match done.await {
                Err(error) if !error.is_not_found() => return Err(error).during("deleting an old revision"),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use api::apps::v1::DaemonSet;

    use super::*;

    #[test]
    fn collisions_change_the_hash() {
        let template = PodTemplateSpec::default();
        assert_eq!(template_hash(&template, None), template_hash(&template, None));
        assert_ne!(template_hash(&template, None), template_hash(&template, Some(1)));
    }

    #[test]
    fn a_revision_brings_its_template_back() {
        let mut set = DaemonSet::default();
        set.spec.template.metadata.labels.insert("a".to_owned(), "b".to_owned());
        set.spec.template.spec.containers =
            vec![api::core::v1::Container { name: "c".to_owned(), image: "i".to_owned(), ..Default::default() }];
        let data = data_of(&set);
        let mut revision = ControllerRevision::default();
        revision.data.raw = Some(data.to_string().into_bytes());
        assert!(holds(&revision, &data));
        assert_eq!(template_of(&revision).unwrap(), set.spec.template);
        set.spec.template.spec.host_network = true;
        assert!(!holds(&revision, &data_of(&set)));
    }
}
