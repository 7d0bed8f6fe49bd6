//! Changes to a table, and the text that makes the kernel follow.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use crate::table::{Chain, Entry, Map, Set, Table};

/// Elements in one line of a script.
pub(crate) const ELEMENTS_PER_LINE: usize = 64;

/// Text in nft's language; one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script(String);

impl Script {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts another text behind this one, into the same transaction.
    pub fn append(&mut self, other: &Self) {
        self.0.push_str(&other.0);
    }

    pub(crate) fn line(&mut self, text: fmt::Arguments<'_>) {
        self.text(text);
        self.0.push('\n');
    }

    pub(crate) fn text(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let written = self.0.write_fmt(text);
        debug_assert!(written.is_ok());
    }
}

/// By key: the value it should have, or none.
type Wishes = BTreeMap<Box<str>, Option<Box<str>>>;

/// What should become different in a table. A later wish for the same thing replaces the earlier one.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// By set or map and key: the value (empty text for sets), or none to take the element out.
    elements: BTreeMap<Box<str>, Wishes>,
    chains: BTreeMap<Box<str>, Option<Chain>>,
    sets: BTreeMap<Box<str>, Option<Set>>,
}

impl Changes {
    /// No changes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a key into a set.
    pub fn insert(&mut self, set: &str, key: impl Into<Box<str>>) {
        self.element(set, key.into(), Some("".into()));
    }

    /// Lets a map lead from `key` to `value`.
    pub fn map(&mut self, map: &str, key: impl Into<Box<str>>, value: impl Into<Box<str>>) {
        self.element(map, key.into(), Some(value.into()));
    }

    /// Takes a key out of a set or map.
    pub fn remove(&mut self, container: &str, key: impl Into<Box<str>>) {
        self.element(container, key.into(), None);
    }

    /// Gives a chain these contents, making it if need be. A base chain keeps its hook.
    pub fn chain(&mut self, name: impl Into<Box<str>>, chain: Chain) {
        self.chains.insert(name.into(), Some(chain));
    }

    /// Removes a chain; nothing may refer to it afterwards.
    pub fn remove_chain(&mut self, name: impl Into<Box<str>>) {
        self.chains.insert(name.into(), None);
    }

    /// Makes a set. If one of that name is there, it stays as it is, with what packets put into it.
    pub fn set(&mut self, name: impl Into<Box<str>>, set: Set) {
        self.sets.insert(name.into(), Some(set));
    }

    /// Removes a set; nothing may refer to it afterwards.
    pub fn remove_set(&mut self, name: impl Into<Box<str>>) {
        self.sets.insert(name.into(), None);
    }

    fn element(&mut self, container: &str, key: Box<str>, value: Option<Box<str>>) {
        match self.elements.get_mut(container) {
            Some(elements) => elements.insert(key, value),
            None => self.elements.entry(container.into()).or_default().insert(key, value),
        };
    }
}

impl Table {
    /// Takes changes into the value. The text is for only what differs from before, and empty if nothing does.
    pub fn change(&mut self, changes: Changes) -> Script {
        let mut edit = Edit { id: self.id(), script: Script::default(), removals: Script::default() };
        edit.create(self, &changes);
        edit.elements(self, changes.elements);
        edit.rules(self, changes.chains);
        edit.drop_sets(self, changes.sets);
        edit.script.append(&edit.removals);
        edit.script
    }
}

/// A change in the making.
struct Edit {
    id: String,
    script: Script,
    /// Chains and sets go last, when nothing refers to them any more.
    removals: Script,
}

impl Edit {
    fn create(&mut self, table: &mut Table, changes: &Changes) {
        for (name, wish) in &changes.chains {
            if let (Some(chain), false) = (wish, table.chains.contains_key(name)) {
                self.script.add_chain(&self.id, name, chain.base);
                table.chains.insert(name.clone(), Chain { base: chain.base, rules: Vec::new() });
            }
        }
        for (name, wish) in &changes.sets {
            if let (Some(set), false) = (wish, table.sets.contains_key(name)) {
                self.script.add_set(&self.id, name, set);
                self.script.elements("add", &self.id, name, set.elements.iter().map(|key| Entry(key, None)));
                table.sets.insert(name.clone(), set.clone());
            }
        }
    }

    fn elements(&mut self, table: &mut Table, elements: BTreeMap<Box<str>, Wishes>) {
        for (name, wishes) in elements {
            let container = match (table.maps.get_mut(&name), table.sets.get_mut(&name)) {
                (Some(map), _) => Container::Map(map),
                (None, Some(set)) => Container::Set(set),
                // Its declaration is missing, which the kernel would refuse anyway.
                (None, None) => continue,
            };
            self.container(&name, container, wishes);
        }
    }

    fn container(&mut self, name: &str, mut container: Container<'_>, wishes: Wishes) {
        let differs = |(key, value): &(Box<str>, Option<Box<str>>)| !container.holds(key, value.as_deref());
        let wishes: Vec<_> = wishes.into_iter().filter(differs).collect();
        let gone = wishes.iter().filter(|(key, _)| container.contains(key)).map(|(key, _)| Entry(key, None));
        self.script.elements("delete", &self.id, name, gone);
        let is_map = matches!(container, Container::Map(_));
        let added = wishes.iter().filter_map(|(key, value)| {
            let value = value.as_deref()?;
            Some(Entry(key, is_map.then_some(value)))
        });
        self.script.elements("add", &self.id, name, added);
        for (key, value) in wishes {
            container.store(key, value);
        }
    }

