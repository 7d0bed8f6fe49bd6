//! Types of the built-in kinds, from the tables of their fields.

use std::sync::Arc;

use api::Kind;
use api::schema::{Field, FieldType, MESSAGES, Message, Shape};

use crate::schema::escape;
use crate::types::{ObjectType, Type};

/// Deeper than any kind but those that hold schemas, which have no end.
const MAX_DEPTH: usize = 16;

/// The type under which expressions see objects of a kind, for checking them before there are objects.
#[must_use]
pub fn type_of_kind(kind: &Kind) -> Type {
    of_message(kind.schema(), kind.kind, kind.schema().type_meta, 0)
}

fn of_message(message: &'static Message, name: &str, is_root: bool, depth: usize) -> Type {
    match message.shape {
        Shape::Time | Shape::MicroTime => return Type::Timestamp,
        Shape::Struct if depth < MAX_DEPTH => {}
        _ => return Type::Dyn,
    }
    let mut object = ObjectType { name: name.to_owned(), ..ObjectType::default() };
    if is_root {
        object.fields.insert("kind".to_owned(), Type::String);
        object.fields.insert("apiVersion".to_owned(), Type::String);
    }
    put_fields(&mut object, message, depth);
    Type::Object(Arc::new(object))
}

fn put_fields(object: &mut ObjectType, message: &'static Message, depth: usize) {
    for field in message.fields {
        if field.inline
            && let FieldType::Message(index) = field.ty
        {
            put_fields(object, &MESSAGES[index], depth + 1);
            continue;
        }
        let Some(name) = escape(field.json) else { continue };
        let path = format!("{}.{name}", object.name);
        let ty = of_field(field, &path, depth);
        object.fields.insert(name, ty);
    }
}

fn of_field(field: &Field, path: &str, depth: usize) -> Type {
    // A list of bytes is text.
    if field.bytes {
        return Type::Bytes;
    }
    if field.repeated { Type::list(of_type(field.ty, path, depth)) } else { of_type(field.ty, path, depth) }
}

fn of_type(ty: FieldType, path: &str, depth: usize) -> Type {
    match ty {
        FieldType::String => Type::String,
        FieldType::Bytes => Type::Bytes,
        FieldType::Bool => Type::Bool,
        FieldType::Double => Type::Double,
        FieldType::Message(index) => of_message(&MESSAGES[index], path, false, depth + 1),
        FieldType::Map(value) => Type::map(Type::String, of_type(*value, path, depth + 1)),
        _ => Type::Int,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Environment;

    #[test]
    fn expressions_are_checked_against_built_in_kinds() {
        let kind = api::kind_by_name("apps/v1", "Deployment").unwrap();
        let environment = Environment::new().with("object", type_of_kind(kind));
        for right in [
            "object.spec.replicas > 1",
            "object.metadata.labels['a'] == 'b' && object.kind == 'Deployment'",
            "object.metadata.creationTimestamp < timestamp('2024-01-01T00:00:00Z')",
            "object.spec.template.spec.containers.all(c, c.image.startsWith('x'))",
        ] {
            assert!(environment.check(right).is_ok(), "{right}");
        }
        let wrong = environment.check("object.spec.replicas > '1'").unwrap_err().to_string();
        assert!(wrong.contains("found no matching overload for '_>_' applied to '(int, string)'"), "{wrong}");
        assert!(environment.check("object.spec.bogus").is_err());
    }
}
