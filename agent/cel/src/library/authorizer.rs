//! Asking the authorizer.

use std::rc::Rc;

use super::Row;
use crate::error::{EvalError, Result};
use crate::value::Value;

pub(crate) const ROWS: &[Row] = &[
    ("path", "authorizer.(string) -> path", path),
    ("group", "authorizer.(string) -> group", group),
    ("serviceAccount", "authorizer.(string, string) -> authorizer", service_account),
    ("resource", "group.(string) -> resource", resource),
    ("subresource", "resource.(string) -> resource", subresource),
    ("namespace", "resource.(string) -> resource", namespace),
    ("name", "resource.(string) -> resource", name),
    ("fieldSelector", "resource.(string) -> resource", field_selector),
    ("labelSelector", "resource.(string) -> resource", label_selector),
    ("check", "path.(string) -> decision", check),
    ("check", "resource.(string) -> decision", check),
    ("errored", "decision.() -> bool", errored),
    ("error", "decision.() -> string", error),
    ("allowed", "decision.() -> bool", allowed),
    ("reason", "decision.() -> string", reason),
];

pub(crate) const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
pub(crate) const PATH_CHECK: &str = "kubernetes.authorization.PathCheck";
pub(crate) const GROUP_CHECK: &str = "kubernetes.authorization.GroupCheck";
pub(crate) const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
pub(crate) const DECISION: &str = "kubernetes.authorization.Decision";

/// Who decides what a user may do.
pub trait Authorizer {
    /// Decides about a question, asked for the request's own user or for a service account.
    fn decide(&self, question: &Question) -> Decision;
}

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Namespace and name of the service account that is asked about instead of the request's user.
    pub service_account: Option<(String, String)>,
    /// What it would do: `get`, `create`, …
    pub verb: String,
    /// The path, when the question is not about a resource.
    pub path: Option<String>,
    /// The API group.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// The subresource.
    pub subresource: String,
    /// The namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// Of the fields.
    pub field_selector: String,
    /// Of the labels.
    pub label_selector: String,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may.
    pub is_allowed: bool,
    /// Why.
    pub reason: String,
    /// What went wrong.
    pub error: Option<String>,
}

/// A stage of asking.
#[derive(Clone)]
pub enum Authorization<'a> {
    /// Nothing was said yet; the question knows at most the service account.
    Authorizer(&'a dyn Authorizer, Question),
    /// A path was named.
    Path(&'a dyn Authorizer, Question),
    /// A group was named.
    Group(&'a dyn Authorizer, Question),
    /// A resource was named.
    Resource(&'a dyn Authorizer, Question),
    /// It was decided.
    Decision(Decision),
}

impl<'a> Authorization<'a> {
    /// `authorizer`.
    #[must_use]
    pub fn authorizer(authorizer: &'a dyn Authorizer) -> Value<'a> {
        Value::Authorization(Rc::new(Self::Authorizer(authorizer, Question::default())))
    }

    /// `authorizer.requestResource`: the question says which.
    #[must_use]
    pub fn request_resource(authorizer: &'a dyn Authorizer, question: Question) -> Value<'a> {
        Value::Authorization(Rc::new(Self::Resource(authorizer, question)))
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Authorizer(..) => AUTHORIZER,
            Self::Path(..) => PATH_CHECK,
            Self::Group(..) => GROUP_CHECK,
            Self::Resource(..) => RESOURCE_CHECK,
            Self::Decision(_) => DECISION,
        }
    }
}

fn this<'v, 'a>(args: &'v [Value<'a>]) -> Result<&'v Authorization<'a>> {
    match args.first() {
        Some(Value::Authorization(authorization)) => Ok(authorization),
        _ => Err(EvalError::no_overload()),
    }
}

fn text(args: &[Value<'_>], at: usize) -> Result<String> {
    args.get(at).and_then(Value::as_str).map(str::to_owned).ok_or_else(EvalError::no_overload)
}

fn path<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let Authorization::Authorizer(who, question) = this(args)? else { return Err(EvalError::no_overload()) };
    let path = text(args, 1)?;
    if path.trim().is_empty() {
        return Err(EvalError::new("path must not be empty"));
    }
    let question = Question { path: Some(path), ..question.clone() };
    Ok(Value::Authorization(Rc::new(Authorization::Path(*who, question))))
}

fn group<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let Authorization::Authorizer(who, question) = this(args)? else { return Err(EvalError::no_overload()) };
    let question = Question { group: text(args, 1)?, ..question.clone() };
    Ok(Value::Authorization(Rc::new(Authorization::Group(*who, question))))
}

fn is_label(name: &str) -> bool {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends = name.starts_with(inside) && name.ends_with(inside);
    ends && name.len() <= 63 && name.chars().all(|c| inside(c) || c == '-')
}

fn service_account<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let Authorization::Authorizer(who, question) = this(args)? else { return Err(EvalError::no_overload()) };
    let (namespace, name) = (text(args, 1)?, text(args, 2)?);
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err(EvalError::new("Invalid service account name"));
    }
    if !is_label(&namespace) {
        return Err(EvalError::new("Invalid service account namespace"));
    }
    let question = Question { service_account: Some((namespace, name)), ..question.clone() };
    Ok(Value::Authorization(Rc::new(Authorization::Authorizer(*who, question))))
}

fn resource<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let Authorization::Group(who, question) = this(args)? else { return Err(EvalError::no_overload()) };
    let resource = text(args, 1)?;
    if resource.trim().is_empty() {
        return Err(EvalError::new("resource must not be empty"));
    }
    let question = Question { resource, ..question.clone() };
    Ok(Value::Authorization(Rc::new(Authorization::Resource(*who, question))))
}

fn narrowed<'a>(args: &[Value<'a>], set: fn(&mut Question, String)) -> Result<Value<'a>> {
    let Authorization::Resource(who, question) = this(args)? else { return Err(EvalError::no_overload()) };
    let mut question = question.clone();
    set(&mut question, text(args, 1)?);
    Ok(Value::Authorization(Rc::new(Authorization::Resource(*who, question))))
}

fn subresource<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    narrowed(args, |question, text| question.subresource = text)
}

fn namespace<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    narrowed(args, |question, text| question.namespace = text)
}

fn name<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    narrowed(args, |question, text| question.name = text)
}

fn field_selector<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    narrowed(args, |question, text| question.field_selector = text)
}

fn label_selector<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    narrowed(args, |question, text| question.label_selector = text)
}

fn check<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let (Authorization::Path(who, question) | Authorization::Resource(who, question)) = this(args)? else {
        return Err(EvalError::no_overload());
    };
    let question = Question { verb: text(args, 1)?, ..question.clone() };
    Ok(Value::Authorization(Rc::new(Authorization::Decision(who.decide(&question)))))
}

fn decision<'v>(args: &'v [Value<'_>]) -> Result<&'v Decision> {
    match this(args)? {
        Authorization::Decision(decision) => Ok(decision),
        _ => Err(EvalError::no_overload()),
    }
}

fn errored<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(decision(args)?.error.is_some()))
}

fn error<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::from(decision(args)?.error.clone().unwrap_or_default()))
}

fn allowed<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Bool(decision(args)?.is_allowed))
}

fn reason<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::from(decision(args)?.reason.clone()))
}
