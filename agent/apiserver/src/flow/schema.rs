//! Which flow schema a request belongs to.

use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use api::flowcontrol::v1::{FlowSchema, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject};
use http::{HeaderMap, HeaderValue};

use super::level::{CATCH_ALL, EXEMPT, Level};
use super::meter::Meter;
use crate::request::RequestInfo;
use crate::user::User;

/// A flow schema with the level it leads to.
pub struct Flow {
    /// Its name.
    pub name: String,
    /// Its level.
    pub level: Arc<Level>,
    /// Its counters.
    pub meter: Arc<Meter>,
    uids: [Option<HeaderValue>; 2],
    distinguisher: Distinguisher,
    rules: Vec<PolicyRulesWithSubjects>,
}

#[derive(Clone, Copy, PartialEq)]
enum Distinguisher {
    None,
    User,
    Namespace,
}

impl Flow {
    /// A flow schema's object with its level, whose uid is given.
    #[must_use]
    pub fn new(object: &FlowSchema, level: Arc<Level>, level_uid: &str, meter: Arc<Meter>) -> Self {
        let header = |uid: &str| HeaderValue::from_str(uid).ok();
        let method = object.spec.distinguisher_method.as_ref().map(|m| m.r#type.as_str());
        Self {
            name: object.metadata.name.clone(),
            level,
            meter,
            uids: [header(&object.metadata.uid), header(level_uid)],
            distinguisher: match method {
                Some("ByUser") => Distinguisher::User,
                Some("ByNamespace") => Distinguisher::Namespace,
                _ => Distinguisher::None,
            },
            rules: object.spec.rules.clone(),
        }
    }

    /// Tells the client.
    pub fn put(&self, headers: &mut HeaderMap) {
        let names = ["X-Kubernetes-Pf-Flowschema-Uid", "X-Kubernetes-Pf-Prioritylevel-Uid"];
        for (name, uid) in names.into_iter().zip(&self.uids) {
            if let Some(uid) = uid {
                headers.insert(name, uid.clone());
            }
        }
    }

    /// What tells the flows of one schema apart.
    #[must_use]
    pub fn distinguisher<'a>(&self, user: &'a User, info: &'a RequestInfo) -> &'a str {
        match self.distinguisher {
            Distinguisher::None => "",
            Distinguisher::User => &user.name,
            Distinguisher::Namespace => &info.namespace,
        }
    }

    /// By which queues are dealt.
    #[must_use]
    pub fn hash(&self, distinguisher: &str) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        self.name.hash(&mut hasher);
        distinguisher.hash(&mut hasher);
        hasher.finish()
    }

    /// Whether a request belongs here.
    #[must_use]
    pub fn is_match(&self, user: &User, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| {
            rule.subjects.iter().any(|s| is_subject(s, user))
                && if info.is_resource {
                    rule.resource_rules.iter().any(|r| is_resource(r, info))
                } else {
                    rule.non_resource_rules.iter().any(|r| is_path(r, info))
                }
        })
    }
}

