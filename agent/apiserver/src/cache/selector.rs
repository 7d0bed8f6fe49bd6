//! What a list or watch selects: labels, fields, a namespace, a name.

use api::labels::Selector as Labels;

use super::object::Object;
use crate::fields::{self, Term};
use crate::status::{Failure, Result};

/// Field selectors by resource, beyond name and namespace: the name, and the path in the stored version.
const FIELDS: &[(&str, &str, &str, &str)] = &[
    ("", "events", "type", "type"),
    ("", "events", "reason", "reason"),
    ("", "events", "reportingComponent", "reportingComponent"),
    ("", "events", "source", "source.component|reportingComponent"),
    ("", "events", "involvedObject.kind", "involvedObject.kind"),
    ("", "events", "involvedObject.namespace", "involvedObject.namespace"),
    ("", "events", "involvedObject.name", "involvedObject.name"),
    ("", "events", "involvedObject.uid", "involvedObject.uid"),
    ("", "events", "involvedObject.apiVersion", "involvedObject.apiVersion"),
    ("", "events", "involvedObject.resourceVersion", "involvedObject.resourceVersion"),
    ("", "events", "involvedObject.fieldPath", "involvedObject.fieldPath"),
    ("", "namespaces", "status.phase", "status.phase"),
    ("", "nodes", "spec.unschedulable", "spec.unschedulable"),
    ("", "pods", "spec.nodeName", "spec.nodeName"),
    ("", "pods", "spec.restartPolicy", "spec.restartPolicy"),
    ("", "pods", "spec.schedulerName", "spec.schedulerName"),
    ("", "pods", "spec.serviceAccountName", "spec.serviceAccountName"),
    ("", "pods", "spec.hostNetwork", "spec.hostNetwork"),
    ("", "pods", "status.phase", "status.phase"),
    ("", "pods", "status.podIP", "status.podIP"),
    ("", "pods", "status.podIPs", "status.podIPs.ip"),
    ("", "pods", "status.nominatedNodeName", "status.nominatedNodeName"),
    ("", "replicationcontrollers", "status.replicas", "status.replicas"),
    ("", "secrets", "type", "type"),
    ("", "services", "spec.type", "spec.type"),
    ("", "services", "spec.clusterIP", "spec.clusterIP"),
    ("batch", "jobs", "status.successful", "status.succeeded"),
    ("certificates.k8s.io", "certificatesigningrequests", "spec.signerName", "spec.signerName"),
    ("certificates.k8s.io", "clustertrustbundles", "spec.signerName", "spec.signerName"),
    ("certificates.k8s.io", "podcertificaterequests", "spec.signerName", "spec.signerName"),
    ("certificates.k8s.io", "podcertificaterequests", "spec.podName", "spec.podName"),
    ("certificates.k8s.io", "podcertificaterequests", "spec.nodeName", "spec.nodeName"),
    ("coordination.k8s.io", "leasecandidates", "spec.leaseName", "spec.leaseName"),
    ("resource.k8s.io", "resourceslices", "spec.nodeName", "spec.nodeName"),
    ("resource.k8s.io", "resourceslices", "spec.driver", "spec.driver"),
];

/// Names in another group's spelling of the same stored field.
const ALIASES: &[(&str, &str, &str, &str)] = &[
    ("events.k8s.io", "events", "reportingController", "reportingComponent"),
    ("events.k8s.io", "events", "regarding.", "involvedObject."),
];

/// The selectable fields of a resource as it is stored.
pub fn selectable(group: &str, plural: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    FIELDS.iter().filter(move |f| f.0 == group && f.1 == plural).map(|f| (f.2, f.3))
}

/// One field requirement.
#[derive(Clone, Debug)]
struct FieldTerm {
    what: FieldName,
    value: String,
    equal: bool,
}

#[derive(Clone, Debug)]
enum FieldName {
    Name,
    Namespace,
    Indexed(usize),
}

/// A parsed selection.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    labels: Labels,
    fields: Vec<FieldTerm>,
}

impl Selection {
    /// Reads the two selectors of a query. `indexed` are the names of the kind's indexed fields.
    pub fn parse(labels: &str, fields: &str, kind: &api::Kind, indexed: &[&str]) -> Result<Self> {
        let labels = Labels::parse(labels).map_err(|e| Failure::bad_request(e.to_string()))?;
        let terms = fields::parse(fields)?.into_iter().map(|t| term(t, kind, indexed)).collect::<Result<_>>()?;
        Ok(Self { labels, fields: terms })
    }

