//! The cluster serves when it is up; what is left is that the API means what it says.

use anyhow::{Result, bail};
use http::{Method, StatusCode};

use super::{Outcome, Scene};

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let api = scene.up().await?;
    let version = api.get("/version").await?;
    scene.say(&format!("the API server is {}", version["gitVersion"].as_str().unwrap_or("of no version")));
    if !api.pods("sample").await?.iter().any(|pod| pod.phase == "Running") {
        bail!("the sample answers, but the API knows of no running pod of it");
    }
    let (status, _) = api.send(Method::GET, "/api/v1/namespaces/default/pods/absent", None).await?;
    if status != StatusCode::NOT_FOUND {
        bail!("an absent pod is answered with {status}");
    }
    Ok(Outcome::Passed)
}
