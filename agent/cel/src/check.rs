//! The checker: gives every expression its type and every call its overloads, or says what is wrong.

mod literals;
mod unify;

use std::sync::Arc;

use crate::ast::{Call, Element, Entry, Expr, Fold, Kind, Literal, Select, Struct, op};
use crate::environment::Environment;
use crate::library::{self, Function, Overload};
use crate::schema::is_reserved;
use crate::types::{ObjectType, Type};

use unify::{Mapping, most_general};

/// Checks an expression in place.
pub(crate) fn check(expr: &mut Expr, environment: &Environment) -> Vec<(u32, String)> {
    let mut checker =
        Checker { environment, mapping: Mapping::default(), scopes: Vec::new(), params: 0, problems: Vec::new() };
    checker.check(expr);
    if checker.problems.is_empty() {
        checker.finish(expr);
        literals::validate(expr, &mut checker.problems);
        literals::alike(expr, &mut checker.problems);
    }
    checker.problems
}

/// What fails when the program is made, if anything.
pub(crate) fn instantiate(expr: &mut Expr) -> Option<String> {
    literals::convert(expr)
}

struct Checker<'e> {
    environment: &'e Environment,
    mapping: Mapping,
    /// Variables of comprehensions, the innermost last.
    scopes: Vec<(String, Type)>,
    params: u32,
    problems: Vec<(u32, String)>,
}

