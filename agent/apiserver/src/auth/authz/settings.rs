//! Which authorizers there are, and in what order: `AuthorizationConfiguration`, or the older flags.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use cel::{Environment, Program, Type};
use stdx::document::{Document, Invalid, Node};

use crate::expressions::compile;

/// API versions of the configuration; they say the same.
const VERSIONS: [&str; 3] =
    ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];
const TYPES: [&str; 6] = ["ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];
/// Most conditions of one webhook.
const MAX_CONDITIONS: usize = 64;
/// Longest that a webhook may be waited for.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);

/// One authorizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Allows everything.
    AlwaysAllow,
    /// Allows nothing.
    AlwaysDeny,
    /// Allows what a file says.
    Abac,
    /// What nodes need.
    Node,
    /// What roles allow.
    Rbac,
    /// Asks another server.
    Webhook(Box<WebhookSettings>),
}

/// Another server that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookSettings {
    /// Its name.
    pub name: String,
    /// A kubeconfig whose cluster is the server.
    pub kubeconfig: PathBuf,
    /// Version of `SubjectAccessReview`: `v1` or `v1beta1`.
    pub version: String,
    /// How long it may take.
    pub timeout: Duration,
    /// How long a yes counts; none is not remembered.
    pub authorized_ttl: Option<Duration>,
    /// How long a no counts; none is not remembered.
    pub unauthorized_ttl: Option<Duration>,
    /// Whether a request is refused if it cannot be asked.
    pub denies_on_failure: bool,
    /// Expressions that all have to hold for it to be asked.
    pub conditions: Vec<String>,
}

static REQUEST: LazyLock<Environment> = LazyLock::new(|| {
    let texts = || Type::list(Type::String);
    let requirement = || Type::list(Type::map(Type::String, Type::Dyn));
    let selector = |name| Type::object(name, [("rawSelector", Type::String), ("requirements", requirement())]);
    let resource = [
        ("namespace", Type::String),
        ("verb", Type::String),
        ("group", Type::String),
        ("version", Type::String),
        ("resource", Type::String),
        ("subresource", Type::String),
        ("name", Type::String),
        ("fieldSelector", selector("kubernetes.FieldSelectorAttributes")),
        ("labelSelector", selector("kubernetes.LabelSelectorAttributes")),
    ];
    let other = [("path", Type::String), ("verb", Type::String)];
    let request = [
        ("resourceAttributes", Type::object("kubernetes.ResourceAttributes", resource)),
        ("nonResourceAttributes", Type::object("kubernetes.NonResourceAttributes", other)),
        ("user", Type::String),
        ("groups", texts()),
        ("extra", Type::map(Type::String, texts())),
        ("uid", Type::String),
    ];
    Environment::new().with("request", Type::object("kubernetes.SubjectAccessReviewSpec", request))
});

/// Reads a condition.
///
/// # Errors
/// When it is no expression, or says neither yes nor no.
pub(super) fn condition(source: &str) -> Result<Program, String> {
    compile(source, &REQUEST, &[Type::Bool])
}

/// Reads the file of a configuration.
///
/// # Errors
/// When it cannot be read or used, with everything that is wrong.
pub fn load(path: &Path) -> Result<Vec<Mode>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    parse(&text).map_err(|e| format!("invalid authorization configuration {}: {e}", path.display()))
}

/// Reads the text of a configuration.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str) -> Result<Vec<Mode>, Invalid> {
    let document = Document::parse(text, &VERSIONS, "AuthorizationConfiguration")?;
    let root = document.root().only(&["apiVersion", "kind", "authorizers"]);
    let list = root.list("authorizers");
    if list.is_empty() {
        root.field("authorizers").require("at least one authorization mode must be defined");
    }
    let mut seen = (BTreeSet::new(), BTreeSet::new());
    let modes: Vec<Mode> = list.into_iter().filter_map(|node| mode(node, &mut seen)).collect();
    document.finish_strictly()?;
    Ok(modes)
}

fn duplicate(node: &Node<'_>) {
    node.note(format!("Duplicate value: {}", node.value()));
}

