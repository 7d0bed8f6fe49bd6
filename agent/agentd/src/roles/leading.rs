//! What the scheduler and the controller manager have in common as processes of their own: the connection, the lease,
//! and the flags that say how upstream serves metrics and logs.

use anyhow::{Context, Result};

use crate::flags::Shape::{List, Number, Pairs, Switch, Text};
use crate::flags::{Flag, Given, nothing, read, refused};

const NO_SERVER: &str = "neither health nor metrics are served";
const NO_LIMIT: &str = "requests are not limited here, but by the server";
const LEASE: &str = "the lease has upstream's name and times";
const LOGS: &str = "KEELSON_LOG sets what is logged, as text";
const ONE_VERSION: &str = "there is one version, with its features";

/// The flags of both.
pub(super) const FLAGS: &[Flag] = &[
    nothing("allow-metric-labels", Pairs, NO_SERVER),
    nothing("allow-metric-labels-manifest", Text, NO_SERVER),
    nothing("authentication-kubeconfig", Text, NO_SERVER),
    nothing("authentication-skip-lookup", Switch, NO_SERVER),
    nothing("authentication-token-webhook-cache-ttl", Text, NO_SERVER),
    nothing("authentication-tolerate-lookup-failure", Switch, NO_SERVER),
    nothing("authorization-always-allow-paths", List, NO_SERVER),
    nothing("authorization-kubeconfig", Text, NO_SERVER),
    nothing("authorization-webhook-cache-authorized-ttl", Text, NO_SERVER),
    nothing("authorization-webhook-cache-unauthorized-ttl", Text, NO_SERVER),
    nothing("bind-address", Text, NO_SERVER),
    nothing("cert-dir", Text, NO_SERVER),
    nothing("client-ca-file", Text, NO_SERVER),
    nothing("contention-profiling", Switch, NO_SERVER),
    nothing("disable-http2-serving", Switch, NO_SERVER),
    nothing("disabled-metrics", List, NO_SERVER),
    refused("emulated-version", List, ONE_VERSION),
    read("feature-gates", Pairs),
    nothing("http2-max-streams-per-connection", Number, NO_SERVER),
    nothing("kube-api-burst", Number, NO_LIMIT),
    nothing("kube-api-content-type", Text, "objects travel as protobuf"),
    nothing("kube-api-qps", Number, NO_LIMIT),
    read("kubeconfig", Text),
    read("leader-elect", Switch),
    refused("leader-elect-lease-duration", Text, LEASE),
    refused("leader-elect-renew-deadline", Text, LEASE),
    refused("leader-elect-resource-lock", Text, LEASE),
    refused("leader-elect-resource-name", Text, LEASE),
    refused("leader-elect-resource-namespace", Text, LEASE),
    refused("leader-elect-retry-period", Text, LEASE),
    nothing("log-flush-frequency", Text, LOGS),
    nothing("log-json-info-buffer-size", Text, LOGS),
    nothing("log-json-split-stream", Switch, LOGS),
    nothing("log-text-info-buffer-size", Text, LOGS),
    nothing("log-text-split-stream", Switch, LOGS),
    nothing("logging-format", Text, LOGS),
    refused("master", Text, "the kubeconfig names the server"),
    refused("min-compatibility-version", List, ONE_VERSION),
    nothing("permit-address-sharing", Switch, NO_SERVER),
    nothing("permit-port-sharing", Switch, NO_SERVER),
    nothing("profiling", Switch, NO_SERVER),
    nothing("requestheader-allowed-names", List, NO_SERVER),
    nothing("requestheader-client-ca-file", Text, NO_SERVER),
    nothing("requestheader-extra-headers-prefix", List, NO_SERVER),
    nothing("requestheader-group-headers", List, NO_SERVER),
    nothing("requestheader-uid-headers", List, NO_SERVER),
    nothing("requestheader-username-headers", List, NO_SERVER),
    nothing("secure-port", Number, NO_SERVER),
    nothing("show-hidden-metrics-for-version", Text, NO_SERVER),
    nothing("tls-cert-file", Text, NO_SERVER),
    nothing("tls-cipher-suites", List, NO_SERVER),
    nothing("tls-curve-preferences", List, NO_SERVER),
    nothing("tls-min-version", Text, NO_SERVER),
    nothing("tls-private-key-file", Text, NO_SERVER),
    nothing("tls-sni-cert-key", Text, NO_SERVER),
    nothing("v", Text, LOGS),
    refused("version", Text, "`keelson --version` prints the version"),
    nothing("vmodule", Text, LOGS),
];

/// The settings of the connection that the flags name.
pub(super) fn connection(given: &Given) -> Result<client::Config> {
    let path = given.path("kubeconfig").context("--kubeconfig is needed: it names the API server")?;
    client::Config::from_kubeconfig(&path).with_context(|| format!("reading {}", path.display()))
}

/// The name to lead under; none where there is no election.
pub(super) fn identity(given: &Given) -> Option<String> {
    given.switch("leader-elect", true).then(crate::process::identity)
}
