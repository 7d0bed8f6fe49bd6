//! Pods on nodes with Windows, and what only those have or lack.

use api::core::v1::{PodSpec, SecurityContext, WindowsSecurityContextOptions};

use super::each_container;
use crate::status::FieldError;
use crate::validation::{Errors, Path, names, shown};

const MAX_SPEC_KIB: usize = 64;
const MAX_DOMAIN: usize = 256;
const MAX_USER: usize = 104;

/// The options of a security context.
pub(super) fn options(path: &Path<'_>, options: Option<&WindowsSecurityContextOptions>, errors: &mut Errors) {
    let Some(options) = options else { return };
    if let Some(name) = &options.gmsa_credential_spec_name {
        let at = path.child("gmsaCredentialSpecName");
        let complaints = names::dns1123_subdomain(name);
        errors.extend(complaints.into_iter().map(|why| FieldError::invalid(at, shown::word(name), why)));
    }
    if let Some(spec) = &options.gmsa_credential_spec {
        let at = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.push(FieldError::invalid(at, shown::word(spec), "gmsaCredentialSpec cannot be an empty string"));
        } else if spec.len() > MAX_SPEC_KIB << 10 {
            let why = format!("gmsaCredentialSpec size must be under {MAX_SPEC_KIB} KiB");
            errors.push(FieldError::invalid(at, shown::word(spec), why));
        }
    }
    if let Some(name) = &options.run_as_user_name {
        let mut tell = |why: &str| {
            errors.push(FieldError::invalid(
                path.child("runAsUserName"),
                shown::word(name),
                format!("runAsUserName{why}"),
            ))
        };
        user_name(name, &mut tell);
    }
}

