//! Every field of upstream's `KubeProxyConfiguration`, and what becomes of it.

use api::features::Component;

use crate::settings::Use::{Features, Nothing, Only, Read};
use crate::settings::{Field, Schema, empty, field, switched_off};

const RATES: &str = "requests are not slowed down";
const LOGS: &str = "logs are set by KEELSON_LOG";
const SYNC: &str = "a change is put in place at once, and only what differs";
const CONNTRACK: &str = "limits of connection tracking are the machine's affair";
const OTHER_MODE: &str = "it is a setting of another mode than nftables";
const METRICS: &str = "metrics are not served yet";

/// The table.
pub(super) const SCHEMA: Schema =
    Schema { api_version: "kubeproxy.config.k8s.io/v1alpha1", kind: "KubeProxyConfiguration", fields: FIELDS };

const FIELDS: &[Field] = &[
    field("featureGates", Features(Component::Proxy)),
    field("clientConnection.kubeconfig", Read),
    field("clientConnection.acceptContentTypes", Nothing("it always speaks protobuf")),
    field("clientConnection.contentType", Nothing("it always speaks protobuf")),
    field("clientConnection.qps", Nothing(RATES)),
    field("clientConnection.burst", Nothing(RATES)),
    field("logging.format", Only(&["\"text\"", "\"\""], "logs are text")),
    field("logging.flushFrequency", Nothing(LOGS)),
    field("logging.verbosity", Nothing(LOGS)),
    field("logging.vmodule", Nothing(LOGS)),
    field("logging.options", Nothing(LOGS)),
    field("hostnameOverride", Read),
    field("bindAddress", Read),
    field("healthzBindAddress", Read),
    field("metricsBindAddress", Nothing(METRICS)),
    field("bindAddressHardFail", Nothing("an address that is taken is tried again")),
    switched_off("enableProfiling", "there are no handlers for Go's profiles"),
    field("showHiddenMetricsForVersion", Nothing(METRICS)),
    field("mode", Only(&["\"nftables\"", "\"\""], "iptables, ipvs and kernelspace are not spoken")),
    field("iptables", Nothing(OTHER_MODE)),
    field("ipvs", Nothing(OTHER_MODE)),
    field("winkernel", Nothing(OTHER_MODE)),
    field("nftables.masqueradeBit", Nothing("marks are not needed for masquerading")),
    field("nftables.masqueradeAll", Read),
    field("nftables.syncPeriod", Nothing(SYNC)),
    field("nftables.minSyncPeriod", Nothing(SYNC)),
    field(
        "detectLocalMode",
        Only(&["\"ClusterCIDR\"", "\"\""], "local traffic is told by clusterCIDR, the ranges of all pods"),
    ),
    empty("detectLocal.bridgeInterface", "local traffic is told by clusterCIDR, the ranges of all pods"),
    empty("detectLocal.interfaceNamePrefix", "local traffic is told by clusterCIDR, the ranges of all pods"),
    field("clusterCIDR", Read),
    field("nodePortAddresses", Read),
    field("oomScoreAdj", Read),
    field("conntrack", Nothing(CONNTRACK)),
    field("configSyncPeriod", Nothing(SYNC)),
    empty("portRange", "no ports are opened on behalf of Services"),
    field("windowsRunAsService", Nothing("it is for Windows")),
];
