//! The options of writes that stand in the query.

use serde_json::Value;
use stdx::quoted;

use crate::app::Call;
use crate::status::{Failure, FieldError, Result, Subject};

/// Longest name of a manager.
const MAX_MANAGER_BYTES: usize = 128;

/// Checks the options of a write: `resource` is what they are called in texts, such as `CreateOptions`.
pub(super) fn check(call: &Call, resource: &'static str) -> Result<()> {
    let query = &call.query;
    let mut errors = Vec::new();
    let manager = query.get("fieldManager");
    if resource == "PatchOptions" {
        if !call.is_apply() && query.has("force") {
            errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
        }
        if call.is_apply() && manager.is_empty() {
            errors.push(FieldError::required("fieldManager", "is required for apply patch"));
        }
    }
    if manager.len() > MAX_MANAGER_BYTES {
        errors.push(FieldError::too_long("fieldManager", MAX_MANAGER_BYTES));
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| c.is_control()) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.push(FieldError::invalid("fieldManager", manager, why));
    }
    let tried = query.all("dryRun");
    if tried.iter().any(|value| value != "All") {
        errors.push(FieldError::not_supported("dryRun", Value::from(tried), &["All"]));
    }
    let validation = query.get("fieldValidation");
    if !matches!(validation, "" | "Ignore" | "Strict" | "Warn") {
        let shown = crate::status::Shown::spelled(quoted(validation).to_string());
        errors.push(FieldError::not_supported("fieldValidation", shown, &["", "Ignore", "Strict", "Warn"]));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid(Subject { group: "meta.k8s.io", resource }, "", &errors))
}
