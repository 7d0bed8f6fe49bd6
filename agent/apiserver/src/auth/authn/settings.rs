//! Which tokens of others are accepted, as `AuthenticationConfiguration` or the older flags say.

mod oidc;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use cel::{Environment, Program, Type};
use egress::Selection;
use stdx::document::{Document, Invalid, Node};

pub use self::oidc::Oidc;
use crate::auth::jws::ALGORITHMS;
use crate::expressions::compile;

/// API versions of the configuration; they say the same.
const VERSIONS: [&str; 3] =
    ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];
/// Most issuers of one configuration.
const MAX_ISSUERS: usize = 64;

/// Everything that the configuration says.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Issuers of tokens.
    pub jwt: Vec<Arc<Issuer>>,
    /// Whether and where requests without credentials are served, if it is said.
    pub anonymous: Option<Anonymous>,
}

/// Requests without credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anonymous {
    /// Whether they are served at all.
    pub enabled: bool,
    /// For which paths only; empty means all.
    pub paths: Vec<String>,
}

/// An issuer of tokens, and how users are made of its claims.
#[derive(Debug)]
pub struct Issuer {
    /// Its URL, which tokens name.
    pub url: String,
    /// Where its document is, if not at the usual place.
    pub discovery: Option<String>,
    /// Authorities of its server; those of the host without.
    pub ca_pem: Option<Vec<u8>>,
    /// By which way its server is reached; straight without.
    pub egress: Option<Selection>,
    /// For whom tokens have to be meant.
    pub audiences: Vec<String>,
    /// What tokens may be signed by.
    pub algorithms: Vec<String>,
    /// Claims with the values that they must have.
    pub required: Vec<(String, String)>,
    /// What else has to hold of the claims.
    pub validations: Vec<Rule>,
    /// The user's name.
    pub username: Mapping,
    /// The groups.
    pub groups: Mapping,
    /// The unique id.
    pub uid: Mapping,
    /// Further facts.
    pub extra: Vec<(String, Expression)>,
    /// What has to hold of the user.
    pub user_validations: Vec<Rule>,
}

/// How one fact about a user is found.
#[derive(Debug, Default)]
pub enum Mapping {
    /// Not at all.
    #[default]
    Nothing,
    /// A claim, with something in front.
    Claim {
        /// The claim.
        name: String,
        /// What stands before it.
        prefix: String,
    },
    /// An expression.
    Expression(Box<Expression>),
}

/// An expression, with its text for those who are told that it failed.
#[derive(Debug)]
pub struct Expression {
    /// What is evaluated.
    pub program: Program,
    /// Its text.
    pub source: String,
}

/// An expression that has to be true.
#[derive(Debug)]
pub struct Rule {
    /// What is evaluated.
    pub expression: Expression,
    /// What is said when it is false.
    pub message: String,
}

static CLAIMS: LazyLock<Environment> =
    LazyLock::new(|| Environment::new().with("claims", Type::map(Type::String, Type::Any)));
static USER: LazyLock<Environment> = LazyLock::new(|| {
    let texts = || Type::list(Type::String);
    let user = [
        ("username", Type::String),
        ("uid", Type::String),
        ("groups", texts()),
        ("extra", Type::map(Type::String, texts())),
    ];
    Environment::new().with("user", Type::object("kubernetes.UserInfo", user))
});

impl Settings {
    /// Reads the file of a configuration. `disallowed` are issuers that are this server's own.
    ///
    /// # Errors
    /// When it cannot be read or used, with everything that is wrong.
    pub fn load(path: &Path, disallowed: &[String]) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        Self::parse(&text, disallowed)
            .map_err(|e| format!("invalid authentication configuration {}: {e}", path.display()))
    }

    /// Reads the text of a configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str, disallowed: &[String]) -> Result<Self, Invalid> {
        let document = Document::parse(text, &VERSIONS, "AuthenticationConfiguration")?;
        let root = document.root().only(&["apiVersion", "kind", "jwt", "anonymous"]);
        let list = root.list("jwt");
        if list.len() > MAX_ISSUERS {
            root.field("jwt").note(format!("Too many: {}: must have at most {MAX_ISSUERS} items", list.len()));
        }
        let mut seen = (BTreeSet::new(), BTreeSet::new());
        let jwt =
            list.into_iter().take(MAX_ISSUERS).map(|node| Arc::new(issuer(node, disallowed, &mut seen))).collect();
        let anonymous = anonymous(root.field("anonymous"));
        document.finish_strictly()?;
        Ok(Self { jwt, anonymous })
    }
}

