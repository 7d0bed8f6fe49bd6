//! What makes the requirements of selectors valid, wherever they occur.

use serde_json::Value;

use super::Errors;
use crate::status::FieldError;
use crate::tree;

/// How many values an operator takes.
enum Takes {
    Some,
    None,
    One,
}

/// Errors of a requirement; `true` if the message is one, so that nobody needs to look further.
pub(super) fn requirement(message: &str, value: &Value, path: &str, errors: &mut Errors) -> bool {
    let of_nodes = message == "k8s.io.api.core.v1.NodeSelectorRequirement";
    if !of_nodes && message != "k8s.io.apimachinery.pkg.apis.meta.v1.LabelSelectorRequirement" {
        return false;
    }
    // Projected certificates are selected by whatever the client says.
    if path.contains(".clusterTrustBundle.") {
        return true;
    }
    let operator = tree::text(value, "/operator");
    let takes = match operator {
        "In" | "NotIn" => Takes::Some,
        "Exists" | "DoesNotExist" => Takes::None,
        "Gt" | "Lt" if of_nodes => Takes::One,
        _ => {
            errors.push(FieldError::invalid(format!("{path}.operator"), operator, "not a valid selector operator"));
            key(value, path, errors);
            return true;
        }
    };
    let count = tree::list(value, "/values").len();
    let field = format!("{path}.values");
    match takes {
        Takes::Some if count == 0 => {
            let text = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(field, text));
        }
        Takes::None if count > 0 => {
            let text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(field, text));
        }
        Takes::One if count != 1 => {
            let text = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(FieldError::required(field, text));
        }
        _ => {}
    }
    key(value, path, errors);
    true
}

fn key(value: &Value, path: &str, errors: &mut Errors) {
    let name = tree::text(value, "/key");
    // Fields of nodes are named by path; those names are looked at elsewhere.
    if !path.contains("matchFields[") {
        for text in crate::validation::names::qualified(name) {
            errors.push(FieldError::invalid(format!("{path}.key"), name, text));
        }
    }
}
