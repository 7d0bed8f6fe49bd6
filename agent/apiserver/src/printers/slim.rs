//! The part of an object that its row shows: decoding a whole pod to show its name would cost more than all the rest.

use api::schema::Message;

use crate::wire::{self, Value, put_varint};

/// The fields that are kept of a message.
#[derive(Default)]
pub(super) struct Slim {
    /// By number, with what is kept of the field's own message: everything, where that is nothing.
    fields: Vec<(u32, Slim)>,
}

impl Slim {
    /// Keeps these fields, named by their paths in JSON.
    ///
    /// # Panics
    /// When the schema lacks one, which any test of a row would show.
    #[allow(clippy::expect_used, reason = "paths and schema are compiled in")]
    pub(super) fn of(message: &'static Message, paths: &[&str]) -> Self {
        let mut slim = Self::default();
        for path in paths {
            let (mut at, mut owner) = (&mut slim, Some(message));
            for name in path.split('.') {
                let fields = owner.expect("a message").fields;
                let field = fields.iter().find(|field| field.json == name).expect("a field of the schema");
                owner = field.ty.message();
                let known = at.fields.iter().position(|(number, _)| *number == field.number);
                let index = known.unwrap_or_else(|| {
                    at.fields.push((field.number, Self::default()));
                    at.fields.len() - 1
                });
                at = &mut at.fields[index].1;
            }
        }
        slim
    }

    /// Appends what is kept of an encoded message.
    pub(super) fn copy(&self, message: &[u8], out: &mut Vec<u8>) {
        let mut fields = wire::fields(message);
        let mut begin = fields.position();
        while let Some((number, value)) = fields.next() {
            let end = fields.position();
            if let Some((_, kept)) = self.fields.iter().find(|(known, _)| *known == number) {
                match value {
                    Value::Bytes(inner) if !kept.fields.is_empty() => kept.copy_nested(number, inner, out),
                    _ => out.extend_from_slice(&message[begin..end]),
                }
            }
            begin = end;
        }
    }

    fn copy_nested(&self, number: u32, message: &[u8], out: &mut Vec<u8>) {
        put_varint(out, (number << 3 | 2) as usize);
        let start = out.len();
        self.copy(message, out);
        let mut length = Vec::with_capacity(4);
        put_varint(&mut length, out.len() - start);
        out.splice(start..start, length);
    }
}

#[cfg(test)]
mod tests {
    use api::Resource as _;
    use api::core::v1::{Container, Pod};
    use prost::Message as _;

    use super::*;

    #[test]
    fn what_is_not_named_is_left_out() {
        let mut pod = Pod::default();
        pod.metadata.name = "p".to_owned();
        pod.metadata.namespace = "n".to_owned();
        pod.spec.containers =
            vec![Container { name: "c".to_owned(), image: "i".repeat(200), ..Container::default() }; 40];
        pod.status.phase = "Running".to_owned();
        let slim = Slim::of(Pod::KIND.schema(), &["metadata.name", "spec.containers.name", "status"]);
        let mut bytes = Vec::new();
        slim.copy(&pod.encode_to_vec(), &mut bytes);
        let kept = Pod::decode(bytes.as_slice()).unwrap();
        pod.metadata.namespace.clear();
        pod.spec.containers.iter_mut().for_each(|container| container.image.clear());
        assert_eq!(kept, pod);
    }
}
