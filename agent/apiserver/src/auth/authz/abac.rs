//! Attributes: a file with one policy a line, read once.

use std::path::{Path, PathBuf};

use api::rbac::v1::PolicyRule;
use serde_json::Value;

use super::{Attributes, Authorizer, Decision, Rules};
use crate::auth::identity::{AUTHENTICATED, UserInfo};

/// What those do who only read.
const READING: [&str; 3] = ["get", "list", "watch"];

const FIRST_VERSION: &str = "abac.authorization.kubernetes.io/v0";
const VERSION: &str = "abac.authorization.kubernetes.io/v1beta1";

/// Why a file of policies cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It cannot be read.
    #[error("cannot read the policy file {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why; part of the message.
        source: std::io::Error,
    },
    /// A line is no policy.
    #[error("error reading policy file {path}, line {line}: {why}", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Where, counted from 1.
        line: usize,
        /// What is wrong there.
        why: String,
    },
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Policy {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    resource: String,
    namespace: String,
    path: String,
}

/// All policies of a file.
#[derive(Debug)]
pub struct Policies(Vec<Policy>);

impl Policies {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or a line is no policy.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let read = |source| PolicyError::Read { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(read)?;
        Self::parse(&text).map_err(|(line, why)| PolicyError::Line { path: path.to_owned(), line, why })
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let policies = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        policies.map(|(at, line)| policy(line).map_err(|why| (at, why))).collect::<Result<_, _>>().map(Self)
    }
}

fn policy(line: &str) -> Result<Policy, String> {
    let value: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
    if !value.is_object() {
        return Err("expected an object".to_owned());
    }
    let names = (value["apiVersion"].as_str().unwrap_or_default(), value["kind"].as_str().unwrap_or_default());
    match names {
        (VERSION, "Policy") => fields(&value["spec"]).map(for_everybody),
        ("", _) | (FIRST_VERSION, "Policy") => fields(&value).map(of_first_version),
        (version, kind) => Err(format!("no kind {kind:?} of version {version:?}: expected Policy of {VERSION}")),
    }
}

fn fields(value: &Value) -> Result<Policy, String> {
    let text = |key: &str| match &value[key] {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        _ => Err(format!("{key}: expected a string")),
    };
    let readonly = match &value["readonly"] {
        Value::Null => false,
        Value::Bool(readonly) => *readonly,
        _ => return Err("readonly: expected true or false".to_owned()),
    };
    Ok(Policy {
        user: text("user")?,
        group: text("group")?,
        readonly,
        api_group: text("apiGroup")?,
        resource: text("resource")?,
        namespace: text("namespace")?,
        path: text("nonResourcePath")?,
    })
}

/// Everybody is whoever showed who they are.
fn for_everybody(mut policy: Policy) -> Policy {
    if policy.user == "*" || policy.group == "*" {
        policy.group = AUTHENTICATED.to_owned();
        policy.user.clear();
    }
    policy
}

/// Lines without a version are of the first one, in which what is left out means everything.
fn of_first_version(mut policy: Policy) -> Policy {
    if policy.user.is_empty() && policy.group.is_empty() {
        policy.group = AUTHENTICATED.to_owned();
    }
    policy = for_everybody(policy);
    policy.path =
        if policy.namespace.is_empty() && policy.resource.is_empty() { "*".to_owned() } else { String::new() };
    for field in [&mut policy.namespace, &mut policy.resource] {
        if field.is_empty() {
            "*".clone_into(field);
        }
    }
    policy.api_group = "*".to_owned();
    policy
}

impl Policy {
    fn is_of(&self, user: &UserInfo) -> bool {
        let is_user = self.user.is_empty() || self.user == user.name;
        let is_group = self.group.is_empty() || user.is_in(&self.group);
        is_user && is_group && !(self.user.is_empty() && self.group.is_empty())
    }

    fn rules(&self) -> Vec<PolicyRule> {
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let verbs = texts(if self.readonly { &READING } else { &["*"] });
        let (api_groups, resources) = (texts(&[&self.api_group]), texts(&[&self.resource]));
        let of_resources = PolicyRule { verbs: verbs.clone(), api_groups, resources, ..PolicyRule::default() };
        let of_paths = PolicyRule { verbs, non_resource_urls: texts(&[&self.path]), ..PolicyRule::default() };
        let given = [(&self.resource, of_resources), (&self.path, of_paths)];
        given.into_iter().filter(|(field, _)| !field.is_empty()).map(|(_, rule)| rule).collect()
    }

