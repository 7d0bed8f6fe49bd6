//! What a Pod and its containers may do on the node.

use api::core::v1::{AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext};

use super::{Options, each_container, mounts, windows};
use crate::status::FieldError;
use crate::validation::{Errors, Path, checks, shown};

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const SYSCTL_LEN: usize = 253;
const MAX_PROFILE_LEN: usize = 4095;

/// The security context of a Pod.
pub(super) fn of_pod(path: &Path<'_>, spec: &PodSpec, options: Options, errors: &mut Errors) {
    let Some(context) = &spec.security_context else { return };
    let ids = [("fsGroup", context.fs_group), ("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)];
    for (name, id) in ids {
        if let Some(id) = id {
            checks::user_id(&path.child(name), id, errors);
        }
    }
    for (i, id) in context.supplemental_groups.iter().enumerate() {
        checks::user_id(&path.child("supplementalGroups").index(i), *id, errors);
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(path.child("shareProcessNamespace"), true, why));
    }
    sysctls(&path.child("sysctls"), context, (spec, options), errors);
    if let Some(policy) = &context.fs_group_change_policy {
        checks::supported(&path.child("fsGroupChangePolicy"), policy, &["Always", "OnRootMismatch"], errors);
    }
    seccomp(&path.child("seccompProfile"), context.seccomp_profile.as_ref(), errors);
    windows::options(&path.child("windowsOptions"), context.windows_options.as_ref(), errors);
    app_armor(&path.child("appArmorProfile"), context.app_armor_profile.as_ref(), errors);
    if let Some(policy) = &context.supplemental_groups_policy {
        checks::supported(&path.child("supplementalGroupsPolicy"), policy, &["Merge", "Strict"], errors);
    }
    if let Some(policy) = &context.se_linux_change_policy {
        let known: &[&str] = if options.selinux_policies { &["MountOption", "Recursive"] } else { &["Recursive"] };
        checks::supported(&path.child("seLinuxChangePolicy"), policy, known, errors);
    }
}

fn sysctls(path: &Path<'_>, context: &PodSecurityContext, (spec, options): (&PodSpec, Options), errors: &mut Errors) {
    for (i, sysctl) in context.sysctls.iter().enumerate() {
        let (path, name) = (path.index(i), sysctl.name.as_str());
        let path = path.child("name");
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if !is_sysctl_name(name) {
            let why = format!(
                "must have at most {SYSCTL_LEN} characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            errors.push(FieldError::invalid(path, name, why));
        } else if context.sysctls.iter().take(i).any(|earlier| earlier.name == name) {
            errors.push(FieldError::duplicate(path, name));
        }
        if !options.host_sysctls {
            errors.extend(host_sysctl(name, spec).map(|why| FieldError::invalid(path, name, why)));
        }
    }
}

fn is_sysctl_name(name: &str) -> bool {
    let word = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_segment = |part: &str| {
        let bytes = part.as_bytes();
        let edges = bytes.first().is_some_and(word) && bytes.last().is_some_and(word);
        edges && bytes.iter().all(|c| word(c) || matches!(c, b'-' | b'_'))
    };
    name.len() <= SYSCTL_LEN && name.split(['.', '/']).all(is_segment)
}

/// Why a kernel parameter would be the node's own.
fn host_sysctl(name: &str, spec: &PodSpec) -> Option<&'static str> {
    const IPC: [&str; 10] = [
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.shm",
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.msg",
    ];
    if !spec.host_network && !spec.host_ipc {
        return None;
    }
    // With a slash first, slashes part the name and dots do not.
    let slashes = name.find(['.', '/']).is_some_and(|i| name.as_bytes()[i] == b'/');
    let swap = |c: char| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    let name: String = if slashes { name.chars().map(swap).collect() } else { name.to_owned() };
    let name = name.split('*').next().unwrap_or_default();
    if spec.host_network && name.starts_with("net.") {
        Some("may not be specified when 'hostNetwork' is true")
    } else if spec.host_ipc && (IPC.contains(&name) || name.starts_with("fs.mqueue.")) {
        Some("may not be specified when 'hostIPC' is true")
    } else {
        None
    }
}

/// Whether there is a kernel parameter of the node's own.
pub(super) fn has_host_sysctl(spec: &PodSpec) -> bool {
    let sysctls = spec.security_context.iter().flat_map(|c| &c.sysctls);
    sysctls.into_iter().any(|s| host_sysctl(&s.name, spec).is_some())
}

/// The security context of a container.
pub(super) fn of_container(path: &Path<'_>, context: &SecurityContext, host_users: bool, errors: &mut Errors) {
    for (name, id) in [("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)] {
        if let Some(id) = id {
            checks::user_id(&path.child(name), id, errors);
        }
    }
    if let Some(proc_mount) = &context.proc_mount {
        let path = path.child("procMount");
        checks::supported(&path, proc_mount, &["Default", "Unmasked"], errors);
        if host_users && proc_mount == "Unmasked" {
            errors.push(FieldError::invalid(path, proc_mount, "`hostUsers` must be false to use `Unmasked`"));
        }
    }
    seccomp(&path.child("seccompProfile"), context.seccomp_profile.as_ref(), errors);
    if context.allow_privilege_escalation == Some(false) {
        let shown = || shown::structure("k8s.io.api.core.v1.SecurityContext", context);
        if context.privileged == Some(true) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(path, shown(), why));
        }
        let added = context.capabilities.iter().flat_map(|c| &c.add);
        for _ in added.filter(|c| *c == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(path, shown(), why));
        }
    }
    windows::options(&path.child("windowsOptions"), context.windows_options.as_ref(), errors);
    app_armor(&path.child("appArmorProfile"), context.app_armor_profile.as_ref(), errors);
}

