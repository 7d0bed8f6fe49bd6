//! PodSecurity: what a namespace's labels demand of pods, `baseline` or `restricted`, to enforce or to warn of.
//!
//! The checks are pure. Whatever version a label names, the rules are those of this release.

use serde::Deserialize;
use serde_json::Value;

use super::Operation;
use crate::app::Call;
use crate::status::{Failure, FieldError, Result};
use crate::strategy::Part;
use crate::tree;
use crate::validation::names::{self, Complaints};

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much a pod may do to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// What namespaces without labels demand, and what nothing is demanded of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PodSecuritySettings {
    defaults: Defaults,
    exemptions: Exemptions,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Defaults {
    enforce: String,
    enforce_version: String,
    audit: String,
    audit_version: String,
    warn: String,
    warn_version: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Exemptions {
    usernames: Vec<String>,
    namespaces: Vec<String>,
    runtime_classes: Vec<String>,
}

impl Default for Defaults {
    fn default() -> Self {
        let (level, version) = (|| "privileged".to_owned(), || "latest".to_owned());
        Self {
            enforce: level(),
            enforce_version: version(),
            audit: level(),
            audit_version: version(),
            warn: level(),
            warn_version: version(),
        }
    }
}

impl Defaults {
    /// Mode, level and version.
    fn modes(&self) -> [(&'static str, &str, &str); 3] {
        [
            ("enforce", &self.enforce, &self.enforce_version),
            ("warn", &self.warn, &self.warn_version),
            ("audit", &self.audit, &self.audit_version),
        ]
    }

    fn of(&self, mode: &str) -> (Level, &str) {
        let found = self.modes().into_iter().find(|(name, ..)| *name == mode);
        let found = found.and_then(|(_, level, version)| Some((Level::parse(level)?, version)));
        found.unwrap_or((Level::Privileged, "latest"))
    }
}

impl PodSecuritySettings {
    /// What is wrong with them, in upstream's words.
    pub(super) fn errors(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (mode, level, version) in self.defaults.modes() {
            if Level::parse(level).is_none() {
                errors.push(FieldError::invalid(format!("defaults.{mode}"), level, LEVELS));
            }
            if !is_version(version) {
                errors.push(FieldError::invalid(format!("defaults.{mode}-version"), version, VERSIONS));
            }
        }
        let of_user = |name: &str| if name.is_empty() { vec!["username must not be empty".into()] } else { Vec::new() };
        let exempt = &self.exemptions;
        unique("namespaces", &exempt.namespaces, names::dns1123_label, &mut errors);
        unique("runtimeClasses", &exempt.runtime_classes, names::dns1123_subdomain, &mut errors);
        unique("usernames", &exempt.usernames, of_user, &mut errors);
        errors
    }

    /// Why nothing is demanded of a request.
    fn exemption(&self, (namespace, user, spec): (&str, &str, &Value)) -> Option<&'static str> {
        let has = |list: &[String], name: &str| !name.is_empty() && list.iter().any(|known| known == name);
        let class = tree::text(spec, "/runtimeClassName");
        match &self.exemptions {
            exempt if has(&exempt.namespaces, namespace) => Some("namespace"),
            exempt if has(&exempt.usernames, user) => Some("user"),
            exempt if has(&exempt.runtime_classes, class) => Some("runtimeClass"),
            _ => None,
        }
    }
}

fn unique(field: &str, list: &[String], form: impl Fn(&str) -> Complaints, errors: &mut Vec<FieldError>) {
    for (index, name) in list.iter().enumerate() {
        let field = format!("exemptions.{field}[{index}]");
        let complaints = form(name);
        if !complaints.is_empty() {
            errors.push(FieldError::invalid(field, name, complaints.join(", ")));
        } else if list[..index].contains(name) {
            errors.push(FieldError::duplicate(field, name));
        }
    }
}

const LEVELS: &str = "must be one of privileged, baseline, restricted";
const VERSIONS: &str = "must be \"latest\" or \"v1.x\"";

/// Refuses pods that the namespace forbids, and warns of what it does not like.
pub(super) fn check(call: &Call, operation: Operation, new: &Value) -> Result<()> {
    if (call.kind.group, call.kind.plural) == ("", "namespaces") {
        return check_labels(call, new);
    }
    let significant = matches!(operation, Operation::Create | Operation::Update(Part::EphemeralContainers));
    let is_pod = (call.kind.group, call.kind.plural) == ("", "pods");
    let wanted =
        if is_pod { significant } else { matches!(operation, Operation::Create | Operation::Update(Part::Main)) };
    let Some(spec) = pod_spec(call, new).filter(|_| wanted) else { return Ok(()) };
    let settings = &call.app.config.admission.pod_security;
    if let Some(why) = settings.exemption((call.namespace(), &call.user.name, spec)) {
        call.record.annotate(&format!("{PREFIX}exempt"), why.to_owned());
        return Ok(());
    }
    let Some(namespace) = call.app.cache.known("", "namespaces").get("", call.namespace()) else { return Ok(()) };
    let policy = |mode: &str| {
        let (level, version) = settings.defaults.of(mode);
        let level = namespace.label(&format!("{PREFIX}{mode}")).and_then(Level::parse).unwrap_or(level);
        let version = namespace.label(&format!("{PREFIX}{mode}-version")).unwrap_or(version).to_owned();
        (level, version)
    };
    note(call, (is_pod, spec, new), policy);
    let (level, version) = policy("enforce");
    if is_pod && let Some(text) = violations(level, spec, new) {
        let why = format!("violates PodSecurity \"{}:{version}\": {text}", level.name());
        return Err(Failure::forbidden(call.subject(), tree::name_given(new), &why));
    }
    let (level, version) = policy("warn");
    if let Some(text) = violations(level, spec, new) {
        call.warn(format!("would violate PodSecurity \"{}:{version}\": {text}", level.name()));
    }
    Ok(())
}

/// Notes for the audit log what was enforced, and what is to be seen there only.
fn note(call: &Call, (is_pod, spec, new): (bool, &Value, &Value), policy: impl Fn(&str) -> (Level, String)) {
    if !call.record.is_on() {
        return;
    }
    let (enforced, audited, warned) = (policy("enforce"), policy("audit"), policy("warn"));
    if is_pod {
        let is_privileged = [&enforced, &audited, &warned].iter().all(|(level, _)| *level == Level::Privileged);
        let version = if is_privileged { "latest" } else { &enforced.1 };
        call.record.annotate(&format!("{PREFIX}enforce-policy"), format!("{}:{version}", enforced.0.name()));
    }
    if let Some(text) = violations(audited.0, spec, new) {
        let text = format!("would violate PodSecurity \"{}:{}\": {text}", audited.0.name(), audited.1);
        call.record.annotate(&format!("{PREFIX}audit-violations"), text);
    }
}

fn check_labels(call: &Call, namespace: &Value) -> Result<()> {
    let labels = &namespace["metadata"]["labels"];
    let mut errors = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        let key = format!("{PREFIX}{mode}");
        if let Some(text) = labels[&key].as_str().filter(|t| Level::parse(t).is_none()) {
            let field = format!("metadata.labels[{key}]");
            errors.push(FieldError::invalid(field, text, LEVELS));
        }
        let key = format!("{PREFIX}{mode}-version");
        if let Some(text) = labels[&key].as_str().filter(|t| !is_version(t)) {
            let field = format!("metadata.labels[{key}]");
            errors.push(FieldError::invalid(field, text, VERSIONS));
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid(call.kind_subject(), tree::text(namespace, "/metadata/name"), &errors))
}

fn is_version(text: &str) -> bool {
    let minor = text.strip_prefix("v1.").filter(|m| !m.is_empty() && (*m == "0" || !m.starts_with('0')));
    text == "latest" || minor.is_some_and(|m| m.bytes().all(|b| b.is_ascii_digit()))
}

/// The spec of a pod, or of the pods that an object will make.
fn pod_spec<'v>(call: &Call, value: &'v Value) -> Option<&'v Value> {
    let pointer = match (call.kind.group, call.kind.plural) {
        ("", "pods") => "/spec",
        ("", "podtemplates") => "/template/spec",
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => "/spec/template/spec",
        ("batch", "cronjobs") => "/spec/jobTemplate/spec/template/spec",
        _ => return None,
    };
    tree::at(value, pointer)
}

