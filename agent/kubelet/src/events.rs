//! Events about one pod and its containers.

use std::sync::Arc;

use api::core::v1::{ObjectReference, Pod};
use reconcile::{EventType, Recorder};

use crate::pod::PodView;

/// Records events about one pod.
#[derive(Clone)]
pub(crate) struct PodEvents {
    recorder: Recorder,
    pod: Arc<Pod>,
}

impl PodEvents {
    pub(crate) fn new(recorder: Recorder, pod: Arc<Pod>) -> Self {
        Self { recorder, pod }
    }

    fn reference(&self, field_path: String) -> ObjectReference {
        let meta = &self.pod.metadata;
        ObjectReference {
            kind: "Pod".to_owned(),
            api_version: "v1".to_owned(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path,
        }
    }

    pub(crate) fn pod(&self, kind: EventType, reason: &'static str, message: String) {
        self.recorder.event_on(self.reference(String::new()), kind, reason, message);
    }

    pub(crate) fn container(&self, name: &str, kind: EventType, reason: &'static str, message: String) {
        let spec = &self.pod.spec;
        let path = if spec.init_containers.iter().any(|c| c.name == name) {
            format!("spec.initContainers{{{name}}}")
        } else if spec.containers.iter().any(|c| c.name == name) {
            format!("spec.containers{{{name}}}")
        } else {
            format!("spec.ephemeralContainers{{{name}}}")
        };
        self.recorder.event_on(self.reference(path), kind, reason, message);
    }

    /// The same recorder for a newer state of the pod.
    pub(crate) fn for_view(&self, view: &PodView) -> Self {
        Self { recorder: self.recorder.clone(), pod: view.pod.clone() }
    }
}
