//! Macros: calls that stand for other expressions.

use crate::ast::{Expr, Fold, Kind, Literal, RESULT, Select, op};
use crate::parser::Parser;

/// What the accumulator was once called; nobody may use it.
const OLD_RESULT: &str = "__result__";

/// What is wrong with a macro's arguments, and where.
type Expanded = Result<Expr, (u32, &'static str)>;

/// A call of a function by its name, or what the macro of that name makes of it.
pub(crate) fn global_call(parser: &mut Parser, at: u32, function: &str, mut args: Vec<Expr>) -> Expr {
    if function != "has" || args.len() != 1 {
        return Expr::call(at, function, args);
    }
    let Some(argument) = args.pop() else { return Expr::call(at, function, args) };
    match argument.kind {
        Kind::Select(select) if !select.is_test => {
            Expr::new(at, Kind::Select(Box::new(Select { is_test: true, ..*select })))
        }
        _ => {
            parser.problem(argument.at, "invalid argument to has() macro");
            argument
        }
    }
}

/// A call on a target, or what the macro of that name makes of it.
pub(crate) fn member_call(parser: &mut Parser, at: u32, target: Expr, function: &str, args: Vec<Expr>) -> Expr {
    let expanded = match (function, args.len()) {
        ("all", 2 | 3) => quantifier(at, target, args, Quantifier::All),
        ("exists", 2 | 3) => quantifier(at, target, args, Quantifier::Exists),
        ("exists_one" | "existsOne", 2 | 3) => quantifier(at, target, args, Quantifier::ExistsOne),
        ("map", 2 | 3) => map(at, target, args),
        ("filter", 2) => filter(at, target, args),
        ("transformList", 3 | 4) => transform(at, target, args, Transform::List),
        ("transformMap", 3 | 4) => transform(at, target, args, Transform::Map),
        ("transformMapEntry", 3 | 4) => transform(at, target, args, Transform::MapEntry),
        ("optMap", 2) => optional(at, target, args, true),
        ("optFlatMap", 2) => optional(at, target, args, false),
        ("sortBy", 2) => sort_by(at, target, args),
        ("bind", 3) if parser.has_bindings && matches!(&target.kind, Kind::Ident(name) if name == "cel") => {
            bind(at, args)
        }
        _ => return Expr::member_call(at, target, function, args),
    };
    expanded.unwrap_or_else(|(problem_at, text)| {
        parser.problem(problem_at, text);
        Expr::literal(at, Literal::Null)
    })
}

#[derive(Clone, Copy)]
enum Quantifier {
    All,
    Exists,
    ExistsOne,
}

#[derive(Clone, Copy)]
enum Transform {
    List,
    Map,
    MapEntry,
}

fn variable(arg: &Expr, problem: &'static str) -> Result<String, (u32, &'static str)> {
    match &arg.kind {
        Kind::Ident(name) if name == RESULT || name == OLD_RESULT => {
            Err((arg.at, "iteration variable overwrites accumulator variable"))
        }
        Kind::Ident(name) => Ok(name.clone()),
        _ => Err((arg.at, problem)),
    }
}

/// The loop variables: all arguments but the last `rest`.
fn variables(args: &[Expr], rest: usize) -> Result<(String, Option<String>), (u32, &'static str)> {
    let first = variable(&args[0], "argument must be a simple name")?;
    if args.len() == rest + 1 {
        return Ok((first, None));
    }
    let second = variable(&args[1], "argument must be a simple name")?;
    if first == second {
        return Err((args[1].at, "duplicate variable name"));
    }
    Ok((first, Some(second)))
}

fn result(at: u32) -> Expr {
    Expr::ident(at, RESULT)
}

fn yes(at: u32) -> Expr {
    Expr::literal(at, Literal::Bool(true))
}

fn fold(at: u32, fold: Fold) -> Expr {
    Expr::new(at, Kind::Fold(Box::new(fold)))
}

/// A name for a value within an expression.
fn bind(at: u32, args: Vec<Expr>) -> Expanded {
    const PROBLEM: &str = "cel.bind() variable names must be simple identifiers";
    let Ok([name, value, body]) = <[Expr; 3]>::try_from(args) else { return Err((at, PROBLEM)) };
    let name = variable(&name, PROBLEM)?;
    Ok(bound(at, name, value, body))
}

fn quantifier(at: u32, range: Expr, mut args: Vec<Expr>, kind: Quantifier) -> Expanded {
    let (var, var2) = variables(&args, 1)?;
    let Some(predicate) = args.pop() else { return Err((at, "argument must be a simple name")) };
    let call = |function: &str, args: Vec<Expr>| Expr::call(at, function, args);
    let (init, condition, step, outcome) = match kind {
        Quantifier::All => (
            yes(at),
            call(op::NOT_STRICTLY_FALSE, vec![result(at)]),
            call(op::AND, vec![result(at), predicate]),
            result(at),
        ),
        Quantifier::Exists => (
            Expr::literal(at, Literal::Bool(false)),
            call(op::NOT_STRICTLY_FALSE, vec![call(op::NOT, vec![result(at)])]),
            call(op::OR, vec![result(at), predicate]),
            result(at),
        ),
        Quantifier::ExistsOne => {
            let one = || Expr::literal(at, Literal::Int(1));
            let more = call(op::ADD, vec![result(at), one()]);
            (
                Expr::literal(at, Literal::Int(0)),
                yes(at),
                call(op::CONDITIONAL, vec![predicate, more, result(at)]),
                call(op::EQUALS, vec![result(at), one()]),
            )
        }
    };
    Ok(fold(at, Fold { range, var, var2, accu: RESULT.to_owned(), init, condition, step, result: outcome }))
}

fn collect(at: u32, range: Expr, (var, var2): (String, Option<String>), init: Expr, step: Expr) -> Expr {
    fold(at, Fold { range, var, var2, accu: RESULT.to_owned(), init, condition: yes(at), step, result: result(at) })
}

fn append(at: u32, value: Expr) -> Expr {
    Expr::call(at, op::ADD, vec![result(at), Expr::list(at, vec![value])])
}

fn only_if(at: u32, filter: Option<Expr>, step: Expr) -> Expr {
    match filter {
        Some(filter) => Expr::call(at, op::CONDITIONAL, vec![filter, step, result(at)]),
        None => step,
    }
}

fn map(at: u32, range: Expr, mut args: Vec<Expr>) -> Expanded {
    let var = variable(&args[0], "argument is not an identifier")?;
    let Some(value) = args.pop() else { return Err((at, "argument is not an identifier")) };
    let filter = if args.len() == 2 { args.pop() } else { None };
    let step = only_if(at, filter, append(at, value));
    Ok(collect(at, range, (var, None), Expr::list(at, Vec::new()), step))
}

fn filter(at: u32, range: Expr, mut args: Vec<Expr>) -> Expanded {
    let var = variable(&args[0], "argument is not an identifier")?;
    let predicate = args.pop();
    let value = Expr::ident(args[0].at, &var);
    let step = only_if(at, predicate, append(at, value));
    Ok(collect(at, range, (var, None), Expr::list(at, Vec::new()), step))
}

fn sort_by(at: u32, target: Expr, args: Vec<Expr>) -> Expanded {
    const INPUT: &str = "@__sortBy_input__";
    let input = || Expr::ident(at, INPUT);
    let keys = map(at, input(), args)?;
    Ok(bound(at, INPUT.to_owned(), target, Expr::member_call(at, input(), "@sortByAssociatedKeys", vec![keys])))
}

fn transform(at: u32, range: Expr, mut args: Vec<Expr>, kind: Transform) -> Expanded {
    let rest = args.len() - 2;
    let vars = variables(&args, rest)?;
    let Some(value) = args.pop() else { return Err((at, "argument must be a simple name")) };
    let filter = if rest == 2 { args.pop() } else { None };
    let (init, step) = match kind {
        Transform::List => (Expr::list(at, Vec::new()), append(at, value)),
        Transform::Map => {
            let key = Expr::ident(at, &vars.0);
            let insert = Expr::call(at, op::MAP_INSERT, vec![result(at), key, value]);
            (Expr::new(at, Kind::Map(Vec::new())), insert)
        }
        Transform::MapEntry => {
            let insert = Expr::call(at, op::MAP_INSERT, vec![result(at), value]);
            (Expr::new(at, Kind::Map(Vec::new())), insert)
        }
    };
    Ok(collect(at, range, vars, init, only_if(at, filter, step)))
}

/// `init` under a name, and an expression that uses it: a loop over nothing.
fn bound(at: u32, name: String, init: Expr, body: Expr) -> Expr {
    fold(
        at,
        Fold {
            range: Expr::list(at, Vec::new()),
            var: "#unused".to_owned(),
            var2: None,
            step: Expr::ident(at, &name),
            accu: name,
            init,
            condition: Expr::literal(at, Literal::Bool(false)),
            result: body,
        },
    )
}

fn optional(at: u32, target: Expr, mut args: Vec<Expr>, wraps: bool) -> Expanded {
    let problem = if wraps {
        "optMap() variable name must be a simple identifier"
    } else {
        "optFlatMap() variable name must be a simple identifier"
    };
    let name = variable(&args[0], problem)?;
    let Some(body) = args.pop() else { return Err((at, problem)) };
    let has_value = Expr::member_call(at, target.clone(), "hasValue", Vec::new());
    let inner = bound(at, name, Expr::member_call(at, target, "value", Vec::new()), body);
    let some = if wraps { Expr::call(at, "optional.of", vec![inner]) } else { inner };
    let none = Expr::call(at, "optional.none", Vec::new());
    Ok(Expr::call(at, op::CONDITIONAL, vec![has_value, some, none]))
}
