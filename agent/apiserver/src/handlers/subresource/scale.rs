//! The scale subresource of workloads.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::labels::Selector;
use api::meta::v1::{LabelSelector, LabelSelectorRequirement};
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::decode_as;
use crate::answer::{self, Body};
use crate::app::Call;
use crate::cache::Object;
use crate::codec;
use crate::handlers::patch::{read_patch, rejected, same_name};
use crate::handlers::read;
use crate::handlers::write::{check_namespace, modify_tree, type_complaint, value_of};
use crate::managed::{self, Scaling};
use crate::negotiate::Form;
use crate::patch::Patch;
use crate::status::{Failure, FieldError, Result, Subject};
use crate::strategy::Part;
use crate::{table, tree};

const SCALE: &str = "k8s.io.api.autoscaling.v1.Scale";

/// Where an object keeps what a Scale shows, as JSON pointers.
struct Places {
    wanted: String,
    current: String,
    /// A text with the selector, where the object has one.
    selector: Option<String>,
}

impl Places {
    fn of(call: &Call) -> Self {
        let definition = call.app.custom.definition(call.kind.group, call.kind.plural);
        let version = definition.as_ref().and_then(|d| d.version(call.kind.version));
        let pointer = |path: &str| path.replace('.', "/");
        match version.and_then(|v| v.scale.as_ref()) {
            Some(scale) => Self {
                wanted: pointer(&scale.spec),
                current: pointer(&scale.status),
                selector: Some(pointer(scale.selector.as_deref().unwrap_or_default())),
            },
            None => {
                Self { wanted: "/spec/replicas".to_owned(), current: "/status/replicas".to_owned(), selector: None }
            }
        }
    }

    /// Sets the number wished for; objects on the way to it are made.
    fn set(&self, object: &mut Value, replicas: i64) {
        let mut at = object;
        for key in self.wanted.split('/').skip(1) {
            if !at.is_object() {
                *at = json!({});
            }
            at = &mut at[key];
        }
        *at = replicas.into();
    }
}

pub(super) async fn serve(call: &Call, method: &Method, body: bytes::Bytes) -> Result<Response<Body>> {
    let places = &Places::of(call);
    let object = match *method {
        Method::PUT => {
            let mut scale = decode_as(call, &body, SCALE)?;
            same_name(call, &scale)?;
            check_namespace(call, &mut scale)?;
            modify_tree(call, Part::Main, |old| scaled(places, old, &scale)).await?.object
        }
        Method::PATCH if call.is_apply() => {
            crate::audited::patch(call, &body);
            apply(call, places, &body).await?
        }
        Method::PATCH => {
            crate::audited::patch(call, &body);
            let patch = read_patch(call, &body);
            let changed = modify_tree(call, Part::Main, |old| {
                let patch = patch.as_ref().map_err(Clone::clone)?;
                scaled(places, old, &patched(patch, &scale_of(places, old))?)
            });
            changed.await?.object
        }
        _ => {
            let object = read::current(call).await?;
            let value = value_of(call, call.storage()?, &object).await?;
            if places.selector.is_some() && tree::at(&value, &places.wanted).is_none_or(Value::is_null) {
                let path = places.wanted.replace('/', ".");
                return Err(Failure::internal(format!("the spec replicas field {path:?} does not exist")));
            }
            return answered(call, &scale_of(places, &value));
        }
    };
    let value = value_of(call, call.storage()?, &Arc::new(object)).await?;
    answered(call, &scale_of(places, &value))
}

/// The Scale of an object.
pub fn shown(call: &Call, object: &Value) -> Value {
    scale_of(&Places::of(call), object)
}

/// Gives an object the replicas of its Scale.
pub fn put_back(call: &Call, object: &mut Value, scale: &Value) {
    Places::of(call).set(object, tree::integer(scale, "/spec/replicas").unwrap_or(0));
}

