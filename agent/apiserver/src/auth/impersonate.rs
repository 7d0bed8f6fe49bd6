//! Acting as somebody else, by headers.
//!
//! Narrow rights are asked for first: to do this very thing in a mode (`impersonate-on:MODE:VERB`), and to be this
//! somebody in it (`impersonate:MODE`). Whoever lacks them may still have the old right, `impersonate`, for every part of
//! the identity. Whoever had success in a mode is asked for that one first the next time. A refusal tells of the first
//! mode that fits.
//!
//! ```text
//!   associated-node ─▶ arbitrary-node ─▶ serviceaccount ─▶ user-info ─▶ impersonate
//! ```

use std::collections::{BTreeMap, HashMap};

use http::HeaderMap;
use parking_lot::Mutex;

use super::authz::{Attributes, Authorizer, forbidden_message};
use super::identity::{self, UserInfo};
use crate::request::percent_decode;
use crate::validation::names;

const USER_HEADER: &str = "impersonate-user";
const GROUP_HEADER: &str = "impersonate-group";
const UID_HEADER: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";

const AUTHENTICATION_GROUP: &str = "authentication.k8s.io";
/// From so many groups or extra values on, the right for all of them is asked for first.
const MANY: usize = 4;

/// Why somebody may not act as somebody else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImpersonationError {
    /// Groups or other facts without a user.
    #[error("requested {0} without impersonating a user")]
    NoUser(String),
    /// A part of the identity is not allowed.
    #[error("{0}")]
    Forbidden(Box<Refusal>),
}

/// What was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// The text of the 403 answer.
    pub text: String,
    /// Group, resource and name that it speaks of.
    pub about: [String; 3],
}

type Checked<T> = Result<T, Box<Refusal>>;

/// As whom a request goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impersonated {
    /// Who.
    pub user: UserInfo,
    /// The verb of the right to it, where that is a narrow one.
    pub constraint: Option<String>,
}

/// The user to go on as: the one that the headers name, if the user of `request` may act as that, or else none.
pub fn impersonate(
    headers: &HeaderMap,
    request: &Attributes<'_>,
    authorizer: &dyn Authorizer,
    successes: &Successes,
) -> Result<Option<Impersonated>, ImpersonationError> {
    let Some(wanted) = Wanted::parse(headers)? else { return Ok(None) };
    let mut first: Option<Box<Refusal>> = None;
    let last = successes.mode_of(&request.user.name);
    let others = MODES.into_iter().filter(|mode| Some(*mode) != last);
    for mode in last.into_iter().chain(others).filter(|mode| mode.fits(&wanted, request.user)) {
        match mode.check(&wanted, request, authorizer) {
            Ok(user) => {
                successes.note(&request.user.name, mode);
                return Ok(Some(Impersonated { user, constraint: mode.constraint() }));
            }
            Err(refusal) => first = first.or(Some(refusal)),
        }
    }
    // The old mode fits everybody, so that there is a refusal.
    first.map_or(Ok(None), |refusal| Err(ImpersonationError::Forbidden(refusal)))
}

/// The mode in which each user had success last.
#[derive(Default)]
pub struct Successes(Mutex<HashMap<String, Mode>>);

/// Of how many users that is known; it only decides what is tried first.
const MAX_KNOWN: usize = 10_000;

impl Successes {
    fn mode_of(&self, user: &str) -> Option<Mode> {
        self.0.lock().get(user).copied()
    }

    fn note(&self, user: &str, mode: Mode) {
        let mut known = self.0.lock();
        if known.len() >= MAX_KNOWN && !known.contains_key(user) {
            known.clear();
        }
        known.insert(user.to_owned(), mode);
    }
}

/// A way to act as others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The node that a service account's pod runs on.
    AssociatedNode,
    Node,
    ServiceAccount,
    /// Everybody else.
    User,
    /// Everybody, by the old right.
    Legacy,
}

const MODES: [Mode; 5] = [Mode::AssociatedNode, Mode::Node, Mode::ServiceAccount, Mode::User, Mode::Legacy];
const LEGACY: &str = "impersonate";

