//! Which types fit which, and what type parameters stand for.

use std::collections::HashMap;
use std::sync::Arc;

use crate::types::Type;

/// What type parameters stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mapping(HashMap<Arc<str>, Type>);

impl Mapping {
    fn find(&self, ty: &Type) -> Option<&Type> {
        match ty {
            Type::Param(name) => self.0.get(name),
            _ => None,
        }
    }

    pub(crate) fn add(&mut self, param: &Type, ty: Type) {
        if let Type::Param(name) = param {
            self.0.insert(name.clone(), ty);
        }
    }

    /// Whether `from` may be used where `to` is wanted; learns about parameters on success.
    pub(crate) fn assign(&mut self, from: &Type, to: &Type) -> bool {
        let mut tried = self.clone();
        let fits = tried.fits(from, to);
        if fits {
            *self = tried;
        }
        fits
    }

    /// The same for lists of types.
    pub(crate) fn assign_all(&mut self, from: &[Type], to: &[Type]) -> bool {
        let mut tried = self.clone();
        let fits = from.len() == to.len() && from.iter().zip(to).all(|(from, to)| tried.fits(from, to));
        if fits {
            *self = tried;
        }
        fits
    }

    fn fits(&mut self, from: &Type, to: &Type) -> bool {
        if matches!(to, Type::Param(_)) {
            let (fits, is_known) = self.stands_for(from, to);
            if fits || is_known {
                return fits;
            }
        }
        if matches!(from, Type::Param(_)) {
            return self.stands_for(to, from).0;
        }
        if from.is_dyn_or_error() || to.is_dyn_or_error() {
            return true;
        }
        match (from, to) {
            (Type::Null, other) | (other, Type::Null) => other.is_nullable(),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.fits(a, b),
            (Type::Map(k1, v1), Type::Map(k2, v2)) => self.fits(k1, k2) && self.fits(v1, v2),
            (a, b) => a == b,
        }
    }

    /// Whether `param` may stand for `ty`, and whether it already stood for something.
    fn stands_for(&mut self, ty: &Type, param: &Type) -> (bool, bool) {
        if ty == param {
            return (true, true);
        }
        if let Some(known) = self.find(param).cloned() {
            if *ty == known {
                return (true, true);
            }
            if !self.fits(ty, &known) {
                return (false, true);
            }
            let general = if is_more_general(ty, &known) { ty.clone() } else { known };
            if !self.occurs(param, &general) {
                self.add(param, general);
            }
            return (true, true);
        }
        if self.occurs(param, ty) {
            return (false, false);
        }
        self.add(param, ty.clone());
        (true, false)
    }

    fn occurs(&self, param: &Type, within: &Type) -> bool {
        if param == within {
            return true;
        }
        match within {
            Type::Param(_) => self.find(within).is_some_and(|ty| self.occurs(param, ty)),
            other => other.params().iter().any(|inner| self.occurs(param, inner)),
        }
    }

    /// The type with its parameters replaced; those that stand for nothing become dyn if `to_dyn`.
    pub(crate) fn substitute(&self, ty: &Type, to_dyn: bool) -> Type {
        if let Some(known) = self.find(ty) {
            return self.substitute(known, to_dyn);
        }
        let inner = |ty: &Arc<Type>| Arc::new(self.substitute(ty, to_dyn));
        match ty {
            Type::Param(_) if to_dyn => Type::Dyn,
            Type::List(element) => Type::List(inner(element)),
            Type::Map(key, value) => Type::Map(inner(key), inner(value)),
            Type::Optional(value) => Type::Optional(inner(value)),
            Type::Type(Some(of)) => Type::Type(Some(inner(of))),
            other => other.clone(),
        }
    }
}

/// The more general of two types that fit each other.
pub(crate) fn most_general(a: &Type, b: &Type) -> Type {
    if is_more_general(a, b) { a.clone() } else { b.clone() }
}

fn is_more_general(a: &Type, b: &Type) -> bool {
    let is_wild = |ty: &Type| matches!(ty, Type::Dyn | Type::Any | Type::Param(_));
    if is_wild(a) {
        return true;
    }
    if is_wild(b) {
        return false;
    }
    match (a, b) {
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => is_more_general(a, b),
        (Type::Map(k1, v1), Type::Map(k2, v2)) => is_more_general(k1, k2) && is_more_general(v1, v2),
        (Type::Type(_), Type::Type(_)) => true,
        (a, b) => a == b,
    }
}