fn mode(node: Node<'_>, seen: &mut (BTreeSet<String>, BTreeSet<String>)) -> Option<Mode> {
    let node = node.only(&["type", "name", "webhook"]);
    let (kind, name) = (node.text("type"), node.text("name"));
    if kind.is_empty() {
        node.field("type").require("");
        return None;
    }
    if !TYPES.contains(&kind.as_str()) {
        let _told = node.one_of("type", &TYPES, None);
        return None;
    }
    if !seen.0.insert(kind.clone()) && kind != "Webhook" {
        duplicate(&node.field("type"));
        return None;
    }
    if name.is_empty() {
        node.field("name").require("");
    } else if !seen.1.insert(name.clone()) {
        duplicate(&node.field("name"));
    } else if !is_subdomain(&name) {
        node.field("name").invalid("authorizer name is invalid: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character");
    }
    let webhook = node.field("webhook");
    if kind != "Webhook" && webhook.is_there() {
        webhook.note("Invalid value: \"non-null\": may only be specified when type=Webhook");
    }
    Some(match kind.as_str() {
        "AlwaysAllow" => Mode::AlwaysAllow,
        "AlwaysDeny" => Mode::AlwaysDeny,
        "ABAC" => Mode::Abac,
        "Node" => Mode::Node,
        "RBAC" => Mode::Rbac,
        _ if !webhook.is_there() => {
            webhook.require("required when type=Webhook");
            return None;
        }
        _ => Mode::Webhook(Box::new(settings(name, webhook.merged_into(&node)))),
    })
}

