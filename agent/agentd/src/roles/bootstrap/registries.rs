//! Registries as the runtime reads them: a folder each with the places that its images come from, in order.
//!
//! Users and passwords are not among this: the runtime takes them with each pull.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use manifest::{Login, Manifest, Mirror, MirrorScheme, PemCertificates, RegistryHost, StoreSecret};
use toml::Value;

/// A registry's settings may hold a token.
const MODE: u32 = 0o600;

/// Writes the folders anew.
pub(super) fn write(folder: &Path, manifest: &Manifest) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", folder.display()));
        }
        Ok(()) | Err(_) => {}
    }
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    for registry in registries(manifest) {
        let places = places(manifest, &registry);
        let folder = folder.join(&registry);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        for (number, place) in places.iter().enumerate() {
            if let Some(ca) = place.ca {
                let path = folder.join(ca_file(number));
                pki::write_file(&path, ca.as_str().as_bytes(), MODE).context("writing a registry's CA")?;
            }
        }
        pki::write_file(&folder.join("hosts.toml"), hosts(&places).as_bytes(), MODE)
            .context("writing a registry's settings")?;
    }
    Ok(())
}

/// Those of which more is known than their names.
fn registries(manifest: &Manifest) -> Vec<String> {
    let mut names: Vec<String> = manifest.registries.mirrors.keys().map(ToString::to_string).collect();
    let servers = manifest.outbound.servers.iter();
    let special = servers.filter(|(_, server)| server.ca.is_some() || matches!(server.login, Some(Login::Token(_))));
    names.extend(special.map(|(host, _)| host.to_string()));
    names.sort();
    names.dedup();
    names
}

/// Where a registry's images come from.
struct Place<'a> {
    /// Empty means the registry itself.
    url: String,
    ca: Option<&'a PemCertificates>,
    is_unverified: bool,
    token: Option<&'a StoreSecret>,
}

/// Its mirrors in order, itself last where the manifest allows that.
fn places<'a>(manifest: &'a Manifest, registry: &str) -> Vec<Place<'a>> {
    let mirror = manifest.registries.mirror_of(registry);
    let mut places: Vec<Place<'_>> = mirror.into_iter().flat_map(|mirror| mirrors(manifest, mirror)).collect();
    if mirror.is_none_or(|mirror| mirror.fallback) {
        let is_any = registry == RegistryHost::ANY;
        let url = if is_any { String::new() } else { format!("https://{}", cri::host_of(registry)) };
        let (ca, token) = known(manifest, registry);
        places.push(Place { url, ca, is_unverified: false, token });
    }
    places
}

fn mirrors<'a>(manifest: &'a Manifest, mirror: &'a Mirror) -> impl Iterator<Item = Place<'a>> {
    mirror.endpoints.iter().map(move |endpoint| {
        let (ca, token) = known(manifest, &endpoint.authority);
        // A token goes by TLS only, and to nobody who is not verified.
        let is_proved = endpoint.scheme == MirrorScheme::Https && !mirror.skip_verify;
        Place {
            url: endpoint.to_string(),
            ca: mirror.ca.as_ref().or(ca),
            is_unverified: mirror.skip_verify,
            token: token.filter(|_| is_proved),
        }
    })
}

/// What the manifest knows of a server.
fn known<'a>(manifest: &'a Manifest, host: &str) -> (Option<&'a PemCertificates>, Option<&'a StoreSecret>) {
    let server = manifest.outbound.servers.iter().find(|(known, _)| known.as_str() == host).map(|(_, server)| server);
    let token = server.and_then(|server| match &server.login {
        Some(Login::Token(token)) => token.known(),
        Some(Login::User(..)) | None => None,
    });
    (server.and_then(|server| server.ca.as_ref()), token)
}

fn ca_file(number: usize) -> String {
    format!("ca-{number}.crt")
}

