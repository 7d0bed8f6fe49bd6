//! The policy: which requests are written down, at which level.

use std::str::FromStr;

use stdx::document::{Document, Invalid, Node};

/// How much of a request is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing.
    None,
    /// Who, what and how it ended.
    Metadata,
    /// The same and the request's object.
    Request,
    /// The same and the answer's object.
    RequestResponse,
}

impl Level {
    /// As policies and events spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

const LEVELS: [&str; 4] = ["None", "Metadata", "Request", "RequestResponse"];

fn parse_level(text: &str) -> Level {
    match text {
        "Metadata" => Level::Metadata,
        "Request" => Level::Request,
        "RequestResponse" => Level::RequestResponse,
        _ => Level::None,
    }
}

/// A moment of a request at which an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has been received, and is about to be looked at.
    RequestReceived,
    /// The headers of the answer are sent; of requests only that run long.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// Serving it failed badly.
    Panic,
}

const STAGES: [&str; 4] = ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];

impl Stage {
    /// As policies and events spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        STAGES[self as usize]
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What a policy looks at.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The user's name; empty for nobody.
    pub user: &'a str,
    /// The user's groups.
    pub groups: &'a [String],
    /// The verb.
    pub verb: &'a str,
    /// Whether a resource is asked for.
    pub is_resource: bool,
    /// API group.
    pub group: &'a str,
    /// Plural name of the resource.
    pub resource: &'a str,
    /// Subresource, or empty.
    pub subresource: &'a str,
    /// Namespace, or empty.
    pub namespace: &'a str,
    /// Name, or empty.
    pub name: &'a str,
    /// The path.
    pub path: &'a str,
}

/// How one request is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// How much.
    pub level: Level,
    /// Whether `managedFields` are left out of objects.
    pub omits_managed_fields: bool,
    omitted: u8,
}

impl Rule {
    /// A rule that leaves out no stage.
    #[must_use]
    pub fn at(level: Level) -> Self {
        Self { level, omits_managed_fields: false, omitted: 0 }
    }

    /// Whether events of a stage are written.
    #[must_use]
    pub fn writes(&self, stage: Stage) -> bool {
        self.omitted & stage.bit() == 0
    }
}

/// Resources of a group, as a rule names them.
#[derive(Clone, Debug)]
struct Resources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

#[derive(Clone, Debug)]
struct Matcher {
    rule: Rule,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    paths: Vec<String>,
}

/// Rules, of which the first that fits counts.
#[derive(Clone, Debug)]
pub struct Policy {
    matchers: Vec<Matcher>,
    otherwise: Rule,
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It says what it must not say.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// It has no rules.
    #[error("loaded illegal policy with 0 rules")]
    NoRules,
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let document = Document::parse(text, &["audit.k8s.io/v1"], "Policy")?;
        let known = ["apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields"];
        let root = document.root().only(&known);
        let omitted = stages(&root);
        let omits_fields = root.switch("omitManagedFields").unwrap_or_default();
        let otherwise = Rule { level: Level::None, omits_managed_fields: omits_fields, omitted };
        let matchers: Vec<Matcher> = root.list("rules").into_iter().map(|node| matcher(node, otherwise)).collect();
        document.finish()?;
        // Upstream reads such a policy too, and says so.
        for field in document.unknown() {
            tracing::warn!(field, "the audit policy has a field that nobody knows; it changes nothing");
        }
        if matchers.is_empty() { Err(PolicyError::NoRules) } else { Ok(Self { matchers, otherwise }) }
    }
}

fn stages(node: &Node<'_>) -> u8 {
    let mut omitted = 0;
    for item in node.list("omitStages") {
        match STAGES.iter().position(|stage| *stage == item.as_text()) {
            Some(at) => omitted |= 1 << at,
            None => item.invalid(&format!("allowed stages are {}", STAGES.join(","))),
        }
    }
    omitted
}

