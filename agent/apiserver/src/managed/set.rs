//! Sets of field paths.

use std::cmp::Ordering;

use api::transcode::go_json;
use serde_json::{Map, Value, json};
use smol_str::SmolStr;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A field of a struct or a key of a map.
    Field(SmolStr),
    /// The member of a list with these values in its key fields.
    Key(Vec<(SmolStr, Value)>),
    /// The member of a set with this value.
    Value(Value),
    /// The member at this place of a list without keys.
    Index(i64),
}

impl Step {
    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        }
    }

    /// As `fieldsV1` has it.
    fn text(&self) -> String {
        match self {
            Self::Field(name) => ["f:", name.as_str()].concat(),
            Self::Key(pairs) => {
                let pairs = pairs.iter().map(|(k, v)| format!("{}:{}", json!(k.as_str()), go_json(v)));
                format!("k:{{{}}}", pairs.collect::<Vec<_>>().join(","))
            }
            Self::Value(value) => format!("v:{}", go_json(value)),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (prefix, rest) = text.split_at_checked(2)?;
        Some(match prefix {
            "f:" => Self::Field(rest.into()),
            "v:" => Self::Value(serde_json::from_str(rest).ok()?),
            "i:" => Self::Index(rest.parse().ok()?),
            "k:" => {
                let map: Map<String, Value> = serde_json::from_str(rest).ok()?;
                Self::Key(map.into_iter().map(|(key, value)| (key.into(), value)).collect())
            }
            _ => return None,
        })
    }
}

impl PartialOrd for Step {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Step {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Value(a), Self::Value(b)) => compare_values(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => {
                let pairs = a.iter().zip(b).map(|(x, y)| x.0.cmp(&y.0).then_with(|| compare_values(&x.1, &y.1)));
                pairs.fold(Ordering::Equal, Ordering::then).then_with(|| a.len().cmp(&b.len()))
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

/// Numbers before texts before booleans before nothing, each in their own order.
fn compare_values(a: &Value, b: &Value) -> Ordering {
    let rank = |v: &Value| match v {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    };
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => x.cmp(&y),
            _ => x.as_f64().unwrap_or(0.0).total_cmp(&y.as_f64().unwrap_or(0.0)),
        },
        (Value::String(x), Value::String(y)) => x.cmp(y),
        (Value::Bool(x), Value::Bool(y)) => x.cmp(y),
        _ => rank(a).cmp(&rank(b)).then_with(|| a.to_string().cmp(&b.to_string())),
    }
}

/// A set of paths, as a tree: steps in order, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    nodes: Vec<(Step, Node)>,
}

/// What a set holds of one path and those that go on from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Whether the path that ends here is in the set.
    pub is_member: bool,
    /// The paths that go on.
    pub below: Set,
}

impl Node {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        !self.is_member && self.below.is_empty()
    }

    fn add(&mut self, other: Self) {
        self.is_member |= other.is_member;
        self.below.absorb(other.below);
    }
}

/// The nodes of a set, for steps that are asked for in order.
struct InOrder<'s>(std::slice::Iter<'s, (Step, Node)>);

impl<'s> InOrder<'s> {
    fn node(&mut self, step: &Step) -> Option<&'s Node> {
        loop {
            let (own, node) = self.0.as_slice().first()?;
            match own.cmp(step) {
                Ordering::Less => drop(self.0.next()),
                Ordering::Equal => return Some(node),
                Ordering::Greater => return None,
            }
        }
    }
}

impl Set {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Puts a path in. The empty path is no member of any set.
    pub fn insert(&mut self, path: &[Step]) {
        let Some((first, rest)) = path.split_first() else { return };
        let node = self.node_mut(first.clone());
        if rest.is_empty() { node.is_member = true } else { node.below.insert(rest) }
    }

    /// Puts what a node holds in, under a step.
    pub fn put(&mut self, step: Step, node: Node) {
        if !node.is_empty() {
            self.node_mut(step).add(node);
        }
    }

    fn node_mut(&mut self, step: Step) -> &mut Node {
        let at = match self.nodes.last() {
            Some((last, _)) if *last >= step => self.find(&step),
            _ => Err(self.nodes.len()),
        };
        let at = at.unwrap_or_else(|at| {
            self.nodes.insert(at, (step, Node::default()));
            at
        });
        &mut self.nodes[at].1
    }

    fn find(&self, step: &Step) -> Result<usize, usize> {
        self.nodes.binary_search_by(|(own, _)| own.cmp(step))
    }

    fn node(&self, step: &Step) -> Option<&Node> {
        self.find(step).ok().map(|at| &self.nodes[at].1)
    }

