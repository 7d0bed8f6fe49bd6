//! Who set which field: the tracking behind `metadata.managedFields`, and server-side apply.
//!
//! `set` holds sets of field paths, `schema` says what lists and maps are one value and which merge, `compare` finds
//! what a change touched, `entries` reads and writes the list in the metadata, `update` books a write by any other
//! verb, `apply` merges an applied configuration that `typed` (for
//! custom resources `custom`) found to fit. All of it is pure: trees in, trees out.

mod apply;
mod compare;
mod custom;
mod entries;
mod merge;
mod reset;
mod scale;
mod schema;
mod set;
mod typed;
mod update;

pub use apply::{Applying, apply};
pub use entries::{Manager, manager_name};
pub use merge::{Shape, merge_config};
pub use scale::{Scaling, apply_scale, scale_managers, track_scale};
pub use schema::Target;
pub use typed::misfits as misfits_of;
pub use update::{keep_times, of_new, track};

/// What in an applied configuration does not fit the target's schema, as one text; `None` if all does.
#[must_use]
pub fn misfits(target: Target<'_>, config: &serde_json::Value) -> Option<String> {
    let found = match target.schema {
        Some(_) => custom::misfits(target, config),
        None => return typed::misfits(target.kind.schema(), config),
    };
    match found.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("errors:\n  {}", many.join("\n  "))),
    }
}

#[cfg(test)]
mod tests;
