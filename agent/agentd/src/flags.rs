//! Upstream's flags as tables: what each does here, or why it is refused.
//!
//! A role's table has a row for every flag of its upstream namesake, so that nothing is taken silently: a flag is read
//! by the role, stands for a field of the configuration file, changes nothing (which is logged), or is refused with
//! a reason. Spelling is upstream's: `--name=value`, `--name value`, switches also bare, `_` for `-`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Map, Value};

/// How a flag's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `true`, `false` or bare.
    Switch,
    /// A number.
    Number,
    /// Anything.
    Text,
    /// Texts with commas between them; may be repeated.
    List,
    /// `name=value` pairs with commas between them; may be repeated. Thresholds have `<` for `=`.
    Pairs,
}

/// What a flag does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The role reads it.
    Read,
    /// It stands for this field of the configuration file, and comes before it.
    Field(&'static str),
    /// It changes nothing, because of this.
    Nothing(&'static str),
    /// It is refused, because of this.
    Refused(&'static str),
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) effect: Effect,
}

/// A flag that the role reads.
pub(crate) const fn read(name: &'static str, shape: Shape) -> Flag {
    Flag { name, shape, effect: Effect::Read }
}

/// A flag that stands for a field of the configuration file.
pub(crate) const fn field(name: &'static str, shape: Shape, path: &'static str) -> Flag {
    Flag { name, shape, effect: Effect::Field(path) }
}

/// A flag that changes nothing.
pub(crate) const fn nothing(name: &'static str, shape: Shape, reason: &'static str) -> Flag {
    Flag { name, shape, effect: Effect::Nothing(reason) }
}

/// A flag that is refused.
pub(crate) const fn refused(name: &'static str, shape: Shape, reason: &'static str) -> Flag {
    Flag { name, shape, effect: Effect::Refused(reason) }
}

/// The words of a role's command line, left to its table.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Words {
    /// Upstream's flags; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
    words: Vec<OsString>,
}

/// The command line of a role that stands in for an upstream component.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surface {
    /// The role.
    pub(crate) role: &'static str,
    /// What it is, for people.
    pub(crate) about: &'static str,
    /// The role's table, in one or more pieces.
    pub(crate) tables: &'static [&'static [Flag]],
}

