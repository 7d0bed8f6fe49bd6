//! Kinds of the group `apps`.

mod daemon_set;
mod deployment;
mod replica_set;
mod revision;
mod stateful_set;

use api::core::v1::PodTemplateSpec;
use api::meta::v1::ObjectMeta;

use super::Path;
use super::pod::{Options, warnings};

pub(super) use daemon_set::{daemon_set, daemon_set_warnings};
pub(super) use deployment::{deployment, deployment_warnings};
pub(super) use replica_set::{replica_set, replica_set_warnings};
pub(super) use revision::controller_revision;
pub(super) use stateful_set::{stateful_set, stateful_set_warnings};

/// What the successor of a template may keep.
fn options(old: Option<&PodTemplateSpec>) -> Options {
    Options::of(old.map(|old| (&old.spec, &old.metadata)))
}

/// Whether the object is new, or what it wishes for is.
fn is_new(new: &ObjectMeta, old: Option<&ObjectMeta>) -> bool {
    old.is_none_or(|old| old.generation != new.generation)
}

/// Warnings about the template of an object.
fn template_warnings(template: &PodTemplateSpec, out: &mut Vec<String>) {
    warnings::template(&Path::root("spec").child("template"), template, out);
}