fn anonymous(node: Node<'_>) -> Option<Anonymous> {
    if !node.is_there() {
        return None;
    }
    let node = node.only(&["enabled", "conditions"]);
    let conditions = node.list("conditions");
    let paths: Vec<String> = conditions.into_iter().map(|c| c.only(&["path"]).text("path")).collect();
    let enabled = node.switch("enabled").unwrap_or_default();
    if !enabled && !paths.is_empty() {
        node.field("conditions").invalid("enabled should be set to true when conditions are defined");
    }
    Some(Anonymous { enabled, paths })
}

/// Notes what says the same in two ways, as upstream shows it.
fn both(node: &Node<'_>, shown: &str) {
    node.note(format!("Invalid value: {shown:?}: claim and expression can't both be set"));
}

fn duplicate(node: &Node<'_>) {
    node.note(format!("Duplicate value: {}", node.value()));
}

/// By which way an issuer is reached, if it is said.
fn egress_of(node: &Node<'_>) -> Option<Selection> {
    match node.as_text() {
        "" => None,
        "controlplane" => Some(Selection::ControlPlane),
        "cluster" => Some(Selection::Cluster),
        _ => {
            node.invalid("egress selector must be either controlplane or cluster");
            None
        }
    }
}

fn issuer(node: Node<'_>, disallowed: &[String], seen: &mut (BTreeSet<String>, BTreeSet<String>)) -> Issuer {
    let node = node.only(&["issuer", "claimValidationRules", "claimMappings", "userValidationRules"]);
    let of = node.field("issuer").only(&[
        "url",
        "discoveryURL",
        "certificateAuthority",
        "audiences",
        "audienceMatchPolicy",
        "egressSelectorType",
    ]);
    let (url, discovery) = (of.text("url"), of.text("discoveryURL"));
    if url.is_empty() {
        of.field("url").require("");
    } else {
        check_url(&of.field("url"), disallowed);
    }
    if !discovery.is_empty() {
        if url.trim_end_matches('/') == discovery.trim_end_matches('/') {
            of.field("discoveryURL").invalid("discoveryURL must be different from URL");
        }
        check_url(&of.field("discoveryURL"), &[]);
        if !seen.1.insert(discovery.clone()) {
            duplicate(&of.field("discoveryURL"));
        }
    }
    let egress = egress_of(&of.field("egressSelectorType"));
    if !seen.0.insert(url.clone()) {
        duplicate(&of.field("url"));
    }
    let ca = of.text("certificateAuthority");
    if !ca.is_empty() && crate::admission::roots(ca.as_bytes()).is_ok_and(|roots| roots.is_empty()) {
        of.field("certificateAuthority")
            .note("Invalid value: \"<omitted>\": data does not contain any valid RSA or ECDSA certificates");
    }
    let audiences = audiences(&of);
    let (required, validations) = claim_rules(&node);
    let mappings = node.field("claimMappings").only(&["username", "groups", "uid", "extra"]);
    let username = prefixed(mappings.field("username"), true);
    check_email(&mappings, &node);
    Issuer {
        url,
        discovery: Some(discovery).filter(|url| !url.is_empty()),
        ca_pem: Some(ca.into_bytes()).filter(|pem| !pem.is_empty()),
        egress,
        audiences,
        algorithms: ALGORITHMS.map(str::to_owned).to_vec(),
        required,
        validations,
        username,
        groups: prefixed(mappings.field("groups"), false),
        uid: uid(mappings.field("uid")),
        extra: extra(&mappings),
        user_validations: user_rules(&node),
    }
}

fn check_url(node: &Node<'_>, disallowed: &[String]) {
    let url = node.as_text();
    if disallowed.iter().any(|other| other == url) {
        node.invalid(&format!("URL must not overlap with disallowed issuers: [{}]", disallowed.join(" ")));
    }
    let parsed: Result<http::Uri, _> = url.parse();
    let Ok(parsed) = parsed else { return node.invalid("the URL cannot be read") };
    if parsed.scheme_str() != Some("https") {
        node.invalid("URL scheme must be https");
    }
    if parsed.authority().is_some_and(|a| a.as_str().contains('@')) {
        node.invalid("URL must not contain a username or password");
    }
    if parsed.query().is_some_and(|query| !query.is_empty()) {
        node.invalid("URL must not contain a query");
    }
    if url.contains('#') {
        node.invalid("URL must not contain a fragment");
    }
}

fn audiences(issuer: &Node<'_>) -> Vec<String> {
    let (list, policy) = (issuer.list("audiences"), issuer.text("audienceMatchPolicy"));
    let field = issuer.field("audiences");
    if list.is_empty() {
        field.require(&format!("at least one {} is required", field.path()));
    }
    let mut seen = BTreeSet::new();
    for item in &list {
        if item.as_text().is_empty() {
            item.require("");
        }
        if !seen.insert(item.as_text()) {
            duplicate(item);
        }
    }
    let of_policy = issuer.field("audienceMatchPolicy");
    if list.len() > 1 && policy != "MatchAny" {
        let why = "audienceMatchPolicy must be MatchAny for multiple audiences";
        of_policy.note(format!("Invalid value: {policy:?}: {why}"));
    } else if list.len() == 1 && !matches!(policy.as_str(), "" | "MatchAny") {
        of_policy.invalid("audienceMatchPolicy must be empty or MatchAny for single audience");
    }
    list.iter().map(|item| item.as_text().to_owned()).collect()
}

