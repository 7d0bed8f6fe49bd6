//! Questions about users: who is this, may they.

use api::authorization::v1::SubjectAccessReview;
use api::transcode;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::answer::Body;
use crate::app::Call;
use crate::auth::authn::AuthnError;
use crate::auth::authz::{Attributes, Decision, Rules};
use crate::codec;
use crate::handlers::read;
use crate::handlers::write::{check_namespace, decode_object};
use crate::status::{Failure, Result, Subject};
use crate::tree;
use crate::user::User;
use crate::validation::authorization::{self, Review};

pub(super) async fn create(call: &Call, body: &[u8]) -> Result<Response<Body>> {
    let schema = call.kind.schema().name;
    let mut review = decode_object(call, body)?;
    crate::strategy::drop_repeated_owners(call, &mut review, false);
    check_namespace(call, &mut review)?;
    for key in ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "uid", "creationTimestamp"] {
        tree::remove(&mut review["metadata"], key);
    }
    let now = crate::app::now_text();
    let target = crate::managed::Target { kind: call.kind, part: crate::strategy::Part::Main, schema: None };
    crate::managed::track(target, None, &mut review, (call.manager(), &now));
    tree::object_at(&mut review, "spec");
    crate::admission::admit_message(call, &mut review).await?;
    crate::admission::check_message(call, &review).await?;
    match call.kind.plural {
        // Of these only the answer is told.
        "selfsubjectreviews" => {
            tree::remove(&mut review, "spec");
            review["metadata"] = json!({"creationTimestamp": now});
            review["status"] = json!({"userInfo": user_value(&call.user)});
        }
        "selfsubjectrulesreviews" => {
            review["status"] = rules(call, &review)?;
            review["metadata"] = json!({});
            review["spec"] = json!({});
        }
        "tokenreviews" => return token(call, schema, review).await,
        "selfsubjectaccessreviews" => review["status"] = access(call, &review, Review::Own)?,
        "subjectaccessreviews" => review["status"] = access(call, &review, Review::Any)?,
        "localsubjectaccessreviews" => review["status"] = access(call, &review, Review::Local)?,
        other => return Err(Failure::not_implemented(&format!("the creation of {other}"))),
    }
    read::respond_value(call, StatusCode::CREATED, schema, &review)
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

async fn token(call: &Call, schema: &str, mut review: Value) -> Result<Response<Body>> {
    let token = tree::text(&review, "/spec/token").to_owned();
    if token.is_empty() {
        let text = "token is required for TokenReview in authentication";
        return Err(Failure::bad_request(text));
    }
    let asked: Vec<String> =
        tree::list(&review, "/spec/audiences").iter().filter_map(|a| a.as_str().map(str::to_owned)).collect();
    let found = call.app.access.review_token(&token, (!asked.is_empty()).then_some(asked.as_slice())).await;
    // Who holds a token for others than those named is nobody.
    let found = found.and_then(|mut found| {
        if !asked.is_empty() {
            found.audiences.retain(|audience| asked.contains(audience));
        }
        if asked.is_empty() || !found.audiences.is_empty() { Ok(found) } else { Err(AuthnError::UnknownToken) }
    });
    if let Some(secret) = found.as_ref().ok().and_then(|found| found.secret.as_ref())
        && let Some(warning) = call.app.access.note_use(secret, &call.record)
    {
        call.warn(warning);
    }
    review["status"] = match found {
        Ok(found) => json!({"authenticated": true, "user": user_value(&found.user), "audiences": found.audiences}),
        Err(error) => json!({"user": {}, "error": error.to_string()}),
    };
    read::respond_value(call, StatusCode::CREATED, schema, &review)
}

/// What the authorizers think of a question.
fn access(call: &Call, review: &Value, about: Review) -> Result<Value> {
    // All three kinds have the same fields, but for the user.
    let schema = codec::schema("k8s.io.api.authorization.v1.SubjectAccessReview");
    let raw = transcode::value_to_proto(schema, review, &mut transcode::Report::default());
    let raw = raw.map_err(Failure::internal)?;
    let typed: SubjectAccessReview = prost::Message::decode(raw.as_slice()).map_err(Failure::internal)?;
    let errors = authorization::access(about, &typed.metadata, &typed.spec);
    if !errors.is_empty() {
        return Err(Failure::invalid(Subject { group: call.kind.group, resource: "" }, "", &errors));
    }
    let spec = typed.spec;
    let asked = User {
        name: spec.user,
        uid: spec.uid,
        groups: spec.groups,
        extra: spec.extra.into_iter().map(|(key, values)| (key, values.items)).collect(),
    };
    let user = if about == Review::Own { &call.user } else { &asked };
    let selection = spec.resource_attributes.as_ref().map(authorization::selection).unwrap_or_default();
    let unread = spec.resource_attributes.as_ref().map(authorization::unread_selectors).unwrap_or_default();
    let decision = match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(resource), _) => call.app.access.decide(&Attributes {
            version: if resource.version.is_empty() { "*" } else { &resource.version },
            subresource: &resource.subresource,
            namespace: &resource.namespace,
            name: &resource.name,
            selected: selection.selected(),
            ..Attributes::resource(user, &resource.verb, &resource.group, &resource.resource)
        }),
        (None, other) => {
            let (verb, path) = other.as_ref().map_or(("", ""), |other| (&other.verb, &other.path));
            call.app.access.decide(&Attributes::path(user, verb, path))
        }
    };
    let mut status = json!({"allowed": decision.is_allow()});
    let (is_denied, failure) = match &decision {
        Decision::Deny(_) => (true, None),
        Decision::Failed { why, denies, .. } => (*denies, Some(why.clone())),
        Decision::Allow(_) | Decision::NoOpinion(_) => (false, None),
    };
    if is_denied {
        status["denied"] = true.into();
    }
    if !decision.reason().is_empty() {
        status["reason"] = decision.reason().into();
    }
    let unread = Some(unread).filter(|unread| !unread.is_empty());
    let errors: Vec<String> = failure.into_iter().chain(unread).collect();
    if !errors.is_empty() {
        status["evaluationError"] = errors.join(", ").into();
    }
    Ok(status)
}

fn rules(call: &Call, review: &Value) -> Result<Value> {
    let namespace = tree::text(review, "/spec/namespace");
    if namespace.is_empty() {
        return Err(Failure::bad_request("no namespace on request"));
    }
    let Rules { rules, is_incomplete, errors } = call.app.access.rules_of(&call.user, namespace);
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
    let mut status = json!({"resourceRules": resources, "nonResourceRules": others, "incomplete": is_incomplete});
    match &errors[..] {
        [] => {}
        [one] => status["evaluationError"] = one.as_str().into(),
        some => status["evaluationError"] = format!("[{}]", some.join(", ")).into(),
    }
    Ok(status)
}