fn matcher(node: Node<'_>, policy: Rule) -> Matcher {
    let node = node.only(&[
        "level",
        "users",
        "userGroups",
        "verbs",
        "resources",
        "namespaces",
        "nonResourceURLs",
        "omitStages",
        "omitManagedFields",
    ]);
    let level = parse_level(node.one_of("level", &LEVELS, None));
    for path in node.list("nonResourceURLs") {
        let text = path.as_text();
        if text == "*" {
            continue;
        }
        if !text.starts_with('/') {
            path.invalid("non-resource URL rules must begin with a '/' character");
        }
        if text.strip_suffix('*').unwrap_or(text).contains('*') {
            path.invalid("non-resource URL wildcards '*' must be the final character of the rule");
        }
    }
    let matcher = Matcher {
        rule: Rule {
            level,
            omits_managed_fields: node.switch("omitManagedFields").unwrap_or(policy.omits_managed_fields),
            omitted: policy.omitted | stages(&node),
        },
        users: node.texts("users"),
        groups: node.texts("userGroups"),
        verbs: node.texts("verbs"),
        resources: node.list("resources").into_iter().map(resources).collect(),
        namespaces: node.texts("namespaces"),
        paths: node.texts("nonResourceURLs"),
    };
    let is_of_resources = !matcher.resources.is_empty() || !matcher.namespaces.is_empty();
    if is_of_resources && !matcher.paths.is_empty() {
        node.field("nonResourceURLs").invalid("rules cannot apply to both regular resources and non-resource URLs");
    }
    matcher
}

fn resources(node: Node<'_>) -> Resources {
    let node = node.only(&["group", "resources", "resourceNames"]);
    let found =
        Resources { group: node.text("group"), resources: node.texts("resources"), names: node.texts("resourceNames") };
    if !found.group.is_empty() && found.group != "*" && !is_subdomain(&found.group) {
        node.field("group").invalid(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
        );
    }
    if !found.names.is_empty() && found.resources.is_empty() {
        node.field("resourceNames").invalid("using resourceNames requires at least one resource");
    }
    found
}

