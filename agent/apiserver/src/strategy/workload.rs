//! Jobs and the like.

use serde_json::{Value, json};

use crate::{codec, tree};

/// Labels that tie a Job's pods to it.
const JOB_LABELS: [(&str, bool); 4] = [
    ("controller-uid", true),
    ("batch.kubernetes.io/controller-uid", true),
    ("job-name", false),
    ("batch.kubernetes.io/job-name", false),
];

/// Makes the selector and the template's labels of a Job that does not bring its own.
pub(super) fn prepare_job(job: &mut Value) {
    if job["spec"]["manualSelector"] == true {
        return;
    }
    let (uid, name) = (job["metadata"]["uid"].clone(), job["metadata"]["name"].clone());
    let template = &mut job["spec"]["template"];
    if !template.is_object() {
        return;
    }
    tree::object_at(template, "metadata");
    let labels = tree::object_at(&mut template["metadata"], "labels");
    // What the client gave stays, for validation to tell.
    for (label, is_uid) in JOB_LABELS {
        labels.entry(label).or_insert_with(|| if is_uid { uid.clone() } else { name.clone() });
    }
    if !tree::has(job, "/spec/selector") {
        job["spec"]["selector"] = json!({});
    }
    tree::object_at(&mut job["spec"]["selector"], "matchLabels")
        .entry("batch.kubernetes.io/controller-uid")
        .or_insert(uid);
    // A Job without labels of its own has those of its pods.
    if tree::object_at(&mut job["metadata"], "labels").is_empty() {
        job["metadata"]["labels"] = job["spec"]["template"]["metadata"]["labels"].clone();
    }
}

/// Where a DaemonSet keeps the generation of its template.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// Sets the generation of a DaemonSet's template.
pub(super) fn set_template_generation(set: &mut Value, generation: i64) {
    let text = generation.to_string();
    tree::object_at(&mut set["metadata"], "annotations").insert(TEMPLATE_GENERATION.into(), text.into());
}

fn template_generation(set: &Value) -> i64 {
    let text = set["metadata"]["annotations"][TEMPLATE_GENERATION].as_str();
    text.and_then(|t| t.parse::<i64>().ok()).unwrap_or(0)
}

/// A changed template is a new generation of it.
pub(super) fn prepare_daemon_set_update(new: &mut Value, old: &Value) {
    let template = codec::schema("k8s.io.api.core.v1.PodTemplateSpec");
    let changed = !codec::is_same(template, &new["spec"]["template"], &old["spec"]["template"]);
    set_template_generation(new, template_generation(old) + i64::from(changed));
}

/// The template's generation belongs to the spec, wherever it is written.
pub(super) fn prepare_daemon_set_status_update(new: &mut Value, old: &Value) {
    set_template_generation(new, template_generation(old));
}
