//! What a user may do.
//!
//! Authorizers are asked in order; the first that allows or denies decides, and if none does the answer is no. They
//! answer from memory, so that a decision does not wait; only a webhook may have to be waited for.

pub mod abac;
pub mod node;
pub mod rbac;
pub mod settings;
pub mod webhook;

use std::sync::Arc;

use api::labels::Requirement;
use api::rbac::v1::PolicyRule;
use futures::future::BoxFuture;
use parking_lot::RwLock;

use super::identity::{self, UserInfo};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a UserInfo,
    /// What is to be done: get, list, create and so on; for other paths the method in lower case.
    pub verb: &'a str,
    /// API group, empty for the core group.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Plural resource name; empty if the request is for another path.
    pub resource: &'a str,
    /// Subresource, or empty.
    pub subresource: &'a str,
    /// Namespace, empty for what lies in none and for lists over all.
    pub namespace: &'a str,
    /// Object name, or empty. Lists and watches of a single name have one too.
    pub name: &'a str,
    /// The path, where no resource is named.
    pub path: &'a str,
    /// What is required of the objects that are listed or watched.
    pub selected: Selected<'a>,
}

/// What is required of objects, as far as that can be read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Selected<'a> {
    /// Of their fields.
    pub fields: &'a [Requirement],
    /// Of their labels.
    pub labels: &'a [Requirement],
}

impl<'a> Attributes<'a> {
    /// A request for a resource, to be filled in further.
    #[must_use]
    pub fn resource(user: &'a UserInfo, verb: &'a str, group: &'a str, resource: &'a str) -> Self {
        Self {
            user,
            verb,
            group,
            version: "",
            resource,
            subresource: "",
            namespace: "",
            name: "",
            path: "",
            selected: Selected::default(),
        }
    }

    /// A request for another path.
    #[must_use]
    pub fn path(user: &'a UserInfo, verb: &'a str, path: &'a str) -> Self {
        Self { path, ..Self::resource(user, verb, "", "") }
    }

    /// Whether a resource is asked for.
    #[must_use]
    pub fn is_resource(&self) -> bool {
        !self.resource.is_empty()
    }
}

/// What an authorizer thinks, with its reason, which may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow(String),
    /// No, whatever others think.
    Deny(String),
    /// Others may know.
    NoOpinion(String),
    /// Nobody could be asked who might have known.
    Failed {
        /// Why not.
        why: String,
        /// What others said.
        reason: String,
        /// Whether that is a no, whatever others think.
        denies: bool,
    },
}

impl Decision {
    /// Whether the answer is yes.
    #[must_use]
    pub fn is_allow(&self) -> bool {
        matches!(self, Self::Allow(_))
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Allow(reason) | Self::Deny(reason) | Self::NoOpinion(reason) | Self::Failed { reason, .. } => reason,
        }
    }
}

/// Decides about requests.
pub trait Authorizer: Send + Sync {
    /// Whether a request may be served.
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision;

    /// The same where the answer may have to be waited for; none if it never has to.
    fn ask<'a>(&'a self, _attributes: &'a Attributes<'a>) -> Option<BoxFuture<'a, Decision>> {
        None
    }

    /// Everything that a user may do in a namespace.
    fn rules_of(&self, _user: &UserInfo, _namespace: &str) -> Rules {
        Rules::default()
    }
}

/// What a user may do, as far as it can be said without a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// Each of resources or of other paths.
    pub rules: Vec<PolicyRule>,
    /// Whether there may be more.
    pub is_incomplete: bool,
    /// Why something could not be found out.
    pub errors: Vec<String>,
}

/// Authorizers in order.
pub struct Chain(RwLock<Authorizers>);

/// Authorizers in order, shared with the requests under way.
pub type Authorizers = Arc<[Arc<dyn Authorizer>]>;

impl Chain {
    /// A chain in which the masters' group comes first.
    #[must_use]
    pub fn new(authorizers: Vec<Arc<dyn Authorizer>>) -> Self {
        Self(RwLock::new(authorizers.into()))
    }