/// Server-side apply of a Scale: of the object's fields it can own the one with the replicas.
async fn apply(call: &Call, places: &Places, body: &[u8]) -> Result<Object> {
    crate::handlers::options::check(call, "PatchOptions")?;
    let config = codec::parse_apply(body)?.value;
    let text = |pointer: &str| tree::text(&config, pointer);
    let (version, kind) = (text("/apiVersion"), text("/kind"));
    if (version, kind) != ("autoscaling/v1", "Scale") {
        let version = if version.contains('/') { version.to_owned() } else { format!("/{version}") };
        return Err(Failure::bad_request(format!("invalid object type: {version}, Kind={kind}")));
    }
    if tree::has(&config, "/metadata/managedFields") {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    if let Some(why) = managed::misfits_of(codec::schema(SCALE), &config) {
        let named = format!("{}/{}; autoscaling/v1, Kind=Scale", text("/metadata/namespace"), text("/metadata/name"));
        let text = format!("failed to create typed patch object ({named}): {why}");
        return Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", text));
    }
    let changed = modify_tree(call, Part::Main, |old| {
        let replicas = tree::integer(&config, "/spec/replicas");
        let mut scale = config.clone();
        let own = tree::integer(old, &places.wanted).unwrap_or(0);
        tree::object_at(&mut scale, "spec").insert("replicas".into(), replicas.unwrap_or(own).into());
        let mut new = scaled(places, old, &scale)?;
        if let Some(replicas) = replicas {
            let applying = Scaling {
                path: &places.wanted,
                changes: replicas != own,
                manager: call.manager(),
                force: call.query.flag("force"),
            };
            managed::apply_scale(call.kind, &mut new, applying)?;
        }
        Ok(new)
    });
    Ok(changed.await?.object)
}

/// The Scale that a patch makes of one.
fn patched(patch: &Patch, before: &Value) -> Result<Value> {
    let schema = codec::schema(SCALE);
    let scale = patch.apply(schema, before)?;
    match type_complaint(&scale).or_else(|| codec::mistyped(schema, &scale)) {
        Some(why) => Err(rejected(patch, (schema, ("autoscaling/v1", "Scale")), before, &why)?),
        None => Ok(scale),
    }
}

/// The answer with a Scale in the form the client wants.
fn answered(call: &Call, scale: &Value) -> Result<Response<Body>> {
    match call.accept.form {
        Form::Table => {
            let text = table::bytes(table::of_scale(scale), call.accept)?;
            Ok(answer::bytes(StatusCode::OK, call.accept.encoding.media_type(), text))
        }
        Form::MetadataList => Err(read::is_no_list("autoscaling.Scale")),
        Form::Object | Form::Metadata => read::respond_value(call, StatusCode::OK, SCALE, scale),
    }
}

/// The object with the replicas of a Scale.
fn scaled(places: &Places, old: &Value, scale: &Value) -> Result<Value> {
    let (given, own) = (tree::text(scale, "/metadata/name"), tree::text(old, "/metadata/name"));
    if !given.is_empty() && given != own {
        return Err(Failure::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({own})"
        )));
    }
    let replicas = tree::integer(scale, "/spec/replicas").unwrap_or(0);
    // Of custom resources this is told by their own validation.
    if replicas < 0 && places.selector.is_none() {
        let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        let name = tree::text(old, "/metadata/name");
        return Err(Failure::invalid(Subject { group: "autoscaling", resource: "Scale" }, name, &[error]));
    }
    let mut new = old.clone();
    places.set(&mut new, replicas);
    let version = tree::text(scale, "/metadata/resourceVersion");
    if !version.is_empty() {
        new["metadata"]["resourceVersion"] = version.into();
    }
    Ok(new)
}

fn scale_of(places: &Places, object: &Value) -> Value {
    let meta = &object["metadata"];
    let selector = match &places.selector {
        Some(pointer) => tree::text(object, pointer).to_owned(),
        None => selector_text(&object["spec"]["selector"]),
    };
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"], "creationTimestamp": meta["creationTimestamp"],
        },
        "spec": {"replicas": tree::integer(object, &places.wanted).unwrap_or(0)},
        "status": {
            "replicas": tree::integer(object, &places.current).unwrap_or(0),
            "selector": selector,
        },
    })
}

fn selector_text(selector: &Value) -> String {
    let Some(map) = selector.as_object() else { return String::new() };
    let texts = |value: &Value| -> BTreeMap<String, String> {
        let entries = value.as_object().into_iter().flatten();
        entries.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
    };
    // Replication controllers have a plain map here.
    if !map.contains_key("matchLabels") && !map.contains_key("matchExpressions") {
        return Selector::from_map(&texts(selector)).to_string();
    }
    let expressions = tree::list(selector, "/matchExpressions").iter().map(|e| LabelSelectorRequirement {
        key: tree::text(e, "/key").to_owned(),
        operator: tree::text(e, "/operator").to_owned(),
        values: tree::list(e, "/values").iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
    });
    let object =
        LabelSelector { match_labels: texts(&selector["matchLabels"]), match_expressions: expressions.collect() };
    Selector::from_object(Some(&object)).map(|s| s.to_string()).unwrap_or_default()
}
