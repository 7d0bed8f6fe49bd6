//! `namespace-controller`: empties namespaces that are being deleted, then lets them go.

use std::time::Duration;

use api::Kind;
use api::core::v1::{Namespace, NamespaceCondition};
use api::meta::v1::Time;
use client::{DeleteOptions, ListParams};
use reconcile::{Action, Queue};

use crate::caches::{Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, enqueue, now};
use crate::error::{During, Error};

/// Pause before looking again whether what was deleted is gone.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The finalizer that this controller works for.
const FINALIZER: &str = "kubernetes";

pub(crate) struct Namespaces {
    context: Context,
}

/// What was found of one kind.
struct Remains {
    kind: &'static Kind,
    count: usize,
    finalizers: Vec<String>,
}

impl Controller for Namespaces {
    const NAME: &'static str = "namespace-controller";
    const WORKERS: usize = 10;
    const NEEDS: &'static [Need] = &[need::namespaces];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.namespaces.handle(enqueue(queue));
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(namespace) = self.context.caches.namespaces.get("", &key.name) else { return Ok(Action::Done) };
        let due =
            namespace.metadata.deletion_timestamp.is_some() && namespace.spec.finalizers.iter().any(|f| f == FINALIZER);
        if !due {
            return Ok(Action::Done);
        }
        let remains = self.empty(&key.name).await?;
        self.tell(&namespace, &remains).await?;
        if remains.is_empty() {
            return self.finalize(&namespace).await;
        }
        Ok(Action::RequeueAfter(LOOK_AGAIN))
    }
}

impl Namespaces {
    /// Deletes everything in the namespace. Pods go first: what else is there may be what they need to end in order.
    async fn empty(&self, namespace: &str) -> Result<Vec<Remains>, Error> {
        let pods = api::kind_by_resource("", "v1", "pods").into_iter();
        let first: Vec<Remains> = self.empty_kinds(namespace, pods).await?;
        if !first.is_empty() {
            return Ok(first);
        }
        let deletable = |k: &&Kind| k.namespaced && k.has_verb("deletecollection") && k.plural != "pods";
        // Two group versions of one kind share their objects: autoscaling, events.
        self.context.objects.kinds().read().await?;
        let others = self.context.objects.kinds().known();
        let mut kinds: Vec<&'static Kind> = api::kinds().chain(others).filter(deletable).collect();
        kinds.sort_by_key(|k| k.etcd_prefix);
        kinds.dedup_by_key(|k| k.etcd_prefix);
        self.empty_kinds(namespace, kinds.into_iter()).await
    }

    async fn empty_kinds(
        &self,
        namespace: &str,
        kinds: impl Iterator<Item = &'static Kind>,
    ) -> Result<Vec<Remains>, Error> {
        let mut remains = Vec::new();
        for kind in kinds {
            if self.count(namespace, kind).await?.count == 0 {
                continue;
            }
            match self.context.client.delete_all(kind, namespace, &DeleteOptions::default()).await {
                Err(error) if !error.is_not_found() => return Err(error).during("deleting a namespace's content"),
                _ => {}
            }
            let left = self.count(namespace, kind).await?;
            if left.count > 0 {
                remains.push(left);
            }
        }
        Ok(remains)
    }

    async fn count(&self, namespace: &str, kind: &'static Kind) -> Result<Remains, Error> {
        let listed = self.context.client.list_metadata(kind, Some(namespace), &ListParams::default()).await;
        let list = listed.during("looking through a namespace")?;
        let finalizers = list.items.iter().flat_map(|item| item.metadata.finalizers.clone()).collect();
        Ok(Remains { kind, count: list.items.len(), finalizers })
    }

