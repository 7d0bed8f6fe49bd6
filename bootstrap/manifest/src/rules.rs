//! Rules across keys. They run over whatever sections could be read, so that one wrong value does not hide the others.

mod cluster;
mod dns;
mod encryption;
mod etcd;
mod firewall;
mod links;
mod network;
mod node;
mod outbound;
mod routing;
mod storage;
mod virtual_address;
mod wireguard;

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::findings::{Finding, Findings};
use crate::read::Parts;

/// What rules look at, and where they put what they find.
pub(crate) struct Rules<'a> {
    root: &'a DeTable<'a>,
    parts: &'a Parts,
    findings: &'a mut Findings,
}

/// Applies every rule.
pub(crate) fn check(root: &DeTable<'_>, parts: &Parts, findings: &mut Findings) {
    let mut rules = Rules { root, parts, findings };
    cluster::check(&mut rules);
    virtual_address::check(&mut rules);
    network::check(&mut rules);
    dns::check(&mut rules);
    links::check(&mut rules);
    routing::check(&mut rules);
    firewall::check(&mut rules);
    wireguard::check(&mut rules);
    etcd::check(&mut rules);
    node::check(&mut rules);
    outbound::check(&mut rules);
    encryption::check(&mut rules);
    storage::check(&mut rules);
}

/// A value on the way down a path.
#[derive(Clone, Copy)]
enum Node<'a> {
    Table(&'a DeTable<'a>),
    Value(&'a DeValue<'a>),
}

impl<'a> Rules<'a> {
    /// The span of the value at a path, or of the nearest table around it that is there.
    fn span(&self, path: &str) -> Range<usize> {
        self.walk_to(path).0
    }

    /// Whether something is written at a path, right or wrong.
    fn has(&self, path: &str) -> bool {
        self.walk_to(path).1.is_some()
    }

    /// The span of [`Rules::span`], and what is at the path.
    fn walk_to(&self, path: &str) -> (Range<usize>, Option<Node<'a>>) {
        let mut node = Node::Table(self.root);
        let mut span = 0..0;
        // What the user named may have dots in it, and is quoted then.
        let mut is_quoted = false;
        let steps = path.split(|c| {
            is_quoted ^= c == '"';
            !is_quoted && matches!(c, '.' | '[')
        });
        for step in steps {
            let step = step.trim_matches('"');
            let next = match (node, step.strip_suffix(']')) {
                (Node::Value(DeValue::Array(elements)), Some(index)) => {
                    index.parse().ok().and_then(|index: usize| elements.get(index))
                }
                (Node::Table(table) | Node::Value(DeValue::Table(table)), None) => table.get(step),
                (Node::Table(_) | Node::Value(_), _) => None,
            };
            let Some(next) = next else {
                return (span, None);
            };
            span = next.span();
            node = Node::Value(next.get_ref());
        }
        (span, Some(node))
    }

    /// The text at a path, if one is written.
    fn text(&self, path: &str) -> Option<&'a str> {
        match self.walk_to(path) {
            (_, Some(Node::Value(value))) => value.as_str(),
            (_, Some(Node::Table(_)) | None) => None,
        }
    }

    fn error(&mut self, path: &str, reason: impl Into<String>) -> &mut Finding {
        self.findings.push(Finding::error(self.span(path), path, reason))
    }

    /// An error about a key that the machine's role needs: in its section, or at the role if there is no section.
    fn missing(&mut self, path: &str, reason: impl Into<String>) -> &mut Finding {
        let section = path.split('.').next().unwrap_or(path);
        let span = self.span(if self.has(section) { section } else { "machine.role" });
        self.findings.push(Finding::error(span, path, reason))
    }

    fn warning(&mut self, path: &str, reason: impl Into<String>) -> &mut Finding {
        self.findings.push(Finding::warning(self.span(path), path, reason))
    }
}
