//! Who set which field: the tracking behind `metadata.managedFields`, and server-side apply.
//!
//! `set` holds sets of field paths, `schema` says what lists and maps are one value and which merge, `compare` finds
//! what a change touched, `entries` reads and writes the list in the metadata, `update` books a write by any other
//! verb, `apply` merges an applied configuration that `typed` found to fit. All of it is pure: trees in, trees out.

mod apply;
mod compare;
mod entries;
mod merge;
mod reset;
mod schema;
mod set;
mod typed;
mod update;

pub use apply::{Applying, apply};
pub use entries::{Manager, manager_name};
pub use typed::misfits;
pub use update::{keep_times, track};

#[cfg(test)]
mod tests;
