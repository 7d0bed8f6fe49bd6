//! What servers on one store tell one another: who they are, and under which addresses the Service `kubernetes` leads
//! to them. Keys, encodings and times are upstream's, so that its servers can be among them.

mod endpoints;
mod identity;
mod tracking;

use std::sync::Arc;

use lifecycle::Shutdown;
use serde_json::Value;

use crate::app::App;
use crate::handlers::write::{Changed, modify_tree};
use crate::start::internal_call;
use crate::status::Result;
use crate::strategy::Part;

pub use endpoints::withdraw;
pub use identity::lease_name;

/// Tells the others until shutdown, and takes back at its end what would outlive this server.
pub async fn run(app: &Arc<App>, shutdown: &Shutdown) {
    let identity = async {
        if app.config.features.is_on("APIServerIdentity") {
            identity::run(app, shutdown).await;
        }
    };
    tokio::join!(endpoints::run(app, shutdown), identity, tracking::run(app, shutdown));
}

/// Changes an object of ours unless it is as it should be.
async fn change(
    app: &Arc<App>,
    (version, kind): (&str, &str),
    (namespace, name): (&str, &str),
    change: impl Fn(&mut Value),
) -> Result<Changed> {
    let kind = api::kind_by_name(version, kind).ok_or_else(crate::status::Failure::no_such_path)?;
    let call = internal_call(app, kind, namespace, "update").on(name);
    modify_tree(&call, Part::Main, |old| {
        let mut new = old.clone();
        change(&mut new);
        Ok(new)
    })
    .await
}
