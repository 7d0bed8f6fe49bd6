//! Security contexts in the runtime's words. Pure.

use api::core::v1::{AppArmorProfile, Container, SeLinuxOptions, SeccompProfile, SecurityContext};
use cri::v1;

use crate::pod::{ContainerKind, PodContainer, PodView};

/// Parts of /proc that containers do not see.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Parts of /proc that containers cannot change.
const READ_ONLY: [&str; 6] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/proc/config.gz"];

/// Who a container runs as, from its own context and the pod's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunAs {
    pub(crate) user: Option<i64>,
    pub(crate) group: Option<i64>,
    pub(crate) non_root: bool,
}

pub(crate) fn run_as(view: &PodView, spec: &Container) -> RunAs {
    let own = spec.security_context.as_ref();
    let pod = view.security();
    RunAs {
        user: own.and_then(|s| s.run_as_user).or_else(|| pod.and_then(|s| s.run_as_user)),
        group: own.and_then(|s| s.run_as_group).or_else(|| pod.and_then(|s| s.run_as_group)),
        non_root: own.and_then(|s| s.run_as_non_root).or_else(|| pod.and_then(|s| s.run_as_non_root)).unwrap_or(false),
    }
}

/// Refuses a container that must not run as root but would.
pub(crate) fn verify_non_root(run_as: RunAs, image: &v1::Image, pod: &str, container: &str) -> Result<(), String> {
    if !run_as.non_root {
        return Ok(());
    }
    let place = format!("(pod: \"{pod}\", container: {container})");
    match (run_as.user, image.uid.as_ref().map(|uid| uid.value), image.username.as_str()) {
        (Some(0), _, _) => Err(format!("container's runAsUser breaks non-root policy {place}")),
        (Some(_), _, _) => Ok(()),
        (None, Some(0), _) => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        (None, Some(_), _) => Ok(()),
        (None, None, "") => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        (None, None, name) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {place}"
        )),
    }
}

fn id(value: Option<i64>) -> Option<v1::Int64Value> {
    value.map(|value| v1::Int64Value { value })
}

/// The namespaces that a pod shares with the node.
pub(crate) fn namespaces(view: &PodView) -> v1::NamespaceOption {
    let spec = view.spec();
    let node_or_pod = |shared: bool| if shared { v1::NamespaceMode::Node } else { v1::NamespaceMode::Pod };
    let pid = if spec.host_pid {
        v1::NamespaceMode::Node
    } else if spec.share_process_namespace == Some(true) {
        v1::NamespaceMode::Pod
    } else {
        v1::NamespaceMode::Container
    };
    v1::NamespaceOption {
        network: node_or_pod(spec.host_network).into(),
        ipc: node_or_pod(spec.host_ipc).into(),
        pid: pid.into(),
        ..v1::NamespaceOption::default()
    }
}

/// The groups that every process of the pod has.
pub(crate) fn supplemental_groups(view: &PodView) -> Vec<i64> {
    let Some(security) = view.security() else { return Vec::new() };
    security.supplemental_groups.iter().copied().chain(security.fs_group).collect()
}

fn groups_policy(view: &PodView) -> i32 {
    let policy = view.security().and_then(|s| s.supplemental_groups_policy.as_deref());
    let policy = if policy == Some("Strict") {
        v1::SupplementalGroupsPolicy::Strict
    } else {
        v1::SupplementalGroupsPolicy::Merge
    };
    policy.into()
}

pub(crate) fn is_privileged(spec: &Container) -> bool {
    spec.security_context.as_ref().and_then(|s| s.privileged).unwrap_or(false)
}

/// The sandbox's security context.
pub(crate) fn sandbox_security(view: &PodView) -> v1::LinuxSandboxSecurityContext {
    let pod = view.security();
    let privileged = view.containers.iter().any(|c| c.kind != ContainerKind::Ephemeral && is_privileged(&c.spec));
    v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(view)),
        selinux_options: pod.and_then(|s| s.se_linux_options.as_ref()).map(selinux),
        run_as_user: id(pod.and_then(|s| s.run_as_user)),
        run_as_group: id(pod.and_then(|s| s.run_as_user.and(s.run_as_group))),
        supplemental_groups: supplemental_groups(view),
        supplemental_groups_policy: groups_policy(view),
        privileged,
        seccomp: Some(v1::SecurityProfile {
            profile_type: v1::security_profile::ProfileType::RuntimeDefault.into(),
            localhost_ref: String::new(),
        }),
        ..v1::LinuxSandboxSecurityContext::default()
    }
}

