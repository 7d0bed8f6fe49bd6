//! What the levels forbid, release by release.
//!
//! A check is a row: since which release it looks at what. A restricted check may stand in the place of baseline ones.

use super::level::{Demand, Level, Version};
use super::pod::Pod;

/// What a pod does that a level forbids, in upstream's words.
pub(super) struct Violation {
    pub(super) reason: &'static str,
    detail: String,
}

/// What is wrong with a pod, if anything is.
type Find = fn(&Pod<'_>) -> Option<String>;

struct Check {
    id: &'static str,
    reason: &'static str,
    /// Since which minor release it looks so.
    since: &'static [(i64, Find)],
    /// Baseline checks that it makes needless.
    replaces: &'static [&'static str],
}

const fn check(id: &'static str, reason: &'static str, since: &'static [(i64, Find)]) -> Check {
    Check { id, reason, since, replaces: &[] }
}

impl Check {
    const fn instead_of(self, replaces: &'static [&'static str]) -> Self {
        Self { replaces, ..self }
    }

    fn at(&self, minor: i64) -> Option<Find> {
        self.since.iter().rev().find(|(since, _)| *since <= minor).map(|(_, find)| *find)
    }
}

const SYSCTLS: [&str; 12] = [
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

const SE_LINUX_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// In upstream's order, which is that of their names.
const BASELINE: [Check; 13] = [
    check("appArmorProfile", "forbidden AppArmor profile", &[(0, |pod| pod.app_armor(|values| values == 1))]),
    check("appArmorProfiles", "forbidden AppArmor profiles", &[(0, |pod| pod.app_armor(|values| values != 1))]),
    check("capabilities_baseline", "non-default capabilities", &[(0, |pod| pod.capabilities())]),
    check("hostNamespaces", "host namespaces", &[(0, |pod| pod.host_namespaces())]),
    check("hostPathVolumes", "hostPath volumes", &[(0, |pod| pod.host_paths())]),
    check("hostPorts", "hostPort", &[(0, |pod| pod.host_ports())]),
    check("hostProbesAndHostLifecycle", "probe or lifecycle host", &[(34, |pod| pod.probe_hosts())]),
    check("privileged", "privileged", &[(0, |pod| pod.privileged())]),
    check("procMount", "procMount", &[(0, |pod| pod.proc_mounts()), (35, |pod| pod.as_users(Pod::proc_mounts))]),
    check(
        "seLinuxOptions",
        "seLinuxOptions",
        &[(0, |pod| pod.se_linux(&SE_LINUX_TYPES[..4])), (31, |pod| pod.se_linux(&SE_LINUX_TYPES))],
    ),
    check(
        "seccompProfile_baseline",
        "seccompProfile",
        &[(0, |pod| pod.seccomp_annotations()), (19, |pod| pod.seccomp_unconfined())],
    ),
    check(
        "sysctls",
        "forbidden sysctls",
        &[
            (0, |pod| pod.sysctls(&SYSCTLS[..5])),
            (27, |pod| pod.sysctls(&SYSCTLS[..6])),
            (29, |pod| pod.sysctls(&SYSCTLS[..10])),
            (32, |pod| pod.sysctls(&SYSCTLS)),
        ],
    ),
    check("windowsHostProcess", "hostProcess", &[(0, |pod| pod.host_process())]),
];

const RESTRICTED: [Check; 7] = [
    check(
        "allowPrivilegeEscalation",
        "allowPrivilegeEscalation != false",
        &[(8, |pod| pod.privilege_escalation()), (25, |pod| pod.unless_windows(Pod::privilege_escalation))],
    ),
    check(
        "capabilities_restricted",
        "unrestricted capabilities",
        &[(22, |pod| pod.restricted_capabilities()), (25, |pod| pod.unless_windows(Pod::restricted_capabilities))],
    )
    .instead_of(&["capabilities_baseline"]),
    check("procMount_restricted", "procMount", &[(35, |pod| pod.proc_mounts())]).instead_of(&["procMount"]),
    check("restrictedVolumes", "restricted volume types", &[(0, |pod| pod.volume_types())])
        .instead_of(&["hostPathVolumes"]),
    check(
        "runAsNonRoot",
        "runAsNonRoot != true",
        &[(0, |pod| pod.run_as_non_root()), (35, |pod| pod.as_users(Pod::run_as_non_root))],
    ),
    check("runAsUser", "runAsUser=0", &[(23, |pod| pod.run_as_root()), (35, |pod| pod.as_users(Pod::run_as_root))]),
    check(
        "seccompProfile_restricted",
        "seccompProfile",
        &[(19, |pod| pod.seccomp_restricted()), (25, |pod| pod.unless_windows(Pod::seccomp_restricted))],
    )
    .instead_of(&["seccompProfile_baseline"]),
];

/// What a pod does that is not allowed.
pub(super) fn violations(demand: Demand, pod: &Pod<'_>) -> Vec<Violation> {
    let minor = match demand.version {
        Version::Minor(minor) => minor,
        Version::Latest => i64::MAX,
    };
    let restricted: &[Check] = match demand.level {
        Level::Privileged => return Vec::new(),
        Level::Baseline => &[],
        Level::Restricted => &RESTRICTED,
    };
    let is_replaced =
        |check: &&Check| restricted.iter().any(|other| other.at(minor).is_some() && other.replaces.contains(&check.id));
    let checks = BASELINE.iter().filter(|check| !is_replaced(check)).chain(restricted);
    let found = checks.filter_map(|check| Some((check.reason, (check.at(minor)?)(pod)?)));
    found.map(|(reason, detail)| Violation { reason, detail }).collect()
}

/// All of them as one text; none if there are none.
pub(super) fn details(demand: Demand, pod: &Pod<'_>) -> Option<String> {
    let texts: Vec<String> =
        violations(demand, pod).into_iter().map(|v| format!("{} ({})", v.reason, v.detail)).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(level: Level, version: Version, spec: &Value) -> String {
        details(Demand { level, version }, &Pod::new(spec, &Value::Null)).unwrap_or_default()
    }

    fn latest(level: Level, spec: &Value) -> String {
        found(level, Version::Latest, spec)
    }

    #[test]
    fn a_bare_pod_is_baseline_and_not_restricted() {
        let spec = json!({"containers": [{"name": "a"}]});
        assert_eq!(latest(Level::Baseline, &spec), "");
        let escalates = "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false)";
        let keeps = "unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"])";
        let root = "runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)";
        let seccomp = "seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \
                       \"RuntimeDefault\" or \"Localhost\")";
        assert_eq!(latest(Level::Restricted, &spec), format!("{escalates}, {keeps}, {root}, {seccomp}"));
        // Older releases demanded less.
        assert_eq!(found(Level::Restricted, Version::Minor(21), &spec), format!("{escalates}, {root}, {seccomp}"));
        assert_eq!(found(Level::Restricted, Version::Minor(18), &spec), format!("{escalates}, {root}"));
        assert_eq!(found(Level::Restricted, Version::Minor(7), &spec), root);
        assert_eq!(found(Level::Restricted, Version::Minor(99), &spec), latest(Level::Restricted, &spec));
    }

    #[test]
    fn a_careful_pod_is_restricted() {
        let spec = json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "a", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        });
        assert_eq!(latest(Level::Restricted, &spec), "");
    }

    #[test]
    fn what_reaches_the_host_is_not_baseline() {
        let spec = json!({
            "hostNetwork": true, "hostPID": true,
            "containers": [
                {"name": "a", "securityContext": {"privileged": true, "capabilities": {"add": ["SYS_ADMIN"]}}},
                {"name": "b", "ports": [{"hostPort": 80}, {"hostPort": 8080}, {"hostPort": 81}]},
            ],
            "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
        });
        assert_eq!(
            latest(Level::Baseline, &spec),
            "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add), \
             host namespaces (hostNetwork=true, hostPID=true), hostPath volumes (volume \"v\"), \
             hostPort (container \"b\" uses hostPorts 80, 8080, 81), \
             privileged (container \"a\" must not set securityContext.privileged=true)"
        );
    }

    #[test]
    fn probes_of_other_hosts_are_not_baseline() {
        let spec = json!({"containers": [{
            "name": "c",
            "livenessProbe": {"httpGet": {"port": 80, "host": "192.0.2.1"}},
            "lifecycle": {"postStart": {"tcpSocket": {"port": 1, "host": "x"}}},
        }]});
        let told = "probe or lifecycle host (container \"c\" uses probe or lifecycle hosts \"192.0.2.1\", \"x\")";
        assert_eq!(latest(Level::Baseline, &spec), told);
        assert_eq!(found(Level::Baseline, Version::Minor(33), &spec), "");
    }

    #[test]
    fn users_of_a_namespace_of_their_own_may_more() {
        let spec = |host_users: bool| {
            json!({
                "hostUsers": host_users, "securityContext": {"runAsUser": 0, "runAsNonRoot": false},
                "containers": [{"name": "c", "securityContext": {"procMount": "Unmasked"}}],
            })
        };
        let mount = "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")";
        assert_eq!(latest(Level::Baseline, &spec(true)), mount);
        assert_eq!(latest(Level::Baseline, &spec(false)), "");
        assert_eq!(found(Level::Baseline, Version::Minor(34), &spec(false)), mount);
        let restricted = latest(Level::Restricted, &spec(false));
        assert!(restricted.contains(mount) && !restricted.contains("runAs"), "{restricted}");
    }

    #[test]
    fn options_of_se_linux_are_told_by_what_they_set() {
        let spec = json!({
            "securityContext": {"seLinuxOptions": {"type": "foo", "user": "u", "role": "r"}},
            "containers": [{"name": "c", "securityContext": {"seLinuxOptions": {"type": "bar"}}}],
        });
        assert_eq!(
            latest(Level::Baseline, &spec),
            "seLinuxOptions (pod and container \"c\" set forbidden securityContext.seLinuxOptions: types \"bar\", \
             \"foo\"; user may not be set; role may not be set)"
        );
        let engine = json!({"securityContext": {"seLinuxOptions": {"type": "container_engine_t"}}});
        assert_eq!(latest(Level::Baseline, &engine), "");
        assert_ne!(found(Level::Baseline, Version::Minor(30), &engine), "");
    }
}
