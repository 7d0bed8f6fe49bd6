//! Pods: one word for the state of all their containers.

use api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};

use super::cell::{Cell, age};
use super::text::{Stamp as _, or_none};
use super::{Row, cells};

const COMPLETED: &str = "Completed";
/// `status.reason` of pods whose node cannot be reached.
const NODE_LOST: &str = "NodeLost";

/// All that a row looks at.
pub(super) const SHOWN: &[&str] = &[
    "metadata.name",
    "metadata.creationTimestamp",
    "metadata.deletionTimestamp",
    "spec.containers.name",
    "spec.initContainers.name",
    "spec.initContainers.restartPolicy",
    "spec.nodeName",
    "spec.readinessGates",
    "status",
];

/// A row of a pod.
pub(super) fn pod(pod: &Pod) -> Row {
    let seen = Seen::of(pod);
    let restarts = match seen.restarts {
        Restarts { count, last: Some(time) } if count != 0 => {
            Cell::Age { before: format!("{count} ("), time, after: " ago)" }
        }
        Restarts { count, .. } => count.to_string().into(),
    };
    let cells = cells![
        pod.metadata.name.as_str(),
        format!("{}/{}", seen.ready, pod.spec.containers.len() + sidecars(pod)),
        seen.reason,
        restarts,
        age(&pod.metadata.creation_timestamp),
        or_none(pod.status.pod_ips.first().map_or("", |address| &address.ip)),
        or_none(&pod.spec.node_name),
        or_none(&pod.status.nominated_node_name),
        readiness_gates(pod),
    ];
    let completed = match pod.status.phase.as_str() {
        "Succeeded" => Some(("Succeeded", "The pod has completed successfully.")),
        "Failed" => Some(("Failed", "The pod failed.")),
        _ => None,
    };
    Row { cells, completed }
}

fn readiness_gates(pod: &Pod) -> String {
    let gates = &pod.spec.readiness_gates;
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates.iter().filter(|gate| condition(pod, &gate.condition_type) == Some("True")).count();
    format!("{open}/{}", gates.len())
}

/// The status of the first condition of this type.
fn condition<'p>(pod: &'p Pod, name: &str) -> Option<&'p str> {
    pod.status.conditions.iter().find(|c| c.r#type == name).map(|c| c.status.as_str())
}

fn is_sidecar(pod: &Pod, name: &str) -> bool {
    let is_always = |policy: &Option<String>| policy.as_deref() == Some("Always");
    pod.spec.init_containers.iter().any(|c| c.name == name && is_always(&c.restart_policy))
}

fn sidecars(pod: &Pod) -> usize {
    pod.spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always")).count()
}

#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i32,
    /// When the latest container that was restarted had ended.
    last: Option<i64>,
}

impl Restarts {
    fn add(&mut self, container: &ContainerStatus) {
        self.count = self.count.saturating_add(container.restart_count);
        let ended = container.last_state.terminated.as_ref().and_then(|t| t.finished_at.in_nanos());
        self.last = self.last.max(ended);
    }
}

/// What the statuses of a pod's containers come to.
struct Seen {
    reason: String,
    restarts: Restarts,
    ready: usize,
}

impl Seen {
    fn of(pod: &Pod) -> Self {
        let status = &pod.status;
        let mut seen = Self { reason: status.phase.clone(), restarts: Restarts::default(), ready: 0 };
        if !status.reason.is_empty() {
            seen.reason.clone_from(&status.reason);
        }
        if status.conditions.iter().any(|c| c.r#type == "PodScheduled" && c.reason == "SchedulingGated") {
            "SchedulingGated".clone_into(&mut seen.reason);
        }
        let (initializing, of_sidecars) = seen.init_containers(pod);
        if !initializing || condition(pod, "Initialized") == Some("True") {
            seen.restarts = of_sidecars;
            seen.containers(pod);
        }
        let is_terminal = matches!(status.phase.as_str(), "Failed" | "Succeeded");
        if pod.metadata.deletion_timestamp.is_some() {
            if status.reason == NODE_LOST {
                "Unknown".clone_into(&mut seen.reason);
            } else if !is_terminal {
                "Terminating".clone_into(&mut seen.reason);
            }
        }
        seen
    }

