//! What the binary tells PID 1.

use std::path::PathBuf;

use manifest::Manifest;
use supervisor::ServiceSpec;

use crate::environment::Environment;

/// Turns a manifest, or its absence, into services.
pub type ServicesOf = Box<dyn Fn(Option<&Manifest>, Environment) -> Vec<ServiceSpec>>;

/// What the binary tells PID 1.
pub struct Config {
    /// Where it runs; `None` finds out.
    pub environment: Option<Environment>,
    /// A manifest that comes before every other source.
    pub manifest: Option<PathBuf>,
    /// Which services to keep; without a manifest, those that help to get one.
    pub services: ServicesOf,
    /// The program that tests the network for whoever types at the console, and its first words; what is tested comes
    /// behind, the name of the test first. Its output is the answer.
    pub network_test: Vec<String>,
    /// The program, with its words, that writes what helps to find out what is wrong to a stick. Its output is the answer.
    pub support: Vec<String>,
    /// Whether every line of every service goes to the console, too.
    pub is_verbose: bool,
    /// Where things are.
    pub paths: Paths,
}

/// Folders and files with a fixed meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// What is written anew at each boot: the manifest in force, host name, status.
    pub run: PathBuf,
    /// What must survive: the last good manifest, keys.
    pub state: PathBuf,
    /// The services' logs.
    pub logs: PathBuf,
    /// The manifest in the image.
    pub embedded: PathBuf,
    /// Kernel modules to load, one name a line, in order.
    pub modules: PathBuf,
    /// The key that extensions must be signed with, if they must.
    pub update_key: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            run: "/run/keelson".into(),
            state: "/state".into(),
            logs: "/var/log/keelson".into(),
            embedded: "/usr/share/keelson/manifest.toml".into(),
            modules: "/usr/lib/keelson/modules.list".into(),
            update_key: "/usr/share/keelson/update.key".into(),
        }
    }
}

impl Paths {
    /// Where services send their messages.
    #[must_use]
    pub fn notify_socket(&self) -> PathBuf {
        self.run.join("notify")
    }

    /// The manifest in force.
    #[must_use]
    pub fn manifest(&self) -> PathBuf {
        self.run.join("manifest.toml")
    }

    /// A manifest whose network counts before that of the one in force, such as one that was set at the console.
    #[must_use]
    pub fn mended(&self) -> PathBuf {
        self.run.join("mended.toml")
    }

    /// The manifest that worked last.
    #[must_use]
    pub fn last_good(&self) -> PathBuf {
        self.state.join("manifest.toml")
    }

    /// The address that names the manifest, for whoever has the network to fetch it.
    #[must_use]
    pub fn manifest_url(&self) -> PathBuf {
        self.run.join("manifest-url")
    }

    /// What was fetched from there: in this start, and before. The address is the first line.
    #[must_use]
    pub fn fetched(&self) -> [PathBuf; 2] {
        [&self.run, &self.state].map(|folder| folder.join("manifest.fetched"))
    }

    /// What the sources of manifests held when a newer one was taken in.
    #[must_use]
    pub fn superseded(&self) -> PathBuf {
        self.state.join("manifest.superseded")
    }

    /// What became of the last update.
    #[must_use]
    pub fn update(&self) -> PathBuf {
        self.state.join("update.json")
    }

    /// How the last starts went.
    #[must_use]
    pub fn boots(&self) -> PathBuf {
        self.state.join("boots.json")
    }

    /// The extensions that were added to the machine on their own.
    #[must_use]
    pub fn extensions(&self) -> PathBuf {
        self.state.join("extensions")
    }

    /// Which volumes for pods the machine has had.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.state.join(install::volume::Made::FILE)
    }

    /// What pods get to end, in milliseconds, for whoever ends them: there once the machine goes down.
    #[must_use]
    pub fn ending(&self) -> PathBuf {
        self.run.join("ending")
    }

    /// The kernel's last lines before the last crash.
    #[must_use]
    pub fn crash(&self) -> PathBuf {
        self.state.join("crash.log")
    }

    /// Where services tell what the machine lacks: a file each, whose text says it; none or an empty one if it lacks
    /// nothing. What a file tells whose name ends in `.concern` does not keep it from being ready.
    #[must_use]
    pub fn conditions(&self) -> PathBuf {
        self.run.join("conditions")
    }

    /// Where it is written down which keys the network is to give, for whoever has the network.
    #[must_use]
    pub fn network_keys(&self) -> PathBuf {
        self.run.join("network-keys")
    }

    /// Where others put files for PID 1, written elsewhere and moved here: `reboot` or `shutdown` with the reason,
    /// behind `grace=SECONDS` and a new line if pods are to get so long;
    /// `restart` with the names of services, one a line; `manifest.toml`; `manifest.try`, a manifest behind a line with
    /// the seconds that it is tried for, and `keep` if it is to stay; `say-…` with an event of the machine API as JSON, or a text;
    /// `partitions` with the name of a disk that has others now, none of them in use;
    /// `secrets` if files with secrets have changed; `unlock` with a passphrase or a recovery key of the disk; `network-keys` with what servers gave.
    #[must_use]
    pub fn inbox(&self) -> PathBuf {
        self.run.join("inbox")
    }
}
