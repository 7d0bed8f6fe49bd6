//! A pod as the checks look at it: each says what is wrong, in upstream's words, or nothing.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::tree;

const CAPABILITIES: [&str; 13] = [
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

const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// A pod, or what pods are made from.
pub(super) struct Pod<'v> {
    spec: &'v Value,
    context: &'v Value,
    annotations: &'v Value,
    containers: Vec<&'v Value>,
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect();
    items.join(", ")
}

/// `word "a"`, `words "a", "b"`.
fn counted<T: AsRef<str>>(word: &str, items: &[T]) -> String {
    format!("{word}{} {}", if items.len() == 1 { "" } else { "s" }, quoted(items))
}

fn uses(count: usize) -> &'static str {
    if count == 1 { "uses" } else { "use" }
}

fn context(container: &Value) -> &Value {
    &container["securityContext"]
}

/// Who of a pod and its containers set something: `pod and container "a"`.
struct Setters<'v> {
    pod: bool,
    containers: Vec<&'v str>,
}

impl Setters<'_> {
    fn told(&self) -> Option<String> {
        let pod = self.pod.then(|| "pod".to_owned());
        let containers = (!self.containers.is_empty()).then(|| counted("container", &self.containers));
        let who: Vec<String> = pod.into_iter().chain(containers).collect();
        (!who.is_empty()).then(|| who.join(" and "))
    }
}

impl<'v> Pod<'v> {
    /// Of a pod's spec and metadata.
    pub(super) fn new(spec: &'v Value, metadata: &'v Value) -> Self {
        let lists = ["/initContainers", "/containers", "/ephemeralContainers"];
        Self {
            spec,
            context: &spec["securityContext"],
            annotations: &metadata["annotations"],
            containers: lists.iter().flat_map(|l| tree::list(spec, l)).collect(),
        }
    }

    /// What is found where the pod's users are those of the host.
    pub(super) fn as_users(&self, find: fn(&Self) -> Option<String>) -> Option<String> {
        if self.spec["hostUsers"] == false { None } else { find(self) }
    }

    /// What is found unless the pod is one of Windows.
    pub(super) fn unless_windows(&self, find: fn(&Self) -> Option<String>) -> Option<String> {
        if self.spec["os"]["name"] == "windows" { None } else { find(self) }
    }

