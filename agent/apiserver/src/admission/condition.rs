//! Expressions at work: what they see of a request, and what their results mean.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use cel::{
    Activation, Authorization, Budget, CONDITIONS_BUDGET, Environment, EvalError, EvalErrorKind, Fields, Program,
};
use cel::{Type, Value};
use serde_json::Value as Json;

use super::event::{self, Event};
use crate::access::Selection;
use crate::app::Call;
use crate::auth::authz::Attributes;
use crate::auth::identity;
use crate::expressions::{self, Scope, Variables};
use crate::status::Result;
use crate::user::User;
use crate::{codec, tree};

/// An expression, read; one that cannot be read fails whenever it is evaluated.
pub(super) struct Expression {
    text: String,
    program: std::result::Result<Program, String>,
}

impl Expression {
    pub(super) fn new(text: &str, environment: &Environment, results: &[Type]) -> Self {
        Self { text: text.to_owned(), program: expressions::compile(text, environment, results) }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Its result, or why there is none. `Err` means that nothing more can be evaluated.
    pub(super) fn evaluate<'a>(
        &'a self,
        activation: &Activation<'a>,
        budget: &Budget,
    ) -> std::result::Result<std::result::Result<Value<'a>, String>, String> {
        let program = match &self.program {
            Ok(program) => program,
            Err(why) => return Ok(Err(format!("compilation error: {why}"))),
        };
        match program.evaluate(activation, budget) {
            Ok(value) => Ok(Ok(value)),
            Err(error) if error.kind == EvalErrorKind::Budget => Err(error.to_string()),
            Err(error) => Ok(Err(format!("expression '{}' resulted in error: {error}", self.text))),
        }
    }
}

/// Expressions that others refer to as `variables.NAME`.
#[derive(Default)]
pub(super) struct Named(Vec<(String, Expression)>);

impl Named {
    /// Reads them; later ones may refer to earlier ones. Also says of which types they are.
    pub(super) fn read(list: &[Json], scope: Scope) -> (Self, Variables) {
        let mut known = Variables::new();
        let mut named = Vec::new();
        for variable in list {
            let name = tree::text(variable, "/name").to_owned();
            let environment = expressions::environment(scope, Some(&known));
            let expression = Expression::new(tree::text(variable, "/expression"), &environment, &[]);
            let ty = expression.program.as_ref().map_or(Type::Dyn, |p| expressions::variable_type(p.output_type()));
            known.insert(name.clone(), ty);
            named.push((name, expression));
        }
        (Self(named), known)
    }
}

/// A request, as expressions see it.
pub(super) struct Inputs<'a> {
    request: Json,
    namespace: Json,
    event: Event<'a>,
    asks: Asks<'a>,
}

impl<'a> Inputs<'a> {
    pub(super) fn new(call: &'a Call, event: Event<'a>) -> Result<Self> {
        Ok(Self { request: event::request(call, event), namespace: namespace(call)?, event, asks: Asks(call) })
    }

    /// The variables of an evaluation. Named expressions are evaluated when one asks for them, and once.
    pub(super) fn activation<'s>(
        &'s self,
        params: Option<&'s Json>,
        named: &'s Named,
        budget: &'s Budget,
        has_authorizer: bool,
    ) -> Activation<'s> {
        let json = |object: Option<&'s Json>| object.map_or(Value::Null, Value::json);
        let mut activation = Activation::new()
            .with("object", json(self.event.new))
            .with("oldObject", json(self.event.old))
            .with("request", Value::json(&self.request))
            .with("namespaceObject", Value::json(&self.namespace))
            .with("params", json(params));
        if has_authorizer {
            activation.set("authorizer", Authorization::authorizer(&self.asks));
            let own = self.asks.own_resource(&self.event);
            activation.set("authorizer.requestResource", Authorization::request_resource(&self.asks, own));
        }
        let base = activation.clone();
        let lazy = Rc::new_cyclic(|me| Lazy { me: me.clone(), named, base, budget, known: RefCell::default() });
        activation.set("variables", Value::Fields(lazy));
        activation
    }
}

/// Variables, as they become known.
struct Lazy<'a> {
    me: Weak<Lazy<'a>>,
    named: &'a Named,
    base: Activation<'a>,
    budget: &'a Budget,
    known: RefCell<BTreeMap<&'a str, cel_result::Result<'a>>>,
}

mod cel_result {
    pub(super) type Result<'a> = std::result::Result<cel::Value<'a>, cel::EvalError>;
}

impl<'a> Fields<'a> for Lazy<'a> {
    fn field(&self, name: &str) -> Option<cel_result::Result<'a>> {
        if let Some(known) = self.known.borrow().get(name) {
            return Some(known.clone());
        }
        let (name, expression) = self.named.0.iter().find(|(known, _)| known == name)?;
        let result = self.evaluate(name, expression);
        self.known.borrow_mut().insert(name, result.clone());
        Some(result)
    }
}

