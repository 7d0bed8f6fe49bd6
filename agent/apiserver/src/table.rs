//! The Table form of objects, as printers write it.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::app::Call;
use crate::codec;
use crate::negotiate::Accept;
use crate::printers;
use crate::status::{Failure, Result};

/// A Table of objects. `metadata` is the list's.
pub fn of_objects(call: &Call, objects: &[Value], metadata: Value) -> Result<Value> {
    of_kind(call.kind, call.query.get("includeObject"), objects, metadata)
}

/// As [`of_objects`], outside a request.
pub fn of_kind(kind: &'static api::Kind, include: &str, objects: &[Value], metadata: Value) -> Result<Value> {
    let mut rows = Vec::with_capacity(objects.len());
    for object in objects {
        let mut row = json!({"cells": printers::cells(kind.group, kind.plural, object)});
        match include {
            "None" => {}
            "Object" => row["object"] = object.clone(),
            "" | "Metadata" => {
                row["object"] = json!({
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
                });
            }
            other => return Err(Failure::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        }
        rows.push(row);
    }
    let columns: Vec<Value> = printers::columns(kind.group, kind.plural)
        .iter()
        .map(|(name, ty, format, priority)| {
            json!({"name": name, "type": ty, "format": format, "description": "", "priority": priority})
        })
        .collect();
    Ok(json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns, "rows": rows,
    }))
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