/// One of the two schemas that are always there, when there is no object.
#[must_use]
pub fn imagined(name: &str) -> FlowSchema {
    let groups: &[&str] =
        if name == EXEMPT { &["system:masters"] } else { &["system:unauthenticated", "system:authenticated"] };
    let all = || vec!["*".to_owned()];
    let subject = |group: &&str| Subject {
        kind: "Group".to_owned(),
        group: Some(api::flowcontrol::v1::GroupSubject { name: (*group).to_owned() }),
        ..Subject::default()
    };
    let mut schema = FlowSchema::default();
    schema.metadata.name = name.to_owned();
    schema.spec.priority_level_configuration.name = name.to_owned();
    schema.spec.matching_precedence = if name == EXEMPT { 1 } else { 10_000 };
    schema.spec.rules = vec![PolicyRulesWithSubjects {
        subjects: groups.iter().map(subject).collect(),
        resource_rules: vec![ResourcePolicyRule {
            verbs: all(),
            api_groups: all(),
            resources: all(),
            cluster_scope: true,
            namespaces: all(),
        }],
        non_resource_rules: vec![NonResourcePolicyRule { verbs: all(), non_resource_urls: all() }],
    }];
    if name == CATCH_ALL {
        let by_user = api::flowcontrol::v1::FlowDistinguisherMethod { r#type: "ByUser".to_owned() };
        schema.spec.distinguisher_method = Some(by_user);
    }
    schema
}

fn is_subject(subject: &Subject, user: &User) -> bool {
    match subject.kind.as_str() {
        "User" => subject.user.as_ref().is_some_and(|u| u.name == "*" || u.name == user.name),
        "Group" => subject.group.as_ref().is_some_and(|g| g.name == "*" || user.is_in(&g.name)),
        "ServiceAccount" => subject.service_account.as_ref().is_some_and(|account| {
            let below = user.name.strip_prefix("system:serviceaccount:");
            let name = below.and_then(|b| b.strip_prefix(account.namespace.as_str())).and_then(|b| b.strip_prefix(':'));
            name.is_some_and(|name| account.name == "*" || account.name == name)
        }),
        _ => false,
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn names(item: &str, info: &RequestInfo) -> bool {
    if info.subresource.is_empty() {
        return item == info.resource;
    }
    item.split_once('/').is_some_and(|(resource, sub)| resource == info.resource && sub == info.subresource)
}

fn is_resource(rule: &ResourcePolicyRule, info: &RequestInfo) -> bool {
    has(&rule.verbs, info.verb)
        && rule.resources.iter().any(|item| item == "*" || names(item, info))
        && has(&rule.api_groups, &info.group)
        && if info.namespace.is_empty() { rule.cluster_scope } else { has(&rule.namespaces, &info.namespace) }
}

fn is_path(rule: &NonResourcePolicyRule, info: &RequestInfo) -> bool {
    let path = info.path.as_str();
    let fits = |pattern: &String| {
        let stem = pattern.strip_suffix('*').unwrap_or(pattern);
        let below = path.strip_prefix(stem);
        pattern == "*" || pattern == path || below.is_some_and(|rest| stem.ends_with('/') || rest.starts_with('/'))
    };
    has(&rule.verbs, info.verb) && rule.non_resource_urls.iter().any(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::level::Wanted;
    use crate::request::Query;

    fn flow(rule: PolicyRulesWithSubjects) -> Flow {
        let mut object = FlowSchema::default();
        object.spec.rules = vec![rule];
        let level = Level::configure(&[Wanted::imagined(CATCH_ALL)], &[], 9, std::time::Instant::now()).remove(0);
        Flow::new(&object, level, "", Arc::default())
    }

    fn matches(flow: &Flow, user: &str, groups: &[&str], path: &str) -> bool {
        let groups = groups.iter().map(|g| (*g).to_owned()).collect();
        let user = User { name: user.to_owned(), groups, ..User::default() };
        flow.is_match(&user, &RequestInfo::parse(&http::Method::GET, path, &Query::default()))
    }

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|i| (*i).to_owned()).collect()
    }

    #[test]
    fn rules_name_resources_and_subresources() {
        let rule = PolicyRulesWithSubjects {
            subjects: vec![Subject {
                kind: "ServiceAccount".to_owned(),
                service_account: Some(api::flowcontrol::v1::ServiceAccountSubject {
                    namespace: "a".to_owned(),
                    name: "*".to_owned(),
                }),
                ..Subject::default()
            }],
            resource_rules: vec![ResourcePolicyRule {
                verbs: list(&["get"]),
                api_groups: list(&[""]),
                resources: list(&["pods", "nodes/status"]),
                cluster_scope: true,
                namespaces: list(&["b"]),
            }],
            ..PolicyRulesWithSubjects::default()
        };
        let flow = flow(rule);
        let by = |user, path| matches(&flow, user, &[], path);
        let own = "system:serviceaccount:a:x";
        assert!(by(own, "/api/v1/namespaces/b/pods/p"));
        assert!(!by(own, "/api/v1/namespaces/c/pods/p"));
        assert!(!by(own, "/api/v1/namespaces/b/pods/p/status"));
        assert!(by(own, "/api/v1/nodes/n/status"));
        assert!(!by(own, "/api/v1/nodes/n"));
        assert!(!by("system:serviceaccount:ab:x", "/api/v1/namespaces/b/pods/p"));
        assert!(!by(own, "/healthz"));
    }

    #[test]
    fn paths_are_whole_or_begin_with_a_folder() {
        let rule = PolicyRulesWithSubjects {
            subjects: vec![Subject {
                kind: "Group".to_owned(),
                group: Some(api::flowcontrol::v1::GroupSubject { name: "g".to_owned() }),
                ..Subject::default()
            }],
            non_resource_rules: vec![NonResourcePolicyRule {
                verbs: list(&["*"]),
                non_resource_urls: list(&["/healthz", "/x/*"]),
            }],
            ..PolicyRulesWithSubjects::default()
        };
        let flow = flow(rule);
        let by = |path| matches(&flow, "u", &["g"], path);
        assert!(by("/healthz") && by("/healthz/etcd") && by("/x/y"));
        assert!(!by("/healthzz") && !by("/y") && !matches(&flow, "u", &[], "/healthz"));
    }

    #[test]
    fn the_imagined_schemas_take_everybody() {
        let level = || Level::configure(&[Wanted::imagined(CATCH_ALL)], &[], 9, std::time::Instant::now()).remove(0);
        let exempt = Flow::new(&imagined(EXEMPT), level(), "", Arc::default());
        let rest = Flow::new(&imagined(CATCH_ALL), level(), "", Arc::default());
        assert!(matches(&exempt, "u", &["system:masters"], "/api/v1/nodes") && !matches(&exempt, "u", &[], "/x"));
        assert!(matches(&rest, "u", &["system:authenticated"], "/api/v1/namespaces/a/pods"));
    }
}