/// The runtime asks the `server` last, and would ask the registry itself if there were none.
fn hosts(places: &[Place<'_>]) -> String {
    let mut text = String::new();
    let Some((last, others)) = places.split_last() else { return text };
    if !last.url.is_empty() {
        // Writing to a string cannot fail, here and below.
        let _infallible = writeln!(text, "server = \"{}\"", last.url);
    }
    describe(&mut text, "", others.len(), last);
    for (number, place) in others.iter().enumerate() {
        let _infallible = writeln!(text, "[host.\"{}\"]", place.url);
        describe(&mut text, &format!("host.\"{}\".", place.url), number, place);
    }
    text
}

fn describe(text: &mut String, above: &str, number: usize, place: &Place<'_>) {
    text.push_str("capabilities = [\"pull\", \"resolve\"]\n");
    if place.ca.is_some() {
        let _infallible = writeln!(text, "ca = \"{}\"", ca_file(number));
    }
    if place.is_unverified {
        text.push_str("skip_verify = true\n");
    }
    if let Some(token) = place.token {
        let value = Value::String(format!("Bearer {}", token.as_str()));
        let _infallible = writeln!(text, "[{above}header]\nAuthorization = {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = r#"
version = 1
[machine]
hostname = "m1"
role = "single"
[registries.mirrors."r.example.com"]
endpoints = ["https://mirror.example.com/v2/r", "http://plain.example.com"]
[registries.mirrors."docker.io"]
endpoints = ["https://a.example.com", "https://mirror.example.com"]
fallback = false
[registries.mirrors._default]
endpoints = ["https://unproved.example.com"]
skip-verify = true
[outbound.servers."mirror.example.com"]
bearer-token = 'a"b\c'
ca = """
-----BEGIN CERTIFICATE-----
MIIB
-----END CERTIFICATE-----
"""
[outbound.servers."plain.example.com"]
bearer-token = "plain"
[outbound.servers."unproved.example.com"]
bearer-token = "unproved"
[outbound.servers."user.example.com"]
username = "u"
password = "p"
"#;

    const EXPECTED: &[(&str, &str)] = &[
        (
            "r.example.com",
            r#"server = "https://r.example.com"
capabilities = ["pull", "resolve"]
[host."https://mirror.example.com/v2/r"]
capabilities = ["pull", "resolve"]
ca = "ca-0.crt"
[host."https://mirror.example.com/v2/r".header]
Authorization = 'Bearer a"b\c'
[host."http://plain.example.com"]
capabilities = ["pull", "resolve"]
"#,
        ),
        (
            "docker.io",
            r#"server = "https://mirror.example.com"
capabilities = ["pull", "resolve"]
ca = "ca-1.crt"
[header]
Authorization = 'Bearer a"b\c'
[host."https://a.example.com"]
capabilities = ["pull", "resolve"]
"#,
        ),
        (
            "_default",
            r#"capabilities = ["pull", "resolve"]
[host."https://unproved.example.com"]
capabilities = ["pull", "resolve"]
skip_verify = true
"#,
        ),
        (
            "mirror.example.com",
            r#"server = "https://mirror.example.com"
capabilities = ["pull", "resolve"]
ca = "ca-1.crt"
[header]
Authorization = 'Bearer a"b\c'
[host."https://unproved.example.com"]
capabilities = ["pull", "resolve"]
skip_verify = true
"#,
        ),
    ];

    #[test]
    fn the_runtime_asks_whom_the_manifest_names_and_nobody_else() {
        let manifest = manifest::parse("m.toml", WORDS).unwrap_or_else(|error| panic!("{error}"));
        let folder = tempfile::tempdir().unwrap();
        let certs = folder.path().join("certs.d");
        fs::create_dir_all(certs.join("gone.example.com")).unwrap();
        write(&certs, &manifest).unwrap();
        for (registry, expected) in EXPECTED {
            let text = fs::read_to_string(certs.join(registry).join("hosts.toml")).unwrap();
            assert_eq!(&text, expected, "{registry}");
        }
        assert!(fs::read_to_string(certs.join("docker.io/ca-1.crt")).unwrap().contains("MIIB"));
        assert!(!certs.join("gone.example.com").exists(), "what the manifest names no more is gone");
        assert!(!certs.join("user.example.com").exists(), "users are told with each pull");
    }
}
