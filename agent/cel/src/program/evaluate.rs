//! The evaluator. It counts what it does, and stops when that is too much.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::ast::{Literal, op};
use crate::cost::{LIST_COST, MAP_COST, STRUCT_COST};
use crate::error::{EvalError, Result};
use crate::library::{operators, patterns};
use crate::value::{Key, List, Map, StructValue, Text, Value};

use super::plan::{CallNode, FoldNode, Node};
use super::{Activation, CALL_LIMIT};

pub(super) struct Evaluator<'a, 'x> {
    activation: &'x Activation<'a>,
    locals: Vec<Value<'a>>,
    spent: u64,
}

fn literal(literal: &Literal) -> Value<'_> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(b) => Value::Bool(*b),
        Literal::Int(i) => Value::Int(*i),
        Literal::Uint(u) => Value::Uint(*u),
        Literal::Double(d) => Value::Double(*d),
        Literal::String(text) => Value::String(Text::Borrowed(text)),
        Literal::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
    }
}

impl<'a, 'x> Evaluator<'a, 'x> {
    pub(super) fn new(activation: &'x Activation<'a>) -> Self {
        Self { activation, locals: Vec::new(), spent: 0 }
    }

    pub(super) fn spent(&self) -> u64 {
        self.spent
    }

    fn charge(&mut self, cost: u64) -> Result<()> {
        self.spent = self.spent.saturating_add(cost);
        if self.spent > CALL_LIMIT { Err(EvalError::call_limit()) } else { Ok(()) }
    }