fn is_subdomain(text: &str) -> bool {
    let is_end = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let is_label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        inner && is_end(label.bytes().next()) && is_end(label.bytes().last())
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

fn settings(name: String, node: Node<'_>) -> WebhookSettings {
    let node = node.only(&[
        "timeout",
        "authorizedTTL",
        "cacheAuthorizedRequests",
        "unauthorizedTTL",
        "cacheUnauthorizedRequests",
        "subjectAccessReviewVersion",
        "matchConditionSubjectAccessReviewVersion",
        "failurePolicy",
        "connectionInfo",
        "matchConditions",
    ]);
    let timeout = duration(&node.field("timeout"), None);
    if timeout > MAX_TIMEOUT {
        node.field("timeout").invalid("must be > 0s and <= 30s");
    }
    let ttl = |key: &str, cached: &str, default: u64| {
        let ttl = duration(&node.field(key), Some(Duration::from_secs(default)));
        node.switch(cached).unwrap_or(true).then_some(ttl)
    };
    let conditions = conditions(&node);
    let of_conditions = node.field("matchConditionSubjectAccessReviewVersion");
    match of_conditions.as_text() {
        "" if !conditions.is_empty() => of_conditions.require("required if match conditions are specified"),
        "" | "v1" => {}
        other => of_conditions.note(format!("Unsupported value: {other:?}: supported values: \"v1\"")),
    }
    WebhookSettings {
        name,
        kubeconfig: kubeconfig(&node.field("connectionInfo")),
        version: node.one_of("subjectAccessReviewVersion", &["v1", "v1beta1"], None).to_owned(),
        timeout,
        authorized_ttl: ttl("authorizedTTL", "cacheAuthorizedRequests", 300),
        unauthorized_ttl: ttl("unauthorizedTTL", "cacheUnauthorizedRequests", 30),
        denies_on_failure: node.one_of("failurePolicy", &["NoOpinion", "Deny"], None) == "Deny",
        conditions,
    }
}

fn duration(node: &Node<'_>, default: Option<Duration>) -> Duration {
    if !node.is_there() {
        if default.is_none() {
            node.require("");
        }
        return default.unwrap_or_default();
    }
    match api::time::parse_duration(node.as_text()).and_then(|nanos| u64::try_from(nanos).ok()) {
        Some(nanos) if nanos > 0 => Duration::from_nanos(nanos),
        _ => {
            node.invalid("must be > 0s");
            default.unwrap_or_default()
        }
    }
}

fn kubeconfig(node: &Node<'_>) -> PathBuf {
    let node = node.clone().only(&["type", "kubeConfigFile"]);
    let (of_type, file) = (node.field("type"), node.field("kubeConfigFile"));
    match of_type.as_text() {
        "" => of_type.require(""),
        "InClusterConfig" => of_type.invalid("a server does not ask through its own service: give a KubeConfigFile"),
        "KubeConfigFile" => {
            let path = Path::new(file.as_text());
            if file.as_text().is_empty() {
                file.require("");
            } else if !path.is_absolute() {
                file.invalid("must be an absolute path");
            } else if let Err(error) = std::fs::metadata(path) {
                file.invalid(&format!("error loading file: {error}"));
            }
        }
        other => of_type
            .note(format!("Unsupported value: {other:?}: supported values: \"InClusterConfig\", \"KubeConfigFile\"")),
    }
    PathBuf::from(file.as_text())
}

fn conditions(node: &Node<'_>) -> Vec<String> {
    let list = node.list("matchConditions");
    if list.len() > MAX_CONDITIONS {
        let text = format!("Too many: {}: must have at most {MAX_CONDITIONS} items", list.len());
        node.field("matchConditions").note(text);
    }
    let mut seen: Vec<String> = Vec::new();
    for item in list {
        let item = item.only(&["expression"]);
        let field = item.field("expression");
        let text = field.as_text().to_owned();
        if text.trim().is_empty() {
            field.require("");
        } else if seen.contains(&text) {
            duplicate(&field);
        } else {
            if let Err(why) = condition(&text) {
                field.invalid(&why);
            }
            seen.push(text);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(authorizers: &str) -> Result<Vec<Mode>, Invalid> {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";
        parse(&format!("{head}authorizers:\n{authorizers}\n"))
    }

    fn webhook(more: &str) -> String {
        format!(
            "- {{type: Webhook, name: w, webhook: {{timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny, \
             connectionInfo: {{type: KubeConfigFile, kubeConfigFile: /dev/null}}{more}}}}}"
        )
    }

    #[test]
    fn a_chain_is_read_in_order_and_with_defaults() {
        let conditions = ", matchConditionSubjectAccessReviewVersion: v1, cacheUnauthorizedRequests: false, \
                          matchConditions: [{expression: 'has(request.resourceAttributes)'}]";
        let chain = format!("- {{type: Node, name: node}}\n- {{type: RBAC, name: rbac}}\n{}", webhook(conditions));
        let modes = read(&chain).unwrap();
        let [Mode::Node, Mode::Rbac, Mode::Webhook(webhook)] = &modes[..] else { panic!("{modes:?}") };
        assert_eq!(webhook.authorized_ttl, Some(Duration::from_secs(300)));
        assert_eq!((webhook.unauthorized_ttl, webhook.denies_on_failure), (None, true));
        assert_eq!(webhook.conditions, ["has(request.resourceAttributes)"]);
    }

    #[test]
    fn what_is_wrong_is_told_by_its_path() {
        for (authorizers, message) in [
            ("  []".to_owned(), "authorizers: Required value: at least one authorization mode must be defined"),
            (
                "- {type: Foo, name: a}".to_owned(),
                "authorizers[0].type: Unsupported value: \"Foo\": supported values: \"ABAC\"",
            ),
            (
                "- {type: RBAC, name: a}\n- {type: RBAC, name: b}".to_owned(),
                "authorizers[1].type: Duplicate value: \"RBAC\"",
            ),
            (
                "- {type: RBAC, name: A}".to_owned(),
                "authorizers[0].name: Invalid value: \"A\": authorizer name is invalid",
            ),
            (
                "- {type: Webhook, name: a}".to_owned(),
                "authorizers[0].webhook: Required value: required when type=Webhook",
            ),
            (
                webhook(", matchConditions: [{expression: 'request.user'}]"),
                "authorizers[0].matchConditions[0].expression: Invalid value: \"request.user\": must evaluate to bool but got string",
            ),
            (webhook(", authorizedTTL: -1s"), "authorizers[0].authorizedTTL: Invalid value: \"-1s\": must be > 0s"),
            (webhook(", timeOut: 1s"), "unknown field \"authorizers[0].webhook.timeOut\""),
        ] {
            let told = read(&authorizers).unwrap_err().to_string();
            assert!(told.contains(message), "{authorizers}\n{told}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-zA-Z:{}\\[\\], 0-9-]{0,100}") {
            let _either_way = read(&text).is_ok();
        }
    }
}
