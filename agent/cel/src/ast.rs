//! The syntax tree. Macros are expanded while parsing.

use crate::library::Overload;
use crate::types::Type;

/// The name of the value that a comprehension builds up; nobody can write it.
pub(crate) const RESULT: &str = "@result";

/// An expression. After checking it carries its type.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    /// Where it is in the source, in characters.
    pub(crate) at: u32,
    pub(crate) kind: Kind,
    pub(crate) ty: Type,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Literal(Literal),
    Ident(String),
    Select(Box<Select>),
    Call(Box<Call>),
    List(Vec<Element>),
    Map(Vec<Entry>),
    Struct(Box<Struct>),
    Fold(Box<Fold>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
}

#[derive(Clone, Debug)]
pub(crate) struct Select {
    pub(crate) operand: Expr,
    pub(crate) field: String,
    /// `has(operand.field)`.
    pub(crate) is_test: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) function: String,
    pub(crate) target: Option<Expr>,
    pub(crate) args: Vec<Expr>,
    /// Those that the checker found to fit.
    pub(crate) overloads: Vec<&'static Overload>,
}

impl Call {
    fn new(function: &str, target: Option<Expr>, args: Vec<Expr>) -> Self {
        Self { function: function.to_owned(), target, args, overloads: Vec::new() }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Element {
    pub(crate) value: Expr,
    pub(crate) is_optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Expr,
    pub(crate) value: Expr,
    pub(crate) is_optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Struct {
    pub(crate) name: String,
    pub(crate) fields: Vec<Field>,
}

#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) at: u32,
    pub(crate) name: String,
    pub(crate) value: Expr,
    pub(crate) is_optional: bool,
}

/// A loop: `result` over what `step` made of `init` for each element of `range`.
#[derive(Clone, Debug)]
pub(crate) struct Fold {
    pub(crate) range: Expr,
    pub(crate) var: String,
    pub(crate) var2: Option<String>,
    pub(crate) accu: String,
    pub(crate) init: Expr,
    pub(crate) condition: Expr,
    pub(crate) step: Expr,
    pub(crate) result: Expr,
}

impl Expr {
    pub(crate) fn new(at: u32, kind: Kind) -> Self {
        Self { at, kind, ty: Type::Error }
    }

    pub(crate) fn literal(at: u32, literal: Literal) -> Self {
        Self::new(at, Kind::Literal(literal))
    }

    pub(crate) fn ident(at: u32, name: &str) -> Self {
        Self::new(at, Kind::Ident(name.to_owned()))
    }

    pub(crate) fn call(at: u32, function: &str, args: Vec<Expr>) -> Self {
        Self::new(at, Kind::Call(Box::new(Call::new(function, None, args))))
    }

    pub(crate) fn member_call(at: u32, target: Expr, function: &str, args: Vec<Expr>) -> Self {
        Self::new(at, Kind::Call(Box::new(Call::new(function, Some(target), args))))
    }

    pub(crate) fn list(at: u32, values: Vec<Expr>) -> Self {
        let elements = values.into_iter().map(|value| Element { value, is_optional: false });
        Self::new(at, Kind::List(elements.collect()))
    }

    /// `a.b.c` as a dotted name, if it is only names.
    pub(crate) fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.clone()),
            Kind::Select(select) if !select.is_test => {
                let prefix = select.operand.qualified_name()?;
                Some(format!("{prefix}.{}", select.field))
            }
            _ => None,
        }
    }
}

/// Function names that operators stand for.
pub(crate) mod op {
    pub(crate) const CONDITIONAL: &str = "_?_:_";
    pub(crate) const AND: &str = "_&&_";
    pub(crate) const OR: &str = "_||_";
    pub(crate) const NOT: &str = "!_";
    pub(crate) const NEGATE: &str = "-_";
    pub(crate) const EQUALS: &str = "_==_";
    pub(crate) const NOT_EQUALS: &str = "_!=_";
    pub(crate) const LESS: &str = "_<_";
    pub(crate) const LESS_EQUALS: &str = "_<=_";
    pub(crate) const GREATER: &str = "_>_";
    pub(crate) const GREATER_EQUALS: &str = "_>=_";
    pub(crate) const IN: &str = "@in";
    pub(crate) const ADD: &str = "_+_";
    pub(crate) const SUBTRACT: &str = "_-_";
    pub(crate) const MULTIPLY: &str = "_*_";
    pub(crate) const DIVIDE: &str = "_/_";
    pub(crate) const MODULO: &str = "_%_";
    pub(crate) const INDEX: &str = "_[_]";
    pub(crate) const OPT_INDEX: &str = "_[?_]";
    pub(crate) const OPT_SELECT: &str = "_?._";
    pub(crate) const NOT_STRICTLY_FALSE: &str = "@not_strictly_false";
    pub(crate) const MAP_INSERT: &str = "cel.@mapInsert";
}