fn program(node: &Node<'_>, environment: &Environment, results: &[Type]) -> Option<Expression> {
    match compile(node.as_text(), environment, results) {
        Ok(program) => Some(Expression { program, source: node.as_text().to_owned() }),
        Err(why) => {
            // What it is instead is not told of these.
            let why =
                if why.starts_with("must evaluate") { why.split(" but got").next().unwrap_or_default() } else { &why };
            node.invalid(why);
            None
        }
    }
}

fn rule(node: &Node<'_>, environment: &Environment) -> Option<Rule> {
    let expression = program(&node.field("expression"), environment, &[Type::Bool])?;
    Some(Rule { expression, message: node.text("message") })
}

fn claim_rules(node: &Node<'_>) -> (Vec<(String, String)>, Vec<Rule>) {
    let (mut required, mut rules) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for node in node.list("claimValidationRules") {
        let node = node.only(&["claim", "requiredValue", "expression", "message"]);
        let (claim, expression) = (node.text("claim"), node.text("expression"));
        match (claim.is_empty(), expression.is_empty()) {
            (false, false) => both(&node, &claim),
            (true, true) => node.require("claim or expression is required"),
            (false, true) => {
                if !node.text("message").is_empty() {
                    node.field("message").invalid("may not be specified when claim is set");
                }
                if !seen.insert(format!("claim {claim}")) {
                    duplicate(&node.field("claim"));
                }
                required.push((claim, node.text("requiredValue")));
            }
            (true, false) => {
                if !node.text("requiredValue").is_empty() {
                    node.field("requiredValue").invalid("may not be specified when expression is set");
                }
                if seen.insert(expression) {
                    rules.extend(rule(&node, &CLAIMS));
                } else {
                    duplicate(&node.field("expression"));
                }
            }
        }
    }
    (required, rules)
}

fn user_rules(node: &Node<'_>) -> Vec<Rule> {
    let mut seen = BTreeSet::new();
    let mut rules = Vec::new();
    for node in node.list("userValidationRules") {
        let node = node.only(&["expression", "message"]);
        let expression = node.text("expression");
        if expression.is_empty() {
            node.field("expression").require("");
        } else if seen.insert(expression) {
            rules.extend(rule(&node, &USER));
        } else {
            duplicate(&node.field("expression"));
        }
    }
    rules
}

fn expression(node: &Node<'_>) -> Mapping {
    program(&node.field("expression"), &CLAIMS, &[]).map_or(Mapping::Nothing, |p| Mapping::Expression(Box::new(p)))
}

fn prefixed(node: Node<'_>, is_required: bool) -> Mapping {
    let node = node.only(&["claim", "prefix", "expression"]);
    let (claim, source) = (node.text("claim"), node.text("expression"));
    match (claim.is_empty(), source.is_empty()) {
        (false, false) => {
            both(&node, "");
            Mapping::Nothing
        }
        (true, true) => {
            if is_required {
                node.require("claim or expression is required");
            }
            Mapping::Nothing
        }
        (true, false) => {
            if node.field("prefix").is_there() {
                node.field("prefix").invalid("may not be specified when expression is set");
            }
            expression(&node)
        }
        (false, true) => {
            if !node.field("prefix").is_there() {
                let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                node.field("prefix").require(why);
            }
            Mapping::Claim { name: claim, prefix: node.text("prefix") }
        }
    }
}

fn uid(node: Node<'_>) -> Mapping {
    let node = node.only(&["claim", "expression"]);
    let (claim, source) = (node.text("claim"), node.text("expression"));
    match (claim.is_empty(), source.is_empty()) {
        (false, false) => {
            both(&node, "");
            Mapping::Nothing
        }
        (true, true) => Mapping::Nothing,
        (true, false) => expression(&node),
        (false, true) => Mapping::Claim { name: claim, prefix: String::new() },
    }
}

