//! What is required of objects that are listed, watched or deleted together, for those who decide about it.

use api::labels::{Operator, Requirement, Selector};

use crate::auth::authz::Selected;
use crate::fields;
use crate::request::{Query, RequestInfo};

/// What is required of the objects that are asked for, each part only if it can be read whole.
#[derive(Default)]
pub struct Selection {
    /// Of their fields.
    pub fields: Vec<Requirement>,
    /// Of their labels.
    pub labels: Vec<Requirement>,
}

impl Selection {
    /// What two selectors require.
    #[must_use]
    pub fn parse(fields: &str, labels: &str) -> Self {
        let of_field = |term: fields::Term| Requirement {
            key: term.name,
            operator: if term.is_equal { Operator::In } else { Operator::NotIn },
            values: vec![term.value],
        };
        let fields = fields::parse(fields).unwrap_or_default().into_iter().map(of_field).collect();
        let labels = Selector::parse(labels).map(|labels| labels.requirements().to_vec()).unwrap_or_default();
        Self { fields, labels }
    }

    pub(super) fn of(info: &RequestInfo, query: &Query) -> Self {
        match info.verb {
            "list" | "watch" | "deletecollection" => {
                Self::parse(query.get("fieldSelector"), query.get("labelSelector"))
            }
            _ => Self::default(),
        }
    }

    /// For authorizers.
    #[must_use]
    pub fn selected(&self) -> Selected<'_> {
        Selected { fields: &self.fields, labels: &self.labels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_requires_nothing() {
        let read = |fields: &str, labels: &str| {
            let Selection { fields, labels } = Selection::parse(fields, labels);
            let shown = |list: Vec<Requirement>| {
                let one = |r: &Requirement| format!("{} {:?} {}", r.key, r.operator, r.values.join("+"));
                list.iter().map(one).collect::<Vec<_>>().join(", ")
            };
            format!("{}; {}", shown(fields), shown(labels))
        };
        assert_eq!(read("b=1,a!=2", "x in (q,p),!y"), "a NotIn 2, b In 1; x In p+q, y DoesNotExist ");
        assert_eq!(read("a=1,b", "(("), "; ");
    }
}
