//! What is answered where.

use std::sync::Arc;
use std::time::Duration;

use api::core::v1::{Pod, PodStatus};
use cri::v1;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Server;
use super::body::{Answer, json, streamed, text, whole};
use super::log_stream::{LogOptions, LogOwner, send_log};
use super::tunnel::tunnel;
use crate::clock;
use crate::observe::Observer;
use crate::observed::{Life, SeenContainer};
use crate::status_writer::object_value;

/// A command run by `/run` may take this long.
const RUN_TIMEOUT: Duration = Duration::from_secs(120);

/// The query of a request, decoded.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key), decode(value))
                })
                .collect(),
        )
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|v| !v.is_empty())
    }

    fn is_set(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.get(name).is_some_and(|v| matches!(v, "1" | "true" | "True" | "t" | "T")))
    }
}

/// Undoes percent and plus encoding.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let code: Vec<u8> = bytes.by_ref().take(2).collect();
                let code = std::str::from_utf8(&code).ok().and_then(|code| u8::from_str_radix(code, 16).ok());
                out.push(code.unwrap_or(b'%'));
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn not_found(what: &str) -> Response<Answer> {
    text(StatusCode::NOT_FOUND, &format!("{what}\n"))
}

/// A failure on the runtime's side.
fn broken(error: &cri::Error) -> Response<Answer> {
    text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n"))
}

