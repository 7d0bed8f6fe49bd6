//! What differs between two manifests, and a manifest without its secrets.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use crate::explain;
use crate::keys::{Impact, Key, may_cut_off};
use crate::structure::join;
use crate::words::Reference;

/// Shown in the place of secrets.
const HIDDEN: &str = "***";
/// Longer values are told by their length.
const SHOWN_BYTES: usize = 120;

/// A key whose value is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its path.
    pub key: String,
    /// The TOML value before; none if it was not given. Secrets are not shown.
    pub before: Option<String>,
    /// The same after.
    pub after: Option<String>,
    /// What it takes for it to count.
    pub impact: Impact,
}

impl Change {
    /// Whether it may cut the machine off from whoever makes it.
    #[must_use]
    pub fn may_cut_off(&self) -> bool {
        may_cut_off(&self.key)
    }
}

/// The changes from one text to another, by path. A text that is not TOML counts as empty.
#[must_use]
pub fn diff(before: &str, after: &str) -> Vec<Change> {
    let (before, after) = (leaves(before), leaves(after));
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    let shown = |key: &str, value: Option<&Value>| value.map(|value| show(key, value));
    let change = |key: &String| Change {
        key: key.clone(),
        before: shown(key, before.get(key)),
        after: shown(key, after.get(key)),
        impact: Impact::of(key, !after.contains_key(key)),
    };
    changed.map(change).collect()
}

/// The same manifest without the values of secrets, and without comments.
#[must_use]
pub fn without_secrets(text: &str) -> String {
    let mut table: Table = text.parse().unwrap_or_default();
    for (name, value) in &mut table {
        hide(name, value);
    }
    // A table that was parsed can be written.
    toml::to_string(&table).unwrap_or_default()
}

fn hide(path: &str, value: &mut Value) {
    match value {
        reference if is_secret(path) && is_reference(reference) => {}
        secret if is_secret(path) => *secret = Value::String(HIDDEN.to_owned()),
        Value::Table(table) => table.iter_mut().for_each(|(name, value)| hide(&join(path, name), value)),
        Value::Array(elements) => elements.iter_mut().for_each(|value| hide(&format!("{path}[0]"), value)),
        _ => {}
    }
}

fn is_secret(path: &str) -> bool {
    explain::find(path).is_some_and(Key::is_secret)
}

/// Whether this says where a secret is, and is none.
fn is_reference(value: &Value) -> bool {
    let Value::Table(table) = value else { return false };
    let mut entries = table.iter().map(|(name, text)| Reference::parse(name, text.as_str().unwrap_or_default()));
    matches!((entries.next(), entries.next()), (Some(Ok(_)), None))
}

/// A value for people, whatever is in it, without secrets.
pub(crate) fn shown(path: &str, mut value: Value) -> String {
    hide(path, &mut value);
    show(path, &value)
}

fn show(path: &str, value: &Value) -> String {
    if is_secret(path) && !is_reference(value) {
        return HIDDEN.to_owned();
    }
    let text = value.to_string();
    if text.len() > SHOWN_BYTES || text.contains('\n') { format!("({} bytes)", text.len()) } else { text }
}

/// All values that hold no others, by path.
fn leaves(text: &str) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    for (name, value) in text.parse::<Table>().unwrap_or_default() {
        gather(join("", &name), value, &mut leaves);
    }
    leaves
}

fn gather(path: String, value: Value, leaves: &mut BTreeMap<String, Value>) {
    match value {
        secret if is_secret(&path) => drop(leaves.insert(path, secret)),
        Value::Table(table) => table.into_iter().for_each(|(name, value)| gather(join(&path, &name), value, leaves)),
        Value::Array(elements) if elements.iter().any(Value::is_table) => {
            let elements = elements.into_iter().enumerate();
            elements.for_each(|(index, value)| gather(format!("{path}[{index}]"), value, leaves));
        }
        leaf => drop(leaves.insert(path, leaf)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "version = 1\n[machine]\nhostname = \"m1\"\n[cluster]\ntoken = \"abcdef.0123456789abcdef\"\n\
                          [[network.interfaces]]\nname = \"eth0\"\n[sysctls]\n\"vm.x\" = 1\n";

    #[test]
    fn changes_name_their_keys_and_show_no_secrets() {
        let after = BEFORE
            .replace("0123456789abcdef", "1123456789abcdef")
            .replace("\"vm.x\" = 1", "")
            .replace("name = \"eth0\"", "name = \"eth0\"\nmtu = 9000\n[control-plane]\naudit.policy = '''\na\nb'''");
        let changes: Vec<String> = diff(BEFORE, &after)
            .into_iter()
            .map(|change| {
                let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
                format!("{} {} {} {:?}", change.key, text(change.before), text(change.after), change.impact)
            })
            .collect();
        let expected = [
            "cluster.token *** *** Restart([\"control-plane\", \"node\"])",
            "control-plane.audit.policy - (9 bytes) Restart([\"bootstrap\", \"control-plane\"])",
            "network.interfaces[0].mtu - 9000 Restart([\"machine\"])",
            "sysctls.\"vm.x\" 1 - Reboot",
        ];
        let length = changes[1].split(['(', ' ']).nth(3).unwrap().to_owned();
        assert_eq!(changes, expected.map(|line| line.replace("(9 ", &format!("({length} "))));
        assert!(diff(BEFORE, &format!("# a comment\n{BEFORE}")).is_empty());
    }

    #[test]
    fn secrets_are_hidden_wherever_they_are() {
        let peers = "peers = [{ public-key = \"known\", preshared-key = \"shared!\" }]";
        let text = format!(
            "{BEFORE}[[control-plane.files]]\nname = \"f\"\ncontent = '''\nvery\nsecret\n'''\n\
             [[network.interfaces]]\nname = \"wg0\"\n[network.interfaces.wireguard]\nprivate-key = \"own!\"\n{peers}\n\
             [outbound.servers.\"r.example.com:5000\"]\nusername = \"keelson\"\npassword = \"sesame!\"\n\
             [outbound.proxy]\nurl = \"http://p:1\"\nusername = \"keelson\"\npassword = \"sesame!\"\n"
        );
        let shown = without_secrets(&text);
        assert!(shown.contains("known") && !shown.contains("own!") && !shown.contains("shared!"), "{shown}");
        let told = format!("{:?}", diff(BEFORE, &text));
        assert!(told.contains("known") && !told.contains("own!") && !told.contains("shared!"), "{told}");
        assert!(told.contains("http://p:1") && !told.contains("sesame!") && !shown.contains("sesame!"), "{told}");
        assert!(!shown.contains("0123456789abcdef") && !shown.contains("secret\n"), "{shown}");
        assert!(shown.contains("token = \"***\"") && shown.contains("content = \"***\""), "{shown}");
        assert!(shown.contains("hostname = \"m1\""), "{shown}");
    }
}