    /// Takes other authorizers into force.
    pub fn replace(&self, authorizers: Vec<Arc<dyn Authorizer>>) {
        *self.0.write() = authorizers.into();
    }

    /// Everything that a user may do in a namespace, by all of them.
    #[must_use]
    pub fn rules_of(&self, user: &UserInfo, namespace: &str) -> Rules {
        let authorizers = self.0.read().clone();
        let mut all = Rules::default();
        for Rules { rules, is_incomplete, errors } in authorizers.iter().map(|one| one.rules_of(user, namespace)) {
            all.rules.extend(rules);
            all.is_incomplete |= is_incomplete;
            all.errors.extend(errors);
        }
        all
    }

    /// Whether a request may be served, waiting for those who have to be asked.
    pub async fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        if is_beyond_doubt(attributes) {
            return Decision::Allow(String::new());
        }
        let authorizers = self.0.read().clone();
        let mut opinions = Opinions::default();
        for authorizer in authorizers.iter() {
            let decision = match authorizer.ask(attributes) {
                Some(answer) => answer.await,
                None => authorizer.authorize(attributes),
            };
            if let Some(decided) = opinions.add(decision) {
                return decided;
            }
        }
        opinions.end()
    }
}

/// Masters may do everything.
fn is_beyond_doubt(attributes: &Attributes<'_>) -> bool {
    attributes.user.is_in(identity::MASTERS)
}

/// What those said who decided nothing.
#[derive(Default)]
struct Opinions {
    reasons: Vec<String>,
    failures: Vec<String>,
}

impl Opinions {
    fn add(&mut self, decision: Decision) -> Option<Decision> {
        match decision {
            Decision::NoOpinion(reason) if reason.is_empty() => None,
            Decision::NoOpinion(reason) => {
                self.reasons.push(reason);
                None
            }
            Decision::Failed { why, denies: false, .. } => {
                self.failures.push(why);
                None
            }
            decided @ (Decision::Allow(_) | Decision::Deny(_) | Decision::Failed { denies: true, .. }) => Some(decided),
        }
    }

    fn end(self) -> Decision {
        let reason = self.reasons.join("\n");
        match &self.failures[..] {
            [] => Decision::NoOpinion(reason),
            [one] => Decision::Failed { why: one.clone(), reason, denies: false },
            some => Decision::Failed { why: format!("[{}]", some.join(", ")), reason, denies: false },
        }
    }
}

impl Authorizer for Chain {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if is_beyond_doubt(attributes) {
            return Decision::Allow(String::new());
        }
        let authorizers = self.0.read().clone();
        let mut opinions = Opinions::default();
        for authorizer in authorizers.iter() {
            if let Some(decided) = opinions.add(authorizer.authorize(attributes)) {
                return decided;
            }
        }
        opinions.end()
    }
}

/// Allows nothing.
pub struct AlwaysDeny;

impl Authorizer for AlwaysDeny {
    fn authorize(&self, _: &Attributes<'_>) -> Decision {
        Decision::NoOpinion("Everything is forbidden.".to_owned())
    }
}

/// Allows everything: for tests and trial use.
pub struct AlwaysAllow;

impl Authorizer for AlwaysAllow {
    fn authorize(&self, _: &Attributes<'_>) -> Decision {
        Decision::Allow(String::new())
    }

    fn rules_of(&self, _user: &UserInfo, _namespace: &str) -> Rules {
        let all = || vec!["*".to_owned()];
        let resources = PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() };
        let others = PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() };
        Rules { rules: vec![resources, others], ..Rules::default() }
    }
}

/// The text of a refusal: `User "x" cannot list resource "pods" in API group "" at the cluster scope`, followed by
/// the reason if there is one.
#[must_use]
pub fn refusal(attributes: &Attributes<'_>, reason: &str) -> String {
    let Attributes { user, verb, group, resource, subresource, namespace, path, .. } = *attributes;
    let mut text = format!("User {} cannot {verb} ", stdx::quoted(&user.name));
    if attributes.is_resource() {
        let slash = if subresource.is_empty() { "" } else { "/" };
        let full = format!("{resource}{slash}{subresource}");
        text.push_str(&format!("resource {} in API group {} ", stdx::quoted(&full), stdx::quoted(group)));
        match namespace {
            "" => text.push_str("at the cluster scope"),
            namespace => text.push_str(&format!("in the namespace {}", stdx::quoted(namespace))),
        }
    } else {
        text.push_str(&format!("path {}", stdx::quoted(path)));
    }
    // The text may end up in a page: what would be markup there is written so that it is not.
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    if reason.is_empty() { text } else { format!("{text}: {reason}") }
}

