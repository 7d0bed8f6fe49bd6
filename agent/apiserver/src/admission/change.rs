//! What is done to an object, in the forms in which webhooks and policies want to see it.
//!
//! ```text
//!  the object ─▶ as the path names it ─▶ in the version that somebody asks for
//!  Deployment      Scale, Eviction, …       what `matchPolicy: Equivalent` finds
//! ```
//! A change that is made to one of these forms goes the same way back.

use std::borrow::Cow;

use api::Kind;
use serde_json::{Value, json};

use super::event::Event;
use super::{Operation, reform};
use crate::app::Call;
use crate::handlers::{DeleteOptions, scale};
use crate::status::{Failure, Result};
use crate::strategy::Part;
use crate::{codec, defaults};

/// Something that is done to an object.
pub(super) struct Change<'a> {
    call: &'a Call,
    operation: &'static str,
    new: Option<Cow<'a, Value>>,
    old: Option<Cow<'a, Value>>,
    options: Value,
    dry_run: bool,
    /// Whether somebody changed the new object.
    is_changed: bool,
    /// The objects in other versions, as long as they say the same.
    shown: Vec<Shown>,
}

/// The objects of a change in another version.
struct Shown {
    kind: &'static Kind,
    new: Option<Value>,
    old: Option<Value>,
}

impl<'a> Change<'a> {
    fn new(call: &'a Call, operation: &'static str) -> Result<Self> {
        let dry_run = call.is_dry_run()?;
        let (new, old, shown) = (None, None, Vec::new());
        Ok(Self { call, operation, new, old, options: Value::Null, dry_run, is_changed: false, shown })
    }