fn node_of(user: &str) -> Option<&str> {
    user.strip_prefix("system:node:").filter(|name| names::is_subdomain(name))
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::Node => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::User => "user-info",
            Self::Legacy => "legacy",
        }
    }

    /// The verb by which each part of an identity is asked for.
    fn constraint(self) -> Option<String> {
        (self != Self::Legacy).then(|| format!("{LEGACY}:{}", self.name()))
    }

    fn fits(self, wanted: &Wanted, requestor: &UserInfo) -> bool {
        let only_name = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let node = node_of(&wanted.name);
        let account = identity::split_service_account(&wanted.name);
        match self {
            Self::AssociatedNode => {
                let own = requestor.extra.get("authentication.kubernetes.io/node-name").map(Vec::as_slice);
                let runs_there = matches!((own, node), (Some([own]), Some(node)) if own == node);
                only_name && runs_there && identity::split_service_account(&requestor.name).is_some()
            }
            Self::Node => only_name && node.is_some(),
            Self::ServiceAccount => only_name && account.is_some(),
            Self::User => node.is_none() && account.is_none(),
            Self::Legacy => true,
        }
    }

    fn check(self, wanted: &Wanted, request: &Attributes<'_>, authorizer: &dyn Authorizer) -> Checked<UserInfo> {
        if self == Self::Legacy {
            return wanted.check(LEGACY, request.user, authorizer);
        }
        let mut requestor = request.user.clone();
        if self == Self::AssociatedNode {
            // Which node it is does not matter to the rights of those who run on it.
            let keys = requestor.extra.into_keys().collect();
            requestor.extra = BTreeMap::from([("authentication.kubernetes.io/associated-node-keys".to_owned(), keys)]);
        }
        let verb = format!("impersonate-on:{}:{}", self.name(), request.verb);
        ask(authorizer, &Attributes { user: &requestor, verb: &verb, ..*request })?;
        wanted.check(&format!("{LEGACY}:{}", self.name()), &requestor, authorizer)
    }
}

fn ask(authorizer: &dyn Authorizer, attributes: &Attributes<'_>) -> Checked<()> {
    let decision = authorizer.authorize(attributes);
    if decision.is_allow() { Ok(()) } else { Err(refusal(attributes, decision.reason())) }
}

fn refusal(attributes: &Attributes<'_>, reason: &str) -> Box<Refusal> {
    let about = [attributes.group, attributes.resource, attributes.name].map(str::to_owned);
    Box::new(Refusal { text: forbidden_message(attributes, reason), about })
}

/// An identity that was asked for.
struct Wanted {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// The extra facts that headers ask for.
pub fn extra_of(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA_PREFIX), value.to_str()) {
            extra.entry(percent_decode(key, false)).or_default().push(value.to_owned());
        }
    }
    extra
}