    /// Looks at the init containers up to the one that the pod waits for. Says if there is one, and gives the restarts
    /// of those that keep running.
    fn init_containers(&mut self, pod: &Pod) -> (bool, Restarts) {
        let mut of_sidecars = Restarts::default();
        for (i, container) in pod.status.init_container_statuses.iter().enumerate() {
            self.restarts.add(container);
            let sidecar = is_sidecar(pod, &container.name);
            if sidecar {
                of_sidecars.add(container);
            }
            let state = &container.state;
            let is_waiting = |reason: &str| !reason.is_empty() && reason != "PodInitializing";
            self.reason = match (&state.terminated, &state.waiting) {
                (Some(ended), _) if ended.exit_code == 0 => continue,
                _ if sidecar && container.started == Some(true) => {
                    self.ready += usize::from(container.ready);
                    continue;
                }
                (Some(ended), _) => format!("Init:{}", why_ended(ended)),
                (None, Some(waiting)) if is_waiting(&waiting.reason) => format!("Init:{}", waiting.reason),
                _ => format!("Init:{i}/{}", pod.spec.init_containers.len()),
            };
            return (true, of_sidecars);
        }
        (false, of_sidecars)
    }

    /// Looks at the containers, of which the first one with something to tell wins.
    fn containers(&mut self, pod: &Pod) {
        let mut running = false;
        let mut failure = None;
        for container in pod.status.container_statuses.iter().rev() {
            self.restarts.add(container);
            let state = &container.state;
            match (&state.waiting, &state.terminated) {
                (Some(waiting), _) if !waiting.reason.is_empty() => self.reason.clone_from(&waiting.reason),
                (_, Some(ended)) => {
                    self.reason = why_ended(ended);
                    if ended.exit_code != 0 {
                        failure = Some(self.reason.clone());
                    }
                }
                _ if container.ready && state.running.is_some() => {
                    running = true;
                    self.ready += 1;
                }
                _ => {}
            }
        }
        if self.reason == COMPLETED {
            let is_ready = pod.status.conditions.iter().any(|c| c.r#type == "Ready" && c.status == "True");
            match failure {
                _ if running && is_ready => "Running".clone_into(&mut self.reason),
                Some(failure) => self.reason = failure,
                None if running => "NotReady".clone_into(&mut self.reason),
                None => {}
            }
        }
    }
}

fn why_ended(ended: &ContainerStateTerminated) -> String {
    match (ended.reason.as_str(), ended.signal) {
        ("", 0) => format!("ExitCode:{}", ended.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use api::transcode::{Report, value_to_proto};
    use serde_json::{Value, json};

    use super::*;

    /// A pod with two containers, one init container and one sidecar, and this status.
    fn row_of(metadata: Value, status: Value) -> Row {
        let object = json!({
            "metadata": metadata,
            "spec": {
                "containers": [{"name": "a"}, {"name": "b"}],
                "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
            },
            "status": status,
        });
        let schema = crate::codec::schema("k8s.io.api.core.v1.Pod");
        let raw = value_to_proto(schema, &object, &mut Report::default()).unwrap();
        let decoded: Pod = prost::Message::decode(raw.as_slice()).unwrap();
        pod(&decoded)
    }

    fn status_of(status: Value) -> Cell {
        row_of(json!({}), status).cells[2].clone()
    }

    #[test]
    fn one_word_says_what_a_pod_does() {
        let waiting = |reason: &str| json!({"state": {"waiting": {"reason": reason}}});
        let running = json!({"ready": true, "state": {"running": {}}});
        let ended = |reason: &str, code: i32, signal: i32| json!({"state": {"terminated": {"reason": reason, "exitCode": code, "signal": signal}}});
        let named = |mut status: Value, name: &str| {
            status["name"] = name.into();
            status
        };
        let init_done = json!([named(ended("Completed", 0, 0), "i")]);
        let cases = [
            ("Pending", json!({"phase": "Pending"})),
            ("Evicted", json!({"phase": "Failed", "reason": "Evicted"})),
            (
                "SchedulingGated",
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
            ),
            (
                "Init:0/2",
                json!({"phase": "Pending", "initContainerStatuses": [named(json!({"state": {"running": {}}}), "i")]}),
            ),
            (
                "Init:0/2",
                json!({"phase": "Pending", "initContainerStatuses": [named(waiting("PodInitializing"), "i")]}),
            ),
            ("Init:ImagePullBackOff", json!({"initContainerStatuses": [named(waiting("ImagePullBackOff"), "i")]})),
            ("Init:Error", json!({"initContainerStatuses": [named(ended("Error", 1, 0), "i")]})),
            ("Init:ExitCode:3", json!({"initContainerStatuses": [named(ended("", 3, 0), "i")]})),
            ("Init:Signal:9", json!({"initContainerStatuses": [named(ended("", 3, 9), "i")]})),
            (
                "Init:1/2",
                json!({"initContainerStatuses": [named(ended("Completed", 0, 0), "i"), named(json!({"state": {"running": {}}, "started": false}), "s")]}),
            ),
            (
                "PodInitializing",
                json!({"initContainerStatuses": init_done, "containerStatuses": [waiting("PodInitializing")]}),
            ),
            (
                "ContainerCreating",
                json!({"containerStatuses": [waiting("ContainerCreating"), waiting("ContainerCreating")]}),
            ),
            (
                "CrashLoopBackOff",
                json!({"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff"), running]}),
            ),
            ("Running", json!({"phase": "Running", "containerStatuses": [running, running]})),
            ("Completed", json!({"phase": "Succeeded", "containerStatuses": [ended("Completed", 0, 0)]})),
            ("Error", json!({"phase": "Failed", "containerStatuses": [ended("Error", 1, 0)]})),
            (
                "Error",
                json!({"phase": "Failed", "containerStatuses": [ended("Completed", 0, 0), ended("Error", 1, 0)]}),
            ),
            ("OOMKilled", json!({"phase": "Failed", "containerStatuses": [ended("OOMKilled", 137, 0)]})),
            ("ExitCode:2", json!({"phase": "Failed", "containerStatuses": [ended("", 2, 0)]})),
            ("Signal:9", json!({"phase": "Failed", "containerStatuses": [ended("", 2, 9)]})),
            ("NotReady", json!({"phase": "Running", "containerStatuses": [ended("Completed", 0, 0), running]})),
            (
                "Running",
                json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [ended("Completed", 0, 0), running]}),
            ),
        ];
        for (expected, status) in cases {
            assert_eq!(status_of(status.clone()), expected, "{status}");
        }
    }

    #[test]
    fn a_pod_that_is_being_deleted_says_so() {
        let metadata = json!({"deletionTimestamp": "1970-01-01T00:10:00Z"});
        let word = |status: Value| row_of(metadata.clone(), status).cells[2].clone();
        assert_eq!(word(json!({"phase": "Running"})), "Terminating");
        assert_eq!(word(json!({"phase": "Running", "reason": "NodeLost"})), "Unknown");
        assert_eq!(word(json!({"phase": "Succeeded"})), "Succeeded");
    }

    #[test]
    fn restarts_tell_when_the_last_one_was() {
        let status = json!({
            "phase": "Running",
            "podIPs": [{"ip": "10.0.0.1"}],
            "initContainerStatuses": [
                {"name": "i", "restartCount": 4, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
                {"name": "s", "restartCount": 1, "ready": true, "started": true, "state": {"running": {}}},
            ],
            "containerStatuses": [
                {"restartCount": 2, "ready": true, "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1, "finishedAt": "1970-01-01T00:11:40Z"}}},
                {"restartCount": 0, "state": {"running": {}}},
            ],
        });
        let row = row_of(json!({"name": "p", "creationTimestamp": "1970-01-01T00:00:00Z"}), status);
        let age = |before: &str, seconds: i64, after| Cell::Age {
            before: before.to_owned(),
            time: seconds * 1_000_000_000,
            after,
        };
        let none: Cell = "<none>".into();
        let (name, ready, restarts) = ("p".into(), "2/3".into(), age("3 (", 700, " ago)"));
        let shown = [name, ready, "Running".into(), restarts, age("", 0, ""), "10.0.0.1".into()];
        assert_eq!(row.cells[..6], shown);
        assert_eq!(row.cells[6..], [none.clone(), none.clone(), none]);
    }

    #[test]
    fn a_pod_that_ended_completes_its_row() {
        let conditions = row_of(json!({}), json!({"phase": "Failed"})).conditions().unwrap();
        assert!(conditions.contains("\"reason\":\"Failed\""), "{conditions}");
        assert_eq!(row_of(json!({}), json!({"phase": "Running"})).conditions(), None);
    }
}