/// What the command line says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Given {
    /// Values of flags that the role reads, in order.
    read: BTreeMap<&'static str, Vec<String>>,
    /// Fields of the configuration file by path.
    pub(crate) fields: Vec<(&'static str, Value)>,
    /// Flags, and fields of the configuration file, that change nothing, with the reason.
    without_effect: Vec<(String, &'static str)>,
}

impl Given {
    /// The last value of a flag.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.read.get(name)?.last().map(String::as_str)
    }

    /// All values of a flag that may be repeated or has several with commas between them.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let values = self.read.get(name).map(Vec::as_slice).unwrap_or_default();
        values.iter().flat_map(|value| value.split(',')).filter(|value| !value.is_empty()).collect()
    }

    /// A switch, which is `default` where it is not given.
    pub(crate) fn switch(&self, name: &str, default: bool) -> bool {
        self.get(name).and_then(switch).unwrap_or(default)
    }

    /// The file of a flag's last value.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// Adds fields of the configuration file that change nothing.
    pub(crate) fn add_without_effect(&mut self, fields: Vec<(String, &'static str)>) {
        self.without_effect.extend(fields);
    }

    /// What was given and changes nothing, with the reason.
    #[cfg(test)]
    pub(crate) fn without_effect(&self) -> &[(String, &'static str)] {
        &self.without_effect
    }

    /// Writes to the log what was given and changes nothing.
    pub(crate) fn tell(&self) {
        for (name, reason) in &self.without_effect {
            tracing::warn!("{name} changes nothing: {reason}");
        }
    }
}

impl Surface {
    /// Reads a command line. `None` where it asked for help, which was printed.
    pub(crate) fn read(&self, words: Words) -> Result<Option<Given>> {
        let text = |word: OsString| word.into_string().map_err(|word| anyhow::anyhow!("{word:?} is no UTF-8"));
        let words = words.words.into_iter().map(text).collect::<Result<Vec<String>>>()?;
        if words.iter().any(|word| matches!(word.as_str(), "--help" | "-h")) {
            print!("{}", self.help());
            return Ok(None);
        }
        self.parse(&words).map(Some)
    }

    /// Reads the words of a command line.
    pub(crate) fn parse(&self, words: &[String]) -> Result<Given> {
        let mut given = Given::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some(body) = word.strip_prefix('-') else {
                bail!("{word:?} is no flag; {} takes nothing else", self.role)
            };
            let body = body.strip_prefix('-').unwrap_or(body);
            let (name, attached) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
            let name = name.replace('_', "-");
            let flag = self.find(&name)?;
            if let Effect::Refused(reason) = flag.effect {
                bail!("--{name} is not supported: {reason}");
            }
            let value = match attached {
                Some(value) => value.to_owned(),
                None if flag.shape == Shape::Switch => "true".to_owned(),
                None => words.next().with_context(|| format!("--{name} needs a value"))?.clone(),
            };
            note(&mut given, flag, value)?;
        }
        Ok(given)
    }

    /// Every flag.
    pub(crate) fn flags(&self) -> impl Iterator<Item = &'static Flag> + use<> {
        self.tables.iter().copied().flatten()
    }

    fn find(&self, name: &str) -> Result<&'static Flag> {
        if let Some(flag) = self.flags().find(|flag| flag.name == name) {
            return Ok(flag);
        }
        let similar = self.flags().filter(|flag| flag.name.contains(name) || name.contains(flag.name));
        let hint = similar.max_by_key(|flag| flag.name.len()).map(|flag| format!(" Did you mean --{}?", flag.name));
        bail!("--{name} is no flag of {}.{}", self.role, hint.unwrap_or_default())
    }
}

fn note(given: &mut Given, flag: &Flag, value: String) -> Result<()> {
    let parsed = value_of(flag, &value)?;
    match flag.effect {
        Effect::Read => given.read.entry(flag.name).or_default().push(value),
        Effect::Field(path) => match given.fields.iter_mut().find(|(known, _)| *known == path) {
            Some((_, before)) => add(before, parsed),
            None => given.fields.push((path, parsed)),
        },
        Effect::Nothing(reason) => given.without_effect.push((format!("--{}", flag.name), reason)),
        Effect::Refused(_) => {}
    }
    Ok(())
}

/// A repeated list or map grows; of other flags the last counts.
fn add(before: &mut Value, next: Value) {
    match (before, next) {
        (Value::Array(list), Value::Array(more)) => list.extend(more),
        (Value::Object(map), Value::Object(more)) => map.extend(more),
        (before, next) => *before = next,
    }
}

fn value_of(flag: &Flag, text: &str) -> Result<Value> {
    let bad = |what: &str| format!("--{}: {text:?} is no {what}", flag.name);
    Ok(match flag.shape {
        Shape::Switch => Value::Bool(switch(text).with_context(|| bad("truth value"))?),
        Shape::Number => serde_json::from_str::<serde_json::Number>(text).with_context(|| bad("number"))?.into(),
        Shape::Text => text.into(),
        Shape::List => text.split(',').filter(|part| !part.is_empty()).map(str::trim).collect(),
        Shape::Pairs => Value::Object(pairs(text).with_context(|| bad("list of name=value"))?),
    })
}

/// Truth values as Go reads them.
fn switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn pairs(text: &str) -> Option<Map<String, Value>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let at = part.find(['=', '<'])?;
            Some((part[..at].trim().to_owned(), part[at + 1..].trim().into()))
        })
        .collect()
}

/// What is said of a flag with some effect; nothing where the flag stands in another group.
type Note = fn(Effect) -> Option<String>;

