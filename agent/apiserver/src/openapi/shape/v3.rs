//! Objects of version 3.

use serde_json::{Map, Value};

use super::{KIND, RULE, Shape, Ty};

fn info(_: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    (&[], &INFO)
}

fn components(_: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    (&[], &COMPONENTS)
}

fn path_item(_: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    (&[], &PATH_ITEM)
}

fn operation(_: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    (&[], &OPERATION)
}

fn media(_: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    (&[], &MEDIA)
}

fn parameter(_: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    (&[1], &PARAMETER)
}

fn body(_: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    (&[1], &BODY)
}

fn response(_: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    (&[1], &RESPONSE)
}

fn security(_: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    (&[1], &SECURITY)
}

fn schema(map: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    if map.contains_key("$ref") { (&[2], &REFERENCE) } else { (&[1], &SCHEMA) }
}

/// One place takes no references.
fn negated(_: &Map<String, Value>) -> (&'static [u32], &'static Shape) {
    (&[], &SCHEMA)
}

pub(super) static DOCUMENT: Shape = Shape {
    keys: &[
        ("openapi", 1, Ty::Text),
        ("info", 2, Ty::One(info)),
        ("paths", 4, Ty::Named(1, path_item)),
        ("components", 5, Ty::One(components)),
    ],
    extensions: 9,
};

static INFO: Shape = Shape { keys: &[("title", 1, Ty::Text), ("version", 6, Ty::Text)], extensions: 7 };

static COMPONENTS: Shape = Shape {
    keys: &[("schemas", 1, Ty::Named(1, schema)), ("securitySchemes", 7, Ty::Named(1, security))],
    extensions: 10,
};

static REFERENCE: Shape = Shape { keys: &[("$ref", 1, Ty::Text), ("description", 3, Ty::Text)], extensions: 0 };

static PATH_ITEM: Shape = Shape {
    keys: &[
        ("get", 4, Ty::One(operation)),
        ("put", 5, Ty::One(operation)),
        ("post", 6, Ty::One(operation)),
        ("delete", 7, Ty::One(operation)),
        ("options", 8, Ty::One(operation)),
        ("head", 9, Ty::One(operation)),
        ("patch", 10, Ty::One(operation)),
        ("parameters", 13, Ty::Many(parameter)),
    ],
    extensions: 14,
};

static OPERATION: Shape = Shape {
    keys: &[
        ("tags", 1, Ty::Texts),
        ("description", 3, Ty::Text),
        ("operationId", 5, Ty::Text),
        ("parameters", 6, Ty::Many(parameter)),
        ("requestBody", 7, Ty::One(body)),
        ("responses", 8, Ty::Named(2, response)),
        ("x-kubernetes-group-version-kind", 13, Ty::Ordered(KIND, |_| true)),
    ],
    extensions: 13,
};

static PARAMETER: Shape = Shape {
    keys: &[
        ("name", 1, Ty::Text),
        ("in", 2, Ty::Text),
        ("description", 3, Ty::Text),
        ("required", 4, Ty::Flag),
        ("schema", 10, Ty::One(schema)),
    ],
    extensions: 14,
};

static BODY: Shape = Shape { keys: &[("content", 2, Ty::Named(1, media)), ("required", 3, Ty::Flag)], extensions: 4 };

static RESPONSE: Shape =
    Shape { keys: &[("description", 1, Ty::Text), ("content", 3, Ty::Named(1, media))], extensions: 5 };

static MEDIA: Shape = Shape { keys: &[("schema", 1, Ty::One(schema))], extensions: 5 };

static SCHEMA: Shape = Shape {
    keys: &[
        ("description", 34, Ty::Text),
        ("type", 25, Ty::Text),
        ("nullable", 1, Ty::Flag),
        ("format", 35, Ty::Text),
        ("title", 9, Ty::Text),
        ("default", 33, Ty::Simple),
        ("maximum", 11, Ty::Double),
        ("exclusiveMaximum", 12, Ty::Flag),
        ("minimum", 13, Ty::Double),
        ("exclusiveMinimum", 14, Ty::Flag),
        ("maxLength", 15, Ty::Integer),
        ("minLength", 16, Ty::Integer),
        ("pattern", 17, Ty::Text),
        ("maxItems", 18, Ty::Integer),
        ("minItems", 19, Ty::Integer),
        ("uniqueItems", 20, Ty::Flag),
        ("multipleOf", 10, Ty::Double),
        ("enum", 24, Ty::Anys),
        ("maxProperties", 21, Ty::Integer),
        ("minProperties", 22, Ty::Integer),
        ("required", 23, Ty::Texts),
        ("items", 30, Ty::Items(schema)),
        ("allOf", 26, Ty::Many(schema)),
        ("oneOf", 27, Ty::Many(schema)),
        ("anyOf", 28, Ty::Many(schema)),
        ("not", 29, Ty::One(negated)),
        ("properties", 31, Ty::Named(1, schema)),
        ("additionalProperties", 32, Ty::Additional(schema)),
        ("example", 7, Ty::Any),
        ("x-kubernetes-validations", 36, Ty::Ordered(RULE, |_| true)),
    ],
    extensions: 36,
};

static SECURITY: Shape = Shape {
    keys: &[("type", 1, Ty::Text), ("description", 2, Ty::Text), ("name", 3, Ty::Text), ("in", 4, Ty::Text)],
    extensions: 9,
};
