//! An API server on memory alone, for trying it with kubectl:
//!
//! ```text
//! cargo run -p apiserver --example serve -- 127.0.0.1:8080
//! kubectl --server http://127.0.0.1:8080 get namespaces
//! ```

use std::sync::Arc;

use apiserver::{Authorization, Config};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let bind = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned()).parse()?;
    let store = store::Embedded::in_memory().await?;
    let config = Config { bind, authorization: Authorization::AlwaysAllow, ..Config::default() };
    let shutdown = lifecycle::Shutdown::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.trigger();
        }
    });
    apiserver::run(config, Arc::new(store), shutdown).await?;
    Ok(())
}
