//! Expressions of webhooks and policies: what they may refer to, and how they are read.
//!
//! An expression is read when its object is written, to refuse what is wrong, and once more when the cache learns of
//! the object, to be evaluated from then on. No request reads one.

use cel::{Environment, Program, Type};

pub use cel::admission::{Scope, Variables, environment, variable_type};

/// Reads an expression whose result has to be of one of these types; of any type if there are none.
///
/// # Errors
/// When it is no expression, or its result is of another type: a text for users.
pub fn compile(source: &str, environment: &Environment, results: &[Type]) -> Result<Program, String> {
    let checked = environment.check(source).map_err(|e| e.detail())?;
    let output = checked.output_type();
    if results.is_empty() || results.contains(output) || *output == Type::Any {
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