impl<'a> Lazy<'a> {
    fn evaluate(&self, name: &str, expression: &'a Expression) -> cel_result::Result<'a> {
        let program = match &expression.program {
            Ok(program) => program,
            Err(why) => return Err(EvalError::new(format!("composited variable {name:?} fails to compile: {why}"))),
        };
        let mut activation = self.base.clone();
        if let Some(me) = self.me.upgrade() {
            activation.set("variables", Value::Fields(me));
        }
        program.evaluate(&activation, self.budget).map_err(|error| match error.kind {
            EvalErrorKind::Budget => error,
            _ => EvalError::new(format!("composited variable {name:?} fails to evaluate: {error}")),
        })
    }
}

/// What expressions may see of a namespace.
const NAMESPACE_METADATA: [&str; 11] = [
    "name",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "finalizers",
];

fn namespace(call: &Call) -> Result<Json> {
    if call.namespace().is_empty() || (call.kind.group, call.kind.plural) == ("", "namespaces") {
        return Ok(Json::Null);
    }
    let storage = call.app.cache.known("", "namespaces");
    let Some(object) = storage.get("", call.namespace()) else { return Ok(Json::Null) };
    let mut value = codec::to_value(storage, storage.kind, &object)?;
    if let Some(metadata) = value["metadata"].as_object_mut() {
        metadata.retain(|key, _| NAMESPACE_METADATA.contains(&key.as_str()));
    }
    Ok(value)
}

/// The authorizer, asked on behalf of a request's user.
struct Asks<'a>(&'a Call);

impl Asks<'_> {
    fn own_resource(&self, event: &Event<'_>) -> cel::Question {
        let call = self.0;
        cel::Question {
            group: call.kind.group.to_owned(),
            resource: call.kind.plural.to_owned(),
            subresource: call.info.subresource.clone(),
            namespace: call.namespace().to_owned(),
            name: event.name(call),
            ..cel::Question::default()
        }
    }
}

impl cel::Authorizer for Asks<'_> {
    fn decide(&self, question: &cel::Question) -> cel::Decision {
        let account = question.service_account.as_ref().map(|(namespace, name)| {
            let mut groups = identity::service_account_groups(namespace);
            groups.push(identity::AUTHENTICATED.to_owned());
            User { name: identity::service_account_name(namespace, name), groups, ..User::default() }
        });
        let user = account.as_ref().unwrap_or(&self.0.user);
        let selection = Selection::parse(&question.field_selector, &question.label_selector);
        let attributes = match &question.path {
            Some(path) => Attributes::path(user, &question.verb, path),
            None => Attributes {
                version: "*",
                subresource: &question.subresource,
                namespace: &question.namespace,
                name: &question.name,
                selected: selection.selected(),
                ..Attributes::resource(user, &question.verb, &question.group, &question.resource)
            },
        };
        let decision = self.0.app.access.decide(&attributes);
        cel::Decision { is_allowed: decision.is_allow(), reason: decision.reason().to_owned(), error: None }
    }
}

/// Conditions under which a webhook or a policy is for a request.
#[derive(Default)]
pub(super) struct Conditions(Vec<Expression>);

/// What conditions say.
pub(super) enum Verdict {
    /// All hold.
    Holds,
    /// One does not hold.
    Fails,
    /// One could not be evaluated, and none is known not to hold.
    Unknown(String),
}

impl Conditions {
    pub(super) fn read(list: &[Json], scope: Scope, variables: Option<&Variables>) -> Self {
        if list.is_empty() {
            return Self::default();
        }
        let environment = expressions::environment(scope, variables);
        let expression = |c: &Json| Expression::new(tree::text(c, "/expression"), &environment, &[Type::Bool]);
        Self(list.iter().map(expression).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn judge(&self, inputs: &Inputs<'_>, params: Option<&Json>, named: &Named) -> Verdict {
        if self.0.is_empty() {
            return Verdict::Holds;
        }
        let budget = Budget::new(CONDITIONS_BUDGET);
        let activation = inputs.activation(params, named, &budget, true);
        let mut failures: Vec<String> = Vec::new();
        let mut does_hold = true;
        for condition in &self.0 {
            match condition.evaluate(&activation, &budget) {
                Ok(Ok(Value::Bool(false))) => does_hold = false,
                Ok(Ok(_)) => {}
                Ok(Err(why)) => failures.push(why),
                Err(spent) => return Verdict::Unknown(spent),
            }
        }
        if !does_hold {
            return Verdict::Fails;
        }
        failures.dedup();
        match &failures[..] {
            [] => Verdict::Holds,
            [one] => Verdict::Unknown(one.clone()),
            some => Verdict::Unknown(format!("[{}]", some.join(", "))),
        }
    }
}

/// Conditions of a webhook.
pub(super) fn of_hook(value: &Json) -> Arc<Conditions> {
    let scope = Scope { authorizer: true, ..Scope::default() };
    Arc::new(Conditions::read(tree::list(value, "/matchConditions"), scope, None))
}
