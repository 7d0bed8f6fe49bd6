//! The Table form of objects, as printers write it.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::cache::Object;
use crate::codec::{self, Renderer};
use crate::custom;
use crate::negotiate::Accept;
use crate::printers::{self, Now};
use crate::status::{Failure, Result};

/// What a row holds of its object beside the cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    Metadata,
    /// The whole object.
    Object,
}

impl Include {
    /// From the query parameter `includeObject`.
    ///
    /// # Errors
    /// When it is none of the known words.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "None" => Ok(Self::None),
            "" | "Metadata" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            other => Err(Failure::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        }
    }

    fn of(self, renderer: &Renderer, object: &Object) -> Result<Option<Value>> {
        Ok(match self {
            Self::None => None,
            Self::Metadata => Some(json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": renderer.value(object)?["metadata"].take(),
            })),
            Self::Object => Some(renderer.value(object)?),
        })
    }
}

/// A Table of objects. `metadata` is the list's.
pub fn of_objects<'o>(
    renderer: &Renderer,
    include: Include,
    objects: impl IntoIterator<Item = &'o Object>,
    metadata: Value,
) -> Result<Value> {
    let now = Now::from_clock();
    let rows: Vec<Value> =
        objects.into_iter().map(|object| row(renderer, include, object, now)).collect::<Result<_>>()?;
    Ok(json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns(renderer), "rows": rows,
    }))
}

fn columns(renderer: &Renderer) -> Vec<Value> {
    let definition = renderer.storage.definition();
    match definition.as_ref().and_then(|d| d.version(renderer.kind.version)) {
        Some(version) => custom::column_definitions(version),
        None => printers::columns(renderer.kind),
    }
}

fn row(renderer: &Renderer, include: Include, object: &Object, now: Now) -> Result<Value> {
    if let Some(definition) = renderer.storage.definition()
        && let Some(version) = definition.version(renderer.kind.version)
    {
        let mut row = json!({"cells": custom::cells(version, &renderer.value(object)?, now)});
        if let Some(part) = include.of(renderer, object)? {
            row["object"] = part;
        }
        return Ok(row);
    }
    let stored = Renderer { kind: renderer.storage.kind, ..*renderer };
    let printed = printers::row(stored.kind, &stored.proto(object)?, now).map_err(Failure::internal)?;
    let mut row = json!({"cells": printed.cells});
    if let Some(conditions) = printed.conditions() {
        row["conditions"] = conditions;
    }
    if let Some(part) = include.of(renderer, object)? {
        row["object"] = part;
    }
    Ok(row)
}

/// The text of a Table.
pub fn bytes(table: &Value, accept: Accept) -> Result<Bytes> {
    let mut text = serde_json::to_vec(table).map_err(Failure::internal)?;
    text.push(b'\n');
    match accept.encoding {
        crate::negotiate::Encoding::Yaml => codec::yaml(table),
        _ if accept.pretty => Ok(codec::indent(&text)),
        _ => Ok(text.into()),
    }
}
