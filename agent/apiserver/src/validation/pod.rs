//! Pods, and the templates that pods are made from.

mod affinity;
mod annotations;
mod container;
mod containers;
mod dns;
mod env;
mod handlers;
mod mounts;
mod options;
mod projected;
mod resize;
mod resources;
mod security;
mod spec;
mod spread;
mod status;
pub(super) mod tolerations;
mod update;
mod volumes;
pub(super) mod warnings;
mod windows;

use api::core::v1::{Container, EphemeralContainerCommon, Pod, PodSpec, PodTemplateSpec};
use prost::Message;

use super::{Change, Errors, Path, checks, labels};
use crate::status::FieldError;
use crate::strategy::Part;

pub(super) use affinity::node_selector;
pub(super) use options::Options;
pub(super) use resources::overhead;

/// A Pod.
pub(super) fn pod(change: &Change<'_, Pod>, errors: &mut Errors) {
    let pod = change.new;
    let options = Options {
        is_pod: true,
        ..Options::of(change.old.map(|old| (&old.spec, &old.metadata)), change.context.features)
    };
    let path = change.path("spec");
    let Some(old) = change.old else {
        whole(&path, pod, options, errors);
        return create(pod, errors);
    };
    if change.part == Part::Status {
        return status::status(pod, old, options, errors);
    }
    whole(&path, pod, options, errors);
    match change.part {
        Part::EphemeralContainers => {
            update::annotation_updates(pod, old, options, errors);
            update::ephemeral_containers(pod, old, errors);
        }
        Part::Resize => resize::resize(pod, old, errors),
        _ => update::update(&path, (pod, old), options, errors),
    }
}

/// What holds for every Pod, and not for every template of one.
fn whole(path: &Path<'_>, pod: &Pod, options: Options, errors: &mut Errors) {
    annotations::of_pod(&Path::root("metadata").child("annotations"), &pod.metadata, &pod.spec, options, errors);
    spec::spec(path, &pod.spec, Some(&pod.metadata), options, errors);
    if pod.spec.service_account_name.is_empty() {
        projected::no_tokens(&path.child("volumes"), &pod.spec.volumes, errors);
    }
    for (list, items) in [("containers", &pod.spec.containers), ("initContainers", &pod.spec.init_containers)] {
        for (i, container) in items.iter().enumerate() {
            containers::trimmed_image(&path.child(list).index(i), &container.image, errors);
        }
    }
}

fn create(pod: &Pod, errors: &mut Errors) {
    let path = Path::root("spec");
    if !pod.spec.ephemeral_containers.is_empty() {
        errors.push(FieldError::forbidden(path.child("ephemeralContainers"), "cannot be set on create"));
    }
    if !pod.spec.node_name.is_empty() && !pod.spec.scheduling_gates.is_empty() {
        let why = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden(path.child("nodeName"), why));
    }
    annotations::match_fields(&path, &pod.metadata, &pod.spec, errors);
}

/// The template of Pods.
pub(super) fn template(path: &Path<'_>, template: &PodTemplateSpec, options: Options, errors: &mut Errors) {
    let (meta, spec) = (&template.metadata, &template.spec);
    labels::labels(&path.child("labels"), &meta.labels, errors);
    template_annotations(path, template, options, errors);
    spec::spec(&path.child("spec"), spec, None, options, errors);
    annotations::match_fields(&path.child("spec"), meta, spec, errors);
    if !spec.ephemeral_containers.is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(path.child("spec").child("ephemeralContainers"), why));
    }
}

/// The annotations of a template of Pods.
pub(super) fn template_annotations(path: &Path<'_>, template: &PodTemplateSpec, options: Options, errors: &mut Errors) {
    let path = path.child("annotations");
    checks::annotations(&path, &template.metadata.annotations, errors);
    annotations::of_pod(&path, &template.metadata, &template.spec, options, errors);
}

/// Every container with where it is: those that come first, the main ones, those that were added later.
fn each_container(path: &Path<'_>, spec: &PodSpec, mut visit: impl FnMut(&Path<'_>, &Container)) {
    for (list, items) in [("initContainers", &spec.init_containers), ("containers", &spec.containers)] {
        for (i, container) in items.iter().enumerate() {
            visit(&path.child(list).index(i), container);
        }
    }
    for (i, container) in spec.ephemeral_containers.iter().enumerate() {
        visit(&path.child("ephemeralContainers").index(i), &as_container(&container.ephemeral_container_common));
    }
}

