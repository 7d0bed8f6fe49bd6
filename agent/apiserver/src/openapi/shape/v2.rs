//! Objects of version 2.

use serde_json::{Map, Value};

use super::{KIND, Shape, Ty};

fn info(_: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    (&[], &INFO)
}

fn path_item(_: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    (&[], &PATH_ITEM)
}

fn operation(_: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    (&[], &OPERATION)
}

fn response(_: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    (&[1], &RESPONSE)
}

fn schema(_: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    (&[], &SCHEMA)
}

fn response_schema(_: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    (&[1], &SCHEMA)
}

fn security(_: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    (&[2], &SECURITY)
}

/// A parameter is one of several messages with numbers of their own, told by where it stands.
fn parameter(map: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    if map.contains_key("$ref") {
        return (&[2], &REFERENCE);
    }
    let (wraps, shape) = definition(map);
    match wraps {
        [1] => (&[1, 1], shape),
        [2, 4] => (&[1, 2, 4], shape),
        _ => (&[1, 2, 3], shape),
    }
}

/// A parameter that others refer to.
fn definition(map: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    match map.get("in").and_then(Value::as_str) {
        Some("body") => (&[1], &BODY),
        Some("path") => (&[2, 4], &PATH_PARAMETER),
        _ => (&[2, 3], &QUERY_PARAMETER),
    }
}

/// What is aggregated is read again, which sorts the keys of extensions; what the aggregator has itself is not.
fn is_own(kind: &Value) -> bool {
    kind["group"] == "apiregistration.k8s.io"
}

pub(super) static DOCUMENT: Shape = Shape {
    keys: &[
        ("swagger", 1, Ty::Text),
        ("info", 2, Ty::One(info)),
        ("paths", 8, Ty::Named(2, path_item)),
        ("definitions", 9, Ty::Named(1, schema)),
        ("parameters", 10, Ty::Named(1, definition)),
        ("securityDefinitions", 13, Ty::Named(1, security)),
        ("security", 12, Ty::Requirement),
    ],
    extensions: 16,
};

static INFO: Shape = Shape { keys: &[("title", 1, Ty::Text), ("version", 2, Ty::Text)], extensions: 7 };

static REFERENCE: Shape = Shape { keys: &[("$ref", 1, Ty::Text)], extensions: 0 };

static PATH_ITEM: Shape = Shape {
    keys: &[
        ("get", 2, Ty::One(operation)),
        ("put", 3, Ty::One(operation)),
        ("post", 4, Ty::One(operation)),
        ("delete", 5, Ty::One(operation)),
        ("options", 6, Ty::One(operation)),
        ("head", 7, Ty::One(operation)),
        ("patch", 8, Ty::One(operation)),
        ("parameters", 9, Ty::Many(parameter)),
    ],
    extensions: 10,
};

static OPERATION: Shape = Shape {
    keys: &[
        ("description", 3, Ty::Text),
        ("consumes", 7, Ty::Texts),
        ("produces", 6, Ty::Texts),
        ("schemes", 10, Ty::Texts),
        ("tags", 1, Ty::Texts),
        ("operationId", 5, Ty::Text),
        ("parameters", 8, Ty::Many(parameter)),
        ("responses", 9, Ty::Named(1, response)),
        ("x-kubernetes-group-version-kind", 13, Ty::Ordered(KIND, is_own)),
    ],
    extensions: 13,
};

static BODY: Shape = Shape {
    keys: &[
        ("description", 1, Ty::Text),
        ("name", 2, Ty::Text),
        ("in", 3, Ty::Text),
        ("required", 4, Ty::Flag),
        ("schema", 5, Ty::One(schema)),
    ],
    extensions: 6,
};

static PATH_PARAMETER: Shape = Shape {
    keys: &[
        ("uniqueItems", 19, Ty::Flag),
        ("type", 5, Ty::Text),
        ("description", 3, Ty::Text),
        ("name", 4, Ty::Text),
        ("in", 2, Ty::Text),
        ("required", 1, Ty::Flag),
    ],
    extensions: 22,
};

static QUERY_PARAMETER: Shape = Shape {
    keys: &[
        ("uniqueItems", 20, Ty::Flag),
        ("type", 6, Ty::Text),
        ("description", 3, Ty::Text),
        ("name", 4, Ty::Text),
        ("in", 2, Ty::Text),
        ("required", 1, Ty::Flag),
    ],
    extensions: 23,
};

static RESPONSE: Shape =
    Shape { keys: &[("description", 1, Ty::Text), ("schema", 2, Ty::One(response_schema))], extensions: 5 };

static SCHEMA: Shape = Shape {
    keys: &[
        ("description", 4, Ty::Text),
        ("type", 22, Ty::Types),
        ("format", 2, Ty::Text),
        ("title", 3, Ty::Text),
        ("default", 5, Ty::Any),
        ("maximum", 7, Ty::Double),
        ("exclusiveMaximum", 8, Ty::Flag),
        ("minimum", 9, Ty::Double),
        ("exclusiveMinimum", 10, Ty::Flag),
        ("maxLength", 11, Ty::Integer),
        ("minLength", 12, Ty::Integer),
        ("pattern", 13, Ty::Text),
        ("maxItems", 14, Ty::Integer),
        ("minItems", 15, Ty::Integer),
        ("uniqueItems", 16, Ty::Flag),
        ("multipleOf", 6, Ty::Double),
        ("enum", 20, Ty::Anys),
        ("maxProperties", 17, Ty::Integer),
        ("minProperties", 18, Ty::Integer),
        ("required", 19, Ty::Texts),
        ("items", 23, Ty::Items(schema)),
        ("allOf", 24, Ty::Many(schema)),
        ("properties", 25, Ty::Named(1, schema)),
        ("additionalProperties", 21, Ty::Additional(schema)),
        ("example", 30, Ty::Any),
        ("$ref", 1, Ty::Text),
    ],
    extensions: 31,
};

static SECURITY: Shape = Shape {
    keys: &[("description", 4, Ty::Text), ("type", 1, Ty::Text), ("name", 2, Ty::Text), ("in", 3, Ty::Text)],
    extensions: 5,
};