impl Wanted {
    fn parse(headers: &HeaderMap) -> Result<Option<Self>, ImpersonationError> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let groups = headers.get_all(GROUP_HEADER).iter().filter_map(|value| value.to_str().ok());
        let extra = extra_of(headers);
        let wanted =
            Self { name: text(USER_HEADER), uid: text(UID_HEADER), groups: groups.map(str::to_owned).collect(), extra };
        if !wanted.name.is_empty() {
            return Ok(Some(wanted));
        }
        let mut without_user = Vec::new();
        if !wanted.groups.is_empty() {
            without_user.push("groups");
        }
        if !wanted.extra.is_empty() {
            without_user.push("extra");
        }
        if !wanted.uid.is_empty() {
            without_user.push("uid");
        }
        if without_user.is_empty() { Ok(None) } else { Err(ImpersonationError::NoUser(without_user.join(", "))) }
    }

    /// Asks for every part by a verb, and makes the user of them.
    fn check(&self, verb: &str, user: &UserInfo, authorizer: &dyn Authorizer) -> Checked<UserInfo> {
        let is_legacy = verb == LEGACY;
        let group = if is_legacy { "" } else { AUTHENTICATION_GROUP };
        let of = |resource| Attributes { version: "v1", ..Attributes::resource(user, verb, group, resource) };
        let mut groups = self.groups.clone();
        let name = match (identity::split_service_account(&self.name), node_of(&self.name)) {
            (Some((namespace, name)), _) => {
                if groups.is_empty() {
                    groups = identity::service_account_groups(namespace);
                }
                Attributes { namespace, name, ..of("serviceaccounts") }
            }
            (None, Some(node)) if !is_legacy => {
                groups = vec![identity::NODES.to_owned()];
                // The right to be the node one runs on is the same for all nodes.
                let name = if verb.ends_with(":associated-node") { "*" } else { node };
                Attributes { name, ..of("nodes") }
            }
            _ => Attributes { name: &self.name, ..of("users") },
        };
        ask(authorizer, &name)?;
        let with = |resource| Attributes { group: AUTHENTICATION_GROUP, ..of(resource) };
        if !self.uid.is_empty() {
            ask(authorizer, &Attributes { name: &self.uid, ..with("uids") })?;
        }
        self.check_groups(is_legacy, &of("groups"), authorizer)?;
        self.check_extra(is_legacy, &with("userextras"), authorizer)?;
        Ok(self.user(groups))
    }

    fn check_groups(&self, is_legacy: bool, of: &Attributes<'_>, authorizer: &dyn Authorizer) -> Checked<()> {
        if !is_legacy {
            if self.groups.iter().any(String::is_empty) {
                return Err(refusal(of, "impersonating the empty string group is not allowed"));
            }
            if self.groups.iter().any(|group| group == identity::MASTERS) {
                let of = Attributes { name: identity::MASTERS, ..*of };
                return Err(refusal(&of, "impersonating the system:masters group is not allowed"));
            }
            if self.groups.len() >= MANY && ask(authorizer, &Attributes { name: "*", ..*of }).is_ok() {
                return Ok(());
            }
        }
        self.groups.iter().try_for_each(|name| ask(authorizer, &Attributes { name, ..*of }))
    }

    fn check_extra(&self, is_legacy: bool, of: &Attributes<'_>, authorizer: &dyn Authorizer) -> Checked<()> {
        if !is_legacy {
            if let Some(why) = self.extra.iter().find_map(|(key, values)| bad_extra(key, values)) {
                return Err(refusal(of, &why));
            }
            let many = self.extra.values().map(Vec::len).sum::<usize>() >= MANY;
            if many && ask(authorizer, &Attributes { subresource: "*", name: "*", ..*of }).is_ok() {
                return Ok(());
            }
        }
        let all = self.extra.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
        all.into_iter().try_for_each(|(key, name)| ask(authorizer, &Attributes { subresource: key, name, ..*of }))
    }

    fn user(&self, mut groups: Vec<String>) -> UserInfo {
        let missing = if self.name == identity::ANONYMOUS {
            Some(identity::UNAUTHENTICATED)
        } else {
            (!groups.iter().any(|group| group == identity::UNAUTHENTICATED)).then_some(identity::AUTHENTICATED)
        };
        if let Some(missing) = missing.filter(|missing| !groups.iter().any(|group| group == missing)) {
            groups.push(missing.to_owned());
        }
        UserInfo { name: self.name.clone(), uid: self.uid.clone(), groups, extra: self.extra.clone() }
    }
}

