//! What a container sees mounted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cri::v1;

use crate::context::NodeContext;
use crate::dns::{host_and_domain, host_network_hosts_file, hosts_file};
use crate::expand::expand_strict;
use crate::pod::{PodContainer, PodView};
use crate::runtime_config::DEFAULT_MESSAGE_PATH;
use crate::volumes::subpath::bind_sub_path;

const ETC_HOSTS: &str = "/etc/hosts";

/// What mounts are made from.
pub(crate) struct MountInput<'a> {
    pub(crate) node: &'a NodeContext,
    pub(crate) view: &'a PodView,
    pub(crate) container: &'a PodContainer,
    pub(crate) volumes: &'a BTreeMap<String, PathBuf>,
    pub(crate) environment: &'a [(String, String)],
    pub(crate) pod_ips: &'a [String],
    pub(crate) restarts: u32,
}

/// The container's mounts, made ready on the node; or why they cannot be.
pub(crate) fn container_mounts(input: &MountInput<'_>) -> Result<Vec<v1::Mount>, String> {
    let mut mounts = Vec::new();
    let spec = &input.container.spec;
    for (index, mount) in spec.volume_mounts.iter().enumerate() {
        mounts.push(volume_mount(input, index, mount)?);
    }
    if !spec.volume_mounts.iter().any(|m| m.mount_path == ETC_HOSTS) {
        let path = write_hosts(input).map_err(|error| format!("failed to write the pod's hosts file: {error}"))?;
        mounts.push(v1::Mount {
            container_path: ETC_HOSTS.to_owned(),
            host_path: path.to_string_lossy().into_owned(),
            ..v1::Mount::default()
        });
    }
    let message = match spec.termination_message_path.as_str() {
        "" => DEFAULT_MESSAGE_PATH,
        path => path,
    };
    let file = make_message_file(input).map_err(|error| format!("failed to make the termination log: {error}"))?;
    mounts.push(v1::Mount {
        container_path: message.to_owned(),
        host_path: file.to_string_lossy().into_owned(),
        ..v1::Mount::default()
    });
    Ok(mounts)
}

fn volume_mount(input: &MountInput<'_>, index: usize, mount: &api::core::v1::VolumeMount) -> Result<v1::Mount, String> {
    let volume = input.view.spec().volumes.iter().find(|v| v.name == mount.name);
    let volume = volume.ok_or_else(|| format!("volume {:?} is not in the pod", mount.name))?;
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
        _ => v1::MountPropagation::PropagationPrivate,
    };
    let container_path =
        if mount.mount_path.starts_with('/') { mount.mount_path.clone() } else { format!("/{}", mount.mount_path) };
    let mut result = v1::Mount {
        container_path,
        readonly: mount.read_only,
        propagation: propagation.into(),
        ..v1::Mount::default()
    };
    if let Some(image) = &volume.volume_source.image {
        result.readonly = true;
        result.image = Some(v1::ImageSpec {
            image: image.reference.clone(),
            user_specified_image: image.reference.clone(),
            ..v1::ImageSpec::default()
        });
        return Ok(result);
    }
    let host = input.volumes.get(&mount.name).ok_or_else(|| format!("volume {:?} is not mounted", mount.name))?;
    let host = match sub_path(input, mount)? {
        Some(sub) => bind(input, index, mount, host, &sub)?,
        None => host.clone(),
    };
    if !host.exists() {
        // Upstream lets the runtime make a missing hostPath; a folder is what it makes.
        fs::create_dir_all(&host).map_err(|error| format!("failed to make {}: {error}", host.display()))?;
    }
    result.host_path = host.to_string_lossy().into_owned();
    Ok(result)
}

fn sub_path(input: &MountInput<'_>, mount: &api::core::v1::VolumeMount) -> Result<Option<String>, String> {
    if !mount.sub_path.is_empty() {
        return Ok(Some(mount.sub_path.clone()));
    }
    if mount.sub_path_expr.is_empty() {
        return Ok(None);
    }
    let lookup = |name: &str| input.environment.iter().find(|(known, _)| known == name).map(|(_, v)| v.clone());
    let sub = expand_strict(&mount.sub_path_expr, &lookup)
        .map_err(|_unknown| format!("missing value for \"{}\"", mount.sub_path_expr))?;
    if sub.starts_with('/') {
        return Err(format!("error SubPath `{sub}` must not be an absolute path"));
    }
    if sub.split('/').any(|part| part == "..") {
        return Err(format!("unable to provision SubPath `{sub}`: must not contain '..'"));
    }
    Ok(Some(sub))
}

fn bind(
    input: &MountInput<'_>,
    index: usize,
    mount: &api::core::v1::VolumeMount,
    volume: &Path,
    sub: &str,
) -> Result<PathBuf, String> {
    let base = input.node.pod_dir(input.view.uid()).join("volume-subpaths").join(&mount.name);
    // One per start: what an earlier container had mounted must not change under it.
    let target = base.join(input.container.name()).join(format!("{index}-{}", input.restarts));
    let target = if target.exists() { base.join(input.container.name()).join(unique(index)) } else { target };
    bind_sub_path(input.node.system.as_ref(), volume, sub, &target).map_err(|error| {
        let why = stdx::chain(&error);
        format!(
            "failed to prepare subPath for volumeMount \"{}\" of container \"{}\": {why}",
            mount.name,
            input.container.name()
        )
    })
}

fn unique(index: usize) -> String {
    format!("{index}-{:08x}", rand::random::<u32>())
}

fn write_hosts(input: &MountInput<'_>) -> io::Result<PathBuf> {
    let spec = input.view.spec();
    let text = if spec.host_network {
        let own = fs::read_to_string(ETC_HOSTS).unwrap_or_default();
        host_network_hosts_file(&own, &spec.host_aliases)
    } else {
        let (host, domain) = host_and_domain(input.view, &input.node.config.cluster_domain);
        hosts_file(input.pod_ips, &host, &domain, &spec.host_aliases)
    };
    let dir = input.node.pod_dir(input.view.uid());
    fs::create_dir_all(&dir)?;
    let path = dir.join("etc-hosts");
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    Ok(path)
}

fn make_message_file(input: &MountInput<'_>) -> io::Result<PathBuf> {
    let dir = input.node.pod_dir(input.view.uid()).join("containers").join(input.container.name());
    fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{:08x}", rand::random::<u32>()));
    fs::File::create(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    Ok(path)
}
