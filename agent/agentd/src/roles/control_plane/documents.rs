//! Documents of the manifest: `keelson bootstrap` writes them as files, from which the API server reads them.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use audit::{Batch, Format, LogConfig, Mode, Throttle, WebhookConfig};
use manifest::{Audit, Manifest, Secret, Unknown};

/// Documents hold keys: nobody else reads them.
const MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

const AUDIT_POLICY: &str = "audit-policy.yaml";
const AUDIT_WEBHOOK: &str = "audit-webhook.kubeconfig";
const ENCRYPTION: &str = "encryption.yaml";
const AUTHENTICATION: &str = "authentication.yaml";
const AUTHORIZATION: &str = "authorization.yaml";
/// Folder of the files that the documents refer to.
const FILES: &str = "files";

/// Events go to a webhook as upstream sends them unless its flags say otherwise.
const WEBHOOK_BATCH: Batch = Batch {
    buffer: 10_000,
    max_size: 400,
    max_wait: Duration::from_secs(30),
    throttle: Some(Throttle { per_second: 10.0, burst: 15 }),
};
const WEBHOOK_BACKOFF: Duration = Duration::from_secs(10);

/// Writes what the manifest has, and removes what an earlier one had.
pub(crate) fn write(folder: &Path, manifest: &Manifest) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", folder.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let made = fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder);
    made.with_context(|| format!("making {}", folder.display()))?;
    for (name, text) in texts(manifest) {
        let path = folder.join(name);
        pki::write_file(&path, text.as_bytes(), MODE).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Whether all is there that the API server is to read: it does not do without the encryption, or a log, that it was
/// told of.
pub(super) fn check(manifest: &Manifest) -> Result<(), Unknown> {
    let control_plane = &manifest.control_plane;
    control_plane.encryption.as_ref().map(Secret::get).transpose()?;
    control_plane.audit.as_ref().and_then(|audit| audit.webhook.as_ref()).map(Secret::get).transpose()?;
    control_plane.files.iter().try_for_each(|file| file.content.get().map(drop))
}

/// Every file by its name, and what is in it, as far as it is known.
fn texts(manifest: &Manifest) -> Vec<(PathBuf, &str)> {
    let control_plane = &manifest.control_plane;
    let audit = control_plane.audit.as_ref();
    let documents = [
        (AUDIT_POLICY, audit.map(|audit| audit.policy.as_str())),
        (AUDIT_WEBHOOK, audit.and_then(|audit| audit.webhook.as_ref()?.known()).map(|webhook| webhook.as_str())),
        (ENCRYPTION, control_plane.encryption.as_ref().and_then(Secret::known).map(|document| document.as_str())),
        (AUTHENTICATION, control_plane.authentication.as_ref().map(|document| document.as_str())),
        (AUTHORIZATION, control_plane.authorization.as_ref().map(|document| document.as_str())),
    ];
    let files = control_plane.files.iter();
    let files =
        files.filter_map(|file| Some((Path::new(FILES).join(file.name.as_str()), file.content.known()?.as_str())));
    documents.into_iter().filter_map(|(name, text)| Some((name.into(), text?))).chain(files).collect()
}

/// Points the API server to the files that are there.
pub(super) fn apply(folder: &Path, manifest: &Manifest, config: &mut apiserver::Config) {
    let control_plane = &manifest.control_plane;
    config.audit = control_plane.audit.as_ref().map(|audit| audit_config(folder, audit));
    config.authentication = control_plane.authentication.as_ref().map(|_| folder.join(AUTHENTICATION));
    if control_plane.authorization.is_some() {
        config.authorization = apiserver::Authorization::File(folder.join(AUTHORIZATION));
    }
}

/// The file that says what is encrypted.
pub(super) fn encryption(folder: &Path, manifest: &Manifest) -> Option<PathBuf> {
    manifest.control_plane.encryption.as_ref().map(|_| folder.join(ENCRYPTION))
}

fn audit_config(folder: &Path, audit: &Audit) -> audit::Config {
    let log = audit.log.as_ref().map(|log| LogConfig {
        path: log.path.as_str().into(),
        format: Format::Json,
        max_bytes: log.max_size.bytes(),
        max_age: log.max_age.map(|age| age.duration()),
        max_backups: usize::try_from(log.max_files).unwrap_or(usize::MAX),
        compress: log.compress,
    });
    let webhook = audit
        .webhook
        .as_ref()
        .map(|_| WebhookConfig { kubeconfig: folder.join(AUDIT_WEBHOOK), initial_backoff: WEBHOOK_BACKOFF });
    audit::Config {
        policy: folder.join(AUDIT_POLICY),
        log: log.map(|log| (log, Mode::Blocking, None)),
        webhook: webhook.map(|webhook| (webhook, Mode::Batch(WEBHOOK_BATCH), None)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const EXAMPLE: &str = include_str!("../../../../../configs/audited.toml");

    #[test]
    fn an_api_server_does_not_run_without_a_document_that_was_not_found() {
        let manifest = manifest::parse("audited.toml", EXAMPLE).unwrap();
        check(&manifest).unwrap();
        let head = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n[control-plane]\n";
        let elsewhere = "{ file = \"/state/secrets/x\" }";
        for key in [format!("encryption = {elsewhere}"), format!("files = [{{ name = \"a\", content = {elsewhere} }}]")]
        {
            let manifest = manifest::parse("m.toml", &format!("{head}{key}\n")).unwrap();
            assert!(check(&manifest).unwrap_err().to_string().starts_with("`control-plane."));
            let folder = tempfile::tempdir().unwrap();
            write(&folder.path().join("apiserver"), &manifest).unwrap();
        }
    }

    #[test]
    fn documents_become_files_that_nobody_else_reads() {
        let manifest = manifest::parse("audited.toml", EXAMPLE).unwrap();
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join("apiserver");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("stale"), "of an earlier manifest").unwrap();
        write(&folder, &manifest).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), FOLDER_MODE);
        let mut names = Vec::new();
        for name in texts(&manifest).into_iter().map(|(name, _)| name) {
            assert_eq!(mode(&folder.join(&name)), MODE, "{}", name.display());
            names.push(name.display().to_string());
        }
        let all = [AUDIT_POLICY, AUDIT_WEBHOOK, ENCRYPTION, AUTHENTICATION, AUTHORIZATION, "files/audit-ca.crt"];
        assert_eq!(names, all);
        assert!(!folder.join("stale").exists());
        // What is written is what the parts read.
        let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        encryption::Configuration::parse(&text(ENCRYPTION)).unwrap();
        let mut config = apiserver::Config::default();
        apply(&folder, &manifest, &mut config);
        let audit = config.audit.unwrap();
        assert_eq!(audit.log.as_ref().unwrap().0.max_backups, 5);
        assert!(audit.webhook.is_some() && audit.policy.exists());
        assert_eq!(config.authorization, apiserver::Authorization::File(folder.join(AUTHORIZATION)));
        assert!(config.authentication.unwrap().exists());
        assert!(super::encryption(&folder, &manifest).unwrap().exists());
    }

    #[test]
    fn without_documents_nothing_is_set() {
        let text = "version = 1\nmachine = { hostname = \"a\", role = \"single\" }\n";
        let manifest = manifest::parse("m.toml", text).unwrap();
        assert!(texts(&manifest).is_empty());
        let mut config = apiserver::Config::default();
        apply(Path::new("/none"), &manifest, &mut config);
        assert_eq!((config.audit, config.authentication), (None, None));
        assert_eq!(super::encryption(Path::new("/none"), &manifest), None);
    }
}