/// What a pod does that the level forbids, in upstream's words and order.
fn violations(level: Level, spec: &Value, object: &Value) -> Option<String> {
    if level == Level::Privileged {
        return None;
    }
    let pod = Pod::new(spec, object);
    let mut found: Vec<(&str, String)> = Vec::new();
    let mut add = |what: &'static str, detail: Option<String>| found.extend(detail.map(|d| (what, d)));
    let restricted = level == Level::Restricted;
    add("forbidden AppArmor profile", pod.app_armor());
    if !restricted {
        add("non-default capabilities", pod.capabilities(BASELINE_CAPABILITIES));
    }
    add("host namespaces", pod.host_namespaces());
    if !restricted {
        add("hostPath volumes", pod.host_paths());
    }
    add("hostPort", pod.host_ports());
    add(
        "privileged",
        pod.containers_that(
            |c| c["securityContext"]["privileged"] == true,
            "must not set securityContext.privileged=true",
        ),
    );
    add("procMount", pod.proc_mounts());
    add("seLinuxOptions", pod.se_linux());
    if !restricted {
        add("seccompProfile", pod.seccomp_unconfined());
    }
    add("forbidden sysctls", pod.sysctls());
    add("hostProcess", pod.host_process());
    if restricted {
        add("allowPrivilegeEscalation != false", pod.privilege_escalation());
        add("unrestricted capabilities", pod.restricted_capabilities());
        add("restricted volume types", pod.volume_types());
        add("runAsNonRoot != true", pod.run_as_non_root());
        add("runAsUser=0", pod.run_as_root());
        add("seccompProfile", pod.seccomp_restricted());
    }
    let texts: Vec<String> = found.into_iter().map(|(what, detail)| format!("{what} ({detail})")).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

const BASELINE_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

const SAFE_SYSCTLS: &[&str] = &[
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

const SAFE_VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
    "image",
];

const SE_LINUX_TYPES: &[&str] = &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

struct Pod<'v> {
    spec: &'v Value,
    context: &'v Value,
    annotations: &'v Value,
    containers: Vec<&'v Value>,
    windows: bool,
}