    pub(super) fn evaluate(&mut self, node: &'a Node) -> Result<Value<'a>> {
        match node {
            Node::Literal(value) => Ok(literal(value)),
            Node::Type(ty) => Ok(Value::Type(Rc::new(ty.clone()))),
            Node::Variable(name) => {
                self.charge(1)?;
                let value = self.activation.get(name);
                value.cloned().ok_or_else(|| EvalError::new(format!("no such attribute(s): {name}")))
            }
            Node::Local(place) => {
                self.charge(1)?;
                Ok(self.locals[*place].clone())
            }
            Node::Select(operand, field) => self.select(operand, field),
            Node::Test(operand, field) => {
                let value = self.evaluate(operand)?;
                Ok(Value::Bool(value.field(field)?.is_some()))
            }
            Node::OptSelect(operand, field) => {
                let value = self.evaluate(operand)?;
                self.charge(1)?;
                Ok(Value::Optional(value.field(field)?.map(Rc::new)))
            }
            Node::And(both) => self.logic(both, false),
            Node::Or(both) => self.logic(both, true),
            Node::Conditional(parts) => match self.evaluate(&parts.0)? {
                Value::Bool(true) => self.evaluate(&parts.1),
                Value::Bool(false) => self.evaluate(&parts.2),
                _ => Err(EvalError::no_overload()),
            },
            Node::NotStrictlyFalse(inner) => {
                let value = self.evaluate(inner);
                self.charge(1)?;
                Ok(Value::Bool(!matches!(value, Ok(Value::Bool(false)))))
            }
            Node::OrElse(both, unwraps) => self.or_else(both, *unwraps),
            Node::Call(call) => self.call(call),
            Node::Append(place, element) => self.append(*place, element),
            Node::List(elements) => self.list(elements),
            Node::Constant(literals) => Ok(Value::list(literals.iter().map(literal).collect())),
            Node::Map(entries) => self.map(entries),
            Node::Struct(name, fields) => self.object(name, fields),
            Node::Fold(fold) => self.fold(fold),
        }
    }

    fn select(&mut self, operand: &'a Node, field: &str) -> Result<Value<'a>> {
        let value = self.evaluate(operand)?;
        self.charge(1)?;
        let found = value.field(field)?;
        if let Value::Optional(_) = value {
            return Ok(Value::Optional(found.map(Rc::new)));
        }
        found.ok_or_else(|| EvalError::new(format!("no such key: {field}")))
    }

    /// `&&` and `||`: what one side decides, the other cannot spoil.
    fn logic(&mut self, both: &'a (Node, Node), decisive: bool) -> Result<Value<'a>> {
        let first = self.evaluate(&both.0);
        match &first {
            Ok(Value::Bool(b)) if *b == decisive => return first,
            Err(error) if error.is_final() => return first,
            _ => {}
        }
        let second = self.evaluate(&both.1);
        match (first, second) {
            (_, Ok(Value::Bool(b))) if b == decisive => Ok(Value::Bool(decisive)),
            (_, Err(error)) if error.is_final() => Err(error),
            (Ok(Value::Bool(_)), Ok(Value::Bool(b))) => Ok(Value::Bool(b)),
            (Err(error), _) | (Ok(Value::Bool(_)), Err(error)) => Err(error),
            _ => Err(EvalError::no_overload()),
        }
    }

    fn or_else(&mut self, both: &'a (Node, Node), unwraps: bool) -> Result<Value<'a>> {
        let first = self.evaluate(&both.0)?;
        self.charge(1)?;
        match first {
            Value::Optional(Some(inner)) if unwraps => Ok((*inner).clone()),
            Value::Optional(Some(_)) => Ok(first),
            Value::Optional(None) => self.evaluate(&both.1),
            _ => Err(EvalError::no_overload()),
        }
    }

    fn call(&mut self, call: &'a CallNode) -> Result<Value<'a>> {
        let args = call.args.iter().map(|arg| self.evaluate(arg)).collect::<Result<Vec<_>>>()?;
        self.charge(call.rule.before(&args))?;
        let result = if let Some(pattern) = &call.pattern {
            patterns::run(&call.function, pattern, &args)?
        } else if call.function == op::INDEX {
            operators::index(&args)?
        } else if call.function == op::OPT_INDEX {
            operators::opt_index(&args)?
        } else {
            let overload = call.overloads.iter().find(|o| o.accepts(&args)).ok_or_else(|| no_overload(call, &args))?;
            (overload.run)(&args)?
        };
        self.charge(call.rule.after(&result))?;
        Ok(result)
    }

    fn append(&mut self, place: usize, element: &'a Node) -> Result<Value<'a>> {
        self.charge(2 + LIST_COST)?;
        let element = self.evaluate(element)?;
        // Taken off the stack, so that the list has one owner and grows where it is.
        match std::mem::replace(&mut self.locals[place], Value::Null) {
            Value::List(List::Shared(mut list)) => {
                Rc::make_mut(&mut list).push(element);
                Ok(Value::List(List::Shared(list)))
            }
            other => operators::add(&[other, Value::list(vec![element])]),
        }
    }

    fn list(&mut self, elements: &'a [(Node, bool)]) -> Result<Value<'a>> {
        let mut list = Vec::with_capacity(elements.len());
        for (element, is_optional) in elements {
            let value = self.evaluate(element)?;
            list.extend(present(value, *is_optional)?);
        }
        self.charge(LIST_COST)?;
        Ok(Value::list(list))
    }

    fn map(&mut self, entries: &'a [(Node, Node, bool)]) -> Result<Value<'a>> {
        let mut map = BTreeMap::new();
        for (key, value, is_optional) in entries {
            let key = self.evaluate(key)?;
            let value = self.evaluate(value)?;
            if let Some(value) = present(value, *is_optional)? {
                let name = Key::of(&key).ok_or_else(|| EvalError::new("unsupported key type"))?;
                map.insert(name, (key, value));
            }
        }
        self.charge(MAP_COST)?;
        Ok(Value::Map(Map::Shared(Rc::new(map))))
    }

    fn object(&mut self, name: &'a str, entries: &'a [(String, Node, bool)]) -> Result<Value<'a>> {
        let mut fields = Vec::with_capacity(entries.len());
        for (field, value, is_optional) in entries {
            let value = self.evaluate(value)?;
            if let Some(value) = present(value, *is_optional)? {
                fields.push((field.as_str(), value));
            }
        }
        self.charge(STRUCT_COST)?;
        Ok(Value::Struct(Rc::new(StructValue { name, fields })))
    }

    fn fold(&mut self, fold: &'a FoldNode) -> Result<Value<'a>> {
        let range = self.evaluate(&fold.range)?;
        let init = self.evaluate(&fold.init)?;
        let base = self.locals.len();
        self.locals.push(init);
        let result = self.fold_over(fold, &range, base).and_then(|()| self.evaluate(&fold.result));
        self.locals.truncate(base);
        result
    }

    fn fold_over(&mut self, fold: &'a FoldNode, range: &Value<'a>, base: usize) -> Result<()> {
        let mut failure = Ok(());
        match range {
            Value::List(list) => {
                for at in 0..list.len() {
                    let Some(element) = list.get(at) else { break };
                    let place = Value::Int(i64::try_from(at).unwrap_or(i64::MAX));
                    let vars = if fold.has_two { (place, Some(element?)) } else { (element?, None) };
                    if !self.turn(fold, vars, base, &mut failure)? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for key in map.keys() {
                    let value = if fold.has_two { map.get(&key)? } else { None };
                    if !self.turn(fold, (key, value), base, &mut failure)? {
                        break;
                    }
                }
            }
            other => return Err(EvalError::new(format!("got '{}', expected iterable type", foreign_name(other)))),
        }
        failure
    }

    /// One turn of a loop; false when the loop is over.
    fn turn(
        &mut self,
        fold: &'a FoldNode,
        vars: (Value<'a>, Option<Value<'a>>),
        base: usize,
        failure: &mut Result<()>,
    ) -> Result<bool> {
        self.locals.push(vars.0);
        self.locals.extend(vars.1);
        let goes_on = match self.evaluate(&fold.condition)? {
            Value::Bool(true) => {
                self.step(fold, base, failure)?;
                true
            }
            _ => false,
        };
        self.locals.truncate(base + 1);
        Ok(goes_on)
    }

    /// A failure of one turn counts only if no later turn decides the matter, as in `all` and `exists`.
    fn step(&mut self, fold: &'a FoldNode, base: usize, failure: &mut Result<()>) -> Result<()> {
        match self.evaluate(&fold.step) {
            Ok(value) => {
                if matches!((&fold.step, &value), (Node::And(_), Value::Bool(false)) | (Node::Or(_), Value::Bool(true)))
                {
                    *failure = Ok(());
                }
                self.locals[base] = value;
                Ok(())
            }
            Err(error) if !error.is_final() && matches!(fold.step, Node::And(_) | Node::Or(_)) => {
                if failure.is_ok() {
                    *failure = Err(error);
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// A value that is written with a question mark counts only if it is there.
fn present(value: Value<'_>, is_optional: bool) -> Result<Option<Value<'_>>> {
    match value {
        value if !is_optional => Ok(Some(value)),
        Value::Optional(inner) => Ok(inner.map(|inner| (*inner).clone())),
        other => {
            let name = other.type_of().name().to_owned();
            Err(EvalError::new(format!("cannot initialize optional value from non-optional {name}")))
        }
    }
}

/// What upstream calls a value's type where it speaks of its own.
fn foreign_name(value: &Value<'_>) -> String {
    let name = match value {
        Value::Null => "Null",
        Value::Bool(_) => "Bool",
        Value::Int(_) => "Int",
        Value::Uint(_) => "Uint",
        Value::Double(_) => "Double",
        Value::String(_) => "String",
        Value::Bytes(_) => "Bytes",
        Value::Timestamp(_) => "Timestamp",
        Value::Duration(_) => "Duration",
        other => return other.type_of().name().to_owned(),
    };
    format!("types.{name}")
}

fn no_overload(call: &CallNode, args: &[Value<'_>]) -> EvalError {
    if call.function == "size" {
        return EvalError::new("no such overload: size");
    }
    // Operators, and what is done like them, are methods of their first operand, and name nothing.
    let is_method = matches!(call.function.as_str(), "startsWith" | "endsWith" | "contains" | "matches");
    if is_method || !call.function.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return EvalError::no_overload();
    }
    let types: Vec<String> = args.iter().map(|a| a.type_of().name().to_owned()).collect();
    EvalError::new(format!("no such overload: {}({})", call.function, types.join(", ")))
}
