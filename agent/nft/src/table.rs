//! The value: a table with its chains, sets and maps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use crate::change::{ELEMENTS_PER_LINE, Script};

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Look at every packet.
    Filter,
    /// Translate addresses; sees the first packet of a connection.
    Nat,
}

/// Where a base chain hangs in a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// After arriving, before routing.
    Prerouting,
    /// For this machine.
    Input,
    /// For others.
    Forward,
    /// Made by this machine.
    Output,
    /// Before leaving.
    Postrouting,
}

/// What makes a chain a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// What it may do.
    pub kind: ChainKind,
    /// Where it hangs.
    pub hook: Hook,
    /// Lower comes first. -100 is destination NAT, 0 is filtering, 100 is source NAT.
    pub priority: i32,
}

/// A list of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Set for a chain that packets enter by themselves; others are reached by jumps.
    pub base: Option<Base>,
    /// The rules in nft's language, in order.
    pub rules: Vec<String>,
}

/// A set of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// The keys' type, such as `ipv4_addr . inet_service`.
    pub key: String,
    /// nft's flags, such as `interval` or `dynamic, timeout`.
    pub flags: Vec<&'static str>,
    /// Other properties, such as `timeout 10800s` or `size 65535`.
    pub properties: Vec<String>,
    /// The keys that are put in; a dynamic set gets others from packets.
    pub elements: BTreeSet<Box<str>>,
}

/// A map from keys to values or verdicts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    /// The keys' type.
    pub key: String,
    /// The values' type, `verdict` for a verdict map.
    pub value: String,
    /// nft's flags.
    pub flags: Vec<&'static str>,
    /// What it maps.
    pub elements: BTreeMap<Box<str>, Box<str>>,
}

/// What a named counter has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A table: the unit that has one owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which packets it sees.
    pub family: Family,
    /// Its name, unique within its family.
    pub name: String,
    /// Its chains by name.
    pub chains: BTreeMap<Box<str>, Chain>,
    /// Its sets by name.
    pub sets: BTreeMap<Box<str>, Set>,
    /// Its maps by name.
    pub maps: BTreeMap<Box<str>, Map>,
    /// Names of counters that rules refer to by `counter name`.
    pub counters: BTreeSet<Box<str>>,
}

impl Chain {
    /// A chain that is reached by jumps.
    pub fn new<R: Into<String>>(rules: impl IntoIterator<Item = R>) -> Self {
        Self { base: None, rules: rules.into_iter().map(Into::into).collect() }
    }

    /// A chain that packets enter by themselves.
    pub fn base<R: Into<String>>(base: Base, rules: impl IntoIterator<Item = R>) -> Self {
        Self { base: Some(base), ..Self::new(rules) }
    }
}

impl Set {
    /// An empty set.
    pub fn new(key: impl Into<String>) -> Self {
        Self { key: key.into(), ..Self::default() }
    }

    /// The same with other elements.
    #[must_use]
    pub fn with<E: Into<Box<str>>>(mut self, elements: impl IntoIterator<Item = E>) -> Self {
        self.elements = elements.into_iter().map(Into::into).collect();
        self
    }
}

impl Map {
    /// An empty map.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into(), ..Self::default() }
    }
}

impl Table {
    /// An empty table.
    pub fn new(family: Family, name: impl Into<String>) -> Self {
        let (chains, sets, maps) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { family, name: name.into(), chains, sets, maps, counters: BTreeSet::new() }
    }

    /// How commands name it.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{} {}", self.family, self.name)
    }

    /// The text that puts this table in place of whatever is there under its name, or makes it.
    #[must_use]
    pub fn replace_script(&self) -> Script {
        let mut script = self.delete_script();
        let id = self.id();
        script.line(format_args!("add table {id}"));
        // Jumps and verdicts may name any chain, so all of them come before the first use.
        for (name, chain) in &self.chains {
            script.add_chain(&id, name, chain.base);
        }
        for (name, set) in &self.sets {
            script.add_set(&id, name, set);
        }
        for (name, map) in &self.maps {
            script.add_map(&id, name, map);
        }
        for name in &self.counters {
            script.line(format_args!("add counter {id} {name}"));
        }
        for (name, chain) in &self.chains {
            script.add_rules(&id, name, &chain.rules);
        }
        for (name, set) in &self.sets {
            script.elements("add", &id, name, set.elements.iter().map(|key| Entry(key, None)));
        }
        for (name, map) in &self.maps {
            script.elements("add", &id, name, map.elements.iter().map(|(key, value)| Entry(key, Some(value))));
        }
        script
    }

    /// The text that removes the table, if it is there.
    #[must_use]
    pub fn delete_script(&self) -> Script {
        let mut script = Script::default();
        let id = self.id();
        // Adding first makes the removal succeed when there is none.
        script.line(format_args!("add table {id}"));
        script.line(format_args!("delete table {id}"));
        script
    }
}

/// An element as written.
pub(crate) struct Entry<'a>(pub(crate) &'a str, pub(crate) Option<&'a str>);

impl fmt::Display for Entry<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(value) => write!(out, "{} : {value}", self.0),
            None => out.write_str(self.0),
        }
    }
}

impl Script {
    pub(crate) fn add_chain(&mut self, table: &str, name: &str, base: Option<Base>) {
        match base {
            Some(Base { kind, hook, priority }) => self.line(format_args!(
                "add chain {table} {name} {{ type {kind} hook {hook} priority {priority}; policy accept; }}"
            )),
            None => self.line(format_args!("add chain {table} {name}")),
        }
    }

    pub(crate) fn add_set(&mut self, table: &str, name: &str, set: &Set) {
        let properties = Properties { flags: &set.flags, others: &set.properties };
        self.line(format_args!("add set {table} {name} {{ type {};{properties} }}", set.key));
    }

    pub(crate) fn add_map(&mut self, table: &str, name: &str, map: &Map) {
        let properties = Properties { flags: &map.flags, others: &[] };
        self.line(format_args!("add map {table} {name} {{ type {} : {};{properties} }}", map.key, map.value));
    }

    pub(crate) fn add_rules(&mut self, table: &str, chain: &str, rules: &[String]) {
        for rule in rules {
            self.line(format_args!("add rule {table} {chain} {rule}"));
        }
    }

    /// A command over elements, in lines of bounded length, so that an error's line says something.
    pub(crate) fn elements<'a>(
        &mut self,
        verb: &str,
        table: &str,
        name: &str,
        entries: impl Iterator<Item = Entry<'a>>,
    ) {
        let mut in_line = 0;
        for entry in entries {
            if in_line == 0 {
                self.text(format_args!("{verb} element {table} {name} {{ {entry}"));
            } else {
                self.text(format_args!(", {entry}"));
            }
            in_line += 1;
            if in_line == ELEMENTS_PER_LINE {
                self.text(format_args!(" }}\n"));
                in_line = 0;
            }
        }
        if in_line > 0 {
            self.text(format_args!(" }}\n"));
        }
    }
}

struct Properties<'a> {
    flags: &'a [&'static str],
    others: &'a [String],
}

impl fmt::Display for Properties<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.flags.is_empty() {
            write!(out, " flags {};", self.flags.join(", "))?;
        }
        for other in self.others {
            write!(out, " {other};")?;
        }
        Ok(())
    }
}

impl fmt::Display for Family {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        })
    }
}

impl fmt::Display for ChainKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        })
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.replace_script().as_str())?;
        out.write_char('\n')
    }
}
