//! Objects that a binding hands to its policy's expressions.

use api::Kind;
use api::labels::Selector;
use serde_json::Value;

use crate::admission::event::Event;
use crate::admission::matching::selector;
use crate::app::Call;
use crate::{codec, tree};

/// Of which kind the parameters are.
pub(super) struct ParamKind {
    api_version: String,
    kind: String,
}

/// Which objects are the parameters.
pub(super) struct ParamRef {
    name: String,
    namespace: String,
    selector: Option<Selector>,
    denies_if_none: bool,
}

impl ParamKind {
    pub(super) fn read(value: &Value) -> Option<Self> {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        value.is_object().then(|| Self { api_version: text("apiVersion"), kind: text("kind") })
    }

    /// The kind's row.
    pub(super) fn resolve(&self, call: &Call) -> Result<&'static Kind, String> {
        let built_in =
            call.app.config.served.kind_by_name(&self.api_version, &self.kind).filter(|k| !k.etcd_prefix.is_empty());
        let kinds = call.app.custom.kinds();
        let custom = || kinds.into_iter().find(|k| k.kind == self.kind && k.is_version(&self.api_version));
        built_in.or_else(custom).ok_or_else(|| {
            let (group, version) = self.api_version.split_once('/').unwrap_or(("", &self.api_version));
            let named = format!("{group}/{version}, Kind={}", self.kind);
            format!("failed to find resource referenced by paramKind: '{named}'")
        })
    }
}

impl ParamRef {
    pub(super) fn read(value: &Value) -> Option<Self> {
        value.is_object().then(|| Self {
            name: tree::text(value, "/name").to_owned(),
            namespace: tree::text(value, "/namespace").to_owned(),
            selector: value.get("selector").filter(|s| s.is_object()).map(selector),
            denies_if_none: value["parameterNotFoundAction"] == "Deny",
        })
    }
}

/// The parameters of an invocation: none once if the policy has none, else one by one.
pub(super) fn collect(
    call: &Call,
    event: Event<'_>,
    (kind, reference): (Option<&'static Kind>, Option<&ParamRef>),
) -> Result<Vec<Option<Value>>, String> {
    let (Some(kind), Some(reference)) = (kind, reference) else { return Ok(vec![None]) };
    if !kind.namespaced && !reference.namespace.is_empty() {
        return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
    }
    let own = event.namespace(call);
    let namespace = match (kind.namespaced, reference.namespace.as_str()) {
        (false, _) => "",
        (true, "") if own.is_empty() => {
            let why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(why.to_owned());
        }
        (true, "") => &own,
        (true, given) => given,
    };
    let Some(storage) = call.app.cache.storage(kind.group, kind.plural) else {
        return Err(format!("paramKind kind `{}` not known", kind.kind));
    };
    let found: Vec<_> = match &reference.selector {
        _ if !reference.name.is_empty() => storage.get(namespace, &reference.name).into_iter().collect(),
        Some(selector) => {
            let objects = storage.snapshot();
            let fits = objects.values().filter(|o| o.namespace() == namespace && selector.matches_with(|k| o.label(k)));
            fits.cloned().collect()
        }
        None => return Err("one of name or selector must be provided".to_owned()),
    };
    if found.is_empty() && reference.denies_if_none {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    let value = |object: &std::sync::Arc<crate::cache::Object>| codec::to_value(storage, kind, object).ok();
    Ok(found.iter().map(value).filter(Option::is_some).collect())
}
