//! From a checked tree to one that is quick to evaluate: names became places, calls know their functions, patterns
//! are compiled.

use regex::Regex;

use crate::ast::{Call, Element, Expr, Fold, Kind, Literal, RESULT, op};
use crate::cost::Rule;
use crate::environment::Environment;
use crate::library::{Overload, patterns};
use crate::types::Type;

#[derive(Debug)]
pub(super) enum Node {
    Literal(Literal),
    Type(Type),
    Variable(String),
    /// A variable of a comprehension, by its place on the stack.
    Local(usize),
    Select(Box<Node>, String),
    Test(Box<Node>, String),
    OptSelect(Box<Node>, String),
    And(Box<(Node, Node)>),
    Or(Box<(Node, Node)>),
    Conditional(Box<(Node, Node, Node)>),
    NotStrictlyFalse(Box<Node>),
    /// `optional.or(…)` and `optional.orValue(…)`: the second is evaluated only when needed.
    OrElse(Box<(Node, Node)>, bool),
    Call(Box<CallNode>),
    /// The list at a place of the stack, with one more element.
    Append(usize, Box<Node>),
    List(Vec<(Node, bool)>),
    /// A list that is written out: it is there before the evaluation, and costs nothing.
    Constant(Vec<Literal>),
    Map(Vec<(Node, Node, bool)>),
    Struct(String, Vec<(String, Node, bool)>),
    Fold(Box<FoldNode>),
}

#[derive(Debug)]
pub(super) struct CallNode {
    pub(super) function: String,
    pub(super) overloads: Vec<&'static Overload>,
    pub(super) args: Vec<Node>,
    pub(super) pattern: Option<Regex>,
    pub(super) rule: Rule,
}

#[derive(Debug)]
pub(super) struct FoldNode {
    pub(super) range: Node,
    pub(super) has_two: bool,
    pub(super) init: Node,
    pub(super) condition: Node,
    pub(super) step: Node,
    pub(super) result: Node,
}

pub(super) fn plan(expr: &Expr, environment: &Environment) -> Node {
    Planner { environment, scope: Vec::new() }.plan(expr)
}

struct Planner<'e> {
    environment: &'e Environment,
    scope: Vec<String>,
}

impl Planner<'_> {
    fn plan(&mut self, expr: &Expr) -> Node {
        match &expr.kind {
            Kind::Literal(literal) => Node::Literal(literal.clone()),
            Kind::Ident(name) => self.name(name),
            Kind::Select(select) => {
                let operand = Box::new(self.plan(&select.operand));
                let field = select.field.clone();
                if select.is_test { Node::Test(operand, field) } else { Node::Select(operand, field) }
            }
            Kind::Call(call) => self.call(call),
            Kind::List(elements) if constants(elements).is_some() => {
                Node::Constant(constants(elements).unwrap_or_default())
            }
            Kind::List(elements) => Node::List(elements.iter().map(|e| (self.plan(&e.value), e.is_optional)).collect()),
            Kind::Map(entries) => {
                let entry = entries.iter().map(|e| (self.plan(&e.key), self.plan(&e.value), e.is_optional));
                Node::Map(entry.collect())
            }
            Kind::Struct(object) => {
                let fields = object.fields.iter().map(|f| (f.name.clone(), self.plan(&f.value), f.is_optional));
                Node::Struct(object.name.clone(), fields.collect())
            }
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.scope.iter().rposition(|known| known == name)
    }

    fn name(&self, name: &str) -> Node {
        if let Some(place) = self.place(name) {
            return Node::Local(place);
        }
        if self.environment.variable(name).is_none()
            && let Some(ty) = self.environment.named_type(name)
        {
            return Node::Type(ty);
        }
        Node::Variable(name.to_owned())
    }

    fn pair(&mut self, args: &[Expr]) -> Box<(Node, Node)> {
        Box::new((self.plan(&args[0]), self.plan(&args[1])))
    }

    /// Calls that do not evaluate all of their arguments.
    fn special(&mut self, call: &Call) -> Option<Node> {
        let args = &call.args;
        Some(match call.function.as_str() {
            op::AND => Node::And(self.pair(args)),
            op::OR => Node::Or(self.pair(args)),
            op::CONDITIONAL => {
                let parts = (self.plan(&args[0]), self.plan(&args[1]), self.plan(&args[2]));
                Node::Conditional(Box::new(parts))
            }
            op::NOT_STRICTLY_FALSE => Node::NotStrictlyFalse(Box::new(self.plan(&args[0]))),
            op::OPT_SELECT => {
                let Kind::Literal(Literal::String(field)) = &args[1].kind else { return None };
                Node::OptSelect(Box::new(self.plan(&args[0])), field.clone())
            }
            op::ADD => return self.append(args),
            "or" | "orValue" => {
                let both = (self.plan(call.target.as_ref()?), self.plan(args.first()?));
                Node::OrElse(Box::new(both), call.function == "orValue")
            }
            _ => return None,
        })
    }

    fn call(&mut self, call: &Call) -> Node {
        if let Some(node) = self.special(call) {
            return node;
        }
        let place = usize::from(call.target.is_none());
        let pattern = call.args.get(place).filter(|_| patterns::takes_pattern(&call.function));
        let pattern = pattern.and_then(|arg| match &arg.kind {
            Kind::Literal(Literal::String(text)) => crate::regexp::compile(text).ok(),
            _ => None,
        });
        Node::Call(Box::new(CallNode {
            rule: Rule::of(&call.function, call.target.is_some()),
            function: call.function.clone(),
            overloads: call.overloads.clone(),
            args: call.target.iter().chain(&call.args).map(|arg| self.plan(arg)).collect(),
            pattern,
        }))
    }

    /// `@result + [element]`, as macros make it.
    fn append(&mut self, args: &[Expr]) -> Option<Node> {
        let [left, right] = args else { return None };
        let (Kind::Ident(name), Kind::List(elements)) = (&left.kind, &right.kind) else { return None };
        let [element] = &elements[..] else { return None };
        if name != RESULT || element.is_optional {
            return None;
        }
        let place = self.place(name)?;
        Some(Node::Append(place, Box::new(self.plan(&element.value))))
    }

    fn fold(&mut self, fold: &Fold) -> Node {
        let range = self.plan(&fold.range);
        let init = self.plan(&fold.init);
        let base = self.scope.len();
        self.scope.push(fold.accu.clone());
        self.scope.push(fold.var.clone());
        self.scope.extend(fold.var2.clone());
        let condition = self.plan(&fold.condition);
        let step = self.plan(&fold.step);
        self.scope.truncate(base + 1);
        let result = self.plan(&fold.result);
        self.scope.truncate(base);
        Node::Fold(Box::new(FoldNode { range, has_two: fold.var2.is_some(), init, condition, step, result }))
    }
}

/// The elements of a list, if all are written out.
fn constants(elements: &[Element]) -> Option<Vec<Literal>> {
    let constant = |e: &Element| match &e.value.kind {
        Kind::Literal(literal) if !e.is_optional => Some(literal.clone()),
        _ => None,
    };
    elements.iter().map(constant).collect()
}