    fn in_order(&self) -> InOrder<'_> {
        InOrder(self.nodes.iter())
    }

    /// Whether the step is a member.
    pub fn has(&self, step: &Step) -> bool {
        self.node(step).is_some_and(|n| n.is_member)
    }

    /// What lies below a step.
    pub fn below(&self, step: &Step) -> Option<&Self> {
        self.node(step).map(|n| &n.below).filter(|s| !s.is_empty())
    }

    /// The steps with what they hold, to change: whether each is a member, and what is below.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&Step, &mut bool, &mut Self)> {
        self.nodes.iter_mut().map(|(step, node)| (&*step, &mut node.is_member, &mut node.below))
    }

    /// What is in either.
    pub fn union(mut self, other: &Self) -> Self {
        self.add(other);
        self
    }

    /// Takes what is in the other in.
    pub fn add(&mut self, other: &Self) {
        for (step, node) in &other.nodes {
            match self.find(step) {
                Ok(at) => {
                    let own = &mut self.nodes[at].1;
                    own.is_member |= node.is_member;
                    own.below.add(&node.below);
                }
                Err(at) => self.nodes.insert(at, (step.clone(), node.clone())),
            }
        }
    }

    /// As `add`, of a set that nobody else needs.
    pub fn absorb(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        for (step, node) in other.nodes {
            self.put(step, node);
        }
    }

    /// What is in this one and not in the other.
    pub fn difference(mut self, other: &Self) -> Self {
        self.subtract(other);
        self
    }

    /// Leaves out what is in the other.
    pub fn subtract(&mut self, other: &Self) {
        let mut theirs = other.in_order();
        self.nodes.retain_mut(|(step, node)| {
            if let Some(theirs) = theirs.node(step) {
                node.is_member &= !theirs.is_member;
                node.below.subtract(&theirs.below);
            }
            !node.is_empty()
        });
    }

    /// What is in both.
    pub fn intersection(mut self, other: &Self) -> Self {
        self.keep(other);
        self
    }

    fn keep(&mut self, other: &Self) {
        let mut theirs = other.in_order();
        self.nodes.retain_mut(|(step, node)| {
            let Some(theirs) = theirs.node(step) else { return false };
            node.is_member &= theirs.is_member;
            node.below.keep(&theirs.below);
            !node.is_empty()
        });
    }

    /// This one without the members of the other and everything below them.
    pub fn without(mut self, other: &Self) -> Self {
        self.drop_below(other);
        self
    }

    fn drop_below(&mut self, other: &Self) {
        let mut theirs = other.in_order();
        self.nodes.retain_mut(|(step, node)| {
            match theirs.node(step) {
                Some(theirs) if theirs.is_member => return false,
                Some(theirs) => node.below.drop_below(&theirs.below),
                None => {}
            }
            !node.is_empty()
        });
    }

    /// Every path whose end is a member: those that end here in order, then those that go on.
    pub fn paths(&self) -> Vec<Vec<Step>> {
        let mut out = Vec::new();
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut Vec<Step>, out: &mut Vec<Vec<Step>>) {
        for (step, _) in self.nodes.iter().filter(|(_, node)| node.is_member) {
            out.push(prefix.iter().chain([step]).cloned().collect());
        }
        for (step, node) in &self.nodes {
            prefix.push(step.clone());
            node.below.collect(prefix, out);
            prefix.pop();
        }
    }

    /// The tree of `fieldsV1`.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (step, node) in &self.nodes {
            let mut inner = node.below.to_value();
            if node.is_member
                && !node.below.is_empty()
                && let Some(inner) = inner.as_object_mut()
            {
                inner.insert(".".into(), Value::Object(Map::new()));
            }
            map.insert(step.text(), inner);
        }
        Value::Object(map)
    }

    /// Reads the tree of `fieldsV1`.
    pub fn from_value(value: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (text, inner) in value.as_object()? {
            if text == "." {
                continue;
            }
            let below = Self::from_value(inner)?;
            let is_member = below.is_empty() || inner.get(".").is_some();
            set.put(Step::parse(text)?, Node { is_member, below });
        }
        Some(set)
    }
}

/// A path as texts show it: `.spec.containers[name="a"].image`.
pub fn path_text(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Field(name) => out.push_str(&format!(".{name}")),
            Step::Key(pairs) => {
                let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}={}", shown(v))).collect();
                out.push_str(&format!("[{}]", pairs.join(",")));
            }
            Step::Value(value) => out.push_str(&format!("[={}]", shown(value))),
            Step::Index(index) => out.push_str(&format!("[{index}]")),
        }
    }
    out
}

/// A value as paths show it.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => stdx::quoted(text).to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(",")),
        Value::Object(map) => map.iter().map(|(key, value)| format!("{key}={}", shown(value))).collect(),
        other => other.to_string(),
    }
}

/// A set of fields that are named by dotted paths.
pub fn of_paths(paths: &[&str]) -> Set {
    let mut set = Set::default();
    for path in paths {
        let steps: Vec<Step> = path.split('.').map(|name| Step::Field(name.into())).collect();
        set.insert(&steps);
    }
    set
}