fn name(container: &Value) -> String {
    format!("{:?}", container["name"].as_str().unwrap_or_default())
}

/// `container "a"`, `containers "a", "b"`.
fn named(names: &[String]) -> String {
    format!("container{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))
}

impl<'v> Pod<'v> {
    fn new(spec: &'v Value, object: &'v Value) -> Self {
        let lists = ["/initContainers", "/containers", "/ephemeralContainers"];
        Self {
            spec,
            context: &spec["securityContext"],
            annotations: &object["metadata"]["annotations"],
            containers: lists.iter().flat_map(|l| tree::list(spec, l)).collect(),
            windows: spec["os"]["name"] == "windows",
        }
    }

    fn names_where(&self, bad: impl Fn(&Value) -> bool) -> Vec<String> {
        self.containers.iter().filter(|c| bad(c)).map(|c| name(c)).collect()
    }

    fn containers_that(&self, bad: impl Fn(&Value) -> bool, text: &str) -> Option<String> {
        let names = self.names_where(bad);
        (!names.is_empty()).then(|| format!("{} {text}", named(&names)))
    }

    fn app_armor(&self) -> Option<String> {
        let bad = |context: &Value| context["appArmorProfile"]["type"] == "Unconfined";
        let mut texts = Vec::new();
        if bad(self.context) {
            texts.push("pod must not set AppArmor profile type to \"Unconfined\"".to_owned());
        }
        let names = self.names_where(|c| bad(&c["securityContext"]));
        if !names.is_empty() {
            texts.push(format!("{} must not set AppArmor profile type to \"Unconfined\"", named(&names)));
        }
        for (key, value) in self.annotations.as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            let allowed = value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
            if key.starts_with("container.apparmor.security.beta.kubernetes.io/") && !allowed {
                texts.push(format!("annotation {key}={value:?}"));
            }
        }
        (!texts.is_empty()).then(|| texts.join(", "))
    }

    fn capabilities(&self, allowed: &[&str]) -> Option<String> {
        let mut names = Vec::new();
        let mut added: Vec<String> = Vec::new();
        for container in &self.containers {
            let bad = tree::list(container, "/securityContext/capabilities/add").iter().filter_map(Value::as_str);
            let bad: Vec<String> = bad.filter(|c| !allowed.contains(c)).map(|c| format!("{c:?}")).collect();
            if !bad.is_empty() {
                names.push(name(container));
                added.extend(bad);
            }
        }
        added.sort();
        added.dedup();
        let list = added.join(", ");
        (!names.is_empty())
            .then(|| format!("{} must not include {list} in securityContext.capabilities.add", named(&names)))
    }

    fn host_namespaces(&self) -> Option<String> {
        let set = ["hostNetwork", "hostPID", "hostIPC"].iter().filter(|k| self.spec[**k] == true);
        let texts: Vec<String> = set.map(|k| format!("{k}=true")).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }

    fn host_paths(&self) -> Option<String> {
        let volumes = tree::list(self.spec, "/volumes").iter().filter(|v| v["hostPath"].is_object());
        let names: Vec<String> = volumes.map(name).collect();
        (!names.is_empty()).then(|| format!("volume{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", ")))
    }

    fn host_ports(&self) -> Option<String> {
        let mut ports: Vec<i64> = Vec::new();
        let mut names = Vec::new();
        for container in &self.containers {
            let used = tree::list(container, "/ports").iter().filter_map(|p| p["hostPort"].as_i64());
            let used: Vec<i64> = used.filter(|p| *p != 0).collect();
            if !used.is_empty() {
                names.push(name(container));
                ports.extend(used);
            }
        }
        ports.sort_unstable();
        ports.dedup();
        let list: Vec<String> = ports.iter().map(ToString::to_string).collect();
        let (verb, plural) = (if names.len() == 1 { "uses" } else { "use" }, if list.len() == 1 { "" } else { "s" });
        (!names.is_empty()).then(|| format!("{} {verb} hostPort{plural} {}", named(&names), list.join(", ")))
    }

    fn proc_mounts(&self) -> Option<String> {
        let of = |c: &Value| c["securityContext"]["procMount"].as_str().filter(|m| *m != "Default").map(str::to_owned);
        let mut kinds: Vec<String> = self.containers.iter().filter_map(|c| of(c)).map(|m| format!("{m:?}")).collect();
        kinds.sort();
        kinds.dedup();
        self.containers_that(
            |c| of(c).is_some(),
            &format!("must not set securityContext.procMount to {}", kinds.join(", ")),
        )
    }

    fn se_linux(&self) -> Option<String> {
        let options = |context: &Value| context["securityContext"]["seLinuxOptions"].clone();
        let text = |options: &Value, key: &str| options[key].as_str().unwrap_or_default().to_owned();
        let (mut details, mut setters) = (Vec::new(), Vec::new());
        let mut look = |who: Option<String>, options: Value| {
            let ty = text(&options, "type");
            let mut bad = false;
            if !SE_LINUX_TYPES.contains(&ty.as_str()) {
                details.push(format!("type {ty:?}"));
                bad = true;
            }
            for key in ["user", "role"] {
                if !text(&options, key).is_empty() {
                    details.push(format!("{key} may not be set"));
                    bad = true;
                }
            }
            setters.extend(who.filter(|_| bad));
            bad
        };
        let by_pod = look(None, options(self.spec));
        for container in &self.containers {
            look(Some(name(container)), options(container));
        }
        details.sort();
        details.dedup();
        let mut who = Vec::new();
        if by_pod {
            who.push("pod".to_owned());
        }
        if !setters.is_empty() {
            who.push(named(&setters));
        }
        let list = details.join("; ");
        (!who.is_empty()).then(|| format!("{} set forbidden securityContext.seLinuxOptions: {list}", who.join(" and ")))
    }

    fn seccomp_unconfined(&self) -> Option<String> {
        let bad = |context: &Value| context["seccompProfile"]["type"] == "Unconfined";
        let mut who = Vec::new();
        if bad(self.context) {
            who.push("pod".to_owned());
        }
        let names = self.names_where(|c| bad(&c["securityContext"]));
        if !names.is_empty() {
            who.push(named(&names));
        }
        let text = "must not set securityContext.seccompProfile.type to \"Unconfined\"";
        (!who.is_empty()).then(|| format!("{} {text}", who.join(" and ")))
    }

    fn sysctls(&self) -> Option<String> {
        let names = tree::list(self.context, "/sysctls").iter().filter_map(|s| s["name"].as_str());
        let bad: Vec<&str> = names.filter(|n| !SAFE_SYSCTLS.contains(n)).collect();
        (!bad.is_empty()).then(|| bad.join(", "))
    }

    fn host_process(&self) -> Option<String> {
        let bad = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
        let mut who = Vec::new();
        if bad(self.context) {
            who.push("pod".to_owned());
        }
        let names = self.names_where(|c| bad(&c["securityContext"]));
        if !names.is_empty() {
            who.push(named(&names));
        }
        let text = "must not set securityContext.windowsOptions.hostProcess=true";
        (!who.is_empty()).then(|| format!("{} {text}", who.join(" and ")))
    }

    fn privilege_escalation(&self) -> Option<String> {
        let bad = |c: &Value| c["securityContext"]["allowPrivilegeEscalation"] != false;
        if self.windows {
            None
        } else {
            self.containers_that(bad, "must set securityContext.allowPrivilegeEscalation=false")
        }
    }

    fn restricted_capabilities(&self) -> Option<String> {
        if self.windows {
            return None;
        }
        let keeps = |c: &Value| !tree::list(c, "/securityContext/capabilities/drop").iter().any(|d| d == "ALL");
        let drop = self.containers_that(keeps, "must set securityContext.capabilities.drop=[\"ALL\"]");
        let texts: Vec<String> = drop.into_iter().chain(self.capabilities(&["NET_BIND_SERVICE"])).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    fn volume_types(&self) -> Option<String> {
        let kind = |v: &Value| {
            let keys = v.as_object()?.iter().filter(|(k, v)| *k != "name" && !v.is_null());
            let kind = keys.map(|(k, _)| k.as_str()).next()?;
            (!SAFE_VOLUMES.contains(&kind)).then(|| kind.to_owned())
        };
        let (mut names, mut kinds) = (Vec::new(), Vec::new());
        for volume in tree::list(self.spec, "/volumes") {
            if let Some(kind) = kind(volume) {
                names.push(name(volume));
                kinds.push(format!("{kind:?}"));
            }
        }
        kinds.sort();
        kinds.dedup();
        let (s, verb) = if names.len() == 1 { ("", "uses") } else { ("s", "use") };
        let types = if kinds.len() == 1 { "type" } else { "types" };
        let list = kinds.join(", ");
        (!names.is_empty()).then(|| format!("volume{s} {} {verb} restricted volume {types} {list}", names.join(", ")))
    }

    fn run_as_non_root(&self) -> Option<String> {
        let key = "runAsNonRoot";
        let pod = &self.context[key];
        let explicit = self.names_where(|c| c["securityContext"][key] == false);
        let implicit = self.names_where(|c| c["securityContext"][key].is_null() && pod != true);
        let mut texts = Vec::new();
        if !explicit.is_empty() || pod == false {
            let mut who = Vec::new();
            if pod == false {
                who.push("pod".to_owned());
            }
            if !explicit.is_empty() {
                who.push(named(&explicit));
            }
            texts.push(format!("{} must not set securityContext.runAsNonRoot=false", who.join(" and ")));
        }
        if !implicit.is_empty() && pod != false {
            texts.push(format!("pod or {} must set securityContext.runAsNonRoot=true", named(&implicit)));
        }
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    fn run_as_root(&self) -> Option<String> {
        let mut who = Vec::new();
        if self.context["runAsUser"] == 0 {
            who.push("pod".to_owned());
        }
        let names = self.names_where(|c| c["securityContext"]["runAsUser"] == 0);
        if !names.is_empty() {
            who.push(named(&names));
        }
        (!who.is_empty()).then(|| format!("{} must not set runAsUser=0", who.join(" and ")))
    }

    fn seccomp_restricted(&self) -> Option<String> {
        if self.windows {
            return None;
        }
        let kind = |context: &Value| context["seccompProfile"]["type"].as_str().map(str::to_owned);
        let good = |kind: &Option<String>| matches!(kind.as_deref(), Some("RuntimeDefault" | "Localhost"));
        let pod = kind(self.context);
        let mut texts = Vec::new();
        let mut who = Vec::new();
        let pod_is_bad = pod.is_some() && !good(&pod);
        if pod_is_bad {
            who.push("pod".to_owned());
        }
        let explicit = self.names_where(|c| {
            let own = kind(&c["securityContext"]);
            own.is_some() && !good(&own)
        });
        if !explicit.is_empty() {
            who.push(named(&explicit));
        }
        if !who.is_empty() {
            let bad = pod.filter(|_| pod_is_bad).unwrap_or_else(|| "Unconfined".to_owned());
            texts.push(format!("{} must not set securityContext.seccompProfile.type to {bad:?}", who.join(" and ")));
        }
        let implicit = self.names_where(|c| kind(&c["securityContext"]).is_none());
        if !implicit.is_empty() && self.context["seccompProfile"]["type"].is_null() {
            let text = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
            texts.push(format!("pod or {} {text}", named(&implicit)));
        }
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(level: Level, spec: Value) -> String {
        violations(level, &spec, &Value::Null).unwrap_or_default()
    }

    #[test]
    fn a_bare_pod_is_baseline_and_not_restricted() {
        let spec = json!({"containers": [{"name": "a"}]});
        assert_eq!(found(Level::Baseline, spec.clone()), "");
        assert_eq!(
            found(Level::Restricted, spec),
            "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
             unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), \
             runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), \
             seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
    }

    #[test]
    fn a_careful_pod_is_restricted() {
        let spec = json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "a", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        });
        assert_eq!(found(Level::Restricted, spec), "");
    }

    #[test]
    fn what_reaches_the_host_is_not_baseline() {
        let spec = json!({
            "hostNetwork": true, "hostPID": true,
            "containers": [
                {"name": "a", "securityContext": {"privileged": true, "capabilities": {"add": ["SYS_ADMIN"]}}},
                {"name": "b", "ports": [{"hostPort": 80}]},
            ],
            "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
        });
        assert_eq!(
            found(Level::Baseline, spec),
            "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add), \
             host namespaces (hostNetwork=true, hostPID=true), hostPath volumes (volume \"v\"), \
             hostPort (container \"b\" uses hostPort 80), \
             privileged (container \"a\" must not set securityContext.privileged=true)"
        );
    }
}
