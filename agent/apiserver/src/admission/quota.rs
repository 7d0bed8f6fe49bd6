//! ResourceQuota: what a namespace may hold.
//!
//! An object is charged to every quota that is about it before it is written, in the quota's status and only over the
//! version that was looked at, so that two servers, or two requests at one moment, never give out the same rest
//! twice. What was charged for an object that then did not come about, and what goes, the quota controller gives
//! back.

mod charge;

use std::ops::Bound;
use std::time::Duration;

use api::core::v1::ResourceQuota;
use api::quota::Family;
use futures::future::try_join_all;
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

use crate::admission::Operation;
use crate::app::Call;
use crate::codec;
use crate::handlers::write::modify;
use crate::start::internal_call;
use crate::status::{Failure, Result};
use crate::strategy::Part;
use crate::tree;
use charge::{Asked, charge};

/// Kinds that are counted by no quota, as upstream.
const IGNORED: [&str; 2] = ["events", "bindings"];
/// How long a request waits for those before it in its namespace, as upstream.
const PATIENCE: Duration = Duration::from_secs(10);
const LANES: usize = 64;

/// Requests of a namespace with quotas are charged one after the other: side by side they would only undo each
/// other's writes. Namespaces share lanes.
#[derive(Debug)]
pub struct Turns([Mutex<()>; LANES]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(())))
    }
}

impl Turns {
    async fn take(&self, namespace: &str) -> Result<MutexGuard<'_, ()>> {
        let lane = namespace.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        tokio::time::timeout(PATIENCE, self.0[lane % LANES].lock())
            .await
            .map_err(|_| Failure::internal("resource quota evaluation timed out"))
    }
}

/// Charges an object that is made, or what a change adds to it, to the namespace's quotas, or refuses it.
pub(super) async fn check(call: &Call, operation: Operation, new: &Value, old: Option<&Value>) -> Result<()> {
    if !call.kind.namespaced || !concerns(call, operation) {
        return Ok(());
    }
    let quotas = quotas_of(call);
    if quotas.is_empty() {
        return Ok(());
    }
    let asked = Asked::read(call, new, old.filter(|_| operation != Operation::Create))?;
    if operation == Operation::Update(Part::Main) && asked.is_pod_within_its_scope() {
        return Ok(());
    }
    let mut due = Vec::new();
    for quota in &quotas {
        if judge(call, new, quota, &asked)?.is_some() {
            due.push(quota.metadata.name.as_str());
        }
    }
    if due.is_empty() || call.is_dry_run()? {
        return Ok(());
    }
    let _turn = call.app.quota_turns.take(call.namespace()).await?;
    try_join_all(due.into_iter().map(|name| write(call, new, name, &asked))).await.map(|_| ())
}

/// Whether quotas look at such an operation on such a kind.
fn concerns(call: &Call, operation: Operation) -> bool {
    let family = Family::of_kind(call.kind.group, call.kind.plural);
    match operation {
        Operation::Create => !IGNORED.contains(&call.kind.plural),
        Operation::Update(Part::Main) => !matches!(family, Family::Objects { .. }),
        Operation::Update(Part::Resize) => family == Family::Pods,
        Operation::Update(Part::Status) => family == Family::Claims,
        Operation::Update(_) => false,
    }
}

fn quotas_of(call: &Call) -> Vec<ResourceQuota> {
    let prefix = format!("{}/", call.namespace());
    let objects = call.app.cache.known("", "resourcequotas").snapshot();
    let own = objects.range::<_, str>((Bound::Included(prefix.as_str()), Bound::Unbounded));
    own.take_while(|(key, _)| key.starts_with(&prefix))
        .filter_map(|(_, object)| api::envelope::decode_message(&object.data).ok())
        .collect()
}

/// The used amounts with the object; `None` where the quota has nothing to do with it.
fn judge(call: &Call, new: &Value, quota: &ResourceQuota, asked: &Asked) -> Result<Option<api::quota::Amounts>> {
    let refuse = |text: String| Failure::forbidden(call.subject(), tree::name_given(new), &text);
    charge(quota, asked).map_err(refuse)
}

async fn write(call: &Call, new: &Value, name: &str, asked: &Asked) -> Result<()> {
    let kind = api::kind_by_name("v1", "ResourceQuota").ok_or_else(Failure::no_such_path)?;
    let on_quota = internal_call(&call.app, kind, call.namespace(), "update").on(name).part("status");
    let charged = |old: &Value| {
        let quota: ResourceQuota = codec::typed(kind.schema(), old)?;
        let mut charged = old.clone();
        if let Some(used) = judge(call, new, &quota, asked)? {
            let used = used.into_iter().map(|(resource, amount)| (resource, Value::String(amount.string)));
            charged["status"]["used"] = Value::Object(used.collect());
        }
        Ok(charged)
    };
    // A quota that was deleted meanwhile limits nothing; boxed, since the status of a quota is admitted, too.
    match Box::pin(modify(&on_quota, Part::Status, charged)).await {
        Err(failure) if failure.code() == http::StatusCode::NOT_FOUND => Ok(()),
        other => other.map(|_| ()),
    }
}
