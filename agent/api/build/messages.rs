//! Typed messages: a descriptor set made from the tables and compiled by prost.
//!
//! Upstream writes scalars and messages that are not pointers always, zero or not. That is what prost does with
//! `required` fields, and it checks nothing when reading, so that label is used for all of them.

use std::fmt::Write as _;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MessageOptions};

use crate::facts::{Field, Kind, Schema, type_name};

/// Messages with fields that are nobody's business.
const SECRETS: [&str; 3] = [
    ".k8s.io.api.core.v1.Secret",
    ".k8s.io.api.authentication.v1.TokenRequestStatus",
    ".k8s.io.api.authentication.v1.TokenReviewSpec",
];

pub(crate) fn compile(schema: &Schema) -> Result<(), Box<dyn std::error::Error>> {
    let mut set = FileDescriptorSet::default();
    for message in &schema.messages {
        let (package, name) = message.name.rsplit_once('.').ok_or("a message without package")?;
        let mut proto = DescriptorProto { name: Some(name.to_owned()), ..Default::default() };
        for field in &message.fields {
            let always = field.json == "seconds" || field.json == "nanos";
            add_field(schema, &mut proto, &message.name, field, always && message.name.ends_with("Time"))?;
        }
        match set.file.iter_mut().find(|f| f.package.as_deref() == Some(package)) {
            Some(file) => file.message_type.push(proto),
            None => set.file.push(FileDescriptorProto {
                name: Some(format!("{package}.proto")),
                package: Some(package.to_owned()),
                message_type: vec![proto],
                syntax: Some("proto2".to_owned()),
                ..Default::default()
            }),
        }
    }
    let mut config = prost_build::Config::new();
    // These have a Debug of their own, so that no log ever holds a secret.
    config.skip_debug(SECRETS).btree_map(["."]).include_file("messages.rs").compile_fds(set)?;
    Ok(())
}

fn add_field(
    schema: &Schema,
    proto: &mut DescriptorProto,
    owner: &str,
    field: &Field,
    is_time: bool,
) -> Result<(), String> {
    let (kind, type_name) = if field.has('m') {
        let (key, value) = map_types(&field.proto_type).ok_or_else(|| format!("map type {}", field.proto_type))?;
        let entry = format!("{}Entry", capitalised(&field.rust_name()));
        proto.nested_type.push(DescriptorProto {
            name: Some(entry.clone()),
            field: vec![scalar(schema, "key", 1, key)?, scalar(schema, "value", 2, value)?],
            options: Some(MessageOptions { map_entry: Some(true), ..Default::default() }),
            ..Default::default()
        });
        (Type::Message, Some(format!(".{owner}.{entry}")))
    } else {
        proto_type(schema, &field.proto_type)?
    };
    let label = if field.has('r') || field.has('m') {
        Label::Repeated
    } else if field.has('p') || field.has('b') || is_time {
        Label::Optional
    } else {
        Label::Required
    };
    proto.field.push(FieldDescriptorProto {
        name: Some(field.rust_name()),
        number: Some(field.number),
        label: Some(label as i32),
        r#type: Some(kind as i32),
        type_name,
        ..Default::default()
    });
    Ok(())
}

fn scalar(schema: &Schema, name: &str, number: i32, proto: &str) -> Result<FieldDescriptorProto, String> {
    let (kind, type_name) = proto_type(schema, proto)?;
    Ok(FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(Label::Optional as i32),
        r#type: Some(kind as i32),
        type_name,
        ..Default::default()
    })
}

pub(crate) fn map_types(proto: &str) -> Option<(&str, &str)> {
    proto.strip_prefix("map<")?.strip_suffix('>')?.split_once(',')
}

fn proto_type(schema: &Schema, name: &str) -> Result<(Type, Option<String>), String> {
    Ok(match name {
        "string" => (Type::String, None),
        "bytes" => (Type::Bytes, None),
        "int32" => (Type::Int32, None),
        "int64" => (Type::Int64, None),
        "uint32" => (Type::Uint32, None),
        "uint64" => (Type::Uint64, None),
        "bool" => (Type::Bool, None),
        "double" => (Type::Double, None),
        message if schema.index.contains_key(message) => (Type::Message, Some(format!(".{message}"))),
        unknown => return Err(format!("unknown type {unknown}")),
    })
}

fn capitalised(snake: &str) -> String {
    snake.split('_').map(|w| w[..1].to_uppercase() + &w[1..]).collect()
}

/// `impl Resource` and `impl ResourceList` for every kind that has a list.
pub(crate) fn resources(schema: &Schema, kinds: &[Kind]) -> String {
    let mut out = String::new();
    for (row, kind) in kinds.iter().enumerate() {
        let Some(message) = schema.of_kind(&kind.group, &kind.version, &kind.kind) else { continue };
        let path = rust_path(&schema.messages[message].name);
        let list = rust_path(&format!("{}List", schema.messages[message].name));
        let listed = schema.of_kind(&kind.group, &kind.version, &format!("{}List", kind.kind)).is_some();
        if !schema.messages[message].fields.iter().any(|f| f.json == "metadata") || !listed {
            continue;
        }
        let _infallible = write!(
            out,
            "impl crate::Resource for {path} {{
    const KIND: &'static crate::Kind = &KINDS[{row}];
    type List = {list};
    fn metadata(&self) -> &crate::meta::v1::ObjectMeta {{ &self.metadata }}
    fn metadata_mut(&mut self) -> &mut crate::meta::v1::ObjectMeta {{ &mut self.metadata }}
}}
impl crate::ResourceList for {list} {{
    type Item = {path};
    fn metadata(&self) -> &crate::meta::v1::ListMeta {{ &self.metadata }}
    fn items(&self) -> &[{path}] {{ &self.items }}
    fn into_items(self) -> Vec<{path}> {{ self.items }}
}}
"
        );
    }
    out
}

fn rust_path(message: &str) -> String {
    let (package, name) = message.rsplit_once('.').unwrap_or(("", message));
    format!("crate::messages::{}::{}", package.replace('.', "::"), type_name(name))
}
