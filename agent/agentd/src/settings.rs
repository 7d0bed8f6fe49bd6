//! Configuration files of upstream's components as tables: which fields are read here, and what becomes of the others.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// What becomes of a field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Use {
    /// It is read.
    Read,
    /// It may be given and changes nothing, because of this.
    Nothing(&'static str),
    /// Only this value (as JSON) is supported, because of this. Where there are several, the first is the default.
    Only(&'static [&'static str], &'static str),
    /// Feature gates of a component, which are checked.
    Features(api::features::Component),
}

/// One field; what lies below it is its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) path: &'static str,
    pub(crate) with: Use,
}

/// A field with what becomes of it.
pub(crate) const fn field(path: &'static str, with: Use) -> Field {
    Field { path, with }
}

/// A switch that can only be on.
pub(crate) const fn switched_on(path: &'static str, reason: &'static str) -> Field {
    field(path, Use::Only(&["true"], reason))
}

/// A switch that can only be off.
pub(crate) const fn switched_off(path: &'static str, reason: &'static str) -> Field {
    field(path, Use::Only(&["false"], reason))
}

/// A field that can only be empty.
pub(crate) const fn empty(path: &'static str, reason: &'static str) -> Field {
    field(path, Use::Only(&["\"\"", "[]", "{}"], reason))
}

/// A field that can only be zero.
pub(crate) const fn zero(path: &'static str, reason: &'static str) -> Field {
    field(path, Use::Only(&["0", "\"0s\""], reason))
}

/// A kind of configuration file.
pub(crate) struct Schema {
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) fields: &'static [Field],
}

/// A configuration as a tree, on its way to a typed one.
#[derive(Debug, Default)]
pub(crate) struct Settings(Map<String, Value>);

impl Settings {
    /// Reads a file, if its kind is the right one.
    pub(crate) fn read(schema: &Schema, path: &Path) -> Result<Self> {
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
        Self::parse(schema, &text).with_context(|| format!("reading {name}"))
    }

    pub(crate) fn parse(schema: &Schema, text: &str) -> Result<Self> {
        let mut map: Map<String, Value> = serde_yaml_ng::from_str(text).context("no YAML with fields")?;
        for (field, wanted) in [("apiVersion", schema.api_version), ("kind", schema.kind)] {
            match map.remove(field) {
                Some(Value::String(found)) if found == wanted => {}
                Some(found) => bail!("{field} is {found}, not {wanted}"),
                None => bail!("{field} is missing; it should be {wanted}"),
            }
        }
        Ok(Self(map))
    }

    /// Lays another configuration over this one, field by field; lists are replaced.
    pub(crate) fn merge(&mut self, over: Self) {
        lay_over(&mut self.0, over.0);
    }

    /// Sets one field by its path.
    pub(crate) fn set(&mut self, path: &str, value: Value) {
        let mut map = &mut self.0;
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                map.insert(name.to_owned(), value);
                return;
            }
            let below = map.entry(name.to_owned()).or_insert_with(|| Value::Object(Map::new()));
            if !below.is_object() {
                *below = Value::Object(Map::new());
            }
            let Value::Object(next) = below else { return };
            map = next;
        }
    }

    /// Checks every field against the table and makes the typed configuration of those that are read. Returns it with
    /// the fields that change nothing and the reasons.
    pub(crate) fn typed<T: DeserializeOwned>(self, schema: &Schema) -> Result<(T, Vec<(String, &'static str)>)> {
        let mut without_effect = Vec::new();
        check(schema, &self.0, "", &mut without_effect)?;
        let typed = serde_json::from_value(Value::Object(self.0)).context("a field has a value of another kind")?;
        Ok((typed, without_effect))
    }
}

fn lay_over(under: &mut Map<String, Value>, over: Map<String, Value>) {
    for (name, value) in over {
        match (under.get_mut(&name), value) {
            (Some(Value::Object(below)), Value::Object(above)) => lay_over(below, above),
            (_, value) => drop(under.insert(name, value)),
        }
    }
}

