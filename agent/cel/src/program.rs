//! Expressions that were read and checked, and what they are evaluated with.

mod evaluate;
mod plan;

use std::cell::Cell;

use crate::ast::Expr;
use crate::cost::{self, Estimate};
use crate::environment::Environment;
use crate::error::{EvalError, Result};
use crate::schema::Schema;
use crate::types::Type;
use crate::value::Value;

use evaluate::Evaluator;
use plan::Node;

/// What one evaluation of an expression may cost.
pub const CALL_LIMIT: u64 = 1_000_000;
/// What all evaluations for one object may cost.
pub const OBJECT_BUDGET: u64 = 10_000_000;
/// What all conditions of a webhook or policy may cost.
pub const CONDITIONS_BUDGET: u64 = 2_500_000;

/// An expression that fits its environment.
#[derive(Debug)]
pub struct Checked {
    expr: Expr,
    environment: Environment,
}

impl Checked {
    pub(crate) fn new(expr: Expr, environment: Environment) -> Self {
        Self { expr, environment }
    }

    /// The type of its result.
    #[must_use]
    pub fn output_type(&self) -> &Type {
        &self.expr.ty
    }

    /// What an evaluation may cost at least and at most, given the schemas of some variables.
    #[must_use]
    pub fn cost(&self, schemas: &[(&str, &Schema)]) -> Estimate {
        cost::estimate(&self.expr, schemas)
    }

    /// Whether it refers to a variable.
    #[must_use]
    pub fn uses(&self, variable: &str) -> bool {
        cost::uses(&self.expr, variable)
    }

    /// Makes it ready to be evaluated.
    #[must_use]
    pub fn program(self) -> Program {
        Program { root: plan::plan(&self.expr, &self.environment), output_type: self.expr.ty }
    }
}

/// An expression that can be evaluated, any number of times and from any thread.
#[derive(Debug)]
pub struct Program {
    root: Node,
    output_type: Type,
}

/// What is left to be spent on evaluations.
#[derive(Debug)]
pub struct Budget {
    left: Cell<u64>,
}

impl Budget {
    /// A budget of so much.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { left: Cell::new(limit) }
    }

    /// What is left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left.get()
    }

    fn spend(&self, cost: u64) -> Result<()> {
        match self.left.get().checked_sub(cost) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                self.left.set(0);
                Err(EvalError::budget())
            }
        }
    }
}

/// The variables' values.
#[derive(Clone, Default)]
pub struct Activation<'a> {
    variables: Vec<(&'a str, Value<'a>)>,
}

impl<'a> Activation<'a> {
    /// No variables yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more variable, or another value for it.
    #[must_use]
    pub fn with(mut self, name: &'a str, value: Value<'a>) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &'a str, value: Value<'a>) {
        match self.variables.iter_mut().find(|(known, _)| *known == name) {
            Some(variable) => variable.1 = value,
            None => self.variables.push((name, value)),
        }
    }

    fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

impl Program {
    /// The type of its result.
    #[must_use]
    pub fn output_type(&self) -> &Type {
        &self.output_type
    }

    /// Evaluates it.
    ///
    /// # Errors
    /// When the expression fails, or costs more than one evaluation may or than the budget holds.
    pub fn evaluate<'a>(&'a self, activation: &Activation<'a>, budget: &Budget) -> Result<Value<'a>> {
        let mut evaluator = Evaluator::new(activation);
        let result = evaluator.evaluate(&self.root);
        budget.spend(evaluator.spent())?;
        result
    }
}