fn is_subdomain(text: &str) -> bool {
    let is_label = |label: &str| {
        let ends_well = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        label.bytes().all(good) && ends_well(label.bytes().next()) && ends_well(label.bytes().last())
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

impl Policy {
    /// How a request is written down.
    #[must_use]
    pub fn rule_for(&self, request: &Request<'_>) -> Rule {
        self.matchers.iter().find(|m| m.fits(request)).map_or(self.otherwise, |m| m.rule)
    }
}

fn has(list: &[String], text: &str) -> bool {
    list.iter().any(|item| item == text)
}

impl Matcher {
    fn fits(&self, request: &Request<'_>) -> bool {
        if !self.users.is_empty() && !has(&self.users, request.user) {
            return false;
        }
        if !self.groups.is_empty() && !request.groups.iter().any(|group| has(&self.groups, group)) {
            return false;
        }
        if !self.verbs.is_empty() && !has(&self.verbs, request.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return request.is_resource
                && (self.namespaces.is_empty() || has(&self.namespaces, request.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|r| r.fit(request)));
        }
        if !self.paths.is_empty() {
            return !request.is_resource && self.paths.iter().any(|path| path_fits(path, request.path));
        }
        true
    }
}

fn path_fits(pattern: &str, path: &str) -> bool {
    pattern == "*" || pattern == path || (pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*')))
}

impl Resources {
    fn fit(&self, request: &Request<'_>) -> bool {
        if self.group != request.group && self.group != "*" {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let named = self.names.is_empty() || has(&self.names, request.name);
        named && self.resources.iter().any(|pattern| resource_fits(pattern, request))
    }
}

fn resource_fits(pattern: &str, request: &Request<'_>) -> bool {
    let (resource, subresource) = (request.resource, request.subresource);
    if pattern == "*" {
        return true;
    }
    match pattern.split_once('/') {
        None => subresource.is_empty() && pattern == resource,
        Some(("*", sub)) if !subresource.is_empty() && sub == subresource => true,
        // Of its own name alone and of every subresource alike.
        Some((own, "*")) => own == resource,
        Some((own, sub)) => own == resource && sub == subresource,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  users: [system:kube-proxy]
  verbs: [watch]
- level: Metadata
  resources:
  - {group: '', resources: [secrets, '*/token']}
- level: RequestResponse
  omitManagedFields: false
  omitStages: [Panic]
  resources:
  - {group: apps, resources: ['deployments/*'], resourceNames: [web]}
- level: Request
  namespaces: ['']
- level: None
  nonResourceURLs: ['/healthz*', /version]
- level: Metadata
  userGroups: [system:authenticated]
";

    fn request<'a>(path: &'a str, groups: &'a [String]) -> Request<'a> {
        let mut parts = path.split('|').chain(std::iter::repeat(""));
        let mut next = || parts.next().unwrap_or_default();
        Request {
            user: next(),
            groups,
            verb: next(),
            group: next(),
            resource: next(),
            subresource: next(),
            namespace: next(),
            name: next(),
            path: "/version",
            is_resource: !path.ends_with("PATH"),
        }
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let policy: Policy = POLICY.parse().unwrap();
        let groups = ["system:authenticated".to_owned()];
        for (path, level) in [
            ("system:kube-proxy|watch||services||a", Level::None),
            ("x|watch||secrets||a|s", Level::Metadata),
            ("x|create||serviceaccounts|token|a|s", Level::Metadata),
            ("x|get|apps|deployments|scale|a|web", Level::RequestResponse),
            ("x|get|apps|deployments||a|web", Level::RequestResponse),
            ("x|get|apps|deployments|scale|a|other", Level::Metadata),
            ("x|get||nodes|||n", Level::Request),
            ("x|get|PATH", Level::None),
        ] {
            assert_eq!(policy.rule_for(&request(path, &groups)).level, level, "{path}");
        }
        assert_eq!(policy.rule_for(&request("x|get||pods||a", &[])).level, Level::None);
        let rule = policy.rule_for(&request("x|get|apps|deployments||a|web", &groups));
        assert!(!rule.omits_managed_fields && !rule.writes(Stage::Panic) && !rule.writes(Stage::RequestReceived));
        assert!(rule.writes(Stage::ResponseComplete));
        assert!(policy.rule_for(&request("x|get||secrets||a", &groups)).omits_managed_fields);
    }

    #[test]
    fn what_is_wrong_is_told_by_its_path() {
        let told = |rules: &str| {
            let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: {rules}\n");
            text.parse::<Policy>().unwrap_err().to_string()
        };
        assert_eq!(told("[]"), "loaded illegal policy with 0 rules");
        assert_eq!(told("[{users: [a]}]"), "rules[0].level: Required value");
        assert!(told("[{level: All}]").starts_with(r#"rules[0].level: Unsupported value: "All": supported"#));
        assert_eq!(
            told("[{level: None, nonResourceURLs: [a, '/b*c']}]"),
            "[rules[0].nonResourceURLs[0]: Invalid value: \"a\": non-resource URL rules must begin with a '/' character, \
             rules[0].nonResourceURLs[1]: Invalid value: \"/b*c\": non-resource URL wildcards '*' must be the final \
             character of the rule]"
        );
        assert!(told("[{level: None, nonResourceURLs: [/], namespaces: [a]}]").contains("cannot apply to both"));
        assert!(told("[{level: None, resources: [{resourceNames: [a]}]}]").contains("at least one resource"));
        assert!(
            told("[{level: None, resources: [{group: A/v1}]}]").starts_with("rules[0].resources[0].group: Invalid")
        );
        assert!(told("[{level: None, omitStages: [X]}]").contains("allowed stages are RequestReceived,"));
        assert!("kind: Policy".parse::<Policy>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(rules in "[a-zA-Z:{}\\[\\], '*/-]{0,120}") {
            let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: {rules}\n");
            if let Ok(policy) = text.parse::<Policy>() {
                let _level = policy.rule_for(&request("x|get||pods||a", &[]));
            }
        }
    }
}
