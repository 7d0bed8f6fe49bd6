//! Which of upstream's admission plugins are on.

use std::collections::BTreeSet;

use crate::app::Call;

/// How a plugin is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    /// On unless it is switched off.
    On,
    /// On, and part of what cannot be taken apart.
    Always,
    /// Off unless it is switched on.
    Off,
}

/// All of upstream's.
const PLUGINS: [(&str, Is); 40] = [
    ("AlwaysAdmit", Is::Off),
    ("NamespaceAutoProvision", Is::Off),
    ("NamespaceLifecycle", Is::On),
    ("NamespaceExists", Is::Off),
    ("LimitPodHardAntiAffinityTopology", Is::Off),
    ("LimitRanger", Is::On),
    ("ServiceAccount", Is::On),
    ("NodeRestriction", Is::Off),
    ("TaintNodesByCondition", Is::On),
    ("AlwaysPullImages", Is::Off),
    ("ImagePolicyWebhook", Is::Off),
    ("PodSecurity", Is::On),
    ("PodNodeSelector", Is::Off),
    ("Priority", Is::On),
    ("DefaultTolerationSeconds", Is::On),
    ("PodTolerationRestriction", Is::Off),
    ("EventRateLimit", Is::Off),
    ("ExtendedResourceToleration", Is::Off),
    ("DefaultStorageClass", Is::On),
    ("StorageObjectInUseProtection", Is::On),
    ("PodGroupProtection", Is::Always),
    ("OwnerReferencesPermissionEnforcement", Is::Off),
    ("PersistentVolumeClaimResize", Is::Always),
    ("RuntimeClass", Is::On),
    ("CertificateApproval", Is::On),
    ("CertificateSigning", Is::On),
    ("ClusterTrustBundleAttest", Is::On),
    ("CertificateSubjectRestriction", Is::Always),
    ("DefaultIngressClass", Is::On),
    ("DenyServiceExternalIPs", Is::Off),
    ("PodTopologyLabels", Is::On),
    ("PodGroupWorkloadExists", Is::Always),
    ("NodeDeclaredFeatureValidator", Is::Always),
    ("JobValidation", Is::Always),
    ("PodResizeValidator", Is::Always),
    ("MutatingAdmissionPolicy", Is::On),
    ("MutatingAdmissionWebhook", Is::On),
    ("ValidatingAdmissionPolicy", Is::On),
    ("ValidatingAdmissionWebhook", Is::On),
    ("ResourceQuota", Is::On),
];

/// The one that comes last.
const DENY: &str = "AlwaysDeny";

/// The plugins that are on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugins(BTreeSet<&'static str>);

/// Why plugins cannot be switched so.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// In upstream's words, one reason each.
    #[error("{}", match .0.as_slice() { [one] => one.clone(), many => format!("[{}]", many.join(", ")) })]
    Wrong(Vec<String>),
    /// A plugin that is always on.
    #[error("--disable-admission-plugins: {0} is not supported: it is always on")]
    Always(&'static str),
}

impl Default for Plugins {
    /// Upstream's default ones, and the one that a cluster of nodes needs.
    fn default() -> Self {
        let mut on = Self::by_default();
        on.0.insert("NodeRestriction");
        on
    }
}

impl Plugins {
    fn by_default() -> Self {
        let on = PLUGINS.iter().filter(|(_, is)| matches!(is, Is::On | Is::Always));
        Self(on.map(|(name, _)| *name).collect())
    }

    /// Upstream's default ones, with these and without those.
    ///
    /// # Errors
    /// When a name is not known, or a plugin cannot be switched.
    pub fn try_new(on: &[String], off: &[String]) -> Result<Self, PluginError> {
        let find = |name: &String| {
            let deny = (DENY, Is::Off);
            PLUGINS.iter().chain([&deny]).copied().find(|(known, _)| known == name)
        };
        let mut wrong = Vec::new();
        for (flag, names) in [("enable", on), ("disable", off)] {
            let unknown = names.iter().filter(|name| find(name).is_none());
            wrong.extend(unknown.map(|name| format!("{flag}-admission-plugins plugin {name:?} is unknown")));
        }
        let both: BTreeSet<&str> = on.iter().filter(|name| off.contains(name)).map(String::as_str).collect();
        if !both.is_empty() {
            let both = both.into_iter().collect::<Vec<_>>().join(" ");
            wrong.push(format!("[{both}] in enable-admission-plugins and disable-admission-plugins overlapped"));
        }
        if !wrong.is_empty() {
            return Err(PluginError::Wrong(wrong));
        }
        let mut plugins = Self::by_default();
        plugins.0.extend(on.iter().filter_map(find).map(|(name, _)| name));
        for (name, is) in off.iter().filter_map(find) {
            if is == Is::Always {
                return Err(PluginError::Always(name));
            }
            plugins.0.remove(name);
        }
        Ok(plugins)
    }

    /// Whether a plugin is on.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

/// Whether a plugin looks at the request.
pub fn is_on(call: &Call, plugin: &str) -> bool {
    call.app.config.plugins.has(plugin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugins(on: &[&str], off: &[&str]) -> Result<Plugins, PluginError> {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Plugins::try_new(&names(on), &names(off))
    }

    #[test]
    fn plugins_are_switched_by_name() {
        let chosen = plugins(&["NodeRestriction", "LimitRanger"], &["PodSecurity", "AlwaysPullImages"]).unwrap();
        assert!(chosen.has("NodeRestriction") && chosen.has("LimitRanger") && !chosen.has("PodSecurity"));
        assert!(!plugins(&[], &[]).unwrap().has("NodeRestriction") && Plugins::default().has("NodeRestriction"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let told = |on: &[&str], off: &[&str]| plugins(on, off).unwrap_err().to_string();
        assert_eq!(told(&["X"], &[]), "enable-admission-plugins plugin \"X\" is unknown");
        assert_eq!(
            told(&["PodSecurity"], &["PodSecurity", "Y"]),
            "[disable-admission-plugins plugin \"Y\" is unknown, [PodSecurity] in enable-admission-plugins and \
             disable-admission-plugins overlapped]"
        );
        assert_eq!(plugins(&[], &["JobValidation"]), Err(PluginError::Always("JobValidation")));
    }
}