/// A container's security context; `target_id` is the container whose processes it shares, `seccomp_root` the folder
/// of the node's own profiles.
pub(crate) fn container_security(
    view: &PodView,
    container: &PodContainer,
    target_id: &str,
    seccomp_root: &str,
) -> v1::LinuxContainerSecurityContext {
    let spec = &container.spec;
    let own = spec.security_context.as_ref();
    let pod = view.security();
    let who = run_as(view, spec);
    let mut namespace_options = namespaces(view);
    if !target_id.is_empty() {
        namespace_options.pid = v1::NamespaceMode::Target.into();
        target_id.clone_into(&mut namespace_options.target_id);
    }
    let unmasked = own.and_then(|s| s.proc_mount.as_deref()) == Some("Unmasked");
    let (masked_paths, readonly_paths) =
        if unmasked { (Vec::new(), Vec::new()) } else { (to_strings(&MASKED), to_strings(&READ_ONLY)) };
    v1::LinuxContainerSecurityContext {
        capabilities: own.and_then(|s| s.capabilities.as_ref()).map(|c| v1::Capability {
            add_capabilities: c.add.clone(),
            drop_capabilities: c.drop.clone(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged: is_privileged(spec),
        namespace_options: Some(namespace_options),
        selinux_options: own
            .and_then(|s| s.se_linux_options.as_ref())
            .or_else(|| pod.and_then(|s| s.se_linux_options.as_ref()))
            .map(selinux),
        run_as_user: id(who.user),
        run_as_group: id(who.group),
        readonly_rootfs: own.and_then(|s| s.read_only_root_filesystem).unwrap_or(false),
        supplemental_groups: supplemental_groups(view),
        supplemental_groups_policy: groups_policy(view),
        no_new_privs: no_new_privileges(own),
        masked_paths,
        readonly_paths,
        seccomp: Some(seccomp(
            own.and_then(|s| s.seccomp_profile.as_ref()).or_else(|| pod.and_then(|s| s.seccomp_profile.as_ref())),
            is_privileged(spec),
            seccomp_root,
        )),
        apparmor: own
            .and_then(|s| s.app_armor_profile.as_ref())
            .or_else(|| pod.and_then(|s| s.app_armor_profile.as_ref()))
            .map(apparmor),
        ..v1::LinuxContainerSecurityContext::default()
    }
}

fn to_strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn no_new_privileges(own: Option<&SecurityContext>) -> bool {
    own.and_then(|s| s.allow_privilege_escalation) == Some(false)
}

fn selinux(options: &SeLinuxOptions) -> v1::SeLinuxOption {
    v1::SeLinuxOption {
        user: options.user.clone(),
        role: options.role.clone(),
        r#type: options.r#type.clone(),
        level: options.level.clone(),
    }
}

fn seccomp(profile: Option<&SeccompProfile>, privileged: bool, root: &str) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let (kind, file) = match profile.map(|p| p.r#type.as_str()) {
        Some("RuntimeDefault") if !privileged => (ProfileType::RuntimeDefault, String::new()),
        Some("Localhost") => {
            let name = profile.and_then(|p| p.localhost_profile.as_deref()).unwrap_or_default();
            (ProfileType::Localhost, format!("{root}/{name}"))
        }
        _ => (ProfileType::Unconfined, String::new()),
    };
    v1::SecurityProfile { profile_type: kind.into(), localhost_ref: file }
}

fn apparmor(profile: &AppArmorProfile) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let kind = match profile.r#type.as_str() {
        "Localhost" => ProfileType::Localhost,
        "Unconfined" => ProfileType::Unconfined,
        _ => ProfileType::RuntimeDefault,
    };
    v1::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: profile.localhost_profile.clone().unwrap_or_default(),
    }
}

/// Sysctls that are kept apart for each pod.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// The first sysctl of the pod that this node does not let pods set.
pub(crate) fn forbidden_sysctl(view: &PodView) -> Option<&str> {
    let list = view.security().map(|s| s.sysctls.as_slice()).unwrap_or_default();
    list.iter().map(|s| s.name.as_str()).find(|name| !SAFE_SYSCTLS.contains(&name.replace('/', ".").as_str()))
}
