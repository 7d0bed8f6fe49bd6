//! What an object may keep although new ones may not have it.

use api::core::v1::{PodSpec, Toleration};
use api::features::Features;
use api::meta::v1::ObjectMeta;

use super::{affinity, annotations, is_sidecar, projected, resources, security, spread};

/// Exceptions from the rules.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an exception by itself")]
pub(in crate::validation) struct Options {
    /// The spec is a Pod's own, not a template.
    pub(in crate::validation) is_pod: bool,
    /// The deletion cost need not be a number.
    pub(super) invalid_deletion_cost: bool,
    /// Selectors of affinities may have any values.
    pub(in crate::validation) invalid_selector_values: bool,
    /// So may those of required nodes.
    pub(super) invalid_node_values: bool,
    /// Huge pages need not come in whole pages.
    pub(super) partial_huge_pages: bool,
    /// Selectors of spread constraints are not looked at.
    pub(super) invalid_spread_selector: bool,
    /// Keys of spread constraints may occur in their selectors.
    pub(super) invalid_spread_keys: bool,
    /// Tokens may be projected outside of their volume.
    pub(super) outside_tokens: bool,
    /// Kernel parameters of namespaces that are the node's may be set.
    pub(super) host_sysctls: bool,
    /// Every policy of changing SELinux labels is known.
    pub(super) selinux_policies: bool,
    /// Tolerations may compare numbers.
    pub(super) comparing_tolerations: bool,
    /// The node's network may be used with users that are not the node's.
    pub(super) host_network_without_host_users: bool,
    /// So may block devices.
    pub(super) devices_without_host_users: bool,
    /// Containers that only run at the start may say that they restart on resizing.
    pub(super) restarting_init_containers: bool,
    /// A Pod that has a node may still be nominated for another.
    pub(super) nominated_when_bound: bool,
}

impl Options {
    /// The exceptions that come with features, and those for the successor of an object with a spec and metadata.
    pub(in crate::validation) fn of(old: Option<(&PodSpec, &ObjectMeta)>, features: &Features) -> Self {
        let mut options = old.map(Self::after).unwrap_or_default();
        options.invalid_deletion_cost |= !features.is_on("PodDeletionCost");
        options.selinux_policies |= features.is_on("SELinuxMount");
        options.comparing_tolerations |= features.is_on("TaintTolerationComparisonOperators");
        options.host_network_without_host_users |= features.is_on("UserNamespacesHostNetworkSupport");
        options.nominated_when_bound = !features.is_on("ClearingNominatedNodeNameAfterBinding");
        options
    }

    fn after((spec, meta): (&PodSpec, &ObjectMeta)) -> Self {
        let no_host_users = !super::has_host_users(spec);
        let context = spec.security_context.as_ref();
        let containers = || spec.containers.iter().chain(&spec.init_containers);
        let devices = containers().any(|c| !c.volume_devices.is_empty())
            || spec.ephemeral_containers.iter().any(|c| !c.ephemeral_container_common.volume_devices.is_empty());
        Self {
            is_pod: false,
            invalid_deletion_cost: !annotations::deletion_cost_is_valid(&meta.annotations),
            invalid_selector_values: affinity::has_invalid_selector(spec),
            invalid_node_values: affinity::has_invalid_node_values(spec),
            partial_huge_pages: resources::has_partial_huge_pages(spec),
            invalid_spread_selector: spread::has_invalid_selector(spec),
            invalid_spread_keys: spread::has_invalid_keys(spec),
            outside_tokens: projected::has_outside_token(spec),
            host_sysctls: security::has_host_sysctl(spec),
            selinux_policies: context.is_some_and(|c| c.se_linux_change_policy.is_some()),
            comparing_tolerations: spec.tolerations.iter().any(compares),
            host_network_without_host_users: spec.host_network && no_host_users,
            devices_without_host_users: no_host_users && devices,
            restarting_init_containers: spec
                .init_containers
                .iter()
                .any(|c| !is_sidecar(c) && c.resize_policy.iter().any(|p| p.restart_policy == "RestartContainer")),
            nominated_when_bound: false,
        }
    }
}

fn compares(toleration: &Toleration) -> bool {
    matches!(toleration.operator.as_str(), "Lt" | "Gt")
}