    /// Tells in the status what is still there.
    async fn tell(&self, namespace: &Namespace, remains: &[Remains]) -> Result<(), Error> {
        let conditions = plan_conditions(remains, now());
        let same = |c: &NamespaceCondition| {
            namespace
                .status
                .conditions
                .iter()
                .any(|o| o.r#type == c.r#type && o.status == c.status && o.message == c.message)
        };
        if conditions.iter().all(same) || (remains.is_empty() && namespace.status.conditions.is_empty()) {
            return Ok(());
        }
        let mut changed = namespace.clone();
        changed.status.conditions = conditions;
        match self.context.client.update_status(&changed).await {
            Err(error) if !error.is_conflict() && !error.is_not_found() => Err(error).during("writing the status"),
            _ => Ok(()),
        }
    }

    async fn finalize(&self, namespace: &Namespace) -> Result<Action, Error> {
        let mut changed = namespace.clone();
        changed.spec.finalizers.retain(|f| f != FINALIZER);
        match self.context.client.update_subresource(&changed, "finalize").await {
            Err(error) if !error.is_not_found() => Err(error).during("finalizing the namespace"),
            _ => Ok(Action::Done),
        }
    }
}

/// Upstream's five conditions of a namespace that is being deleted.
fn plan_conditions(remains: &[Remains], now: i64) -> Vec<NamespaceCondition> {
    let content: Vec<String> =
        remains.iter().map(|r| format!("{} has {} resource instances", r.kind.gvr_text(), r.count)).collect();
    let mut finalizers: Vec<&str> = remains.iter().flat_map(|r| r.finalizers.iter().map(String::as_str)).collect();
    finalizers.sort_unstable();
    finalizers.dedup();
    let waiting = finalizers.iter().map(|f| {
        let count: usize = remains.iter().map(|r| r.finalizers.iter().filter(|x| x == f).count()).sum();
        format!("{f} in {count} resource instances")
    });
    let waiting: Vec<String> = waiting.collect();
    let made = |kind: &str, bad: bool, (good_reason, good): (&str, &str), (bad_reason, message): (&str, String)| {
        NamespaceCondition {
            r#type: kind.to_owned(),
            status: if bad { "True" } else { "False" }.to_owned(),
            reason: if bad { bad_reason } else { good_reason }.to_owned(),
            message: if bad { message } else { good.to_owned() },
            last_transition_time: Time::from_unix(now),
        }
    };
    let none = String::new;
    vec![
        made(
            "NamespaceDeletionDiscoveryFailure",
            false,
            ("ResourcesDiscovered", "All resources successfully discovered"),
            ("DiscoveryFailed", none()),
        ),
        made(
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
            ("GroupVersionParsingFailed", none()),
        ),
        made(
            "NamespaceDeletionContentFailure",
            false,
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            ("ContentDeletionFailed", none()),
        ),
        made(
            "NamespaceContentRemaining",
            !content.is_empty(),
            ("ContentRemoved", "All content successfully removed"),
            ("SomeResourcesRemain", format!("Some resources are remaining: {}", content.join(", "))),
        ),
        made(
            "NamespaceFinalizersRemaining",
            !waiting.is_empty(),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
            (
                "SomeFinalizersRemain",
                format!("Some content in the namespace has finalizers remaining: {}", waiting.join(", ")),
            ),
        ),
    ]
}

trait GvrText {
    /// `pods.` or `deployments.apps`, as upstream's messages have it.
    fn gvr_text(&self) -> String;
}

impl GvrText for Kind {
    fn gvr_text(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_tell_what_remains_and_why() {
        let pods = api::kind_by_resource("", "v1", "pods").unwrap();
        let remains = [Remains { kind: pods, count: 2, finalizers: vec!["a/b".to_owned()] }];
        let conditions = plan_conditions(&remains, 0);
        assert_eq!(conditions[3].message, "Some resources are remaining: pods. has 2 resource instances");
        assert_eq!(
            conditions[4].message,
            "Some content in the namespace has finalizers remaining: a/b in 1 resource instances"
        );
        assert!(plan_conditions(&[], 0).iter().all(|c| c.status == "False"));
    }
}
