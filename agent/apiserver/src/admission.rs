//! The steps between a decoded object and its validation, in upstream's order. A step is a function in its own
//! module; it may change the object, or refuse it.

mod namespaces;

use serde_json::Value;

use crate::app::Call;
use crate::status::Result;
use crate::strategy::Part;

/// What is being done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is made.
    Create,
    /// A part of it is changed.
    Update(Part),
}

/// Steps that may change the object.
pub async fn admit(call: &Call, operation: Operation, new: &mut Value, old: Option<&Value>) -> Result<()> {
    if operation == Operation::Create {
        namespaces::check_create(call, new).await?;
    }
    let _unchanged = old;
    Ok(())
}

/// Steps that only look at the finished object.
pub async fn check(_call: &Call, _operation: Operation, _new: &Value, _old: Option<&Value>) -> Result<()> {
    Ok(())
}

/// Steps that look at a deletion.
pub async fn check_delete(call: &Call, name: &str) -> Result<()> {
    namespaces::check_delete(call, name)
}
