//! What an expression may cost at least and at most, from what is known of its variables' sizes.

mod calls;
mod size;

use crate::ast::{Expr, Fold, Kind, Literal, Select};
use crate::schema::Schema;
use crate::types::Type;

use super::{LIST_COST, MAP_COST, STRUCT_COST};

pub use size::Estimate;
use size::{Entry, Range};

/// Everything about a subexpression that matters to those around it.
#[derive(Clone, Debug, Default)]
struct Info {
    cost: Estimate,
    /// The way from a variable to the value, if it lies there.
    path: Vec<String>,
    size: Option<Range>,
    entry: Option<Entry>,
}

impl Info {
    fn size_or_unknown(&self) -> Range {
        self.size.unwrap_or(Range::UNKNOWN)
    }
}

/// Estimates an expression, given the schemas of some variables.
pub(crate) fn estimate(expr: &Expr, schemas: &[(&str, &Schema)]) -> Estimate {
    Estimator { schemas, locals: Vec::new() }.visit(expr).cost
}

struct Local {
    name: String,
    path: Vec<String>,
    size: Option<Range>,
    entry: Option<Entry>,
}

struct Estimator<'s> {
    schemas: &'s [(&'s str, &'s Schema)],
    locals: Vec<Local>,
}

impl Estimator<'_> {
    /// How large the value at a path can be.
    fn size_at(&self, path: &[String]) -> Option<Range> {
        let (first, steps) = path.split_first()?;
        let named = self.schemas.iter().find(|(name, _)| name == first);
        // What comes from no variable is taken to lie at the root, as upstream does.
        let (_, root) = named.or(self.schemas.first())?;
        let mut schema: &Schema = root;
        for step in steps {
            if step == "@keys" {
                return schema.is_map().then_some(Range { min: 0, max: 0 });
            }
            schema = schema.child(step)?;
        }
        Some(Range { min: 0, max: schema.max_elements.unwrap_or(0) })
    }

    /// The size of a value: of the expression itself, then what the schema says, then what the type says.
    fn sized(&self, expr: &Expr, path: &[String], local: Option<Range>) -> Option<Range> {
        written_size(expr).or_else(|| self.size_at(path)).or_else(|| type_size(&expr.ty)).or(local)
    }

    fn visit(&mut self, expr: &Expr) -> Info {
        match &expr.kind {
            Kind::Literal(_) => Info { size: self.sized(expr, &[], None), ..Info::default() },
            Kind::Ident(name) => self.ident(expr, name),
            Kind::Select(select) => self.select(expr, select),
            Kind::Call(call) => self.call(expr, call),
            Kind::List(elements) => {
                let infos: Vec<Info> = elements.iter().map(|e| self.visit(&e.value)).collect();
                let cost = infos.iter().fold(Estimate::fixed(LIST_COST), |sum, i| sum.add(i.cost));
                let value = union(infos.iter());
                let entry = Some(Entry { is_list: true, key: Range::fixed(1), value });
                Info { cost, size: written_size(expr), entry, ..Info::default() }
            }
            Kind::Map(entries) => {
                let pairs: Vec<(Info, Info)> =
                    entries.iter().map(|e| (self.visit(&e.key), self.visit(&e.value))).collect();
                let sum = |sum: Estimate, (k, v): &(Info, Info)| sum.add(k.cost).add(v.cost);
                let cost = pairs.iter().fold(Estimate::fixed(MAP_COST), sum);
                let (key, value) = (union(pairs.iter().map(|p| &p.0)), union(pairs.iter().map(|p| &p.1)));
                let entry = Some(Entry { is_list: false, key, value });
                Info { cost, size: written_size(expr), entry, ..Info::default() }
            }
            Kind::Struct(object) => {
                let costs = object.fields.iter().map(|f| self.visit(&f.value).cost);
                Info { cost: costs.fold(Estimate::fixed(STRUCT_COST), Estimate::add), ..Info::default() }
            }
            Kind::Fold(fold) if is_bind(fold) => self.bind(fold),
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    fn ident(&self, expr: &Expr, name: &str) -> Info {
        let local = self.locals.iter().rev().find(|l| l.name == name);
        let path = local.map_or_else(|| vec![name.to_owned()], |l| l.path.clone());
        let size = self.sized(expr, &path, local.and_then(|l| l.size));
        Info { cost: Estimate::fixed(1), size, entry: local.and_then(|l| l.entry), path }
    }

    fn select(&mut self, expr: &Expr, select: &Select) -> Info {
        let operand = self.visit(&select.operand);
        if select.is_test {
            return Info { cost: operand.cost, size: type_size(&expr.ty), ..Info::default() };
        }
        let counts = matches!(select.operand.ty, Type::Map(..) | Type::Object(_) | Type::Param(_));
        let cost = operand.cost.add(Estimate::fixed(u64::from(counts)));
        let mut path = operand.path;
        path.push(select.field.clone());
        let size = self.sized(expr, &path, None);
        Info { cost, path, size, entry: None }
    }

    fn push(&mut self, name: &str, of: &Info, step: Option<&str>, size: Option<Range>) {
        let mut path = of.path.clone();
        path.extend(step.map(str::to_owned));
        let entry = if step.is_none() { of.entry } else { None };
        self.locals.push(Local { name: name.to_owned(), path, size, entry });
    }

    fn bind(&mut self, fold: &Fold) -> Info {
        let init = self.visit(&fold.init);
        let empty = self.visit(&fold.range);
        self.push(&fold.accu, &init, None, init.size);
        let result = self.visit(&fold.result);
        self.locals.pop();
        Info { cost: empty.cost.add(init.cost).add(result.cost), path: Vec::new(), ..result }
    }

    fn fold(&mut self, fold: &Fold) -> Info {
        let range = self.visit(&fold.range);
        let init = self.visit(&fold.init);
        let outer = self.locals.len();
        self.push(&fold.accu, &init, None, init.size);
        let is_list = range.entry.map_or(matches!(fold.range.ty, Type::List(_)), |e| e.is_list);
        let (key, value) = if is_list { ("@indices", "@items") } else { ("@keys", "@values") };
        let (key_size, value_size) = (range.entry.map(|e| e.key), range.entry.map(|e| e.value));
        if let Some(second) = &fold.var2 {
            self.push(&fold.var, &range, Some(key), key_size);
            self.push(second, &range, Some(value), value_size);
        } else if is_list {
            self.push(&fold.var, &range, Some(value), value_size);
        } else {
            self.push(&fold.var, &range, Some(key), key_size);
        }
        let condition = self.visit(&fold.condition);
        let step = self.visit(&fold.step);
        self.locals.truncate(outer + 1);
        let result = self.visit(&fold.result);
        self.locals.truncate(outer);
        let turns = range.size_or_unknown();
        let loops = turns.times_cost(step.cost.add(condition.cost));
        let cost = range.cost.add(init.cost).add(result.cost).add(loops);
        let makes_many = matches!(fold.init.kind, Kind::List(_) | Kind::Map(_));
        let size = if makes_many { Some(turns) } else { init.size };
        Info { cost, path: Vec::new(), size, entry: step.entry.filter(|_| makes_many) }
    }
}

fn union<'i>(infos: impl Iterator<Item = &'i Info>) -> Range {
    infos.map(Info::size_or_unknown).reduce(Range::union).unwrap_or(Range { min: 0, max: 0 })
}

fn is_bind(fold: &Fold) -> bool {
    let is_empty = matches!(&fold.range.kind, Kind::List(elements) if elements.is_empty());
    is_empty && matches!(fold.condition.kind, Kind::Literal(Literal::Bool(false)))
}

/// The size of what is written out.
fn written_size(expr: &Expr) -> Option<Range> {
    let size = match &expr.kind {
        Kind::Literal(Literal::String(text)) => text.chars().count(),
        Kind::Literal(Literal::Bytes(bytes)) => bytes.len(),
        Kind::Literal(_) => 1,
        Kind::List(elements) => elements.len(),
        Kind::Map(entries) => entries.len(),
        _ => return None,
    };
    Some(Range::fixed(size as u64))
}

fn type_size(ty: &Type) -> Option<Range> {
    match ty {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => Some(Range::fixed(1)),
        Type::Optional(inner) => type_size(inner),
        _ => None,
    }
}