    fn rules(&mut self, table: &mut Table, chains: BTreeMap<Box<str>, Option<Chain>>) {
        let mut gone = Vec::new();
        for (name, wish) in chains {
            match wish {
                Some(chain) => {
                    let Some(old) = table.chains.get_mut(&name) else { continue };
                    if old.rules != chain.rules {
                        if !old.rules.is_empty() {
                            self.script.line(format_args!("flush chain {} {name}", self.id));
                        }
                        self.script.add_rules(&self.id, &name, &chain.rules);
                        old.rules = chain.rules;
                    }
                }
                None if table.chains.remove(&name).is_some() => gone.push(name),
                None => {}
            }
        }
        // Emptied first, because they may refer to each other and to sets that go.
        for name in &gone {
            self.removals.line(format_args!("flush chain {} {name}", self.id));
        }
        for name in &gone {
            self.removals.line(format_args!("delete chain {} {name}", self.id));
        }
    }

    fn drop_sets(&mut self, table: &mut Table, sets: BTreeMap<Box<str>, Option<Set>>) {
        for (name, wish) in sets {
            if wish.is_none() && table.sets.remove(&name).is_some() {
                self.removals.line(format_args!("delete set {} {name}", self.id));
            }
        }
    }
}

enum Container<'a> {
    Map(&'a mut Map),
    Set(&'a mut Set),
}

impl Container<'_> {
    fn contains(&self, key: &str) -> bool {
        match self {
            Self::Map(map) => map.elements.contains_key(key),
            Self::Set(set) => set.elements.contains(key),
        }
    }

    fn holds(&self, key: &str, value: Option<&str>) -> bool {
        match self {
            Self::Map(map) => map.elements.get(key).map(|value| &**value) == value,
            Self::Set(set) => set.elements.contains(key) == value.is_some(),
        }
    }

    fn store(&mut self, key: Box<str>, value: Option<Box<str>>) {
        match (self, value) {
            (Self::Map(map), Some(value)) => drop(map.elements.insert(key, value)),
            (Self::Map(map), None) => drop(map.elements.remove(&key)),
            (Self::Set(set), Some(_)) => drop(set.elements.insert(key)),
            (Self::Set(set), None) => drop(set.elements.remove(&key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Base, ChainKind, Family, Hook};

    fn table() -> Table {
        let mut table = Table::new(Family::Ip, "t");
        let base = Base { kind: ChainKind::Nat, hook: Hook::Prerouting, priority: -100 };
        table.chains.insert("entry".into(), Chain::base(base, ["tcp dport vmap @ports"]));
        table.chains.insert("a".into(), Chain::new(["drop"]));
        table.maps.insert("ports".into(), Map::new("inet_service", "verdict"));
        table.sets.insert("seen".into(), Set::new("ipv4_addr").with(["10.0.0.1"]));
        table
    }

    #[test]
    fn a_table_replaces_itself_whole() {
        let mut table = table();
        table.maps.get_mut("ports").unwrap().elements.insert("80".into(), "goto a".into());
        let expected = "add table ip t\n\
            delete table ip t\n\
            add table ip t\n\
            add chain ip t a\n\
            add chain ip t entry { type nat hook prerouting priority -100; policy accept; }\n\
            add set ip t seen { type ipv4_addr; }\n\
            add map ip t ports { type inet_service : verdict; }\n\
            add rule ip t a drop\n\
            add rule ip t entry tcp dport vmap @ports\n\
            add element ip t seen { 10.0.0.1 }\n\
            add element ip t ports { 80 : goto a }\n";
        assert_eq!(table.replace_script().as_str(), expected);
    }

    #[test]
    fn only_what_differs_is_written() {
        let mut table = table();
        let mut changes = Changes::new();
        changes.chain("b", Chain::new(["accept"]));
        changes.chain("a", Chain::new(["drop"]));
        changes.map("ports", "80", "goto b");
        changes.insert("seen", "10.0.0.1");
        changes.insert("seen", "10.0.0.2");
        let expected = "add chain ip t b\n\
            add element ip t ports { 80 : goto b }\n\
            add element ip t seen { 10.0.0.2 }\n\
            add rule ip t b accept\n";
        assert_eq!(table.change(changes.clone()).as_str(), expected);
        assert!(table.change(changes).is_empty());

        let mut changes = Changes::new();
        changes.map("ports", "80", "goto a");
        changes.remove("seen", "10.0.0.2");
        changes.remove("seen", "10.0.0.9");
        changes.remove_chain("b");
        changes.remove_set("seen");
        let expected = "delete element ip t ports { 80 }\n\
            add element ip t ports { 80 : goto a }\n\
            delete element ip t seen { 10.0.0.2 }\n\
            flush chain ip t b\n\
            delete chain ip t b\n\
            delete set ip t seen\n";
        assert_eq!(table.change(changes).as_str(), expected);
    }

    #[test]
    fn long_lists_of_elements_are_broken_into_lines() {
        let mut table = table();
        let mut changes = Changes::new();
        for number in 0..130 {
            changes.insert("seen", format!("10.1.0.{number}"));
        }
        assert_eq!(table.change(changes).as_str().lines().count(), 3);
    }
}
