//! The tables as read from `facts/`.

use std::collections::BTreeMap;

/// A message or named list with its fields in the order of the Go struct, which is the order of its JSON.
pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) shape: String,
    pub(crate) map_type: String,
    pub(crate) openapi: String,
    pub(crate) fields: Vec<Field>,
}

/// A field; what the letters of `flags` mean is told in `facts/import`.
pub(crate) struct Field {
    pub(crate) json: String,
    pub(crate) number: i32,
    pub(crate) proto_type: String,
    flags: String,
    pub(crate) list: String,
    pub(crate) keys: String,
    pub(crate) map_type: String,
    pub(crate) patch: String,
    pub(crate) merge_key: String,
    pub(crate) default: String,
    pub(crate) values: String,
    pub(crate) format: String,
    pub(crate) go: String,
}

impl Field {
    pub(crate) fn has(&self, flag: char) -> bool {
        self.flags.contains(flag)
    }

    /// The Rust name: snake case that keeps plural initialisms together (`podIPs` is `pod_ips`).
    pub(crate) fn rust_name(&self) -> String {
        snake(&self.json)
    }
}

pub(crate) struct Schema {
    pub(crate) messages: Vec<Message>,
    pub(crate) index: BTreeMap<String, usize>,
}

impl Schema {
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut messages: Vec<Message> = Vec::new();
        for row in read_rows(text, 14) {
            if row[0] == "M" {
                messages.push(Message {
                    name: row[1].clone(),
                    shape: row[2].clone(),
                    map_type: row[3].clone(),
                    openapi: row[4].clone(),
                    fields: Vec::new(),
                });
                continue;
            }
            let owner = messages.last_mut().ok_or("a field before the first message")?;
            owner.fields.push(Field {
                json: row[1].clone(),
                number: row[2].parse().map_err(|e| format!("field {}: {e}", row[1]))?,
                proto_type: row[3].clone(),
                flags: row[4].clone(),
                list: row[5].clone(),
                keys: row[6].clone(),
                map_type: row[7].clone(),
                patch: row[8].clone(),
                merge_key: row[9].clone(),
                default: row[10].clone(),
                values: row[11].clone(),
                format: row[12].clone(),
                go: row[13].clone(),
            });
        }
        let index = messages.iter().enumerate().map(|(i, m)| (m.name.clone(), i)).collect();
        Ok(Self { messages, index })
    }

    /// The message that carries `kind` of a group version, and the one of its list.
    pub(crate) fn of_kind(&self, group: &str, version: &str, kind: &str) -> Option<usize> {
        let package = match group {
            "" => "k8s.io.api.core".to_owned(),
            "apiextensions.k8s.io" => "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions".to_owned(),
            "apiregistration.k8s.io" => "k8s.io.kube_aggregator.pkg.apis.apiregistration".to_owned(),
            "internal.apiserver.k8s.io" => "k8s.io.api.apiserverinternal".to_owned(),
            _ => format!("k8s.io.api.{}", group.split('.').next().unwrap_or(group)),
        };
        self.index.get(&format!("{package}.{version}.{kind}")).copied()
    }

    /// The message of the oldest version, in the order of the table, that has the same fields all the way down: objects
    /// of such versions are written alike.
    pub(crate) fn alike(&self, message: usize) -> usize {
        let name = |index: usize| self.messages[index].name.rsplit('.').next().unwrap_or_default();
        let family = |index: usize| self.messages[index].name.rsplitn(3, '.').nth(2).unwrap_or_default();
        let others = (0..self.messages.len()).filter(|i| name(*i) == name(message) && family(*i) == family(message));
        // The most stable version counts: v1 sorts before v1alpha1 and v1beta1.
        let mut others: Vec<usize> = others.filter(|i| self.is_alike(*i, message, &mut Vec::new())).collect();
        others.sort_by_key(|index| self.messages[*index].name.len());
        others.first().copied().unwrap_or(message)
    }

    fn is_alike(&self, a: usize, b: usize, seen: &mut Vec<(usize, usize)>) -> bool {
        if a == b || seen.contains(&(a, b)) {
            return true;
        }
        seen.push((a, b));
        let (a, b) = (&self.messages[a].fields, &self.messages[b].fields);
        let below = |field: &Field| self.index.get(&field.proto_type).copied();
        a.len() == b.len()
            && a.iter().zip(b).all(|(a, b)| {
                let is_same_type = match (below(a), below(b)) {
                    (Some(a), Some(b)) => self.is_alike(a, b, seen),
                    _ => a.proto_type == b.proto_type || a.has('m') && b.has('m') && self.is_alike_map(a, b, seen),
                };
                let shape = |f: &Field| (f.json.clone(), f.number, f.list.clone(), f.keys.clone(), f.merge_key.clone());
                let flags = |f: &Field| ['p', 'r', 'm', 'o', 'z', 'i', 'b'].map(|flag| f.has(flag));
                is_same_type && shape(a) == shape(b) && flags(a) == flags(b)
            })
    }

    fn is_alike_map(&self, a: &Field, b: &Field, seen: &mut Vec<(usize, usize)>) -> bool {
        let value = |field: &'_ Field| crate::messages::map_types(&field.proto_type).map(|(_, value)| value.to_owned());
        let index = |field: &Field| value(field).and_then(|name| self.index.get(&name).copied());
        matches!((index(a), index(b)), (Some(a), Some(b)) if self.is_alike(a, b, seen))
    }
}

pub(crate) struct Kind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) rest: Vec<String>,
}

pub(crate) fn read_kinds(text: &str) -> Result<Vec<Kind>, String> {
    Ok(read_rows(text, 17)
        .into_iter()
        .map(|row| Kind {
            group: row[0].clone(),
            version: row[1].clone(),
            kind: row[2].clone(),
            rest: row[3..].to_vec(),
        })
        .collect())
}

/// Tab separated rows, filled up with empty cells to `width`.
pub(crate) fn read_rows(text: &str, width: usize) -> Vec<Vec<String>> {
    text.lines()
        .map(|line| {
            let mut cells: Vec<String> = line.split('\t').map(str::to_owned).collect();
            cells.resize(width, String::new());
            cells
        })
        .collect()
}

/// The name prost gives to a message: each word with one capital (`HTTPGetAction` is `HttpGetAction`).
pub(crate) fn type_name(camel: &str) -> String {
    words(camel, false).split('_').map(|w| w[..1].to_uppercase() + &w[1..]).collect()
}

fn snake(camel: &str) -> String {
    words(camel, true).replace(['-', '.', '$'], "_")
}

/// Lower case words joined by `_`; with `plurals`, an initialism keeps its plural s.
fn words(camel: &str, plurals: bool) -> String {
    let chars: Vec<char> = camel.chars().collect();
    let mut out = String::new();
    let mut i = 0;
    while i < chars.len() {
        let mut end = i + 1;
        if chars[i].is_uppercase() {
            while end < chars.len() && chars[end].is_uppercase() {
                end += 1;
            }
            let plural = plurals
                && end < chars.len()
                && chars[end] == 's'
                && end - i > 1
                && chars.get(end + 1).is_none_or(|c| c.is_uppercase());
            if plural {
                end += 1;
            } else if end < chars.len() && end - i > 1 {
                end -= 1;
            }
            if !out.is_empty() {
                out.push('_');
            }
        }
        out.extend(chars[i..end].iter().flat_map(|c| c.to_lowercase()));
        i = end;
    }
    out
}