impl Checker<'_> {
    fn problem(&mut self, at: u32, text: String) {
        self.problems.push((at, text));
    }

    fn param(&mut self) -> Type {
        self.params += 1;
        Type::Param(Arc::from(format!("_var{}", self.params - 1)))
    }

    fn assign(&mut self, from: &Type, to: &Type) -> bool {
        self.mapping.assign(from, to)
    }

    fn resolved(&self, ty: &Type) -> Type {
        self.mapping.substitute(ty, false)
    }

    fn check(&mut self, expr: &mut Expr) {
        let at = expr.at;
        let ty = match &mut expr.kind {
            Kind::Literal(literal) => literal_type(literal),
            Kind::Ident(name) => self.check_ident(at, name),
            Kind::Select(_) => return self.check_select(expr),
            Kind::Call(call) => self.check_call(at, call),
            Kind::List(elements) => self.check_list(elements),
            Kind::Map(entries) => self.check_map(entries),
            Kind::Struct(object) => self.check_struct(at, object),
            Kind::Fold(fold) => self.check_fold(fold),
        };
        expr.ty = ty;
    }

    fn check_ident(&mut self, at: u32, name: &mut String) -> Type {
        if let Some(global) = name.strip_prefix('.')
            && let Some(ty) = self.environment.variable(global)
        {
            *name = global.to_owned();
            return ty;
        }
        match self.variable(name) {
            Some(ty) => ty,
            None => self.undeclared(at, name),
        }
    }

    fn undeclared(&mut self, at: u32, name: &str) -> Type {
        self.problem(at, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    fn variable(&self, name: &str) -> Option<Type> {
        let local = self.scopes.iter().rev().find(|(known, _)| known == name).map(|(_, ty)| ty.clone());
        local.or_else(|| self.environment.variable(name)).or_else(|| {
            let named = self.environment.named_type(name)?;
            Some(Type::Type(Some(Arc::new(named))))
        })
    }

    fn check_select(&mut self, expr: &mut Expr) {
        // A dotted name may be one variable or type.
        if let Some(name) = expr.qualified_name()
            && let Some(ty) = self.variable(&name)
        {
            expr.kind = Kind::Ident(name);
            expr.ty = ty;
            return;
        }
        let at = expr.at;
        let Kind::Select(select) = &mut expr.kind else { return };
        let Select { operand, field, is_test } = &mut **select;
        let found = self.check_field(at, operand, field, false);
        expr.ty = if *is_test { Type::Bool } else { self.resolved(&found) };
    }

    fn check_field(&mut self, at: u32, operand: &mut Expr, field: &str, is_optional: bool) -> Type {
        self.check(operand);
        let operand_type = self.resolved(&operand.ty);
        let (target, was_optional) = unwrap_optional(&operand_type);
        let found = match &target {
            Type::Map(_, value) => (**value).clone(),
            Type::Object(object) => self.object_field(at, object, field),
            Type::Param(_) => {
                self.assign(&Type::Dyn, &target);
                Type::Dyn
            }
            other => {
                if !other.is_dyn_or_error() {
                    self.problem(at, format!("type '{other}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        if was_optional || is_optional { Type::optional(found) } else { found }
    }

    fn object_field(&mut self, at: u32, object: &Arc<ObjectType>, field: &str) -> Type {
        self.declared_field(object, field).unwrap_or_else(|| {
            self.problem(at, format!("undefined field '{field}'"));
            Type::Error
        })
    }

    fn declared_field(&self, object: &ObjectType, field: &str) -> Option<Type> {
        // A word of the language may name a field all the same.
        let escaped = || object.fields.get(&format!("__{field}__")).filter(|_| is_reserved(field));
        let declared = object.fields.get(field).or_else(escaped).cloned();
        declared.or_else(|| object.is_open.then_some(Type::Dyn))
    }

    fn check_call(&mut self, at: u32, call: &mut Call) -> Type {
        if call.function == op::OPT_SELECT {
            return self.check_opt_select(at, call);
        }
        for arg in &mut call.args {
            self.check(arg);
        }
        let Some(mut target) = call.target.take() else {
            let Some(function) = self.environment.function(&call.function) else {
                let name = call.function.clone();
                return self.undeclared(at, &name);
            };
            return self.resolve(at, call, function);
        };
        // The target may be the first part of a function's name.
        if let Some(prefix) = target.qualified_name() {
            let name = format!("{prefix}.{}", call.function);
            if let Some(function) = self.environment.function(&name) {
                call.function = name;
                return self.resolve(at, call, function);
            }
        }
        self.check(&mut target);
        call.target = Some(target);
        match self.environment.function(&call.function) {
            Some(function) => self.resolve(at, call, function),
            None => {
                let name = call.function.clone();
                self.undeclared(at, &name)
            }
        }
    }

    fn check_opt_select(&mut self, at: u32, call: &mut Call) -> Type {
        let [operand, field] = &mut call.args[..] else { return Type::Error };
        let Kind::Literal(Literal::String(name)) = &field.kind else { return Type::Error };
        let name = name.clone();
        field.ty = Type::String;
        let found = self.check_field(at, operand, &name, true);
        self.resolved(&found)
    }

    fn resolve(&mut self, at: u32, call: &mut Call, function: &'static Function) -> Type {
        let is_member = call.target.is_some();
        let mut args: Vec<Type> = call.target.iter().chain(&call.args).map(|arg| arg.ty.clone()).collect();
        if matches!(function.name, op::AND | op::OR) {
            return self.check_logic(call, &args);
        }
        let mut result: Option<Type> = None;
        for overload in function.overloads.iter().filter(|o| o.is_member == is_member) {
            let (params, declared) = self.instantiate(overload);
            if !self.mapping.assign_all(&args, &params) {
                continue;
            }
            call.overloads.push(overload);
            let found = self.resolved(&declared);
            result = Some(match result {
                None => found,
                Some(known) if known.is_dyn() || known == found => known,
                Some(_) => Type::Dyn,
            });
        }
        if let Some(result) = result {
            return result;
        }
        for arg in &mut args {
            *arg = self.mapping.substitute(arg, true);
        }
        let text = signature(&args, is_member);
        self.problem(at, format!("found no matching overload for '{}' applied to '{text}'", function.name));
        Type::Error
    }

    fn check_logic(&mut self, call: &Call, args: &[Type]) -> Type {
        let mut result = Type::Bool;
        for (arg, ty) in call.args.iter().zip(args) {
            if !self.assign(ty, &Type::Bool) {
                self.problem(arg.at, format!("expected type 'bool' but found '{ty}'"));
                result = Type::Error;
            }
        }
        result
    }

    /// The parameters and result of an overload, with type parameters of their own.
    fn instantiate(&mut self, overload: &Overload) -> (Vec<Type>, Type) {
        if overload.type_params.is_empty() {
            return (overload.params.clone(), overload.result.clone());
        }
        let mut fresh = Mapping::default();
        for param in &overload.type_params {
            let new = self.param();
            fresh.add(&Type::Param(param.clone()), new);
        }
        let params = overload.params.iter().map(|p| fresh.substitute(p, false)).collect();
        (params, fresh.substitute(&overload.result, false))
    }

    fn optional_element(&mut self, value: &Expr, is_optional: bool) -> Type {
        if !is_optional {
            return value.ty.clone();
        }
        let (inner, was_optional) = unwrap_optional(&value.ty);
        if !was_optional && !inner.is_dyn() {
            self.problem(value.at, format!("expected type 'optional_type({inner})' but found '{inner}'"));
        }
        inner
    }

    /// The type of what holds both. That they differ is judged when all types are known.
    fn join(&mut self, previous: Option<Type>, current: Type) -> Type {
        let Some(previous) = previous else { return current };
        if self.assign(&previous, &current) { most_general(&previous, &current) } else { Type::Dyn }
    }

    fn check_list(&mut self, elements: &mut [Element]) -> Type {
        let mut joined = None;
        for element in elements {
            self.check(&mut element.value);
            let ty = self.optional_element(&element.value, element.is_optional);
            joined = Some(self.join(joined, ty));
        }
        Type::list(joined.unwrap_or_else(|| self.param()))
    }

    fn check_map(&mut self, entries: &mut [Entry]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            self.check(&mut entry.key);
            keys = Some(self.join(keys, entry.key.ty.clone()));
            self.check(&mut entry.value);
            let ty = self.optional_element(&entry.value, entry.is_optional);
            values = Some(self.join(values, ty));
        }
        let key = keys.unwrap_or_else(|| self.param());
        let value = values.unwrap_or_else(|| self.param());
        Type::map(key, value)
    }

    fn check_struct(&mut self, at: u32, object: &mut Struct) -> Type {
        let Some(ty) = self.environment.named_type(&object.name) else {
            let name = object.name.clone();
            return self.undeclared(at, &name);
        };
        let Type::Object(declared) = &ty else {
            self.problem(at, format!("'{}' is not a message type", object.name));
            for field in &mut object.fields {
                self.check(&mut field.value);
                self.problem(field.at, format!("undefined field '{}'", field.name));
            }
            return Type::Error;
        };
        for field in &mut object.fields {
            self.check(&mut field.value);
            // What is not declared is of no type that has a name.
            let wanted = self.declared_field(declared, &field.name);
            let given = self.optional_element(&field.value, field.is_optional);
            if !wanted.as_ref().is_some_and(|wanted| self.assign(wanted, &given)) {
                let wanted = wanted.map_or(String::new(), |wanted| wanted.to_string());
                let text =
                    format!("expected type of field '{}' is '{wanted}' but provided type is '{given}'", field.name);
                self.problem(field.at, text);
            }
        }
        ty
    }

    fn check_fold(&mut self, fold: &mut Fold) -> Type {
        self.check(&mut fold.range);
        self.check(&mut fold.init);
        let range = self.resolved(&fold.range.ty);
        let accu = fold.init.ty.clone();
        let has_two = fold.var2.is_some();
        let (first, second) = match &range {
            Type::List(element) if has_two => (Type::Int, (**element).clone()),
            Type::List(element) => ((**element).clone(), Type::Error),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.assign(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let text = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.problem(fold.range.at, text);
                (Type::Error, Type::Error)
            }
        };
        let outer = self.scopes.len();
        self.scopes.push((fold.accu.clone(), accu.clone()));
        self.scopes.push((fold.var.clone(), first));
        if let Some(var2) = &fold.var2 {
            self.scopes.push((var2.clone(), second));
        }
        self.check(&mut fold.condition);
        self.require(&fold.condition, &Type::Bool);
        self.check(&mut fold.step);
        self.require(&fold.step, &accu);
        self.scopes.truncate(outer + 1);
        self.check(&mut fold.result);
        self.scopes.truncate(outer);
        self.resolved(&fold.result.ty)
    }

    fn require(&mut self, expr: &Expr, wanted: &Type) {
        if !self.assign(wanted, &expr.ty) {
            self.problem(expr.at, format!("expected type '{wanted}' but found '{}'", expr.ty));
        }
    }

    /// Replaces all type parameters, now that everything is known.
    fn finish(&self, expr: &mut Expr) {
        expr.ty = self.mapping.substitute(&expr.ty, true);
        for child in children_mut(expr) {
            self.finish(child);
        }
    }
}

pub(crate) fn children_mut(expr: &mut Expr) -> Vec<&mut Expr> {
    match &mut expr.kind {
        Kind::Literal(_) | Kind::Ident(_) => Vec::new(),
        Kind::Select(select) => vec![&mut select.operand],
        Kind::Call(call) => call.target.iter_mut().chain(&mut call.args).collect(),
        Kind::List(elements) => elements.iter_mut().map(|e| &mut e.value).collect(),
        Kind::Map(entries) => entries.iter_mut().flat_map(|e| [&mut e.key, &mut e.value]).collect(),
        Kind::Struct(object) => object.fields.iter_mut().map(|f| &mut f.value).collect(),
        Kind::Fold(fold) => {
            let Fold { range, init, condition, step, result, .. } = &mut **fold;
            vec![range, init, condition, step, result]
        }
    }
}

fn unwrap_optional(ty: &Type) -> (Type, bool) {
    match ty {
        Type::Optional(inner) => ((**inner).clone(), true),
        other => (other.clone(), false),
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}

fn signature(args: &[Type], is_member: bool) -> String {
    let (target, args) = if is_member { args.split_at(1) } else { (&args[..0], args) };
    let list: Vec<String> = args.iter().map(ToString::to_string).collect();
    let target = target.first().map_or(String::new(), |t| format!("{t}."));
    format!("{target}({})", list.join(", "))
}

pub(crate) fn standard(name: &str) -> Option<&'static Function> {
    library::functions().get(name)
}