impl Server {
    pub(super) async fn route(&self, request: Request<Incoming>) -> Response<Answer> {
        let path: Vec<String> = request.uri().path().split('/').skip(1).map(decode).collect();
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let is_get = request.method() == Method::GET;
        match parts[..] {
            ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => text(StatusCode::OK, "ok"),
            ["pods"] if is_get => self.pods(),
            ["runningpods" | "runningpods", ""] | ["runningpods"] if is_get => self.running_pods().await,
            ["configz"] if is_get => json(&self.configz()),
            ["stats", "summary"] => self.summary(query.is_set(&["only_cpu_and_memory"])).await,
            ["metrics"] => self.metrics(),
            ["metrics", "resource"] => self.resource_metrics().await,
            ["metrics", "cadvisor"] => self.cadvisor().await,
            ["metrics", "probes"] => self.probe_metrics(),
            ["containerLogs", namespace, pod, container] if is_get => {
                self.container_logs(namespace, pod, container, &query).await
            }
            ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
                self.exec((namespace, pod, container), &query, request).await
            }
            ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
                self.attach((namespace, pod, container), &query, request).await
            }
            ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
                self.port_forward(namespace, pod, &query, request).await
            }
            ["run", namespace, pod, container] | ["run", namespace, pod, _, container] => {
                self.run_command((namespace, pod, container), &query).await
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    fn pods(&self) -> Response<Answer> {
        let items: Vec<Value> = self
            .table
            .list()
            .into_iter()
            .map(|(pod, status)| object_value(&Pod { status, ..Pod::clone(&pod) }))
            .collect();
        json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
    }

    async fn running_pods(&self) -> Response<Answer> {
        let sandboxes = match self.node.runtime.list_sandboxes(Default::default()).await {
            Ok(list) => list,
            Err(error) => return broken(&error),
        };
        let ready = sandboxes.into_iter().filter(|s| s.state() == v1::PodSandboxState::SandboxReady);
        let items: Vec<Value> = ready
            .filter_map(|s| s.metadata)
            .map(|m| json!({"metadata": {"name": m.name, "namespace": m.namespace, "uid": m.uid}}))
            .collect();
        json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
    }

    fn configz(&self) -> Value {
        let config = &self.node.config;
        json!({"kubeletconfig": {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "containerRuntimeEndpoint": format!("unix://{}", config.cri_socket.display()),
            "clusterDNS": config.cluster_dns,
            "clusterDomain": config.cluster_domain,
            "maxPods": config.max_pods,
            "nodeStatusUpdateFrequency": format!("{}s", config.status_interval.as_secs()),
            "nodeStatusReportFrequency": format!("{}s", config.status_report.as_secs()),
            "nodeLeaseDurationSeconds": config.lease_duration.as_secs(),
            "containerLogMaxSize": config.log_max_bytes.to_string(),
            "containerLogMaxFiles": config.log_max_files,
            "imageGCHighThresholdPercent": config.image_collection.high_percent,
            "imageGCLowThresholdPercent": config.image_collection.low_percent,
            "staticPodPath": config.static_pod_dir.as_ref().map(|p| p.to_string_lossy().into_owned()),
            "cgroupRoot": config.cgroup_root,
            "cgroupsPerQOS": config.cgroups_per_qos,
            "podLogsDir": config.pod_logs_dir.to_string_lossy(),
            "resolvConf": config.resolv_conf.to_string_lossy(),
        }})
    }

    /// The pod's containers as the runtime has them.
    async fn containers_of(&self, pod: &Pod) -> Result<Vec<SeenContainer>, cri::Error> {
        let observed = Observer::default().observe(self.node.runtime.as_ref(), &pod.metadata.uid).await?;
        Ok(observed.containers)
    }

    async fn running_container(&self, place: (&str, &str, &str)) -> Result<String, Response<Answer>> {
        let (namespace, name, container) = place;
        let pod = self.table.find(namespace, name).ok_or_else(|| not_found("pod does not exist"))?;
        let containers = self.containers_of(&pod).await.map_err(|error| broken(&error))?;
        let found = containers.into_iter().find(|c| c.name == container && c.life == Life::Running);
        found.map(|c| c.id).ok_or_else(|| not_found(&format!("container not found (\"{container}\")")))
    }

    async fn exec(&self, place: (&str, &str, &str), query: &Query, request: Request<Incoming>) -> Response<Answer> {
        let id = match self.running_container(place).await {
            Ok(id) => id,
            Err(answer) => return answer,
        };
        let tty = query.is_set(&["tty"]);
        let wanted = v1::ExecRequest {
            container_id: id,
            cmd: query.all("command"),
            tty,
            stdin: query.is_set(&["input", "stdin"]),
            stdout: query.is_set(&["output", "stdout"]),
            stderr: query.is_set(&["error", "stderr"]) && !tty,
        };
        if wanted.cmd.is_empty() {
            return text(StatusCode::BAD_REQUEST, "a command is required\n");
        }
        match self.node.runtime.exec_url(wanted).await {
            Ok(url) => tunnel(request, &url, &self.node.tasks).await,
            Err(error) => broken(&error),
        }
    }

    async fn attach(&self, place: (&str, &str, &str), query: &Query, request: Request<Incoming>) -> Response<Answer> {
        let id = match self.running_container(place).await {
            Ok(id) => id,
            Err(answer) => return answer,
        };
        let spec_tty = self
            .table
            .find(place.0, place.1)
            .is_some_and(|pod| crate::pod::PodView::new(pod).container(place.2).is_some_and(|c| c.spec.tty));
        let wanted = v1::AttachRequest {
            container_id: id,
            stdin: query.is_set(&["input", "stdin"]),
            tty: spec_tty,
            stdout: query.is_set(&["output", "stdout"]),
            stderr: query.is_set(&["error", "stderr"]) && !spec_tty,
        };
        match self.node.runtime.attach_url(wanted).await {
            Ok(url) => tunnel(request, &url, &self.node.tasks).await,
            Err(error) => broken(&error),
        }
    }

    async fn port_forward(
        &self,
        namespace: &str,
        name: &str,
        query: &Query,
        request: Request<Incoming>,
    ) -> Response<Answer> {
        let Some(pod) = self.table.find(namespace, name) else { return not_found("pod does not exist") };
        let labels = crate::runtime_config::pod_labels(&pod.metadata.uid);
        let sandboxes = match self.node.runtime.list_sandboxes(labels).await {
            Ok(list) => list,
            Err(error) => return broken(&error),
        };
        let ready = sandboxes.into_iter().find(|s| s.state() == v1::PodSandboxState::SandboxReady);
        let Some(sandbox) = ready else { return not_found("the pod is not running") };
        let ports = query.all("port").into_iter().chain(query.all("ports"));
        let port = ports.flat_map(|p| p.split(',').map(str::to_owned).collect::<Vec<_>>());
        let port = port.filter_map(|p| p.parse().ok()).collect();
        let wanted = v1::PortForwardRequest { pod_sandbox_id: sandbox.id, port };
        match self.node.runtime.port_forward_url(wanted).await {
            Ok(url) => tunnel(request, &url, &self.node.tasks).await,
            Err(error) => broken(&error),
        }
    }

    async fn run_command(&self, place: (&str, &str, &str), query: &Query) -> Response<Answer> {
        let id = match self.running_container(place).await {
            Ok(id) => id,
            Err(answer) => return answer,
        };
        let command = query.get("cmd").map(|c| c.split(' ').map(str::to_owned).collect()).unwrap_or_default();
        match self.node.runtime.exec_sync(&id, command, RUN_TIMEOUT).await {
            Ok(answer) => {
                let output = [answer.stdout, answer.stderr].concat();
                whole(StatusCode::OK, "text/plain; charset=utf-8", output.into())
            }
            Err(error) => broken(&error),
        }
    }

    async fn container_logs(&self, namespace: &str, name: &str, container: &str, query: &Query) -> Response<Answer> {
        let options = match log_options(query) {
            Ok(options) => options,
            Err(why) => return text(StatusCode::BAD_REQUEST, &format!("{why}\n")),
        };
        let Some(pod) = self.table.find(namespace, name) else {
            return not_found(&format!("pod \"{name}\" does not exist"));
        };
        let containers = match self.containers_of(&pod).await {
            Ok(containers) => containers,
            Err(error) => return broken(&error),
        };
        let mut named = containers.into_iter().filter(|c| c.name == container && c.life != Life::Created);
        let wanted = if query.is_set(&["previous"]) { named.nth(1) } else { named.next() };
        let Some(seen) = wanted else { return self.no_logs(&pod, container, query) };
        let (sender, response) = streamed("text/plain");
        let owner = LogOwner { runtime: self.node.runtime.clone(), id: seen.id };
        let path = seen.status.log_path.into();
        self.node.tasks.spawn("log stream", async move {
            if let Err(error) = send_log(path, options, sender, owner).await {
                tracing::debug!(%error, "log stream ended");
            }
        });
        response
    }

    fn no_logs(&self, pod: &Arc<Pod>, container: &str, query: &Query) -> Response<Answer> {
        if query.is_set(&["previous"]) {
            let why =
                format!("previous terminated container \"{container}\" in pod \"{}\" not found", pod.metadata.name);
            return text(StatusCode::BAD_REQUEST, &why);
        }
        let table = self.table.list();
        let status = table.iter().find(|(p, _)| p.metadata.uid == pod.metadata.uid).map(|(_, status)| status);
        let reason = status.and_then(|s| waiting_reason(s, container));
        let why = match reason {
            Some(reason) => {
                format!("container \"{container}\" in pod \"{}\" is waiting to start: {reason}", pod.metadata.name)
            }
            None => format!("container {container} is not valid for pod {}", pod.metadata.name),
        };
        text(StatusCode::BAD_REQUEST, &why)
    }
}

