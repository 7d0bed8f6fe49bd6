//! The Table form of objects, as printers write it.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::app::Call;
use crate::codec;
use crate::negotiate::Accept;
use crate::status::{Failure, Result};

/// A Table of objects. `metadata` is the list's.
pub fn of_objects(call: &Call, objects: &[Value], metadata: Value) -> Result<Value> {
    of_kind(call.kind, call.query.get("includeObject"), objects, metadata)
}

/// As [`of_objects`], outside a request.
pub fn of_kind(_kind: &'static api::Kind, include: &str, objects: &[Value], metadata: Value) -> Result<Value> {
    let mut rows = Vec::with_capacity(objects.len());
    for object in objects {
        let mut row = json!({"cells": [object["metadata"]["name"], object["metadata"]["creationTimestamp"]]});
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
    Ok(json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": [
            {"name": "Name", "type": "string", "format": "name", "description": "Name must be unique within a namespace.", "priority": 0},
            {"name": "Created At", "type": "date", "format": "", "description": "CreationTimestamp of the object.", "priority": 0},
        ],
        "rows": rows,
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