    fn is_for(&self, asked: &Attributes<'_>) -> bool {
        let fits = |pattern: &str, text: &str| pattern == "*" || pattern == text;
        if self.readonly && !READING.contains(&asked.verb) {
            return false;
        }
        if asked.is_resource() {
            return fits(&self.namespace, asked.namespace)
                && fits(&self.resource, asked.resource)
                && fits(&self.api_group, asked.group);
        }
        let prefix = self.path.ends_with('*').then(|| self.path.trim_end_matches('*'));
        fits(&self.path, asked.path) || prefix.is_some_and(|prefix| asked.path.starts_with(prefix))
    }
}

impl Authorizer for Policies {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if self.0.iter().any(|policy| policy.is_of(attributes.user) && policy.is_for(attributes)) {
            return Decision::Allow(String::new());
        }
        Decision::NoOpinion("No policy matched.".to_owned())
    }

    fn rules_of(&self, user: &UserInfo, namespace: &str) -> Rules {
        let here = |policy: &&Policy| policy.is_of(user) && ["*", namespace].contains(&policy.namespace.as_str());
        Rules { rules: self.0.iter().filter(here).flat_map(Policy::rules).collect(), ..Rules::default() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = r#"
# who may do what
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"bob","namespace":"a","resource":"pods","apiGroup":"*","readonly":true}}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"group":"ops","nonResourcePath":"/logs*"}}
{"user":"old"}
{"apiVersion":"abac.authorization.kubernetes.io/v0","kind":"Policy","user":"older","readonly":true}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"*","nonResourcePath":"/version"}}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"namespace":"*","resource":"*","apiGroup":"*"}}
"#;

    #[test]
    fn policies_allow_and_never_deny() {
        let policies = Policies::parse(FILE).unwrap();
        let user = |name: &str, group: &str| UserInfo {
            name: name.to_owned(),
            groups: vec![group.to_owned()],
            ..UserInfo::default()
        };
        let (bob, ops, old) = (user("bob", "x"), user("eve", "ops"), user("old", "x"));
        let older = user("older", "x");
        let of = |user, verb, namespace| Attributes { namespace, ..Attributes::resource(user, verb, "", "pods") };
        for (asked, is_allowed) in [
            (of(&bob, "list", "a"), true),
            (of(&bob, "delete", "a"), false),
            (of(&bob, "list", "b"), false),
            (of(&ops, "list", "a"), false),
            (Attributes::path(&ops, "get", "/logs/x"), true),
            (Attributes::path(&ops, "get", "/metrics"), false),
            (of(&old, "delete", "b"), true),
            (Attributes::path(&old, "post", "/metrics"), true),
            (of(&older, "list", "b"), true),
            (of(&older, "delete", "b"), false),
            (Attributes::path(&old, "get", "/version"), true),
            (Attributes::path(&user("x", AUTHENTICATED), "get", "/version"), true),
            (Attributes::path(&user("x", "system:unauthenticated"), "get", "/version"), false),
        ] {
            assert_eq!(policies.authorize(&asked).is_allow(), is_allowed, "{asked:?}");
        }
        let refusal = policies.authorize(&of(&bob, "delete", "a"));
        assert_eq!(refusal, Decision::NoOpinion("No policy matched.".to_owned()));
    }

    #[test]
    fn rules_are_told_where_they_hold() {
        let policies = Policies::parse(FILE).unwrap();
        let rules = |name: &str, namespace: &str| {
            let user = UserInfo { name: name.to_owned(), ..UserInfo::default() };
            policies.rules_of(&user, namespace).rules
        };
        let found = rules("bob", "a");
        assert_eq!(
            (found.len(), &found[0].verbs[..], &found[0].resources[..]),
            (1, &READING.map(str::to_owned)[..], &["pods".to_owned()][..])
        );
        assert!(rules("bob", "b").is_empty());
        let paths: Vec<String> = rules("old", "b").into_iter().flat_map(|rule| rule.non_resource_urls).collect();
        assert_eq!(paths, ["*"]);
    }

    #[test]
    fn broken_lines_are_named() {
        let told = |text: &str| Policies::parse(text).unwrap_err();
        assert_eq!(told("\n{\"user\": 1}"), (2, "user: expected a string".to_owned()));
        assert_eq!(told("[]").1, "expected an object");
        assert!(told("{").1.contains("EOF"));
        assert!(told(r#"{"apiVersion":"v9","kind":"Policy"}"#).1.contains("expected Policy of abac"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z{}\":,\\[\\] \n*]{0,100}") {
            let _either_way = Policies::parse(&text).is_ok();
        }
    }
}
