//! Tokens of service accounts.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::decode_as;
use crate::answer::Body;
use crate::app::{Call, now};
use crate::auth::token::{BoundTo, Reference, TokenSpec};
use crate::codec;
use crate::handlers::read;
use crate::managed::{self, Manager};
use crate::status::{Failure, FieldError, Result, Subject};
use crate::{defaults, tree};

const REQUEST: &str = "k8s.io.api.authentication.v1.TokenRequest";
/// Shortest and longest life that may be asked for.
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;

pub(super) async fn request(call: &Call, body: &[u8]) -> Result<Response<Body>> {
    let mut request = decode_as(call, body, REQUEST)?;
    tree::object_at(&mut request, "spec");
    tree::remove(&mut request, "status");
    defaults::apply_message(REQUEST, &mut request);
    crate::admission::admit_message(call, &mut request).await?;
    for (what, own) in [("name", call.info.name.as_str()), ("namespace", call.namespace())] {
        check_same(call, &request, what, own)?;
    }
    let object = read::current(call).await?;
    let account = codec::to_value(call.storage()?, call.kind, &object)?;
    check_uid(call, &request, &account)?;
    let seconds = tree::integer(&request, "/spec/expirationSeconds").unwrap_or(0);
    check_seconds(seconds)?;
    crate::admission::nodes::restrict_token(call, &request)?;
    crate::admission::check_message(call, &request).await?;
    let signer =
        call.app.access.signer.as_ref().ok_or_else(|| Failure::not_implemented("signing service account tokens"))?;
    let asked = seconds;
    let seconds = signer.life(asked);
    if seconds < asked {
        call.warn(format!("requested expiration of {asked} seconds shortened to {seconds} seconds"));
    }
    let audiences = tree::list(&request, "/spec/audiences").iter().filter_map(|a| a.as_str().map(str::to_owned));
    let spec = TokenSpec {
        namespace: call.namespace().to_owned(),
        service_account: reference(&account),
        audiences: audiences.collect(),
        expiration_seconds: seconds,
        bound_to: bound_to(call, &request["spec"]["boundObjectRef"])?,
    };
    let id = uuid::Uuid::new_v4().to_string();
    call.record.annotate("authentication.kubernetes.io/issued-credential-id", format!("JTI={id}"));
    let issued = signer.issue(spec, now(), id).map_err(Failure::internal)?;
    let made = crate::app::now_text();
    let manager = Manager { api_version: format!("{GROUP}/v1"), ..call.manager() };
    let fields = json!({"metadata": request["metadata"], "spec": request["spec"]});
    let managed = managed::of_new(codec::schema(REQUEST), &fields, (manager, &made));
    let mut answer = json!({
        "kind": KIND, "apiVersion": format!("{GROUP}/v1"),
        "metadata": request["metadata"].as_object().cloned().unwrap_or_default(),
        "spec": {
            "audiences": issued.audiences, "expirationSeconds": seconds,
            "boundObjectRef": request["spec"]["boundObjectRef"],
        },
        "status": {"token": issued.token, "expirationTimestamp": api::time::format_seconds(issued.expires_at)},
    });
    let of_account = &account["metadata"];
    let known = [
        ("name", of_account["name"].clone()),
        ("namespace", of_account["namespace"].clone()),
        ("uid", of_account["uid"].clone()),
        ("creationTimestamp", made.into()),
        ("managedFields", managed),
    ];
    tree::object_at(&mut answer, "metadata").extend(known.map(|(key, value)| (key.to_owned(), value)));
    read::respond_value(call, StatusCode::CREATED, REQUEST, &answer)
}

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";
const SUBJECT: Subject<'_> = Subject { group: GROUP, resource: KIND };

/// What a request says of its account is what the path says.
fn check_same(call: &Call, request: &Value, what: &str, own: &str) -> Result<()> {
    let given = request["metadata"][what].as_str().unwrap_or_default();
    if given.is_empty() || given == own {
        return Ok(());
    }
    let why = format!("must match the service account {what} if specified");
    Err(Failure::invalid(SUBJECT, &call.info.name, &[FieldError::invalid(format!("metadata.{what}"), given, why)]))
}

fn check_uid(call: &Call, request: &Value, account: &Value) -> Result<()> {
    let (given, own) = (tree::text(request, "/metadata/uid"), tree::text(account, "/metadata/uid"));
    if given.is_empty() || given == own {
        return Ok(());
    }
    let why = format!("the UID in the token request ({given}) does not match the UID of the service account ({own})");
    Err(Failure::conflict(SUBJECT, &call.info.name, &why))
}

fn check_seconds(seconds: i64) -> Result<()> {
    let field = "spec.expirationSeconds";
    let error = if seconds < MIN_SECONDS {
        FieldError::invalid(field, seconds, "may not specify a duration less than 10 minutes")
    } else if seconds > MAX_SECONDS {
        FieldError::invalid(field, seconds, "may not specify a duration larger than 2^32 seconds")
    } else {
        return Ok(());
    };
    // Upstream names no object here.
    Err(Failure::invalid(SUBJECT, "", &[error]))
}

fn reference(object: &Value) -> Reference {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    Reference { name: text("name"), uid: text("uid") }
}

/// The object that the token shall live and die with.
fn bound_to(call: &Call, wanted: &Value) -> Result<BoundTo> {
    if wanted.is_null() {
        return Ok(BoundTo::Nothing);
    }
    let (kind, name) = (tree::text(wanted, "/kind"), tree::text(wanted, "/name"));
    let plural = match kind {
        "Pod" => "pods",
        "Secret" => "secrets",
        "Node" => "nodes",
        _ => "",
    };
    let version = tree::text(wanted, "/apiVersion");
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    if plural.is_empty() || !group.is_empty() {
        let text = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
        return Err(Failure::bad_request(text));
    }
    let storage = call.app.cache.known("", plural);
    let find = |plural: &str, namespace: &str, name: &str| {
        let storage = call.app.cache.known("", plural);
        storage.get(namespace, name).and_then(|o| codec::to_value(storage, storage.kind, &o).ok())
    };
    let namespace = if plural == "nodes" { "" } else { call.namespace() };
    let subject = crate::app::resource_subject(storage.kind);
    if name.is_empty() {
        return Err(Failure::bad_request("Name parameter required."));
    }
    let object = find(plural, namespace, name).ok_or_else(|| Failure::not_found(subject, name))?;
    let (uid, actual) = (tree::text(wanted, "/uid"), tree::text(&object, "/metadata/uid"));
    if !uid.is_empty() && uid != actual {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Failure::conflict(Subject { group: "", resource: kind }, name, &why));
    }
    Ok(match kind {
        "Pod" => {
            let account = tree::text(&object, "/spec/serviceAccountName");
            if account != call.info.name {
                let text = format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    call.info.name
                );
                return Err(Failure::bad_request(text));
            }
            let node = tree::text(&object, "/spec/nodeName");
            let found = find("nodes", "", node).map(|n| reference(&n));
            let node = (!node.is_empty())
                .then(|| found.unwrap_or(Reference { name: node.to_owned(), ..Reference::default() }));
            BoundTo::Pod { pod: reference(&object), node }
        }
        "Node" => BoundTo::Node(reference(&object)),
        _ => BoundTo::Secret(reference(&object)),
    })
}