    /// An object is made or changed; of what this server writes by itself nobody is told.
    pub(super) fn of_write(
        call: &'a Call,
        operation: Operation,
        new: &'a Value,
        old: Option<&'a Value>,
    ) -> Result<Option<Self>> {
        let (operation, options) = match operation {
            Operation::Create => ("CREATE", "CreateOptions"),
            Operation::Update(Part::Internal) => return Ok(None),
            Operation::Update(_) => ("UPDATE", "UpdateOptions"),
        };
        let form = |object: &'a Value| match call.info.subresource.as_str() {
            "scale" => Cow::Owned(scale::shown(call, object)),
            _ if crate::custom::is_custom(call.kind) => Cow::Borrowed(object),
            _ => codec::as_stored(call.kind.schema(), object),
        };
        let options = write_options(call, options);
        Ok(Some(Self { new: Some(form(new)), old: old.map(form), options, ..Self::new(call, operation)? }))
    }

    /// A message is posted that is not stored.
    pub(super) fn of_message(call: &'a Call, message: &'a Value) -> Result<Self> {
        let options = write_options(call, "CreateOptions");
        // Those that look at it are told what it is, also where the client did not say.
        let mut message = Cow::Borrowed(message);
        let api::TypeName { group, version, kind } = call.kind.type_of(&call.info.subresource);
        if message["kind"].is_null() || message["apiVersion"].is_null() {
            let message = message.to_mut();
            message["kind"] = kind.into();
            message["apiVersion"] = if group.is_empty() { version.into() } else { format!("{group}/{version}").into() };
        }
        Ok(Self { new: Some(message), options, ..Self::new(call, "CREATE")? })
    }

    /// An object is deleted.
    pub(super) fn of_deletion(call: &'a Call, old: &'a Value, options: &DeleteOptions) -> Result<Self> {
        let dry_run = options.dry_run;
        Ok(Self { old: Some(Cow::Borrowed(old)), options: options.to_value(), dry_run, ..Self::new(call, "DELETE")? })
    }

    /// Somebody connects to a pod, a service or a node.
    pub(super) fn of_connection(call: &'a Call, options: Value) -> Result<Self> {
        Ok(Self { new: Some(Cow::Owned(options)), ..Self::new(call, "CONNECT")? })
    }

    /// Such as `CREATE`.
    pub(super) fn operation(&self) -> &'static str {
        self.operation
    }

    /// The change as the request has it.
    pub(super) fn event(&self) -> Event<'_> {
        self.event_of(self.call.kind, self.new.as_deref(), self.old.as_deref())
    }

    fn event_of<'s>(&'s self, kind: &'static Kind, new: Option<&'s Value>, old: Option<&'s Value>) -> Event<'s> {
        let (operation, options, dry_run) = (self.operation, &self.options, self.dry_run);
        Event { operation, kind, new, old, options, dry_run }
    }

    /// Makes the objects in another version of the resource, for [`Self::seen_as`].
    pub(super) async fn prepare(&mut self, kind: &'static Kind) -> Result<()> {
        if !self.is_converted_for(kind) || self.shown.iter().any(|s| std::ptr::eq(s.kind, kind)) {
            return Ok(());
        }
        let both = [self.new.as_deref(), self.old.as_deref()];
        let objects = both.into_iter().flatten().cloned().collect();
        let mut done = crate::custom::in_version(self.call, (self.call.kind, kind), objects).await?.into_iter();
        let new = self.new.as_ref().and_then(|_| done.next());
        let old = self.old.as_ref().and_then(|_| done.next());
        self.shown.push(Shown { kind, new, old });
        Ok(())
    }

    /// The change in a version of the resource that was prepared.
    pub(super) fn seen_as(&self, kind: &'static Kind) -> Event<'_> {
        match self.shown.iter().find(|s| std::ptr::eq(s.kind, kind)) {
            Some(shown) => self.event_of(kind, shown.new.as_ref(), shown.old.as_ref()),
            None => self.event_of(kind, self.new.as_deref(), self.old.as_deref()),
        }
    }

    /// What is written has the resource's own type, which differs between versions.
    fn is_converted_for(&self, kind: &'static Kind) -> bool {
        !std::ptr::eq(kind, self.call.kind)
            && self.call.kind.type_of(&self.call.info.subresource) == own(self.call.kind)
    }

    /// Replaces the new object by one in a version of the resource.
    pub(super) async fn replace(&mut self, kind: &'static Kind, mut object: Value) -> Result<()> {
        if self.is_converted_for(kind) {
            let done = crate::custom::in_version(self.call, (kind, self.call.kind), vec![object]).await?;
            object = done.into_iter().next().ok_or_else(|| Failure::internal("an object was not converted"))?;
        }
        let name = self.call.kind.type_of(&self.call.info.subresource);
        let schema = name.schema().filter(|_| !crate::custom::is_custom(self.call.kind));
        if let Some(why) = schema.and_then(|schema| codec::decoding_error(schema, &object)) {
            return Err(Failure::internal(why));
        }
        if name == own(self.call.kind) {
            reform(self.call, &mut object)?;
        } else if let Some(schema) = name.schema() {
            object = codec::canonical_message(schema, name, &object)?;
            defaults::apply_message(schema.name, &mut object);
        }
        self.new = Some(Cow::Owned(object));
        self.shown.clear();
        self.is_changed = true;
        Ok(())
    }

    /// The new object, if somebody changed it.
    pub(super) fn into_changed(self) -> Option<Value> {
        self.is_changed.then_some(self.new).flatten().map(Cow::into_owned)
    }
}

fn own(kind: &Kind) -> api::TypeName {
    kind.type_of("")
}

/// The options of a write, as far as the query names them. Those of a patch are told as those of an update.
fn write_options(call: &Call, kind: &str) -> Value {
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    let tried = call.query.all("dryRun");
    if !tried.is_empty() {
        options["dryRun"] = tried.into();
    }
    for key in ["fieldManager", "fieldValidation"] {
        if !call.query.get(key).is_empty() {
            options[key] = call.query.get(key).into();
        }
    }
    options
}