fn extra(mappings: &Node<'_>) -> Vec<(String, Expression)> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for node in mappings.list("extra") {
        let node = node.only(&["key", "valueExpression"]);
        let (key, of_key) = (node.text("key"), node.field("key"));
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        if key.is_empty() {
            of_key.require("");
        } else if domain.is_empty() || key.ends_with('/') {
            of_key.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")");
        }
        if key.to_lowercase() != key {
            of_key.invalid("must be lowercase");
        }
        let is_own = |own: &str| domain == own || domain.strip_suffix(own).is_some_and(|rest| rest.ends_with('.'));
        if is_own("kubernetes.io") || is_own("k8s.io") {
            of_key.invalid("k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use");
        }
        if !key.is_empty() && !seen.insert(key.clone()) {
            duplicate(&of_key);
            continue;
        }
        let value = node.field("valueExpression");
        if value.as_text().is_empty() {
            value.require("");
        } else {
            found.extend(program(&value, &CLAIMS, &[]).map(|program| (key, program)));
        }
    }
    found
}

/// Who goes by addresses has to look whether they were verified.
fn check_email(mappings: &Node<'_>, issuer: &Node<'_>) {
    let squeezed = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    let uses = |text: &str, claim: &str| {
        let text = squeezed(text);
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        ["claims.", "claims.?"].iter().any(|dot| {
            let wanted = format!("{dot}{claim}");
            text.match_indices(&wanted).any(|(at, found)| ends(&text[at + found.len()..]))
        })
    };
    let username = mappings.field("username").field("expression");
    if !uses(username.as_text(), "email") {
        return;
    }
    let mut texts = vec![username.as_text().to_owned()];
    texts.extend(mappings.list("extra").iter().map(|node| node.text("valueExpression")));
    texts.extend(issuer.list("claimValidationRules").iter().map(|node| node.text("expression")));
    if !texts.iter().any(|text| uses(text, "email_verified")) {
        username.invalid(
            "claims.email_verified must be used in claimMappings.username.expression or \
             claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in \
             claimMappings.username.expression",
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(jwt: &str) -> Result<Settings, Invalid> {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
        Settings::parse(&format!("{head}jwt:\n- {jwt}\n"), &["https://own".to_owned()])
    }

    #[test]
    fn what_is_wrong_is_told_by_its_path() {
        let issuer = "issuer: {url: 'https://a', audiences: [x]}";
        let name = "username: {claim: sub, prefix: ''}";
        for (jwt, message) in [
            (
                format!("{{issuer: {{url: 'http://a?x=1', audiences: [x]}}, claimMappings: {{{name}}}}}"),
                "jwt[0].issuer.url: Invalid value: \"http://a?x=1\": URL scheme must be https",
            ),
            (
                format!("{{issuer: {{url: 'https://own', audiences: [x]}}, claimMappings: {{{name}}}}}"),
                "URL must not overlap with disallowed issuers: [https://own]",
            ),
            (
                format!("{{issuer: {{url: 'https://a'}}, claimMappings: {{{name}}}}}"),
                "jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required",
            ),
            (format!("{{{issuer}}}"), "jwt[0].claimMappings.username: Required value: claim or expression is required"),
            (
                format!("{{{issuer}, claimMappings: {{username: {{claim: sub}}}}}}"),
                "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set",
            ),
            (
                format!("{{{issuer}, claimMappings: {{username: {{expression: 'claims.'}}}}}}"),
                "jwt[0].claimMappings.username.expression: Invalid value: \"claims.\": compilation failed: ERROR",
            ),
            (
                format!("{{{issuer}, claimMappings: {{username: {{expression: claims.email}}}}}}"),
                "claims.email_verified must be used",
            ),
            (
                format!(
                    "{{{issuer}, claimMappings: {{{name}}}, userValidationRules: [{{expression: user.username}}]}}"
                ),
                "jwt[0].userValidationRules[0].expression: Invalid value: \"user.username\": must evaluate to bool",
            ),
            (
                format!(
                    "{{{issuer}, claimMappings: {{{name}, extra: [{{key: 'x.k8s.io/a', valueExpression: \"''\"}}]}}}}"
                ),
                "reserved for Kubernetes use",
            ),
            (format!("{{{issuer}, claimMappings: {{{name}}}, more: 1}}"), "unknown field \"jwt[0].more\""),
        ] {
            let told = parse(&jwt).unwrap_err().to_string();
            assert!(told.contains(message), "{jwt}\n{told}");
        }
        assert!(parse(&format!("{{{issuer}, claimMappings: {{{name}}}}}")).is_ok());
    }

    #[test]
    fn anonymous_requests_may_be_for_some_paths_only() {
        let parse = |text: &str| {
            let head = "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthenticationConfiguration\n";
            Settings::parse(&format!("{head}anonymous: {text}\n"), &[])
        };
        let found = parse("{enabled: true, conditions: [{path: /livez}]}").unwrap().anonymous;
        assert_eq!(found, Some(Anonymous { enabled: true, paths: vec!["/livez".to_owned()] }));
        assert!(parse("{enabled: false, conditions: [{path: /livez}]}").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-zA-Z:{}\\[\\]' ,./-]{0,120}") {
            let _either_way = parse(&text).is_ok();
        }
    }
}
