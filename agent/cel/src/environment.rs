//! What an expression may refer to.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::check;
use crate::error::CompileError;
use crate::library::Function;
use crate::parser;
use crate::program::Checked;
use crate::types::{ObjectType, Type};

/// Names of JSON Patch operations' type.
const JSON_PATCH: &str = "JSONPatch";

/// The variables of an expression, with their types, and the functions it may call.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, Type>,
    has_patch_types: bool,
    has_bindings: bool,
}

impl Environment {
    /// Kubernetes' functions, and no variables yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more variable.
    #[must_use]
    pub fn with(mut self, name: &str, ty: Type) -> Self {
        self.variables.insert(name.to_owned(), ty);
        self
    }

    /// With the types that mutations are made of: `Object{…}`, `Object.spec{…}`, `JSONPatch{…}`.
    #[must_use]
    pub fn with_patch_types(mut self) -> Self {
        self.has_patch_types = true;
        self
    }

    /// With `cel.bind(name, value, expression)`.
    #[must_use]
    pub fn with_bindings(mut self) -> Self {
        self.has_bindings = true;
        self
    }

    /// Reads and checks an expression.
    ///
    /// # Errors
    /// When it is no expression, or does not fit the environment.
    pub fn check(&self, source: &str) -> Result<Checked, CompileError> {
        let mut expr = parser::parse(source, self.has_bindings)?;
        let problems = check::check(&mut expr, self);
        if !problems.is_empty() {
            return Err(CompileError::new(source, problems));
        }
        if let Some(failure) = check::instantiate(&mut expr) {
            return Err(CompileError::instantiation(failure));
        }
        Ok(Checked::new(expr, self.clone()))
    }

    pub(crate) fn variable(&self, name: &str) -> Option<Type> {
        self.variables.get(name).cloned()
    }

    pub(crate) fn function(&self, name: &str) -> Option<&'static Function> {
        let is_patch_only = name.starts_with("jsonpatch.");
        check::standard(name).filter(|_| self.has_patch_types || !is_patch_only)
    }

    /// The type of that name.
    pub(crate) fn named_type(&self, name: &str) -> Option<Type> {
        let name = name.strip_prefix('.').unwrap_or(name);
        Some(match name {
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "null_type" => Type::Null,
            "type" => Type::Type(None),
            "optional_type" => Type::optional(Type::Dyn),
            "google.protobuf.Timestamp" => Type::Timestamp,
            "google.protobuf.Duration" => Type::Duration,
            "net.IP" => Type::Opaque("net.IP"),
            "net.CIDR" => Type::Opaque("net.CIDR"),
            "kubernetes.URL" | "kubernetes.Quantity" | "kubernetes.Semver" | "kubernetes.NamedFormat" => {
                Type::handle(name)
            }
            JSON_PATCH if self.has_patch_types => Type::object(
                JSON_PATCH,
                [("op", Type::String), ("path", Type::String), ("from", Type::String), ("value", Type::Dyn)],
            ),
            _ if self.has_patch_types && (name == "Object" || name.starts_with("Object.")) => {
                let object = ObjectType { name: name.to_owned(), fields: BTreeMap::new(), is_open: true };
                Type::Object(Arc::new(object))
            }
            _ => return None,
        })
    }
}
