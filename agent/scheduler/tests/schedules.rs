//! The whole scheduler against a server in memory.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

mod fake;

use api::Quantity;
use api::core::v1::{Container, Node, Pod};
use fake::Server;
use lifecycle::Shutdown;
use scheduler::Config;
use tokio::task::JoinHandle;

fn node(name: &str, cpu: &str) -> Node {
    let mut node = Node::default();
    node.metadata.name = name.to_owned();
    for (resource, amount) in [("cpu", cpu), ("memory", "4Gi"), ("pods", "10")] {
        node.status.allocatable.insert(resource.to_owned(), Quantity::new(amount));
    }
    node
}

fn pod(name: &str, cpu: &str) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.name = name.to_owned();
    pod.metadata.namespace = "default".to_owned();
    pod.spec.scheduler_name = "default-scheduler".to_owned();
    let mut container = Container::default();
    container.resources.requests.insert("cpu".to_owned(), Quantity::new(cpu));
    pod.spec.containers.push(container);
    pod
}

struct Running {
    shutdown: Shutdown,
    task: JoinHandle<Result<(), scheduler::Error>>,
}

impl Running {
    fn start(server: &Server) -> Self {
        let shutdown = Shutdown::new();
        let task = tokio::spawn(scheduler::run(Config::default(), server.client(), shutdown.clone()));
        Self { shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.trigger();
        self.task.await.unwrap().unwrap();
    }
}

fn is_on(name: &'static str, node: &'static str) -> impl Fn(&Server) -> bool {
    move |server| server.pod(name).is_some_and(|pod| pod.spec.node_name == node)
}

#[tokio::test(start_paused = true)]
async fn pods_known_at_the_start_and_later_ones_get_nodes() {
    let server = Server::new();
    server.put_node(node("n1", "2"));
    server.put_pod(pod("before", "1"));
    let running = Running::start(&server);
    server.until("the first pod is bound", is_on("before", "n1")).await;
    server.put_pod(pod("after", "1"));
    server.until("the second pod is bound", is_on("after", "n1")).await;
    server.until("an event tells", |server| server.reasons("after") == ["Scheduled"]).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_room_says_so_and_goes_when_a_node_comes() {
    let server = Server::new();
    server.put_node(node("small", "1"));
    server.put_pod(pod("large", "3"));
    let running = Running::start(&server);
    let message = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are \
                   available: 1 Preemption is not helpful for scheduling.";
    server
        .until("the condition is set", |server| {
            let pod = server.pod("large").unwrap();
            pod.status.conditions.iter().any(|one| {
                one.r#type == "PodScheduled"
                    && (one.status.as_str(), one.reason.as_str(), one.message.as_str())
                        == ("False", "Unschedulable", message)
            })
        })
        .await;
    server.until("an event tells", |server| server.reasons("large") == ["FailedScheduling"]).await;
    server.put_node(node("big", "4"));
    server.until("the pod is bound", is_on("large", "big")).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_bind_is_tried_again_and_room_is_never_given_twice() {
    let server = Server::new();
    server.put_node(node("n1", "1"));
    server.refuse_binds(2);
    server.put_pod(pod("a", "600m"));
    server.put_pod(pod("b", "600m"));
    let running = Running::start(&server);
    let bound = |server: &Server| {
        let names = ["a", "b"];
        names.iter().filter(|name| server.pod(name).is_some_and(|pod| pod.spec.node_name == "n1")).count()
    };
    server.until("one pod is bound", |server| bound(server) == 1).await;
    server.until("the other is refused", |server| server.reasons("a").len() + server.reasons("b").len() >= 2).await;
    assert_eq!(bound(&server), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_important_pod_takes_the_place_of_a_lesser_one() {
    let server = Server::new();
    server.put_node(node("n1", "1"));
    let mut lesser = pod("lesser", "800m");
    lesser.spec.node_name = "n1".to_owned();
    server.put_pod(lesser);
    let mut important = pod("important", "500m");
    important.spec.priority = Some(1000);
    server.put_pod(important);
    let running = Running::start(&server);
    server
        .until("the lesser pod is asked to leave", |server| {
            server.pod("lesser").unwrap().metadata.deletion_timestamp.is_some()
        })
        .await;
    let lesser = server.pod("lesser").unwrap();
    let target = lesser.status.conditions.iter().find(|one| one.r#type == "DisruptionTarget").unwrap();
    assert_eq!(target.reason, "PreemptionByScheduler");
    assert_eq!(target.message, "default-scheduler: preempting to accommodate a higher priority pod");
    assert_eq!(server.pod("important").unwrap().status.nominated_node_name, "n1");
    server.put_pod(pod("bystander", "300m"));
    server.finish_deletion("lesser");
    server.until("the important pod is bound", is_on("important", "n1")).await;
    server.until("the bystander gets what is left", is_on("bystander", "n1")).await;
    assert_eq!(server.reasons("lesser"), ["Preempted"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn other_schedulers_pods_and_gated_pods_are_left_alone() {
    let server = Server::new();
    server.put_node(node("n1", "4"));
    let mut foreign = pod("foreign", "1");
    foreign.spec.scheduler_name = "another".to_owned();
    server.put_pod(foreign);
    let mut gated = pod("gated", "1");
    gated.spec.scheduling_gates.push(api::core::v1::PodSchedulingGate { name: "wait".to_owned() });
    server.put_pod(gated);
    server.put_pod(pod("plain", "1"));
    let running = Running::start(&server);
    server.until("the plain pod is bound", is_on("plain", "n1")).await;
    assert_eq!(server.pod("foreign").unwrap().spec.node_name, "");
    assert_eq!(server.pod("gated").unwrap().spec.node_name, "");
    server.put_pod(pod("gated", "1"));
    server.until("without gates it is bound", is_on("gated", "n1")).await;
    running.stop().await;
}
