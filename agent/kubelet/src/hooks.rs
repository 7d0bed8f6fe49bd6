//! postStart and preStop.

use std::time::Duration;

use api::core::v1::{Container, LifecycleHandler};
use cri::Runtime;

use crate::handler::{http_get, port_number, tcp_connect};

const AGENT: &str = "kube-lifecycle/1.36";
/// A postStart command has no time of its own; this one ends what never would.
const LONGEST: Duration = Duration::from_secs(3600);

/// Runs a hook of a container to its end.
pub(crate) async fn run_hook(
    runtime: &dyn Runtime,
    handler: &LifecycleHandler,
    container: &Container,
    id: &str,
    pod_ip: &str,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        let answer = runtime.exec_sync(id, exec.command.clone(), LONGEST).await.map_err(|error| error.to_string())?;
        if answer.exit_code == 0 {
            return Ok(());
        }
        let output = [answer.stdout, answer.stderr].concat();
        return Err(format!(
            "command '{}' exited with {}: {}",
            exec.command.join(" "),
            answer.exit_code,
            String::from_utf8_lossy(&output).trim()
        ));
    }
    if let Some(http) = &handler.http_get {
        let answer = http_get(http, container, pod_ip, AGENT).await?;
        return match answer.code {
            200..400 => Ok(()),
            code => Err(format!("HTTP hook failed with statuscode: {code}, {}", answer.body.trim())),
        };
    }
    if let Some(tcp) = &handler.tcp_socket {
        let port = port_number(&tcp.port, container)?;
        let host = if tcp.host.is_empty() { pod_ip } else { &tcp.host };
        return tcp_connect(host, port).await;
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err("the hook has no handler that this node knows".to_owned())
}
