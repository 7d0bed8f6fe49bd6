//! Acting as somebody else, by headers.
//!
//! Every part of the other identity has to be allowed by itself: the user, each group, the uid and each extra value.

use std::collections::BTreeMap;

use http::HeaderMap;

use super::authz::{Attributes, Authorizer, forbidden_message};
use super::identity::{self, UserInfo};
use crate::request::percent_decode;

const USER_HEADER: &str = "impersonate-user";
const GROUP_HEADER: &str = "impersonate-group";
const UID_HEADER: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";

const AUTHENTICATION_GROUP: &str = "authentication.k8s.io";

/// Why somebody may not act as somebody else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImpersonationError {
    /// Groups or other facts without a user.
    #[error("requested {0} without impersonating a user")]
    NoUser(String),
    /// A part of the identity is not allowed; the text is that of the 403 answer.
    #[error("{0}")]
    Forbidden(String),
}

/// The user to go on as: the one that the headers name, if `user` may act as that, or else none.
pub fn impersonate(
    headers: &HeaderMap,
    user: &UserInfo,
    authorizer: &dyn Authorizer,
) -> Result<Option<UserInfo>, ImpersonationError> {
    let Some(wanted) = Wanted::parse(headers)? else { return Ok(None) };
    wanted.check(user, authorizer)?;
    Ok(Some(wanted.into_user()))
}

/// An identity that was asked for.
struct Wanted {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    fn parse(headers: &HeaderMap) -> Result<Option<Self>, ImpersonationError> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let groups = headers.get_all(GROUP_HEADER).iter().filter_map(|value| value.to_str().ok());
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA_PREFIX), value.to_str()) {
                extra.entry(percent_decode(key, false)).or_default().push(value.to_owned());
            }
        }
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

    fn check(&self, user: &UserInfo, authorizer: &dyn Authorizer) -> Result<(), ImpersonationError> {
        let ask = |group, resource| Attributes::resource(user, "impersonate", group, resource);
        let mut asked = vec![match identity::split_service_account(&self.name) {
            Some((namespace, name)) => Attributes { namespace, name, ..ask("", "serviceaccounts") },
            None => Attributes { name: &self.name, ..ask("", "users") },
        }];
        asked.extend(self.groups.iter().map(|group| Attributes { name: group, ..ask("", "groups") }));
        for (key, values) in &self.extra {
            let extra = Attributes { subresource: key, version: "v1", ..ask(AUTHENTICATION_GROUP, "userextras") };
            asked.extend(values.iter().map(|value| Attributes { name: value, ..extra }));
        }
        if !self.uid.is_empty() {
            asked.push(Attributes { name: &self.uid, version: "v1", ..ask(AUTHENTICATION_GROUP, "uids") });
        }
        for attributes in asked {
            let decision = authorizer.authorize(&attributes);
            if !decision.is_allow() {
                return Err(ImpersonationError::Forbidden(forbidden_message(&attributes, decision.reason())));
            }
        }
        Ok(())
    }

    fn into_user(self) -> UserInfo {
        let mut groups = self.groups;
        if groups.is_empty()
            && let Some((namespace, _)) = identity::split_service_account(&self.name)
        {
            groups = identity::service_account_groups(namespace);
        }
        let is_in = |name: &str| groups.iter().any(|group| group == name);
        let missing = if self.name == identity::ANONYMOUS {
            (!is_in(identity::UNAUTHENTICATED)).then_some(identity::UNAUTHENTICATED)
        } else {
            let is_said = is_in(identity::AUTHENTICATED) || is_in(identity::UNAUTHENTICATED);
            (!is_said).then_some(identity::AUTHENTICATED)
        };
        groups.extend(missing.map(str::to_owned));
        UserInfo { name: self.name, uid: self.uid, groups, extra: self.extra }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::{HeaderName, HeaderValue};
    use parking_lot::Mutex;

    use super::{ImpersonationError, impersonate};
    use crate::auth::authz::{Attributes, Authorizer, Decision};
    use crate::auth::identity::UserInfo;

    /// Notes what is asked for and refuses one name.
    #[derive(Default)]
    struct Notes {
        asked: Mutex<Vec<String>>,
        refused: &'static str,
    }

    impl Authorizer for Notes {
        fn authorize(&self, of: &Attributes<'_>) -> Decision {
            let parts = [of.verb, of.group, of.resource, of.subresource, of.namespace, of.name];
            self.asked.lock().push(parts.join("|"));
            if of.name == self.refused { Decision::NoOpinion(String::new()) } else { Decision::Allow(String::new()) }
        }
    }

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn each_part_is_asked_for_and_becomes_part_of_the_user() {
        let notes = Notes { refused: "-", ..Notes::default() };
        let headers = headers(&[
            ("Impersonate-User", "jane"),
            ("Impersonate-Group", "a"),
            ("Impersonate-Group", "b"),
            ("Impersonate-Extra-acme.com%2Fproject", "x"),
            ("Impersonate-Uid", "7"),
        ]);
        let user = impersonate(&headers, &UserInfo::anonymous(), &notes).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "7"));
        assert_eq!(user.groups, ["a", "b", "system:authenticated"]);
        assert_eq!(user.extra["acme.com/project"], ["x"]);
        assert_eq!(
            *notes.asked.lock(),
            [
                "impersonate||users|||jane",
                "impersonate||groups|||a",
                "impersonate||groups|||b",
                "impersonate|authentication.k8s.io|userextras|acme.com/project||x",
                "impersonate|authentication.k8s.io|uids|||7",
            ]
        );
    }

    #[test]
    fn groups_that_follow_from_the_name_are_added() {
        let notes = Notes { refused: "-", ..Notes::default() };
        for (list, groups) in [
            (
                &[("Impersonate-User", "system:serviceaccount:ns:sa")][..],
                "system:serviceaccounts system:serviceaccounts:ns system:authenticated",
            ),
            (&[("Impersonate-User", "system:anonymous")], "system:unauthenticated"),
            (&[("Impersonate-User", "x"), ("Impersonate-Group", "system:authenticated")], "system:authenticated"),
            (&[("Impersonate-User", "x"), ("Impersonate-Group", "system:unauthenticated")], "system:unauthenticated"),
        ] {
            let user = impersonate(&headers(list), &UserInfo::anonymous(), &notes).unwrap().unwrap();
            assert_eq!(user.groups.join(" "), groups);
        }
        let account = "impersonate||serviceaccounts||ns|sa".to_owned();
        assert!(notes.asked.lock().contains(&account));
        assert_eq!(impersonate(&HeaderMap::new(), &UserInfo::anonymous(), &notes), Ok(None));
    }

    #[test]
    fn refusals_say_what_was_refused() {
        let notes = Notes { refused: "b", ..Notes::default() };
        let list = headers(&[("Impersonate-User", "jane"), ("Impersonate-Group", "b")]);
        let user = UserInfo { name: "joe".to_owned(), ..UserInfo::default() };
        let text = r#"groups "b" is forbidden: User "joe" cannot impersonate resource "groups" in API group "" at the cluster scope"#;
        assert_eq!(impersonate(&list, &user, &notes), Err(ImpersonationError::Forbidden(text.to_owned())));
        let list = headers(&[("Impersonate-Group", "b")]);
        assert_eq!(impersonate(&list, &user, &notes), Err(ImpersonationError::NoUser("groups".to_owned())));
    }
}
