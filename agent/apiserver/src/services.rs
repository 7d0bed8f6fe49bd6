//! Addresses and ports of Services.

use std::sync::Arc;

use serde_json::Value;

use crate::app::{App, Call};
use crate::status::Result;

/// Makes what Services need at the start: the range's object and the `kubernetes` Service.
pub async fn start(_app: &Arc<App>) -> Result<()> {
    Ok(())
}

/// Gives a Service its addresses and ports.
pub async fn allocate(_call: &Call, _new: &mut Value, _old: Option<&Value>) -> Result<()> {
    Ok(())
}

/// Gives back what a deleted object held.
pub async fn after_delete(_call: &Call, _value: &Value) {}
