//! Which versions of Kubernetes go together in one cluster, by upstream's skew policy: API servers are at most one minor
//! version apart, and a kubelet is as new as its API server or at most three minor versions older.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How far API servers of one cluster may be apart.
const SERVERS_APART: u32 = 1;
/// How much older than its API server a kubelet may be.
const KUBELET_OLDER: u32 = 3;

/// A version of Kubernetes, without its patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Kubernetes {
    major: u32,
    minor: u32,
}

/// A text is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version of Kubernetes, such as 1.36")]
pub struct NoVersion(String);

impl Kubernetes {
    /// What this system's API server and kubelet are.
    pub const OWN: Self = Self { major: 1, minor: 36 };
    /// Of updates that say nothing about it.
    pub(crate) const FIRST: Self = Self { major: 1, minor: 36 };

    /// So many minor versions newer.
    #[must_use]
    pub const fn newer_by(self, minors: u32) -> Self {
        Self { minor: self.minor + minors, ..self }
    }

    fn is_near(self, other: Self, minors: u32) -> bool {
        self.major == other.major && self.minor.abs_diff(other.minor) <= minors
    }

    /// What is wrong with a kubelet of this version at an API server of that one.
    fn as_kubelet_of(self, server: Self) -> Option<&'static str> {
        match self {
            _ if self > server => Some("a kubelet must not be newer than its API server"),
            _ if !self.is_near(server, KUBELET_OLDER) => {
                Some("a kubelet is at most three minor versions older than its API server")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Kubernetes {
    type Err = NoVersion;

    /// Also what API servers and kubelets say of themselves, such as `v1.36.3+keelson`.
    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let mut parts = text.strip_prefix('v').unwrap_or(text).split(['.', '-', '+']).map(str::parse);
        match (parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(Self { major, minor }),
            _ => Err(NoVersion(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Kubernetes {
    type Error = NoVersion;
    fn try_from(text: String) -> Result<Self, NoVersion> {
        text.parse()
    }
}

impl From<Kubernetes> for String {
    fn from(version: Kubernetes) -> Self {
        version.to_string()
    }
}

/// Somebody in a cluster, by name, and what runs there.
pub type Runs = (String, Kubernetes);

/// What a machine has around it, as far as it was to be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Around {
    /// Nobody whom a version matters to.
    Nobody,
    /// A worker, with the API server that it asks.
    Worker {
        /// That.
        server: Runs,
    },
    /// A master.
    Master {
        /// All masters, itself among them.
        servers: Vec<Runs>,
        /// The kubelets of all other machines.
        kubelets: Vec<Runs>,
    },
    /// It could not be found out, and why.
    Unknown(String),
}

/// Why a system's Kubernetes does not go with the cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkewError {
    /// Somebody is too old for it.
    #[error("it brings Kubernetes {version}, and {name} runs {found}: {why}; {helps} first")]
    TooNew {
        /// What it brings.
        version: Kubernetes,
        /// Who is in the way.
        name: String,
        /// What runs there.
        found: Kubernetes,
        /// The rule.
        why: &'static str,
        /// What is to be done before.
        helps: String,
    },
    /// Somebody is too new for it.
    #[error("it brings Kubernetes {version}, and {name} runs {found}: {why}; take a newer update")]
    TooOld {
        /// What it brings.
        version: Kubernetes,
        /// Who is in the way.
        name: String,
        /// What runs there.
        found: Kubernetes,
        /// The rule.
        why: &'static str,
    },
    /// Nobody knows.
    #[error(
        "it brings Kubernetes {version}, this machine runs {own}, and whether the cluster goes with that was not to be \
         found out: {why}; see that the API server answers, or take it with --any-kubernetes"
    )]
    Unknown {
        /// What it brings.
        version: Kubernetes,
        /// What runs.
        own: Kubernetes,
        /// Why.
        why: String,
    },
}

impl Around {
    /// Whether the cluster goes with a machine of this version. What runs here goes with it in any case: it does so now.
    ///
    /// # Errors
    /// Who is in the way, and what helps.
    pub fn check(&self, version: Kubernetes) -> Result<(), SkewError> {
        self.check_beside(version, Kubernetes::OWN)
    }

    fn check_beside(&self, version: Kubernetes, own: Kubernetes) -> Result<(), SkewError> {
        let apart = "API servers are at most one minor version apart";
        let wrong = match self {
            _ if version == own => None,
            Self::Nobody => None,
            Self::Unknown(why) => return Err(SkewError::Unknown { version, own, why: why.clone() }),
            Self::Worker { server } => version.as_kubelet_of(server.1).map(|why| (server, why)),
            Self::Master { servers, kubelets } => {
                let far = servers.iter().find(|(_, other)| !version.is_near(*other, SERVERS_APART));
                let of_kubelets = kubelets.iter().find_map(|it| Some((it, it.1.as_kubelet_of(version)?)));
                far.map(|it| (it, apart)).or(of_kubelets)
            }
        };
        let Some(((name, found), why)) = wrong else { return Ok(()) };
        let (name, found) = (name.clone(), *found);
        // Masters that run what this one runs get on together, a step at a time.
        let is_own_step = matches!(self, Self::Master { .. }) && found == own;
        Err(if found < version {
            let helps = if is_own_step {
                format!("take an update with Kubernetes {}", found.newer_by(1))
            } else {
                format!("update {name}")
            };
            SkewError::TooNew { version, name, found, why, helps }
        } else {
            SkewError::TooOld { version, name, found, why }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minor(minor: u32) -> Kubernetes {
        Kubernetes { major: 1, minor }
    }

    fn told(around: &Around, version: u32) -> String {
        let checked = around.check_beside(minor(version), minor(36));
        checked.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn versions_are_read_as_everybody_writes_them() {
        for text in ["1.36", "v1.36.3", "v1.36.3+keelson", "1.36-rc.1"] {
            assert_eq!(text.parse(), Ok(minor(36)), "{text}");
        }
        for text in ["", "v1", "1.x", "one.two", "-1.3"] {
            assert!(text.parse::<Kubernetes>().is_err(), "{text}");
        }
        assert!(minor(9) < minor(10) && Kubernetes { major: 2, minor: 0 } > minor(99));
    }

    #[test]
    fn a_worker_is_not_newer_than_its_api_server_nor_much_older() {
        let worker = |server| Around::Worker { server: ("m1".to_owned(), minor(server)) };
        for (server, version, wanted) in [
            (37, 37, ""),
            (37, 34, ""),
            (39, 36, ""),
            (36, 37, "a kubelet must not be newer than its API server; update m1 first"),
            (38, 34, "a kubelet is at most three minor versions older than its API server; take a newer update"),
        ] {
            let told = told(&worker(server), version);
            assert!(if wanted.is_empty() { told.is_empty() } else { told.ends_with(wanted) }, "{told}");
        }
    }

    #[test]
    fn a_master_goes_with_the_other_masters_and_with_every_kubelet() {
        let named =
            |versions: &[u32]| -> Vec<Runs> { versions.iter().map(|it| (format!("m-{it}"), minor(*it))).collect() };
        let master =
            |servers: &[u32], kubelets: &[u32]| Around::Master { servers: named(servers), kubelets: named(kubelets) };
        for (around, version, wanted) in [
            (master(&[36, 36, 37], &[36]), 37, ""),
            (master(&[36], &[34, 35]), 37, ""),
            (master(&[36, 36], &[]), 38, "m-36 runs 1.36: API servers are at most one minor version apart"),
            (master(&[37, 36], &[]), 35, "m-37 runs 1.37: API servers are at most one minor version apart"),
            (master(&[36], &[36, 33]), 37, "m-33 runs 1.33: a kubelet is at most three minor versions older"),
            (master(&[36], &[36]), 35, "m-36 runs 1.36: a kubelet must not be newer than its API server"),
        ] {
            let told = told(&around, version);
            assert!(if wanted.is_empty() { told.is_empty() } else { told.contains(wanted) }, "{version}: {told}");
        }
        assert!(told(&master(&[36], &[36, 33]), 37).ends_with("update m-33 first"));
        // Nobody has to update a machine before that machine.
        assert!(told(&master(&[36], &[]), 38).ends_with("take an update with Kubernetes 1.37 first"));
        assert!(told(&master(&[36, 35], &[]), 37).ends_with("update m-35 first"));
    }

    #[test]
    fn what_is_not_known_matters_for_another_version_only() {
        let unknown = Around::Unknown("no answer".to_owned());
        assert_eq!(told(&unknown, 36), "");
        assert!(
            told(&unknown, 37)
                .ends_with("no answer; see that the API server answers, or take it with --any-kubernetes")
        );
        assert_eq!(told(&Around::Nobody, 99), "");
        // What runs goes with what it runs with.
        assert_eq!(told(&Around::Worker { server: ("m1".to_owned(), minor(20)) }, 36), "");
    }
}