fn waiting_reason(status: &PodStatus, container: &str) -> Option<String> {
    let all = status.init_container_statuses.iter().chain(&status.container_statuses);
    let mut found = all.chain(&status.ephemeral_container_statuses).filter(|c| c.name == container);
    found.next()?.state.waiting.as_ref().map(|w| w.reason.clone())
}

fn log_options(query: &Query) -> Result<LogOptions, String> {
    let number = |name: &str| match query.get(name) {
        None => Ok(None),
        Some(value) => value.parse::<u64>().map(Some).map_err(|_text| format!("{name} {value:?} is not a number")),
    };
    let since = match (number("sinceSeconds")?, query.get("sinceTime")) {
        (Some(seconds), _) => {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            Timestamp::from_second(clock::seconds(clock::now()).saturating_sub(seconds)).ok()
        }
        (None, Some(time)) => Some(time.parse().map_err(|_text| format!("sinceTime {time:?} is not a time"))?),
        (None, None) => None,
    };
    let stream = query.get("stream").unwrap_or("All");
    Ok(LogOptions {
        follow: query.is_set(&["follow"]),
        timestamps: query.is_set(&["timestamps"]),
        tail_lines: number("tailLines")?,
        limit_bytes: number("limitBytes")?,
        since,
        stdout: stream != "Stderr",
        stderr: stream != "Stdout",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("command=sh&command=-c&command=echo+a%20b&input=1&tty=false");
        assert_eq!(query.all("command"), ["sh", "-c", "echo a b"]);
        assert!(query.is_set(&["stdin", "input"]));
        assert!(!query.is_set(&["tty"]));
    }

    #[test]
    fn log_options_are_read() {
        let options = log_options(&Query::parse("tailLines=5&timestamps=true&stream=Stderr")).unwrap();
        assert_eq!((options.tail_lines, options.timestamps, options.stdout), (Some(5), true, false));
        assert!(log_options(&Query::parse("tailLines=x")).is_err());
    }
}
