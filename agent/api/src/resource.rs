//! What typed code needs to know of a kind.

use crate::kind::{KINDS, Kind};
use crate::meta::v1::{ListMeta, ObjectMeta};

/// A typed object of a kind that can be listed.
pub trait Resource: prost::Message + Default + Clone + PartialEq + Send + Sync + 'static {
    /// The kind's row in the table.
    const KIND: &'static Kind;
    /// The list of such objects.
    type List: ResourceList<Item = Self>;
    /// The object's metadata.
    fn metadata(&self) -> &ObjectMeta;
    /// The object's metadata, to change.
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
}

/// A typed list.
pub trait ResourceList: prost::Message + Default + Send + Sync + 'static {
    /// What the list holds.
    type Item;
    /// The list's metadata: resource version and continue token.
    fn metadata(&self) -> &ListMeta;
    /// The objects.
    fn items(&self) -> &[Self::Item];
    /// The objects, by value.
    fn into_items(self) -> Vec<Self::Item>;
}

include!(concat!(env!("OUT_DIR"), "/resources.rs"));
