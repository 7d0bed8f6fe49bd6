//! Questions about users: who is this, may they.

use std::collections::BTreeMap;

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::decode_as;
use crate::answer::{self, Body};
use crate::app::Call;
use crate::auth::authz::{Attributes, Decision};
use crate::status::{Failure, FieldError, Result};
use crate::tree;
use crate::user::User;

pub(super) fn create(call: &Call, body: &[u8]) -> Result<Response<Body>> {
    let schema = call.kind.schema().name;
    let mut review = decode_as(call, body, schema)?;
    crate::handlers::write::check_type(call, &mut review)?;
    if call.kind.plural != "selfsubjectreviews" {
        review = crate::codec::canonical(call.kind, &review)?;
        let now = crate::app::now_text();
        let target = crate::managed::Target { kind: call.kind, part: crate::strategy::Part::Main, schema: None };
        if call.kind.plural != "selfsubjectrulesreviews" {
            crate::managed::track(target, None, &mut review, (call.manager(), &now));
        }
    }
    tree::object_at(&mut review, "spec");
    review["status"] = match call.kind.plural {
        "selfsubjectreviews" => {
            tree::remove(&mut review, "spec");
            json!({"userInfo": user_value(&call.user)})
        }
        "tokenreviews" => return token(call, schema, review),
        "selfsubjectrulesreviews" => rules(call, &review)?,
        "selfsubjectaccessreviews" => access(call, &review, &call.user)?,
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            let user = subject(call, &review)?;
            access(call, &review, &user)?
        }
        other => return Err(Failure::not_implemented(&format!("the creation of {other}"))),
    };
    if call.kind.plural == "selfsubjectreviews" {
        review["metadata"] = json!({"creationTimestamp": crate::app::now_text()});
    }
    if call.kind.plural == "selfsubjectrulesreviews" {
        review["spec"] = json!({});
    }
    answer::message(StatusCode::CREATED, schema, &review, call.accept)
}

fn user_value(user: &User) -> Value {
    let mut value = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        value["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}

fn token(call: &Call, schema: &str, mut review: Value) -> Result<Response<Body>> {
    let token = tree::text(&review, "/spec/token").to_owned();
    if token.is_empty() {
        let text = "token is required for TokenReview in authentication";
        return Err(Failure::bad_request(text));
    }
    let asked: Vec<String> =
        tree::list(&review, "/spec/audiences").iter().filter_map(|a| a.as_str().map(str::to_owned)).collect();
    let found = call.app.access.review_token(&token, (!asked.is_empty()).then_some(asked.as_slice()));
    review["status"] = match found {
        Ok(found) => json!({"authenticated": true, "user": user_value(&found.user), "audiences": found.audiences}),
        Err(error) => json!({"user": {}, "error": error.to_string()}),
    };
    answer::message(StatusCode::CREATED, schema, &review, call.accept)
}

/// The user a review asks about.
fn subject(call: &Call, review: &Value) -> Result<User> {
    let spec = &review["spec"];
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|g| g.as_str().map(str::to_owned)).collect()
    };
    let extra: BTreeMap<String, Vec<String>> = spec["extra"]
        .as_object()
        .map(|map: &Map<String, Value>| map.iter().map(|(k, v)| (k.clone(), texts(v))).collect())
        .unwrap_or_default();
    let user = User {
        name: tree::text(spec, "/user").to_owned(),
        uid: tree::text(spec, "/uid").to_owned(),
        groups: texts(&spec["groups"]),
        extra,
    };
    if user.name.is_empty() && user.groups.is_empty() {
        let error = FieldError::invalid("spec.user", "", "at least one of user or group must be specified");
        return Err(Failure::invalid(call.kind_subject(), "", &[error]));
    }
    Ok(user)
}

fn access(call: &Call, review: &Value, user: &User) -> Result<Value> {
    let spec = &review["spec"];
    let resource = &spec["resourceAttributes"];
    let other = &spec["nonResourceAttributes"];
    let text = |value: &'_ Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    if resource.is_null() == other.is_null() {
        let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        let error = FieldError::invalid("spec.resourceAttributes", resource.clone(), detail);
        return Err(Failure::invalid(call.kind_subject(), "", &[error]));
    }
    let verb = text(if resource.is_null() { other } else { resource }, "verb");
    let keys = ["group", "version", "resource", "subresource", "namespace", "name"];
    let [group, version, plural, subresource, namespace, name] = keys.map(|k| text(resource, k));
    if call.kind.plural == "localsubjectaccessreviews" && namespace != call.namespace() {
        let detail = "must match metadata.namespace";
        let error = FieldError::invalid("spec.resourceAttributes.namespace", namespace.as_str(), detail);
        return Err(Failure::invalid(call.kind_subject(), "", &[error]));
    }
    let path = text(other, "path");
    let attributes = if resource.is_null() {
        Attributes::path(user, &verb, &path)
    } else {
        Attributes {
            version: &version,
            subresource: &subresource,
            namespace: &namespace,
            name: &name,
            ..Attributes::resource(user, &verb, &group, &plural)
        }
    };
    let decision = call.app.access.decide(&attributes);
    let mut status = json!({"allowed": decision.is_allow()});
    if matches!(decision, Decision::Deny(_)) {
        status["denied"] = true.into();
    }
    if !decision.reason().is_empty() {
        status["reason"] = decision.reason().into();
    }
    Ok(status)
}

fn rules(call: &Call, review: &Value) -> Result<Value> {
    let namespace = tree::text(review, "/spec/namespace");
    if namespace.is_empty() {
        return Err(Failure::bad_request("no namespace on request"));
    }
    let rules = call.app.access.rules_for(&call.user, namespace);
    let (mut resources, mut others) = (Vec::new(), Vec::new());
    for rule in rules {
        if rule.non_resource_urls.is_empty() {
            let mut value = json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
            if !rule.resource_names.is_empty() {
                value["resourceNames"] = json!(rule.resource_names);
            }
            resources.push(value);
        } else {
            others.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
        }
    }
    Ok(json!({"resourceRules": resources, "nonResourceRules": others, "incomplete": false}))
}