    fn names(&self, is_bad: impl Fn(&Value) -> bool) -> Vec<&'v str> {
        self.containers.iter().filter(|c| is_bad(c)).map(|c| text(c, "name")).collect()
    }

    fn containers_that(&self, is_bad: impl Fn(&Value) -> bool, text: &str) -> Option<String> {
        let names = self.names(is_bad);
        (!names.is_empty()).then(|| format!("{} {text}", counted("container", &names)))
    }

    fn setters(&self, is_bad: impl Fn(&Value) -> bool) -> Setters<'v> {
        Setters { pod: is_bad(self.context), containers: self.names(|c| is_bad(context(c))) }
    }

    /// What `of` finds in the security contexts of the pod and its containers.
    fn values<'a>(&'a self, of: impl Fn(&'a Value) -> Option<&'a str>) -> BTreeSet<&'a str> {
        let contexts = self.containers.iter().map(|c| context(c));
        std::iter::once(self.context).chain(contexts).filter_map(of).collect()
    }

    pub(super) fn app_armor(&self, is_told: fn(usize) -> bool) -> Option<String> {
        fn bad(context: &Value) -> Option<&str> {
            let kind = context["appArmorProfile"]["type"].as_str();
            kind.filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"))
        }
        let mut who: Vec<String> = self.setters(|c| bad(c).is_some()).told().into_iter().collect();
        let mut values: Vec<String> = self.values(bad).into_iter().map(str::to_owned).collect();
        let fits = |v: &str| v.is_empty() || v == "runtime/default" || v.starts_with("localhost/");
        let annotations = self.annotations.as_object().into_iter().flatten();
        let annotations = annotations.filter_map(|(key, value)| Some((key, value.as_str()?)));
        let bad = annotations.filter(|(key, value)| key.starts_with(APP_ARMOR) && !fits(value));
        let bad: BTreeSet<String> = bad.map(|(key, value)| format!("{key}={value:?}")).collect();
        if !bad.is_empty() {
            who.push(if bad.len() == 1 { "annotation" } else { "annotations" }.to_owned());
            values.extend(bad);
        }
        (!who.is_empty() && is_told(values.len()))
            .then(|| format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(values)))
    }

    pub(super) fn capabilities(&self) -> Option<String> {
        self.adds(&CAPABILITIES)
    }

    fn adds(&self, allowed: &[&str]) -> Option<String> {
        let bad = |c: &'v Value| {
            let added = tree::list(c, "/securityContext/capabilities/add").iter().filter_map(Value::as_str);
            added.filter(|name| !allowed.contains(name)).collect::<BTreeSet<&'v str>>()
        };
        let found: Vec<_> = self.containers.iter().map(|c| (text(c, "name"), bad(c))).collect();
        let names: Vec<&str> = found.iter().filter(|(_, bad)| !bad.is_empty()).map(|(name, _)| *name).collect();
        let added: BTreeSet<&str> = found.iter().flat_map(|(_, bad)| bad).copied().collect();
        let who = || counted("container", &names);
        (!names.is_empty())
            .then(|| format!("{} must not include {} in securityContext.capabilities.add", who(), quoted(added)))
    }

    pub(super) fn restricted_capabilities(&self) -> Option<String> {
        let keeps = |c: &Value| !tree::list(c, "/securityContext/capabilities/drop").iter().any(|d| d == "ALL");
        let drop = self.containers_that(keeps, "must set securityContext.capabilities.drop=[\"ALL\"]");
        let texts: Vec<String> = drop.into_iter().chain(self.adds(&["NET_BIND_SERVICE"])).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    pub(super) fn host_namespaces(&self) -> Option<String> {
        let set = ["hostNetwork", "hostPID", "hostIPC"].iter().filter(|k| self.spec[**k] == true);
        let texts: Vec<String> = set.map(|k| format!("{k}=true")).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }

    pub(super) fn host_paths(&self) -> Option<String> {
        let volumes = tree::list(self.spec, "/volumes").iter().filter(|v| v["hostPath"].is_object());
        let names: Vec<&str> = volumes.map(|v| text(v, "name")).collect();
        (!names.is_empty()).then(|| counted("volume", &names))
    }

    pub(super) fn host_ports(&self) -> Option<String> {
        let used = |c: &Value| -> Vec<String> {
            let ports = tree::list(c, "/ports").iter().filter_map(|p| p["hostPort"].as_i64());
            ports.filter(|port| *port != 0).map(|port| port.to_string()).collect()
        };
        let names = self.names(|c| !used(c).is_empty());
        let ports: BTreeSet<String> = self.containers.iter().flat_map(|c| used(c)).collect();
        let plural = if ports.len() == 1 { "" } else { "s" };
        let ports: Vec<String> = ports.into_iter().collect();
        let (who, verb) = (counted("container", &names), uses(names.len()));
        (!names.is_empty()).then(|| format!("{who} {verb} hostPort{plural} {}", ports.join(", ")))
    }

    /// Other hosts that the node would connect to.
    pub(super) fn probe_hosts(&self) -> Option<String> {
        const HANDLERS: [&str; 5] =
            ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];
        let hosts = |c: &'v Value| {
            let handlers = HANDLERS.iter().filter_map(|pointer| tree::at(c, pointer));
            let hosts = handlers.flat_map(|h| ["httpGet", "tcpSocket"].map(|action| text(&h[action], "host")));
            hosts.filter(|host| !host.is_empty()).collect::<BTreeSet<&'v str>>()
        };
        let bad = self.containers.iter().filter(|c| !hosts(c).is_empty());
        let names: BTreeSet<&str> = bad.map(|c| text(c, "name")).collect();
        let (names, hosts): (Vec<_>, BTreeSet<_>) =
            (names.into_iter().collect(), self.containers.iter().flat_map(|c| hosts(c)).collect());
        let hosts: Vec<&str> = hosts.into_iter().collect();
        let (who, verb) = (counted("container", &names), uses(names.len()));
        (!names.is_empty()).then(|| format!("{who} {verb} {}", counted("probe or lifecycle host", &hosts)))
    }

    pub(super) fn privileged(&self) -> Option<String> {
        self.containers_that(|c| context(c)["privileged"] == true, "must not set securityContext.privileged=true")
    }

    pub(super) fn proc_mounts(&self) -> Option<String> {
        fn bad(context: &Value) -> Option<&str> {
            context["procMount"].as_str().filter(|mount| *mount != "Default")
        }
        let mounts = quoted(self.values(bad));
        self.containers_that(
            |c| bad(context(c)).is_some(),
            &format!("must not set securityContext.procMount to {mounts}"),
        )
    }

    pub(super) fn se_linux(&self, types: &[&str]) -> Option<String> {
        let options = |context: &'v Value| &context["seLinuxOptions"];
        let has = |context: &Value, key: &str| !text(&context["seLinuxOptions"], key).is_empty();
        let bad_type = |context: &'v Value| Some(text(options(context), "type")).filter(|ty| !types.contains(ty));
        let contexts = || std::iter::once(self.context).chain(self.containers.iter().map(|c| context(c)));
        let bad_types: Vec<&str> = contexts().filter_map(bad_type).collect::<BTreeSet<_>>().into_iter().collect();
        let mut what = Vec::new();
        if !bad_types.is_empty() {
            what.push(counted("type", &bad_types));
        }
        let set = ["user", "role"].into_iter().filter(|key| contexts().any(|context| has(context, key)));
        what.extend(set.map(|key| format!("{key} may not be set")));
        let is_bad = |context: &Value| {
            !types.contains(&text(&context["seLinuxOptions"], "type")) || has(context, "user") || has(context, "role")
        };
        let who = self.setters(is_bad).told()?;
        Some(format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; ")))
    }

    /// What older releases had instead of fields.
    pub(super) fn seccomp_annotations(&self) -> Option<String> {
        let fits = |v: &str| matches!(v, "runtime/default" | "docker/default") || v.starts_with("localhost/");
        let of_containers = self.names(|_| true).into_iter().map(|name| format!("{SECCOMP_OF_CONTAINER}{name}"));
        let keys = std::iter::once(SECCOMP.to_owned()).chain(of_containers);
        let values = keys.filter_map(|key| self.annotations[&key].as_str().map(|value| (key, value)));
        let bad = values.filter(|(_, value)| !fits(value)).map(|(key, value)| format!("{key}={value:?}"));
        let bad: Vec<String> = bad.collect::<BTreeSet<_>>().into_iter().collect();
        let plural = if bad.len() == 1 { "" } else { "s" };
        (!bad.is_empty()).then(|| format!("forbidden annotation{plural} {}", bad.join(", ")))
    }

    pub(super) fn seccomp_unconfined(&self) -> Option<String> {
        let bad = |context: &'v Value| seccomp(context).filter(|kind| !is_confined(kind));
        let who = self.setters(|context| seccomp(context).is_some_and(|kind| !is_confined(kind))).told()?;
        let contexts = std::iter::once(self.context).chain(self.containers.iter().map(|c| context(c)));
        let values: BTreeSet<&str> = contexts.filter_map(bad).collect();
        Some(format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(values)))
    }

    pub(super) fn seccomp_restricted(&self) -> Option<String> {
        let unset = |c: &Value| seccomp(context(c)).is_none();
        self.seccomp_unconfined().or_else(|| {
            let text = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
            let told = self.containers_that(unset, text).filter(|_| seccomp(self.context).is_none());
            told.map(|told| format!("pod or {told}"))
        })
    }

    pub(super) fn sysctls(&self, safe: &[&str]) -> Option<String> {
        let names = tree::list(self.context, "/sysctls").iter().map(|s| text(s, "name"));
        let bad: Vec<&str> = names.filter(|n| !safe.contains(n)).collect();
        (!bad.is_empty()).then(|| bad.join(", "))
    }

    pub(super) fn host_process(&self) -> Option<String> {
        let who = self.setters(|context| context["windowsOptions"]["hostProcess"] == true).told()?;
        Some(format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
    }

    pub(super) fn privilege_escalation(&self) -> Option<String> {
        let bad = |c: &Value| context(c)["allowPrivilegeEscalation"] != false;
        self.containers_that(bad, "must set securityContext.allowPrivilegeEscalation=false")
    }

    pub(super) fn volume_types(&self) -> Option<String> {
        let kind = |v: &'v Value| {
            let mut kinds = v.as_object().into_iter().flatten().filter(|(k, v)| *k != "name" && !v.is_null());
            let kind = kinds.next().map_or("unknown", |(k, _)| k.as_str());
            (!VOLUMES.contains(&kind)).then_some(kind)
        };
        let bad = tree::list(self.spec, "/volumes").iter().filter_map(|v| Some((text(v, "name"), kind(v)?)));
        let (names, kinds): (Vec<&str>, BTreeSet<&str>) = bad.unzip();
        let kinds: Vec<&str> = kinds.into_iter().collect();
        let (who, verb) = (counted("volume", &names), uses(names.len()));
        (!names.is_empty()).then(|| format!("{who} {verb} {}", counted("restricted volume type", &kinds)))
    }

    pub(super) fn run_as_non_root(&self) -> Option<String> {
        let key = "runAsNonRoot";
        let set_wrong = self.setters(|context| context[key] == false).told();
        let set_wrong = set_wrong.map(|who| format!("{who} must not set securityContext.runAsNonRoot=false"));
        set_wrong.or_else(|| {
            let unset = |c: &Value| context(c)[key].is_null();
            let told = self.containers_that(unset, "must set securityContext.runAsNonRoot=true");
            told.filter(|_| self.context[key] != true).map(|told| format!("pod or {told}"))
        })
    }

    pub(super) fn run_as_root(&self) -> Option<String> {
        let who = self.setters(|context| context["runAsUser"] == 0).told()?;
        Some(format!("{who} must not set runAsUser=0"))
    }
}

fn seccomp(context: &Value) -> Option<&str> {
    context["seccompProfile"].is_object().then(|| text(&context["seccompProfile"], "type"))
}

fn is_confined(kind: &str) -> bool {
    matches!(kind, "RuntimeDefault" | "Localhost")
}
