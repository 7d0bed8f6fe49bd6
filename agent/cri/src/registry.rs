//! What registries are called, in images' names and where they are served.

/// The registry that names of images without one mean.
pub const HUB: &str = "docker.io";
/// What that one is called where it is served.
pub const HUB_HOST: &str = "registry-1.docker.io";

/// The registry that an image's name means.
#[must_use]
pub fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => HUB,
    }
}

/// The host, perhaps with a port, that serves a registry.
#[must_use]
pub fn host_of(registry: &str) -> &str {
    if registry == HUB { HUB_HOST } else { registry }
}