/// The whole message of the 403 answer: `pods "x" is forbidden: User ...`.
#[must_use]
pub fn forbidden_message(attributes: &Attributes<'_>, reason: &str) -> String {
    let refusal = refusal(attributes, reason);
    if !attributes.is_resource() {
        return format!("forbidden: {refusal}");
    }
    let Attributes { group, resource, name, .. } = *attributes;
    let dot = if group.is_empty() { "" } else { "." };
    match name {
        "" => format!("{resource}{dot}{group} is forbidden: {refusal}"),
        name => format!("{resource}{dot}{group} {} is forbidden: {refusal}", stdx::quoted(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, groups: &[&str]) -> UserInfo {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }
    }

    #[test]
    fn refusals_read_like_upstreams() {
        let user = user("x", &[]);
        let pods = Attributes::resource(&user, "list", "", "pods");
        let scale = Attributes {
            namespace: "default",
            name: "web",
            subresource: "scale",
            ..Attributes::resource(&user, "patch", "apps", "deployments")
        };
        for (attributes, reason, message) in [
            (
                pods,
                "",
                r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" at the cluster scope"#,
            ),
            (
                scale,
                "",
                r#"deployments.apps "web" is forbidden: User "x" cannot patch resource "deployments/scale" in API group "apps" in the namespace "default""#,
            ),
            (
                Attributes { namespace: "a<b", ..pods },
                "why & how",
                r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "a&lt;b": why & how"#,
            ),
            (Attributes::path(&user, "get", "/metrics"), "", r#"forbidden: User "x" cannot get path "/metrics""#),
        ] {
            assert_eq!(forbidden_message(&attributes, reason), message);
        }
    }

    struct Says(Decision);

    impl Authorizer for Says {
        fn authorize(&self, _: &Attributes<'_>) -> Decision {
            self.0.clone()
        }
    }

    #[test]
    fn first_decision_of_the_chain_counts() {
        let says = |decision| -> Arc<dyn Authorizer> { Arc::new(Says(decision)) };
        let none = || says(Decision::NoOpinion(String::new()));
        let unsure = |reason: &str| says(Decision::NoOpinion(reason.to_owned()));
        let failure = |why: &str, reason: &str| Decision::Failed {
            why: why.to_owned(),
            reason: reason.to_owned(),
            denies: false,
        };
        let failed = |why: &str| says(failure(why, ""));
        let (yes, no) = (|| says(Decision::Allow("y".into())), || says(Decision::Deny("n".into())));
        let plain = user("x", &[]);
        let attributes = Attributes::resource(&plain, "list", "", "pods");
        for (chain, decision) in [
            (vec![none(), yes(), no()], Decision::Allow("y".into())),
            (vec![none(), no(), yes()], Decision::Deny("n".into())),
            (vec![unsure("a"), none(), unsure("b")], Decision::NoOpinion("a\nb".into())),
            (vec![], Decision::NoOpinion(String::new())),
            (vec![failed("a"), unsure("b")], failure("a", "b")),
            (vec![failed("a"), failed("b")], failure("[a, b]", "")),
            (vec![failed("a"), yes()], Decision::Allow("y".into())),
        ] {
            assert_eq!(Chain::new(chain).authorize(&attributes), decision);
        }
        let master = user("x", &[identity::MASTERS]);
        assert!(Chain::new(vec![no()]).authorize(&Attributes::resource(&master, "list", "", "pods")).is_allow());
        assert!(!Chain::new(vec![no()]).authorize(&Attributes::path(&plain, "get", "/readyz")).is_allow());
    }
}
