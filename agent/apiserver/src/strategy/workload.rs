//! Jobs and the like.

use api::meta::v1::ObjectMeta;
use prost::Message;
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
        share_labels(job);
        return;
    }
    // Labels that are yet to be made are shared when they are.
    let shares_now = tree::at(job, "/spec/template/metadata/labels").is_some_and(Value::is_object);
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
    if shares_now {
        share_labels(job);
    }
}

/// A Job without labels of its own has those of its pods. Tells whether it took them over.
pub(super) fn share_labels(job: &mut Value) -> bool {
    let labels = "/spec/template/metadata/labels";
    let takes = !tree::is_filled(job, "/metadata/labels") && tree::is_filled(job, labels);
    if takes {
        job["metadata"]["labels"] = tree::at(job, labels).cloned().unwrap_or_default();
    }
    takes
}

/// Where a DaemonSet keeps the generation of its template.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// A DaemonSet's metadata, encoded, without what is no annotation inside; none if there is no such.
pub(super) fn without_template_generation(meta: &[u8]) -> Option<Vec<u8>> {
    let mut meta = ObjectMeta::decode(meta).ok()?;
    meta.annotations.remove(TEMPLATE_GENERATION)?;
    Some(meta.encode_to_vec())
}

/// Removes from a DaemonSet's metadata what is no annotation inside.
pub(super) fn hide_template_generation(meta: &mut Value) {
    if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(TEMPLATE_GENERATION);
        if annotations.is_empty() {
            tree::remove(meta, "annotations");
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn job(template: &Value) -> Value {
        json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": template}})
    }

    #[test]
    fn a_job_shares_labels_that_were_there_before_the_servers_own() {
        for (template, shares_now) in [
            (json!({"spec": {}}), false),
            (json!({"metadata": {"labels": null}}), false),
            (json!({"metadata": {"labels": {}}}), true),
            (json!({"metadata": {"labels": {"a": "b"}}}), true),
        ] {
            let mut job = job(&template);
            prepare_job(&mut job);
            assert_eq!(tree::is_filled(&job, "/metadata/labels"), shares_now, "{template}");
            assert_eq!(share_labels(&mut job), !shares_now, "{template}");
            assert_eq!(job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]);
            assert_eq!(job["metadata"]["labels"]["job-name"], "j");
        }
    }
}
