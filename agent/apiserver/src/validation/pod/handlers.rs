//! Probes, and what is done at the start and end of a container.

use api::IntOrString;
use api::core::v1::{
    Container, ExecAction, GrpcAction, HttpGetAction, Lifecycle, PodOs, Probe, SleepAction, TcpSocketAction,
};

use crate::status::FieldError;
use crate::validation::{Errors, Path, checks, names};

/// Signals on Linux, sorted by name.
const SIGNALS: [&str; 65] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

/// The one thing that is done.
#[derive(Default)]
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HttpGetAction>,
    tcp_socket: Option<&'a TcpSocketAction>,
    grpc: Option<&'a GrpcAction>,
    sleep: Option<&'a SleepAction>,
}

/// The probes of a container.
pub(super) fn probes(path: &Path<'_>, container: &Container, grace: Option<i64>, errors: &mut Errors) {
    if let Some(liveness) = &container.liveness_probe {
        probe(&path.child("livenessProbe"), liveness, grace, errors);
        one_success(&path.child("livenessProbe"), liveness, errors);
    }
    if let Some(readiness) = &container.readiness_probe {
        let path = path.child("readinessProbe");
        probe(&path, readiness, grace, errors);
        if let Some(seconds) = readiness.termination_grace_period_seconds {
            let why = "must not be set for readinessProbes";
            errors.push(FieldError::invalid(path.child("terminationGracePeriodSeconds"), seconds, why));
        }
    }
    if let Some(startup) = &container.startup_probe {
        probe(&path.child("startupProbe"), startup, grace, errors);
        one_success(&path.child("startupProbe"), startup, errors);
    }
}

fn one_success(path: &Path<'_>, probe: &Probe, errors: &mut Errors) {
    if probe.success_threshold != 1 {
        errors.push(FieldError::invalid(path.child("successThreshold"), probe.success_threshold, "must be 1"));
    }
}

fn probe(path: &Path<'_>, probe: &Probe, grace: Option<i64>, errors: &mut Errors) {
    let own = &probe.probe_handler;
    let handler = Handler {
        exec: own.exec.as_ref(),
        http_get: own.http_get.as_ref(),
        tcp_socket: own.tcp_socket.as_ref(),
        grpc: own.grpc.as_ref(),
        sleep: None,
    };
    handle(path, &handler, grace, errors);
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (name, number) in numbers {
        checks::non_negative(&path.child(name), number, errors);
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|s| *s <= 0) {
        let at = path.child("terminationGracePeriodSeconds");
        errors.push(FieldError::invalid(at, seconds, "must be greater than 0"));
    }
}

/// What is done when a container starts and stops.
pub(super) fn lifecycle(
    path: &Path<'_>,
    lifecycle: &Lifecycle,
    (grace, os): (Option<i64>, Option<&PodOs>),
    errors: &mut Errors,
) {
    for (name, own) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        let Some(own) = own else { continue };
        let handler = Handler {
            exec: own.exec.as_ref(),
            http_get: own.http_get.as_ref(),
            tcp_socket: own.tcp_socket.as_ref(),
            grpc: None,
            sleep: own.sleep.as_ref(),
        };
        handle(&path.child(name), &handler, grace, errors);
    }
    let Some(signal) = &lifecycle.stop_signal else { return };
    let path = path.child("stopSignal");
    match os.map(|os| os.name.as_str()) {
        None => {
            errors.push(FieldError::forbidden(path, "may not be set for containers with empty `spec.os.name`"));
        }
        Some("windows") => checks::supported(&path, signal, &["SIGKILL", "SIGTERM"], errors),
        Some("linux") => checks::supported(&path, signal, &SIGNALS, errors),
        Some(_) => {}
    }
}

fn handle(path: &Path<'_>, handler: &Handler<'_>, grace: Option<i64>, errors: &mut Errors) {
    let set = [
        ("exec", handler.exec.is_some()),
        ("httpGet", handler.http_get.is_some()),
        ("tcpSocket", handler.tcp_socket.is_some()),
        ("grpc", handler.grpc.is_some()),
        ("sleep", handler.sleep.is_some()),
    ];
    let mut set = set.iter().filter(|(_, set)| *set);
    // Only the first is looked at, the others are too many.
    match set.next().map(|(name, _)| *name) {
        None => errors.push(FieldError::required(path, "must specify a handler type")),
        Some(name) => action(&path.child(name), handler, grace, errors),
    }
    for (name, _) in set {
        errors.push(FieldError::forbidden(path.child(name), "may not specify more than 1 handler type"));
    }
}

fn action(path: &Path<'_>, handler: &Handler<'_>, grace: Option<i64>, errors: &mut Errors) {
    if let Some(exec) = handler.exec {
        if exec.command.is_empty() {
            errors.push(FieldError::required(path.child("command"), ""));
        }
    } else if let Some(http) = handler.http_get {
        http_get(path, http, errors);
    } else if let Some(tcp) = handler.tcp_socket {
        port(&path.child("port"), &tcp.port, errors);
    } else if let Some(grpc) = handler.grpc {
        checks::port_number(&path.child("port"), grpc.port, errors);
    } else if let Some(sleep) = handler.sleep
        && let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&sleep.seconds))
    {
        let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.push(FieldError::invalid(path, sleep.seconds, why));
    }
}

fn http_get(path: &Path<'_>, http: &HttpGetAction, errors: &mut Errors) {
    checks::required(&path.child("path"), &http.path, errors);
    port(&path.child("port"), &http.port, errors);
    checks::supported(&path.child("scheme"), &http.scheme, &["HTTP", "HTTPS"], errors);
    for header in &http.http_headers {
        checks::text(&path.child("httpHeaders"), &header.name, names::http_header(&header.name), errors);
    }
}

/// A port by number or name.
fn port(path: &Path<'_>, port: &IntOrString, errors: &mut Errors) {
    if port.r#type == 0 {
        checks::port_number(path, port.int_val, errors);
    } else {
        checks::text(path, &port.str_val, names::port_name(&port.str_val), errors);
    }
}
