//! The Common Expression Language, as Kubernetes v1.36 uses it.
//!
//! ```text
//!  text ──parser──▶ tree ──check──▶ Checked ──program──▶ Program ──evaluate──▶ Value
//!         (macros)         (types)     └─ cost: what it may cost at most
//! ```
//! An [`Environment`] says which variables there are, and of which [`Type`]. [`Environment::check`] reads an
//! expression, or fails with a [`CompileError`] whose text is the one users see. A [`Program`] is immutable; it is
//! evaluated with an [`Activation`], the variables' values, and within a [`Budget`].
//!
//! ```
//! use cel::{Activation, Budget, Environment, OBJECT_BUDGET, Type, Value};
//!
//! let environment = Environment::new().with("object", Type::Dyn);
//! let program = environment.check("object.spec.replicas <= 5").unwrap().program();
//! let object = serde_json::json!({"spec": {"replicas": 3}});
//! let activation = Activation::new().with("object", Value::json(&object));
//! let value = program.evaluate(&activation, &Budget::new(OBJECT_BUDGET)).unwrap();
//! assert!(matches!(value, Value::Bool(true)));
//! ```
//!
//! Rules of custom resources see their object through a [`Schema`]: it gives the variable's type
//! ([`Schema::ty`], for `self` and `oldSelf`), reads its value ([`Schema::read`]) and bounds what a rule may cost
//! ([`Checked::cost`]). Values of JSON are read where they lie; nothing is converted as a whole.
//!
//! Pure: no clock, no files, no tasks. Depth of expressions, cost of evaluation and length of text are bounded.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admission;
mod ast;
mod built_in;
mod check;
mod cost;
mod environment;
mod error;
mod lexer;
mod library;
mod macros;
mod parser;
mod program;
pub mod regexp;
mod schema;
mod types;
mod value;

pub use built_in::type_of_kind;
pub use cost::Estimate;
pub use environment::Environment;
pub use error::{CompileError, EvalError, EvalErrorKind, Issue};
pub use library::authorizer::{Authorization, Authorizer, Decision, Question};
pub use program::{Activation, Budget, CALL_LIMIT, CONDITIONS_BUDGET, Checked, OBJECT_BUDGET, Program};
pub use schema::{Schema, escape, is_reserved};
pub use types::{ObjectType, Type};
pub use value::{Fields, Key, List, Map, StructValue, Text, Value, equal, to_json};