/// A container that was added later as one of the others, whose fields have the same numbers.
fn as_container(common: &EphemeralContainerCommon) -> Container {
    Container::decode(common.encode_to_vec().as_slice()).unwrap_or_default()
}

/// Whether it runs as long as the Pod although it starts before the main containers.
fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether the Pod has the user namespace of its node.
fn has_host_users(spec: &PodSpec) -> bool {
    spec.host_users != Some(false)
}

fn is_windows(spec: &PodSpec) -> bool {
    spec.os.as_ref().is_some_and(|os| os.name == "windows")
}

#[cfg(test)]
mod tests {
    use crate::strategy::Part;
    use crate::validation::tests::told;

    /// A Pod with a spec beside its container's, and fields of that container.
    fn pod(container: &str, spec: &str) -> String {
        format!(
            r#"{{"metadata":{{"name":"a"}},"spec":{{"restartPolicy":"Always","dnsPolicy":"ClusterFirst","terminationGracePeriodSeconds":30,
            "containers":[{{"name":"c","image":"i","terminationMessagePolicy":"File","imagePullPolicy":"Always"{container}}}]{spec}}}}}"#
        )
    }

    fn of_new(container: &str, spec: &str) -> String {
        told("v1", "Pod", Part::Main, &pod(container, spec), None)
    }

    #[test]
    fn containers_follow_the_rules() {
        let cases = [
            ("", ""),
            (
                r#","ports":[{"containerPort":0,"protocol":"TCP"}]"#,
                "spec.containers[0].ports[0].containerPort: Required value",
            ),
            (
                r#","env":[{"name":"A","value":"x","valueFrom":{"secretKeyRef":{"name":"s","key":"k"}}}]"#,
                "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            ),
            (
                r#","volumeMounts":[{"name":"v","mountPath":"/a","subPath":"/b"}]"#,
                "spec.containers[0].volumeMounts[0].name: Not found: \"v\"\nspec.containers[0].volumeMounts.subPath: Invalid value: \"/b\": must be a relative path",
            ),
            (
                r#","resources":{"requests":{"cpu":"2"},"limits":{"cpu":"1"}}"#,
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ),
            (
                r#","livenessProbe":{"successThreshold":2}"#,
                "spec.containers[0].livenessProbe: Required value: must specify a handler type\nspec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            ),
            (
                r#","securityContext":{"seccompProfile":{"type":"Unconfined","localhostProfile":"p"}}"#,
                "spec.containers[0].securityContext.seccompProfile.localhostProfile: Invalid value: {\"Type\":\"Unconfined\",\"LocalhostProfile\":\"p\"}: can only be set when seccomp type is Localhost",
            ),
        ];
        for (container, expected) in cases {
            assert_eq!(of_new(container, ""), expected, "{container}");
        }
    }

    #[test]
    fn specs_follow_the_rules() {
        let cases = [
            (r#","volumes":[{"name":"v"}]"#, "spec.volumes[0]: Required value: must specify a volume type"),
            (
                r#","volumes":[{"name":"v","emptyDir":{},"cephfs":{"monitors":["m"]}}]"#,
                "spec.volumes[0].cephFS: Forbidden: may not specify more than 1 volume type",
            ),
            (
                r#","tolerations":[{"operator":"Equal","value":"a b"}]"#,
                "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"\nspec.tolerations[0].operator: Invalid value: \"a b\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ),
            (
                r#","securityContext":{"sysctls":[{"name":"a-"},{"name":"b"},{"name":"b"}]}"#,
                "spec.securityContext.sysctls[0].name: Invalid value: \"a-\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$\nspec.securityContext.sysctls[2].name: Duplicate value: \"b\"",
            ),
            (
                r#","dnsConfig":{"nameservers":["010.0.0.1"]}"#,
                "spec.dnsConfig.nameservers[0]: Invalid value: \"010.0.0.1\": must not have leading 0s",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(of_new("", spec), expected, "{spec}");
        }
    }

    #[test]
    fn a_pod_changes_only_in_some_fields() {
        let update = |spec: &str| told("v1", "Pod", Part::Main, &pod("", spec), Some(&pod("", "")));
        assert_eq!(update(r#","tolerations":[{"key":"a","operator":"Exists"}]"#), "");
        let told = update(r#","hostname":"h""#);
        assert!(
            told.starts_with(
                "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"
            )
        );
        assert!(told.contains("\n- \"Hostname\": \"\",\n+ \"Hostname\": \"h\",\n"), "{told}");
    }
}
