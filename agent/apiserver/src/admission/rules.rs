//! Whether the rules of a webhook or a policy speak of a resource; pure.

use serde_json::Value;

use crate::tree;

/// A resource that something is done to.
#[derive(Clone, Copy)]
pub(super) struct Resource<'a> {
    pub(super) group: &'a str,
    pub(super) version: &'a str,
    pub(super) plural: &'a str,
    pub(super) subresource: &'a str,
    pub(super) namespaced: bool,
    pub(super) name: &'a str,
}

/// Whether a rule matches.
pub(super) fn matches(rule: &Value, operation: &str, resource: Resource<'_>) -> bool {
    let has = |key: &str, wanted: &str| {
        tree::list(rule, &format!("/{key}")).iter().filter_map(Value::as_str).any(|v| v == "*" || v == wanted)
    };
    let scope = match rule["scope"].as_str() {
        Some("Namespaced") => resource.namespaced,
        Some("Cluster") => !resource.namespaced,
        _ => true,
    };
    let names = tree::list(rule, "/resourceNames");
    let by_name = names.is_empty() || names.iter().any(|n| n == resource.name);
    let resources = || tree::list(rule, "/resources").iter().filter_map(Value::as_str);
    scope
        && by_name
        && has("operations", operation)
        && has("apiGroups", resource.group)
        && has("apiVersions", resource.version)
        && resources().any(|pattern| matches_resource(pattern, resource))
}

fn matches_resource(pattern: &str, resource: Resource<'_>) -> bool {
    let (plural, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
    let of = |pattern: &str, value: &str| pattern == "*" || pattern == value;
    of(plural, resource.plural) && of(subresource, resource.subresource)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patterns_of_resources() {
        let pods = Resource { group: "", version: "v1", plural: "pods", subresource: "", namespaced: true, name: "a" };
        let exec = Resource { subresource: "exec", ..pods };
        let rule = |resources: Value, scope: &str| json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["*"], "resources": resources, "scope": scope});
        for (patterns, plain, below) in [
            (json!(["*"]), true, false),
            (json!(["*/*"]), true, true),
            (json!(["pods"]), true, false),
            (json!(["pods/exec"]), false, true),
            (json!(["pods/*"]), true, true),
            (json!(["*/exec"]), false, true),
            (json!(["services"]), false, false),
        ] {
            assert_eq!(matches(&rule(patterns.clone(), "*"), "CREATE", pods), plain, "{patterns}");
            assert_eq!(matches(&rule(patterns.clone(), "*"), "CREATE", exec), below, "{patterns}");
        }
        assert!(!matches(&rule(json!(["*"]), "Cluster"), "CREATE", pods));
        assert!(!matches(&rule(json!(["*"]), "*"), "DELETE", pods));
    }
}
