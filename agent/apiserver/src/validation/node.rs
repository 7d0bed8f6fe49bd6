//! RuntimeClasses.

use api::core::v1::Toleration;
use api::node::v1::{RuntimeClass, Scheduling};

use super::pod::{self, tolerations};
use super::{Change, Errors, Path, checks, labels, names, shown};
use crate::status::FieldError;

pub fn runtime_class(change: &Change<'_, RuntimeClass>, errors: &mut Errors) {
    let (new, handler) = (change.new, Path::root("handler"));
    checks::required(&handler, &new.handler, errors);
    if !new.handler.is_empty() {
        checks::text(&handler, &new.handler, names::dns1123_label(&new.handler), errors);
    }
    if let Some(overhead) = &new.overhead {
        pod::overhead(&Path::root("overhead"), &overhead.pod_fixed, false, errors);
    }
    if let Some(each) = &new.scheduling {
        scheduling(&Path::root("scheduling"), each, errors);
    }
    if let Some(old) = change.old {
        checks::immutable(&handler, (&new.handler, &old.handler), String::clone, errors);
    }
}

fn scheduling(path: &Path<'_>, scheduling: &Scheduling, errors: &mut Errors) {
    labels::labels(&path.child("nodeSelector"), &scheduling.node_selector, errors);
    let (path, list) = (path.child("tolerations"), &scheduling.tolerations);
    tolerations::tolerations(&path, list, pod::Options::default(), errors);
    let key = |t: &Toleration| Toleration { toleration_seconds: None, ..t.clone() };
    for (i, toleration) in list.iter().enumerate().skip(1) {
        if list[..i].iter().any(|earlier| key(earlier) == key(toleration)) {
            let value = shown::structure("k8s.io.api.core.v1.Toleration", toleration);
            errors.push(FieldError::duplicate(path.index(i), value));
        }
    }
}
