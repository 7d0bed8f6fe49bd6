//! What expressions of webhooks and admission policies may refer to.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::environment::Environment;
use crate::types::{ObjectType, Type};

/// Which variables an expression has besides the objects and the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// `params`.
    pub params: bool,
    /// `authorizer` and `authorizer.requestResource`.
    pub authorizer: bool,
    /// The types that patches are made of.
    pub patches: bool,
}

/// Named expressions that later ones may refer to as `variables.NAME`, with their types.
pub type Variables = BTreeMap<String, Type>;

static BASE: LazyLock<Environment> = LazyLock::new(|| {
    Environment::new()
        .with("object", Type::Dyn)
        .with("oldObject", Type::Dyn)
        .with("namespaceObject", namespace_type())
        .with("request", request_type())
});

/// What an expression of this scope may refer to; `variables` are none where there cannot be any.
#[must_use]
pub fn environment(scope: Scope, variables: Option<&Variables>) -> Environment {
    let mut environment = BASE.clone();
    if scope.params {
        environment = environment.with("params", Type::Dyn);
    }
    if scope.authorizer {
        environment = environment
            .with("authorizer", Type::handle("kubernetes.authorization.Authorizer"))
            .with("authorizer.requestResource", Type::handle("kubernetes.authorization.ResourceCheck"));
    }
    if scope.patches {
        environment = environment.with_patch_types();
    }
    if let Some(variables) = variables {
        let name = "kubernetes.variables".to_owned();
        let object = ObjectType { name, fields: variables.clone(), is_open: false };
        environment = environment.with("variables", Type::Object(Arc::new(object)));
    }
    environment
}

/// The type under which later expressions see a variable.
#[must_use]
pub fn variable_type(output: &Type) -> Type {
    match output {
        Type::List(element) => Type::list(variable_type(element)),
        Type::Map(key, value) => Type::map(variable_type(key), variable_type(value)),
        Type::Bool
        | Type::Bytes
        | Type::Double
        | Type::Duration
        | Type::Int
        | Type::Null
        | Type::String
        | Type::Timestamp
        | Type::Uint => output.clone(),
        _ => Type::Dyn,
    }
}

fn request_type() -> Type {
    let kind = || {
        let fields = [("group", Type::String), ("version", Type::String), ("kind", Type::String)];
        Type::object("kubernetes.GroupVersionKind", fields)
    };
    let resource = || {
        let fields = [("group", Type::String), ("version", Type::String), ("resource", Type::String)];
        Type::object("kubernetes.GroupVersionResource", fields)
    };
    let texts = || Type::list(Type::String);
    let user = [
        ("username", Type::String),
        ("uid", Type::String),
        ("groups", texts()),
        ("extra", Type::map(Type::String, texts())),
    ];
    Type::object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind()),
            ("resource", resource()),
            ("subResource", Type::String),
            ("requestKind", kind()),
            ("requestResource", resource()),
            ("requestSubResource", Type::String),
            ("name", Type::String),
            ("namespace", Type::String),
            ("operation", Type::String),
            ("userInfo", Type::object("kubernetes.UserInfo", user)),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}

fn namespace_type() -> Type {
    let texts = || Type::list(Type::String);
    let map = || Type::map(Type::String, Type::String);
    let condition = [
        ("status", Type::String),
        ("type", Type::String),
        ("lastTransitionTime", Type::Timestamp),
        ("message", Type::String),
        ("reason", Type::String),
    ];
    let conditions = Type::list(Type::object("kubernetes.NamespaceCondition", condition));
    let metadata = [
        ("name", Type::String),
        ("generateName", Type::String),
        ("namespace", Type::String),
        ("labels", map()),
        ("annotations", map()),
        ("UID", Type::String),
        ("creationTimestamp", Type::Timestamp),
        ("deletionGracePeriodSeconds", Type::Int),
        ("deletionTimestamp", Type::Timestamp),
        ("generation", Type::Int),
        ("resourceVersion", Type::String),
        ("finalizers", texts()),
    ];
    Type::object(
        "kubernetes.Namespace",
        [
            ("metadata", Type::object("kubernetes.NamespaceMetadata", metadata)),
            ("spec", Type::object("kubernetes.NamespaceSpec", [("finalizers", texts())])),
            (
                "status",
                Type::object("kubernetes.NamespaceStatus", [("conditions", conditions), ("phase", Type::String)]),
            ),
        ],
    )
}
