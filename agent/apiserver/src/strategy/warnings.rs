//! Warnings: what is taken, but is not what the client may think.

use api::Kind;
use serde_json::Value;

use crate::tree;

/// Volume sources that nothing mounts any more, with what is said of them.
const OLD_VOLUMES: &[(&str, &str)] = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Texts for `Warning` headers about a new or changed object.
#[must_use]
pub fn warnings(kind: &'static Kind, value: &Value) -> Vec<String> {
    let (spec, path) = match (kind.group, kind.plural) {
        ("batch", "cronjobs") => {
            (&value["spec"]["jobTemplate"]["spec"]["template"]["spec"], "spec.jobTemplate.spec.template.spec")
        }
        ("batch", _) => (&value["spec"]["template"]["spec"], "spec.template.spec"),
        _ => return Vec::new(),
    };
    let mut out = Vec::new();
    if spec.is_object() {
        spread(spec, path, &mut out);
        affinity(spec, path, &mut out);
        volumes(spec, path, &mut out);
        environment(spec, path, &mut out);
    }
    out
}

const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

fn spread(spec: &Value, path: &str, out: &mut Vec<String>) {
    for (i, constraint) in tree::list(spec, "/topologySpreadConstraints").iter().enumerate() {
        if constraint["labelSelector"].is_null() {
            out.push(format!("{path}.topologySpreadConstraints[{i}].labelSelector: {NULL_SELECTOR}"));
        }
    }
}

fn affinity(spec: &Value, path: &str, out: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        for (i, term) in tree::list(spec, &format!("/affinity/{kind}/{required}")).iter().enumerate() {
            if term["labelSelector"].is_null() {
                out.push(format!("{path}.affinity.{kind}.{required}[{i}].labelSelector: {NULL_SELECTOR}"));
            }
        }
        for (i, term) in tree::list(spec, &format!("/affinity/{kind}/{preferred}")).iter().enumerate() {
            if term["podAffinityTerm"]["labelSelector"].is_null() {
                let at = format!("{path}.affinity.{kind}.{preferred}[{i}].podAffinityTerm");
                out.push(format!("{at}.labelSelector: {NULL_SELECTOR}"));
            }
        }
    }
}

fn volumes(spec: &Value, path: &str, out: &mut Vec<String>) {
    for (i, volume) in tree::list(spec, "/volumes").iter().enumerate() {
        for (source, text) in OLD_VOLUMES.iter().filter(|(source, _)| volume[*source].is_object()) {
            let name = if *source == "storageos" { "storageOS" } else { source };
            out.push(format!("{path}.volumes[{i}].{name}: {text}"));
        }
    }
}

fn environment(spec: &Value, path: &str, out: &mut Vec<String>) {
    for list in ["initContainers", "containers"] {
        for (c, container) in tree::list(spec, &format!("/{list}")).iter().enumerate() {
            let env = tree::list(container, "/env");
            for (i, variable) in env.iter().enumerate() {
                let name = variable["name"].as_str().unwrap_or_default();
                if env.iter().take(i).any(|earlier| earlier["name"] == variable["name"]) {
                    out.push(format!(
                        "{path}.{list}[{c}].env[{i}]: hides previous definition of {name:?}, which may be dropped when using apply"
                    ));
                }
            }
        }
    }
}