fn check(
    schema: &Schema,
    map: &Map<String, Value>,
    above: &str,
    without_effect: &mut Vec<(String, &'static str)>,
) -> Result<()> {
    for (name, value) in map {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        match (schema.fields.iter().find(|field| field.path == path), value) {
            (None, Value::Object(below)) if is_parent(schema, &path) => check(schema, below, &path, without_effect)?,
            (None, Value::Null) if is_parent(schema, &path) => {}
            (None, _) => bail!("{path} is no field of {}", schema.kind),
            (Some(Field { with: Use::Read, .. }), _) | (Some(_), Value::Null) => {}
            (Some(Field { with: Use::Nothing(reason), .. }), _) => without_effect.push((path, reason)),
            (Some(Field { with: Use::Features(component), .. }), Value::Object(gates)) => {
                crate::features::check_map(gates, *component).with_context(|| path.clone())?;
            }
            (Some(Field { with: Use::Features(_), .. }), _) => bail!("{path}: {value} is no map of gates"),
            (Some(Field { with: Use::Only(values, reason), .. }), _) => {
                if !values.iter().any(|allowed| serde_json::from_str::<Value>(allowed).is_ok_and(|a| a == *value)) {
                    bail!("{path}: {value} is not supported, only {}: {reason}", values.join(" or "));
                }
            }
        }
    }
    Ok(())
}

fn is_parent(schema: &Schema, path: &str) -> bool {
    schema.fields.iter().any(|field| field.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    const SCHEMA: Schema = Schema {
        api_version: "kubelet.config.k8s.io/v1beta1",
        kind: "KubeletConfiguration",
        fields: &[
            Field { path: "maxPods", with: Use::Read },
            Field { path: "authentication.x509.clientCAFile", with: Use::Read },
            Field { path: "kubeAPIQPS", with: Use::Nothing("there is no limit") },
            Field { path: "cpuManagerPolicy", with: Use::Only(&["\"none\"", "\"\""], "cores are shared") },
        ],
    };

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Typed {
        max_pods: u32,
        authentication: Value,
    }

    fn typed(text: &str) -> Result<(Typed, Vec<(String, &'static str)>)> {
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        Settings::parse(&SCHEMA, &format!("{head}{text}"))?.typed(&SCHEMA)
    }

    #[test]
    fn fields_are_read_by_the_table() {
        let text = "maxPods: 7\nkubeAPIQPS: 5\ncpuManagerPolicy: none\nauthentication: {x509: {clientCAFile: /ca}}\n";
        let (found, without_effect) = typed(text).unwrap();
        assert_eq!(found.max_pods, 7);
        assert_eq!(found.authentication["x509"]["clientCAFile"], "/ca");
        assert_eq!(without_effect, [("kubeAPIQPS".to_owned(), "there is no limit")]);
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        let table = [
            ("maxPod: 1", "maxPod is no field of KubeletConfiguration"),
            ("authentication: {x: 1}", "authentication.x is no field of KubeletConfiguration"),
            (
                "cpuManagerPolicy: static",
                "cpuManagerPolicy: \"static\" is not supported, only \"none\" or \"\": cores are shared",
            ),
        ];
        for (text, message) in table {
            assert_eq!(typed(text).unwrap_err().to_string(), message);
        }
        assert!(Settings::parse(&SCHEMA, "kind: X\napiVersion: y").is_err());
    }

    #[test]
    fn later_settings_lie_over_earlier_ones() {
        let mut settings = Settings::default();
        settings.set("authentication.x509.clientCAFile", "/a".into());
        let mut over = Settings::default();
        over.set("authentication.x509.clientCAFile", "/b".into());
        over.set("maxPods", 3.into());
        settings.merge(over);
        let (found, _) = settings.typed::<Typed>(&SCHEMA).unwrap();
        assert_eq!((found.max_pods, found.authentication["x509"]["clientCAFile"].as_str()), (3, Some("/b")));
    }
}
