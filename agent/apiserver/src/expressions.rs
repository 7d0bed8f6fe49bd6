//! Expressions of webhooks and policies: what they may refer to, and how they are read.
//!
//! An expression is read when its object is written, to refuse what is wrong, and once more when the cache learns of
//! the object, to be evaluated from then on. No request reads one.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use cel::{Environment, ObjectType, Program, Type};

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

/// Reads an expression whose result has to be of one of these types; of any type if there are none.
///
/// # Errors
/// When it is no expression, or its result is of another type: a text for users.
pub fn compile(source: &str, environment: &Environment, results: &[Type]) -> Result<Program, String> {
    let checked = environment.check(source).map_err(|e| e.detail())?;
    let output = checked.output_type();
    if results.is_empty() || results.contains(output) {
        return Ok(checked.program());
    }
    let output = output.declared();
    Err(match results {
        [one] => format!("must evaluate to {} but got {output}", one.declared()),
        some => {
            let names: Vec<String> = some.iter().map(Type::declared).collect();
            format!("must evaluate to one of [{}] but got {output}", names.join(" "))
        }
    })
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

/// What a configuration applied as a patch is.
#[must_use]
pub fn object_type() -> Type {
    Type::handle("Object")
}

/// What a list of JSON patch operations is.
#[must_use]
pub fn json_patch_type() -> Type {
    Type::list(Type::handle("JSONPatch"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_upstreams() {
        let plain = environment(Scope { authorizer: true, ..Scope::default() }, None);
        let wrong = |text: &str| compile(text, &plain, &[Type::Bool]).err().unwrap_or_default();
        assert_eq!(wrong("1"), "must evaluate to bool but got int");
        assert_eq!(wrong("object.x"), "must evaluate to bool but got dyn");
        assert!(wrong("variables.x").contains("undeclared reference to 'variables' (in container '')"));
        assert!(wrong("params.x == 1").starts_with("compilation failed: ERROR: <input>:1:1: undeclared reference"));
        for right in [
            "request.userInfo.username == 'a' && 'g' in request.userInfo.groups",
            "authorizer.group('').resource('pods').namespace(request.namespace).check('get').allowed()",
            "authorizer.requestResource.check('x').allowed()",
            "namespaceObject.metadata.name == 'x'",
            "oldObject == null || object.metadata.name != oldObject.metadata.name",
        ] {
            assert_eq!(wrong(right), "", "{right}");
        }
    }
}
