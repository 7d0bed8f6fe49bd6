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
use crate::handlers::patch::{read_patch, rejected, same_name, strictly};
use crate::handlers::read;
use crate::handlers::write::{check_namespace, foreign_to, modify_tree, type_complaint, value_of};
use crate::managed::{self, Scaling};
use crate::negotiate::Form;
use crate::patch::{Change, Patch};
use crate::status::{Failure, FieldError, Result, Subject};
use crate::strategy::Part;
use crate::{table, tree};

const SCALE: &str = "k8s.io.api.autoscaling.v1.Scale";
/// What a Scale is called.
const NAME: api::TypeName = api::TypeName { group: "autoscaling", version: "v1", kind: "Scale" };

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
            modify_tree(call, Part::Main, |old| tracked(call, places, old, &scale)).await?.object
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
                tracked(call, places, old, &patched(call, patch, &managed_scale(places, old))?)
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
    let mut config = codec::parse_apply(body)?.value;
    let text = |pointer: &str| tree::text(&config, pointer);
    let (version, kind) = (text("/apiVersion"), text("/kind"));
    if (version, kind) != ("autoscaling/v1", "Scale") {
        let version = if version.contains('/') { version.to_owned() } else { format!("/{version}") };
        return Err(Failure::bad_request(format!("invalid object type: {version}, Kind={kind}")));
    }
    let is_custom = crate::custom::is_custom(call.kind);
    if !is_custom {
        check_configuration(&config)?;
        check_namespace(call, &mut config)?;
    }
    let changed = modify_tree(call, Part::Main, |old| {
        if is_custom {
            return Err(unconvertible(old, places, &config));
        }
        let replicas = tree::integer(&config, "/spec/replicas");
        let mut scale = config.clone();
        let own = tree::integer(old, &places.wanted).unwrap_or(0);
        tree::object_at(&mut scale, "spec").insert("replicas".into(), replicas.unwrap_or(own).into());
        let mut new = scaled(call, places, old, &scale)?;
        if replicas.is_some() {
            let applying =
                Scaling { path: &places.wanted, was: own, manager: call.manager(), force: call.query.flag("force") };
            managed::apply_scale(call.kind, &mut new, applying)?;
        }
        Ok(new)
    });
    Ok(changed.await?.object)
}

/// Fails on a Scale that cannot be applied.
fn check_configuration(config: &Value) -> Result<()> {
    if tree::has(config, "/metadata/managedFields") {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    let Some(why) = managed::misfits_of(codec::schema(SCALE), config) else { return Ok(()) };
    let text = format!("failed to create typed patch object ({}): {why}", in_texts(config));
    Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", text))
}

/// A Scale as error texts name it.
fn in_texts(config: &Value) -> String {
    let text = |pointer: &str| tree::text(config, pointer);
    format!("{}/{}; autoscaling/v1, Kind=Scale", text("/metadata/namespace"), text("/metadata/name"))
}

/// Why a Scale of a custom resource is not applied: those who convert custom resources know no Scales.
fn unconvertible(old: &Value, places: &Places, config: &Value) -> Failure {
    let why = "to proper version: request to convert CR to an invalid group/version: autoscaling/v1";
    let text = if managed::scale_managers(old, &places.wanted).is_null() {
        let nobody = in_texts(&Value::Null);
        format!("failed to create manager for existing fields: failed to convert live object ({nobody}) {why}")
    } else if let Err(failure) = check_configuration(config) {
        return failure;
    } else {
        format!("failed to convert new object ({}) {why}", in_texts(config))
    };
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", text)
}

/// The Scale that a patch makes of one.
fn patched(call: &Call, patch: &Patch, before: &Value) -> Result<Value> {
    let schema = codec::schema(SCALE);
    let mut scale = patch.apply(schema, before)?;
    let is_strategic = matches!(patch.change, Change::Strategic(_));
    let why = if is_strategic {
        let why = codec::misfit(schema, &scale);
        codec::fit_numbers(schema, &mut scale);
        why
    } else {
        type_complaint(&scale).or_else(|| foreign_to(NAME, true, &scale))
    };
    // Of no type a Scale that is built in has no name either.
    let has_type = !tree::text(&scale, "/apiVersion").is_empty();
    let is_typed = is_strategic || crate::custom::is_custom(call.kind) || has_type;
    let unknown = || strictly(call, patch, codec::unknown_fields(schema, &scale));
    let why = why.or_else(|| codec::mistyped(schema, &scale)).or_else(|| if is_typed { unknown() } else { None });
    if let Some(why) = why {
        return Err(rejected(patch, (schema, ("autoscaling/v1", "Scale")), before, &why)?);
    }
    same_name(call, if is_typed { &scale } else { &Value::Null })?;
    check_namespace(call, &mut scale)?;
    Ok(scale)
}

/// The answer with a Scale in the form the client wants.
fn answered(call: &Call, scale: &Value) -> Result<Response<Body>> {
    match call.accept.form {
        Form::Table => {
            let table = table::of_scale(scale, crate::custom::is_custom(call.kind), call.accept.meta);
            let text = table::bytes(table, call.accept)?;
            Ok(answer::bytes(StatusCode::OK, call.accept.encoding.media_type(), text))
        }
        Form::MetadataList => Err(read::is_no_list("autoscaling.Scale")),
        Form::Object | Form::Metadata => read::respond_value(call, StatusCode::OK, SCALE, scale),
    }
}

/// The object with the replicas of a Scale, which are of who scales from now on.
fn tracked(call: &Call, places: &Places, old: &Value, scale: &Value) -> Result<Value> {
    let mut new = scaled(call, places, old, scale)?;
    let was = tree::integer(old, &places.wanted).unwrap_or(0);
    let scaling = Scaling { path: &places.wanted, was, manager: call.manager(), force: false };
    managed::track_scale(call.kind, &mut new, scaling);
    Ok(new)
}

/// The object with the replicas of a Scale.
fn scaled(call: &Call, places: &Places, old: &Value, scale: &Value) -> Result<Value> {
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
    let (wanted, own) = (tree::text(scale, "/metadata/uid"), tree::text(old, "/metadata/uid"));
    if places.selector.is_none() && !wanted.is_empty() && wanted != own {
        let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {own}");
        let resource = format!("{}/scale", call.kind.plural);
        let subject = Subject { group: call.kind.group, resource: &resource };
        return Err(Failure::conflict(subject, tree::text(old, "/metadata/name"), &why));
    }
    let mut new = old.clone();
    places.set(&mut new, replicas);
    let version = tree::text(scale, "/metadata/resourceVersion");
    if !version.is_empty() {
        new["metadata"]["resourceVersion"] = version.into();
    }
    Ok(new)
}

/// A Scale with its managers, as patches change it.
fn managed_scale(places: &Places, object: &Value) -> Value {
    let mut scale = scale_of(places, object);
    let managers = managed::scale_managers(object, &places.wanted);
    if !managers.is_null() {
        scale["metadata"]["managedFields"] = managers;
    }
    scale
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