/// Why an extra value is none that narrow rights could be given for.
fn bad_extra(key: &str, values: &[String]) -> Option<String> {
    if key.is_empty() {
        return Some("impersonating the empty string key in extra is not allowed".to_owned());
    }
    let is_path = key.split_once('/').is_some_and(|(domain, path)| names::is_subdomain(domain) && !path.is_empty());
    if !is_path {
        let why = format!(
            "extra.key: Invalid value: {}: must be a domain-prefixed path (such as \"acme.io/foo\")",
            stdx::quoted(key)
        );
        return Some(format!("impersonating an invalid key in extra is not allowed: {why}"));
    }
    if key.bytes().any(|b| b.is_ascii_uppercase()) {
        return Some(format!("impersonating a non-lowercase key in extra is not allowed: {}", stdx::quoted(key)));
    }
    let empty = values.iter().any(String::is_empty);
    empty.then(|| "impersonating the empty string value in extra is not allowed".to_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::{HeaderName, HeaderValue};
    use parking_lot::Mutex;

    use super::{ImpersonationError, Successes, impersonate};
    use crate::auth::authz::{Attributes, Authorizer, Decision};
    use crate::auth::identity::UserInfo;

    /// Notes what is asked for, and allows what has one of these beginnings.
    #[derive(Default)]
    struct Notes {
        asked: Mutex<Vec<String>>,
        allowed: Vec<&'static str>,
    }

    impl Authorizer for Notes {
        fn authorize(&self, of: &Attributes<'_>) -> Decision {
            let question = [of.verb, of.group, of.resource, of.subresource, of.namespace, of.name].join("|");
            let allowed = self.allowed.iter().any(|start| question.starts_with(start));
            self.asked.lock().push(question);
            if allowed { Decision::Allow(String::new()) } else { Decision::NoOpinion(String::new()) }
        }
    }

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn joe() -> UserInfo {
        UserInfo { name: "joe".to_owned(), ..UserInfo::default() }
    }

    fn list_pods(user: &UserInfo) -> Attributes<'_> {
        Attributes { namespace: "ns", ..Attributes::resource(user, "list", "", "pods") }
    }

    #[test]
    fn each_part_is_asked_for_and_becomes_part_of_the_user() {
        let notes = Notes { allowed: vec!["impersonate|"], ..Notes::default() };
        let headers = headers(&[
            ("Impersonate-User", "jane"),
            ("Impersonate-Group", "a"),
            ("Impersonate-Group", "b"),
            ("Impersonate-Extra-acme.com%2Fproject", "x"),
            ("Impersonate-Uid", "7"),
        ]);
        let user = impersonate(&headers, &list_pods(&joe()), &notes, &Successes::default()).unwrap().unwrap().user;
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "7"));
        assert_eq!(user.groups, ["a", "b", "system:authenticated"]);
        assert_eq!(user.extra["acme.com/project"], ["x"]);
        assert_eq!(
            *notes.asked.lock(),
            [
                "impersonate-on:user-info:list||pods||ns|",
                "impersonate||users|||jane",
                "impersonate|authentication.k8s.io|uids|||7",
                "impersonate||groups|||a",
                "impersonate||groups|||b",
                "impersonate|authentication.k8s.io|userextras|acme.com/project||x",
            ]
        );
    }

    #[test]
    fn narrow_rights_are_enough() {
        let allowed =
            vec!["impersonate-on:user-info:list||pods", "impersonate:user-info|authentication.k8s.io|users|||"];
        let notes = Notes { allowed, ..Notes::default() };
        let user =
            impersonate(&headers(&[("Impersonate-User", "jane")]), &list_pods(&joe()), &notes, &Successes::default());
        assert_eq!(user.unwrap().unwrap().user.groups, ["system:authenticated"]);
        // Whoever may list as somebody may not get as that.
        let other = joe();
        let get = Attributes { verb: "get", ..list_pods(&other) };
        assert!(impersonate(&headers(&[("Impersonate-User", "jane")]), &get, &notes, &Successes::default()).is_err());
    }

    #[test]
    fn what_worked_last_is_tried_first() {
        let notes = Notes { allowed: vec!["impersonate||users|||jane"], ..Notes::default() };
        let known = Successes::default();
        let act_as = |name| {
            notes.asked.lock().clear();
            impersonate(&headers(&[("Impersonate-User", name)]), &list_pods(&joe()), &notes, &known)
        };
        assert!(act_as("jane").is_ok());
        assert!(act_as("jane").is_ok());
        assert_eq!(*notes.asked.lock(), ["impersonate||users|||jane"]);
        let Err(ImpersonationError::Forbidden(refusal)) = act_as("jim") else { panic!("not refused") };
        assert_eq!(refusal.about, ["", "users", "jim"].map(str::to_owned));
    }

    #[test]
    fn nodes_are_impersonated_as_nodes_and_never_masters() {
        let notes = Notes { allowed: vec!["impersonate-on:", "impersonate:"], ..Notes::default() };
        let node = headers(&[("Impersonate-User", "system:node:n1")]);
        let user = impersonate(&node, &list_pods(&joe()), &notes, &Successes::default()).unwrap().unwrap().user;
        assert_eq!(user.groups, ["system:nodes", "system:authenticated"]);
        assert_eq!(notes.asked.lock()[1], "impersonate:arbitrary-node|authentication.k8s.io|nodes|||n1");
        let mut account = joe();
        account.name = "system:serviceaccount:ns:sa".to_owned();
        account.extra.insert("authentication.kubernetes.io/node-name".to_owned(), vec!["n1".to_owned()]);
        notes.asked.lock().clear();
        let found = impersonate(&node, &list_pods(&account), &notes, &Successes::default()).unwrap().unwrap();
        assert_eq!(found.constraint.as_deref(), Some("impersonate:associated-node"));
        assert_eq!(notes.asked.lock()[1], "impersonate:associated-node|authentication.k8s.io|nodes|||*");
        let masters = headers(&[("Impersonate-User", "jane"), ("Impersonate-Group", "system:masters")]);
        let Err(ImpersonationError::Forbidden(refusal)) =
            impersonate(&masters, &list_pods(&joe()), &notes, &Successes::default())
        else {
            panic!("a mode gave masters away")
        };
        assert!(refusal.text.ends_with("impersonating the system:masters group is not allowed"), "{refusal}");
    }

    #[test]
    fn groups_that_follow_from_the_name_are_added() {
        let notes = Notes { allowed: vec!["impersonate|"], ..Notes::default() };
        for (list, groups) in [
            (
                &[("Impersonate-User", "system:serviceaccount:ns:sa")][..],
                "system:serviceaccounts system:serviceaccounts:ns system:authenticated",
            ),
            (&[("Impersonate-User", "system:anonymous")], "system:unauthenticated"),
            (&[("Impersonate-User", "x"), ("Impersonate-Group", "system:authenticated")], "system:authenticated"),
            (&[("Impersonate-User", "x"), ("Impersonate-Group", "system:unauthenticated")], "system:unauthenticated"),
        ] {
            let user =
                impersonate(&headers(list), &list_pods(&joe()), &notes, &Successes::default()).unwrap().unwrap().user;
            assert_eq!(user.groups.join(" "), groups);
        }
        let account = "impersonate||serviceaccounts||ns|sa".to_owned();
        assert!(notes.asked.lock().contains(&account));
        assert_eq!(impersonate(&HeaderMap::new(), &list_pods(&joe()), &notes, &Successes::default()), Ok(None));
    }

    #[test]
    fn refusals_say_what_was_refused() {
        let notes = Notes { allowed: vec!["impersonate||users"], ..Notes::default() };
        let list = headers(&[("Impersonate-User", "jane"), ("Impersonate-Group", "b")]);
        let text = r#"pods is forbidden: User "joe" cannot impersonate-on:user-info:list resource "pods" in API group "" in the namespace "ns""#;
        let Err(ImpersonationError::Forbidden(refusal)) =
            impersonate(&list, &list_pods(&joe()), &notes, &Successes::default())
        else {
            panic!("not refused")
        };
        assert_eq!((refusal.text.as_str(), &refusal.about), (text, &["", "pods", ""].map(str::to_owned)));
        let list = headers(&[("Impersonate-Group", "b")]);
        let error = impersonate(&list, &list_pods(&joe()), &notes, &Successes::default());
        assert_eq!(error, Err(ImpersonationError::NoUser("groups".to_owned())));
    }
}