    /// Whether something is asked of fields beyond name and namespace.
    #[must_use]
    pub fn looks_inside(&self) -> bool {
        self.fields.iter().any(|f| matches!(f.what, FieldName::Indexed(_)))
    }

    /// Whether everything is selected.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether the object is selected.
    #[must_use]
    pub fn matches(&self, object: &Object) -> bool {
        self.fields.iter().all(|f| f.matches(object)) && self.labels.matches_with(|key| object.label(key))
    }

    /// The one name that is selected, if that is all that is asked of names.
    #[must_use]
    pub fn single_name(&self) -> Option<&str> {
        self.fields.iter().find_map(|f| match f.what {
            FieldName::Name if f.equal => Some(f.value.as_str()),
            _ => None,
        })
    }
}

impl FieldTerm {
    fn matches(&self, object: &Object) -> bool {
        let value = match self.what {
            FieldName::Name => object.name(),
            FieldName::Namespace => object.namespace(),
            FieldName::Indexed(index) => object.field(index),
        };
        (value == self.value) == self.equal
    }
}

fn term(term: Term, kind: &api::Kind, indexed: &[&str]) -> Result<FieldTerm> {
    let Term { name, value, is_equal: equal } = term;
    let cluster_only = matches!(kind.plural, "namespaces" | "nodes" | "certificatesigningrequests" | "resourceslices")
        || (crate::custom::is_custom(kind) && !kind.namespaced);
    let what = match name.as_str() {
        "metadata.name" => FieldName::Name,
        "metadata.namespace" if !cluster_only => FieldName::Namespace,
        _ => {
            let stored = stored_name(kind, &name);
            let at = indexed.iter().position(|i| *i == stored && supported(kind, &name));
            FieldName::Indexed(at.ok_or_else(|| unsupported(kind, &name))?)
        }
    };
    Ok(FieldTerm { what, value, equal })
}

fn stored_name(kind: &api::Kind, name: &str) -> String {
    for (group, plural, from, to) in ALIASES {
        if *group == kind.group
            && *plural == kind.plural
            && let Some(rest) = name.strip_prefix(from)
        {
            return format!("{to}{rest}");
        }
    }
    name.to_owned()
}

/// Whether the name is one of this group's spelling.
fn supported(kind: &api::Kind, name: &str) -> bool {
    kind.group != "events.k8s.io"
        || !(name.starts_with("involvedObject.") || name == "reportingComponent" || name == "source")
}

fn unsupported(kind: &api::Kind, name: &str) -> Failure {
    let text = match (kind.group, kind.plural) {
        _ if crate::custom::is_custom(kind) => format!("field label not supported: {name}"),
        (_, "pods" | "nodes" | "namespaces" | "replicationcontrollers" | "secrets" | "services")
        | ("", "events")
        | ("certificates.k8s.io", _) => format!("field label not supported: {name}"),
        ("events.k8s.io", _) => {
            format!("field label not supported: {name}")
        }
        ("resource.k8s.io", "resourceslices") => {
            format!("field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: {name}")
        }
        ("batch", "jobs") => format!("field label {name:?} not supported for Job"),
        _ => format!("{name:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""),
    };
    Failure::bad_request(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<Vec<(String, bool)>, String> {
        let kind = api::kind_by_name("v1", "ConfigMap").unwrap();
        let selection = Selection::parse("", text, kind, &[]).map_err(|failure| failure.message().to_owned())?;
        Ok(selection.fields.into_iter().map(|term| (term.value, term.equal)).collect())
    }

    #[test]
    fn backslashes_keep_what_would_end_a_value() {
        let term = |value: &str, equal| (value.to_owned(), equal);
        // Terms are in the order of their texts, and those that name nothing are none.
        assert_eq!(read(r"metadata.name=a\,b,=,metadata.name!=c\\"), Ok(vec![term(r"c\", false), term("a,b", true)]));
        assert!(read("z=1,y=1").unwrap_err().starts_with("\"y\" is not a known field selector"));
        assert_eq!(read(r"metadata.name==a\=b"), Ok(vec![term("a=b", true)]));
        assert_eq!(read("metadata.name=a=b").unwrap_err(), "invalid field selector: unescaped character in value: 61");
        assert_eq!(read(r"metadata.name=\x").unwrap_err(), r"invalid field selector: invalid escape sequence: \x");
        assert_eq!(read(r"metadata.name=\").unwrap_err(), r"invalid field selector: invalid escape sequence: \");
        assert!(read("metadata.name").unwrap_err().contains("can't understand 'metadata.name'"));
    }
}