fn user_name(name: &str, tell: &mut impl FnMut(&str)) {
    if name.is_empty() {
        return tell(" cannot be an empty string");
    }
    if name.bytes().any(|c| c.is_ascii_control()) {
        return tell(" cannot contain control characters");
    }
    let (domain, user) = match name.split_once('\\') {
        Some((_, rest)) if rest.contains('\\') => return tell(" cannot contain more than one backslash"),
        Some((domain, user)) => (Some(domain), user),
        None => (None, name),
    };
    if let Some(domain) = domain {
        if domain.len() >= MAX_DOMAIN {
            tell(&format!("'s Domain length must be under {MAX_DOMAIN} characters"));
        }
        if !is_net_bios(domain) && !is_dns(domain) {
            tell("'s Domain doesn't match the NetBios nor the DNS format");
        }
    }
    if user.is_empty() {
        tell("'s User cannot be empty");
    } else if user.len() > MAX_USER {
        tell(&format!("'s User length must not be longer than {MAX_USER} characters"));
    }
    if !user.is_empty() && user.bytes().all(|c| matches!(c, b'.' | b' ')) {
        tell("'s User cannot contain only periods or spaces");
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        tell("'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
}

fn is_net_bios(domain: &str) -> bool {
    let count = domain.chars().count();
    let bad = ['\\', '/', ':', '*', '?', '"', '<', '>', '|'];
    (1..=15).contains(&count) && !domain.starts_with('.') && !domain.contains(bad)
}

fn is_dns(domain: &str) -> bool {
    domain.split('.').all(|label| {
        let bytes = label.as_bytes();
        let edge = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
        bytes.len() <= 63
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-')
    })
}

/// Either all containers are processes of the node, or none is.
pub(super) fn host_processes(path: &Path<'_>, spec: &PodSpec, errors: &mut Errors) {
    let of_pod = spec.security_context.as_ref().and_then(|c| c.windows_options.as_ref()).and_then(|w| w.host_process);
    let (mut all, mut processes) = (0, 0);
    each_container(path, spec, |path, container| {
        let context = container.security_context.as_ref();
        let own = context.and_then(|c| c.windows_options.as_ref()).and_then(|w| w.host_process);
        if let (Some(of_pod), Some(own)) = (of_pod, own)
            && of_pod != own
        {
            let at = path.child("securityContext");
            let at = at.child("windowsOptions");
            let why = format!("pod hostProcess value must be identical if both are specified, was {of_pod}");
            errors.push(FieldError::invalid(at.child("hostProcess"), own, why));
        }
        all += 1;
        processes += i32::from(own.or(of_pod) == Some(true));
    });
    if processes == 0 {
        return;
    }
    if processes != all {
        let why = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(FieldError::invalid(path, "", why));
    }
    if !spec.host_network {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(FieldError::invalid(path.child("hostNetwork"), false, why));
    }
}

/// A Pod for Linux has no options for Windows.
pub(super) fn not_on_linux(path: &Path<'_>, spec: &PodSpec, errors: &mut Errors) {
    const WHY: &str = "windows options cannot be set for a linux pod";
    if spec.security_context.as_ref().is_some_and(|c| c.windows_options.is_some()) {
        errors.push(FieldError::forbidden(path.child("securityContext").child("windowsOptions"), WHY));
    }
    each_container(path, spec, |path, container| {
        if container.security_context.as_ref().is_some_and(|c| c.windows_options.is_some()) {
            errors.push(FieldError::forbidden(path.child("securityContext").child("windowsOptions"), WHY));
        }
    });
}

const NOT_ON_WINDOWS: &str = "cannot be set for a windows pod";

/// A Pod for Windows has nothing that only Linux knows.
pub(super) fn only_on_windows(path: &Path<'_>, spec: &PodSpec, errors: &mut Errors) {
    let default = api::core::v1::PodSecurityContext::default();
    let context = spec.security_context.as_ref().unwrap_or(&default);
    let inside = path.child("securityContext");
    let fields = [
        (&inside, "appArmorProfile", context.app_armor_profile.is_some()),
        (&inside, "seLinuxOptions", context.se_linux_options.is_some()),
        (path, "hostUsers", spec.host_users.is_some()),
        (path, "hostPID", spec.host_pid),
        (path, "hostIPC", spec.host_ipc),
        (&inside, "seccompProfile", context.seccomp_profile.is_some()),
        (&inside, "fsGroup", context.fs_group.is_some()),
        (&inside, "fsGroupChangePolicy", context.fs_group_change_policy.is_some()),
        (&inside, "sysctls", !context.sysctls.is_empty()),
        (path, "shareProcessNamespace", spec.share_process_namespace.is_some()),
        (&inside, "runAsUser", context.run_as_user.is_some()),
        (&inside, "runAsGroup", context.run_as_group.is_some()),
        (&inside, "supplementalGroups", !context.supplemental_groups.is_empty()),
        (&inside, "supplementalGroupsPolicy", context.supplemental_groups_policy.is_some()),
        (&inside, "seLinuxChangePolicy", context.se_linux_change_policy.is_some()),
    ];
    for (path, name, _) in fields.iter().filter(|(_, _, set)| *set) {
        errors.push(FieldError::forbidden(path.child(name), NOT_ON_WINDOWS));
    }
    each_container(path, spec, |path, container| {
        if let Some(context) = &container.security_context {
            container_on_windows(&path.child("securityContext"), context, errors);
        }
    });
}

fn container_on_windows(path: &Path<'_>, context: &SecurityContext, errors: &mut Errors) {
    let fields = [
        ("appArmorProfile", context.app_armor_profile.is_some()),
        ("seLinuxOptions", context.se_linux_options.is_some()),
        ("seccompProfile", context.seccomp_profile.is_some()),
        ("capabilities", context.capabilities.is_some()),
        ("readOnlyRootFilesystem", context.read_only_root_filesystem.is_some()),
        ("privileged", context.privileged.is_some()),
        ("allowPrivilegeEscalation", context.allow_privilege_escalation.is_some()),
        ("procMount", context.proc_mount.is_some()),
        ("runAsUser", context.run_as_user.is_some()),
        ("runAsGroup", context.run_as_group.is_some()),
    ];
    for (name, _) in fields.iter().filter(|(_, set)| *set) {
        errors.push(FieldError::forbidden(path.child(name), NOT_ON_WINDOWS));
    }
}
