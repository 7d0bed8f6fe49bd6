//! Where pods' control groups lie.

use cgroups::{PodLimits, apply_pod_group};

use crate::config::CgroupDriver;
use crate::context::NodeContext;
use crate::pod::PodView;
use crate::resources::{Qos, pod_limits, qos_of};

const ROOT: &str = "kubepods";

/// The group of a pod in the spelling of the driver, and as a path of folders.
pub(crate) struct PodGroup {
    /// What the runtime is told.
    pub(crate) parent: String,
    /// Folders below the hierarchy's root.
    pub(crate) path: String,
}

/// Names the group that all pods lie in, as a path of folders.
pub(crate) fn pods_group(driver: CgroupDriver, root: &str) -> String {
    match driver {
        CgroupDriver::Cgroupfs => format!("{}/{ROOT}", root.trim_matches('/')).trim_start_matches('/').to_owned(),
        CgroupDriver::Systemd => format!("{ROOT}.slice"),
    }
}

/// Names the group of a pod.
pub(crate) fn pod_group(driver: CgroupDriver, root: &str, qos: Qos, uid: &str) -> PodGroup {
    let class = match qos {
        Qos::Guaranteed => None,
        Qos::Burstable => Some("burstable"),
        Qos::BestEffort => Some("besteffort"),
    };
    match driver {
        CgroupDriver::Cgroupfs => {
            let root = root.trim_matches('/');
            let parts = [Some(root).filter(|r| !r.is_empty()), Some(ROOT), class].into_iter().flatten();
            let path = parts.map(str::to_owned).chain([format!("pod{uid}")]).collect::<Vec<_>>().join("/");
            PodGroup { parent: format!("/{path}"), path }
        }
        CgroupDriver::Systemd => {
            let uid = uid.replace('-', "_");
            let slice = class.map_or_else(|| format!("{ROOT}.slice"), |c| format!("{ROOT}.slice/{ROOT}-{c}.slice"));
            let leaf = class.map_or_else(|| format!("{ROOT}-pod{uid}.slice"), |c| format!("{ROOT}-{c}-pod{uid}.slice"));
            PodGroup { parent: leaf.clone(), path: format!("{slice}/{leaf}") }
        }
    }
}

/// Makes a pod's group with its limits. Returns what the runtime is told; nothing where the node does not sort pods.
pub(crate) fn apply_group(node: &NodeContext, view: &PodView) -> Result<String, cgroups::Error> {
    let Some(hierarchy) = node.hierarchy.as_ref().filter(|_| node.config.cgroups_per_qos) else {
        return Ok(String::new());
    };
    let group = pod_group(node.config.cgroup_driver, &node.config.cgroup_root, qos_of(&view.pod), view.uid());
    apply_pod_group(node.system.as_ref(), hierarchy, &group.path, &pod_limits(view))?;
    Ok(group.parent)
}

/// Changes the limits of a pod's group.
pub(crate) fn set_pod_limits(node: &NodeContext, view: &PodView, limits: &PodLimits) -> Result<(), cgroups::Error> {
    let Some(hierarchy) = node.hierarchy.as_ref().filter(|_| node.config.cgroups_per_qos) else {
        return Ok(());
    };
    let group = pod_group(node.config.cgroup_driver, &node.config.cgroup_root, qos_of(&view.pod), view.uid());
    apply_pod_group(node.system.as_ref(), hierarchy, &group.path, limits).map(drop)
}

/// Makes the groups that all pods lie in.
pub(crate) fn apply_classes(node: &NodeContext, memory: i64, cpu_shares: i64) -> Result<(), cgroups::Error> {
    let Some(hierarchy) = node.hierarchy.as_ref().filter(|_| node.config.cgroups_per_qos) else {
        return Ok(());
    };
    let system = node.system.as_ref();
    let all = PodLimits { cpu_shares, cpu_quota: 0, memory };
    let least = PodLimits { cpu_shares: 2, ..PodLimits::default() };
    for (qos, limits) in [(Qos::Guaranteed, all), (Qos::Burstable, least), (Qos::BestEffort, least)] {
        let group = pod_group(node.config.cgroup_driver, &node.config.cgroup_root, qos, "");
        let class = group.path.rsplit_once('/').map_or("", |(class, _)| class);
        apply_pod_group(system, hierarchy, class, &limits)?;
    }
    Ok(())
}

/// Takes a pod's group away, with whatever was left in it.
pub(crate) fn remove_group(node: &NodeContext, qos: Qos, uid: &str) -> Result<(), cgroups::Error> {
    let Some(hierarchy) = node.hierarchy.as_ref().filter(|_| node.config.cgroups_per_qos) else {
        return Ok(());
    };
    let group = pod_group(node.config.cgroup_driver, &node.config.cgroup_root, qos, uid);
    let group = hierarchy.group(&group.path);
    if group.exists(node.system.as_ref()) {
        group.kill(node.system.as_ref());
        group.remove(node.system.as_ref())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_named_as_the_driver_wants() {
        let name = |driver, qos| {
            let group = pod_group(driver, "/", qos, "a-b");
            (group.parent, group.path)
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            name(CgroupDriver::Cgroupfs, Qos::Burstable),
            pair("/kubepods/burstable/poda-b", "kubepods/burstable/poda-b")
        );
        assert_eq!(name(CgroupDriver::Cgroupfs, Qos::Guaranteed), pair("/kubepods/poda-b", "kubepods/poda-b"));
        assert_eq!(
            name(CgroupDriver::Systemd, Qos::BestEffort),
            pair(
                "kubepods-besteffort-poda_b.slice",
                "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-poda_b.slice"
            )
        );
    }
}