fn seccomp(path: &Path<'_>, profile: Option<&SeccompProfile>, errors: &mut Errors) {
    let Some(profile) = profile else { return };
    profile_type(&path.child("type"), &profile.r#type, "seccompProfile", errors);
    let at = path.child("localhostProfile");
    match &profile.localhost_profile {
        None if profile.r#type == "Localhost" => {
            errors.push(FieldError::required(at, "must be set when seccomp type is Localhost"));
        }
        Some(file) if profile.r#type == "Localhost" => mounts::descending_path(&at, file, errors),
        Some(_) => {
            let shown = shown::structure("k8s.io.api.core.v1.SeccompProfile", profile);
            errors.push(FieldError::invalid(at, shown, "can only be set when seccomp type is Localhost"));
        }
        None => {}
    }
}

fn profile_type(path: &Path<'_>, r#type: &str, field: &str, errors: &mut Errors) {
    if r#type.is_empty() {
        errors.push(FieldError::required(path, format!("type is required when {field} is set")));
    } else {
        checks::supported(path, r#type, &PROFILES, errors);
    }
}

fn app_armor(path: &Path<'_>, profile: Option<&AppArmorProfile>, errors: &mut Errors) {
    let Some(profile) = profile else { return };
    let at = path.child("localhostProfile");
    match (profile.r#type.as_str(), &profile.localhost_profile) {
        ("Localhost", Some(file)) => {
            if file.trim() != file {
                errors.push(FieldError::invalid(at, file, "must not be padded with whitespace"));
            } else if file.is_empty() {
                errors.push(FieldError::required(at, "must be set when AppArmor type is Localhost"));
            }
            if file.len() > MAX_PROFILE_LEN {
                errors.push(FieldError::too_long(at, MAX_PROFILE_LEN));
            }
        }
        ("Localhost", None) => {
            errors.push(FieldError::required(at, "must be set when AppArmor type is Localhost"));
        }
        ("RuntimeDefault" | "Unconfined", Some(file)) => {
            errors.push(FieldError::invalid(at, file, "can only be set when AppArmor type is Localhost"));
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        (other, _) => profile_type(&path.child("type"), other, "appArmorProfile", errors),
    }
}

/// What a Pod with users of its own does not share with the node.
pub(super) fn host_users(path: &Path<'_>, spec: &PodSpec, options: Options, errors: &mut Errors) {
    const WHY: &str = "when `hostUsers` is false";
    if super::has_host_users(spec) {
        return;
    }
    let shared = [
        ("hostNetwork", spec.host_network && !options.host_network_without_host_users),
        ("HostPID", spec.host_pid),
        ("HostIPC", spec.host_ipc),
    ];
    for (name, _) in shared.iter().filter(|(_, shared)| *shared) {
        errors.push(FieldError::forbidden(path.child(name), WHY));
    }
    if !options.devices_without_host_users {
        each_container(path, spec, |path, container| {
            if !container.volume_devices.is_empty() {
                errors.push(FieldError::forbidden(path.child("volumeDevices"), WHY));
            }
        });
    }
}
