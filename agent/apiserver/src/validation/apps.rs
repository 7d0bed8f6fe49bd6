//! Kinds of the group `apps`.

mod daemon_set;
mod deployment;
mod replica_set;
mod revision;
mod stateful_set;

use api::core::v1::PodTemplateSpec;
use api::meta::v1::{LabelSelector, ObjectMeta};

use super::pod::{Options, warnings};
use super::{Context, Errors, Path, workload};
use crate::status::FieldError;

pub(super) use daemon_set::{daemon_set, daemon_set_warnings};
pub(super) use deployment::{deployment, deployment_warnings};
pub(super) use replica_set::{replica_set, replica_set_warnings};
pub(super) use revision::controller_revision;
pub(super) use stateful_set::{stateful_set, stateful_set_warnings};

/// What the successor of a template may keep.
fn options(old: Option<&PodTemplateSpec>, context: Context<'_>) -> Options {
    Options::of(old.map(|old| (&old.spec, &old.metadata)), context.features)
}

/// Whether the object is new, or what it wishes for is.
fn is_new(new: &ObjectMeta, old: Option<&ObjectMeta>) -> bool {
    old.is_none_or(|old| old.generation != new.generation)
}

/// A selector and the template of the pods that it selects, below `path`.
fn selected(
    path: &Path<'_>,
    (selector, template): (Option<&LabelSelector>, &PodTemplateSpec),
    options: Options,
    errors: &mut Errors,
) {
    let at = path.child("selector");
    workload::selector(&at, selector, "deployment", errors);
    let Some(usable) = workload::usable(selector) else {
        errors.push(FieldError::invalid(at, workload::shown_selector(selector), "invalid label selector"));
        return;
    };
    let at = path.child("template");
    workload::labels_match(&at, template, &usable, errors);
    workload::running_template(&at, template, ("ReplicaSet", options), errors);
}

/// Warnings about the template of an object.
fn template_warnings(template: &PodTemplateSpec, out: &mut Vec<String>) {
    warnings::template(&Path::root("spec").child("template"), template, out);
}

#[cfg(test)]
mod tests {
    use crate::strategy::Part;
    use crate::validation::tests::told;

    const TEMPLATE: &str = r#""template":{"metadata":{"labels":{"a":"b"}},"spec":{"restartPolicy":"Always","dnsPolicy":"ClusterFirst",
        "terminationGracePeriodSeconds":30,"containers":[{"name":"c","image":"i","terminationMessagePolicy":"File","imagePullPolicy":"Always"}]}}"#;

    #[test]
    fn deployments_select_their_pods() {
        let strategy = r#""strategy":{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":0,"maxSurge":"0%"}}"#;
        let cases = [
            (
                r#""selector":{"matchLabels":{"a":"b"}}"#,
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ),
            (
                r#""replicas":-1,"selector":{}"#,
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0\nspec.selector: Invalid value: {}: empty selector is invalid for deployment\nspec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ),
        ];
        for (fields, expected) in cases {
            let deployment = format!(r#"{{"metadata":{{"name":"d"}},"spec":{{{fields},{TEMPLATE},{strategy}}}}}"#);
            assert_eq!(told("apps/v1", "Deployment", Part::Main, &deployment, None), expected, "{fields}");
        }
    }

    #[test]
    fn counters_of_a_status_agree() {
        let status = |ready: i32, count: i32| {
            format!(
                r#"{{"metadata":{{"name":"d"}},"status":{{"replicas":1,"readyReplicas":{ready},"collisionCount":{count}}}}}"#
            )
        };
        assert_eq!(
            told("apps/v1", "Deployment", Part::Status, &status(2, 1), Some(&status(1, 2))),
            "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas\nstatus.collisionCount: Invalid value: 1: cannot be decremented"
        );
    }
}