impl Surface {
    /// The tables for people.
    fn help(&self) -> String {
        let mut text = format!("{}\n\nUsage: keelson {} [--FLAG=VALUE]...\n", self.about, self.role);
        let groups: [(&str, Note); 4] = [
            ("Flags", |effect| (effect == Effect::Read).then(String::new)),
            ("Flags that come before a field of the file given by --config", |effect| match effect {
                Effect::Field(path) => Some(path.to_owned()),
                Effect::Read | Effect::Nothing(_) | Effect::Refused(_) => None,
            }),
            ("Flags of upstream's that change nothing here", |effect| match effect {
                Effect::Nothing(reason) => Some(reason.to_owned()),
                Effect::Read | Effect::Field(_) | Effect::Refused(_) => None,
            }),
            ("Flags of upstream's that are refused", |effect| match effect {
                Effect::Refused(reason) => Some(reason.to_owned()),
                Effect::Read | Effect::Field(_) | Effect::Nothing(_) => None,
            }),
        ];
        for (title, pick) in groups {
            let mut rows: Vec<(&Flag, String)> =
                self.flags().filter_map(|flag| Some((flag, pick(flag.effect)?))).collect();
            if rows.is_empty() {
                continue;
            }
            rows.sort_by_key(|(flag, _)| flag.name);
            // Writing to a string cannot fail, here and below.
            let _infallible = writeln!(text, "\n{title}:");
            for (flag, note) in rows {
                let _infallible = writeln!(text, "{}", format!("  --{:<40} {note}", flag.name).trim_end());
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Flag] = &[
        Flag { name: "config", shape: Shape::Text, effect: Effect::Read },
        Flag { name: "fail-swap-on", shape: Shape::Switch, effect: Effect::Field("failSwapOn") },
        Flag { name: "cluster-dns", shape: Shape::List, effect: Effect::Field("clusterDNS") },
        Flag { name: "eviction-hard", shape: Shape::Pairs, effect: Effect::Field("evictionHard") },
        Flag { name: "max-pods", shape: Shape::Number, effect: Effect::Field("maxPods") },
        Flag { name: "v", shape: Shape::Number, effect: Effect::Nothing("logs") },
        Flag { name: "runonce", shape: Shape::Switch, effect: Effect::Refused("it never ends") },
    ];

    fn read(words: &[&str]) -> Result<Given> {
        let surface = Surface { role: "kubelet", about: "The kubelet.", tables: &[TABLE] };
        surface.parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn flags_are_spelt_as_upstream_s() {
        let given =
            read(&["--config", "/a", "--fail_swap_on=false", "--cluster-dns=1,2", "--cluster-dns", "3"]).unwrap();
        assert_eq!(given.get("config"), Some("/a"));
        assert_eq!(given.fields, [("failSwapOn", false.into()), ("clusterDNS", serde_json::json!(["1", "2", "3"]))]);
        let given =
            read(&["--eviction-hard=memory.available<1Gi,nodefs.available<5%", "--fail-swap-on", "-v=4"]).unwrap();
        let map = serde_json::json!({"memory.available": "1Gi", "nodefs.available": "5%"});
        assert_eq!(given.fields, [("evictionHard", map), ("failSwapOn", true.into())]);
        assert_eq!(given.without_effect, [("--v".to_owned(), "logs")]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let table: &[(&[&str], &str)] = &[
            (&["--runonce"], "--runonce is not supported: it never ends"),
            (&["--cluster-dn=1"], "--cluster-dn is no flag of kubelet. Did you mean --cluster-dns?"),
            (&["--max-pods=many"], "--max-pods: \"many\" is no number"),
            (&["--fail-swap-on=maybe"], "--fail-swap-on: \"maybe\" is no truth value"),
            (&["--config"], "--config needs a value"),
            (&["run"], "\"run\" is no flag; kubelet takes nothing else"),
        ];
        for (words, message) in table {
            assert_eq!(read(words).unwrap_err().to_string(), *message);
        }
    }
}
