//! Which pod has which address: one small file per attachment, in a folder that does not outlive a boot.
//!
//! The files are the only truth; everything is done under a lock on the folder, by whatever process. An address is
//! handed out again as late as possible.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::hostport::HostPort;

/// Addresses looked at in a range before giving up. More than a node can have pods, and a bound for IPv6 ranges.
const CANDIDATES: usize = 1 << 16;
/// Addresses at the start of a range that pods do not get: the network's own and one for a gateway.
const RESERVED: u128 = 2;

/// What one attachment of a pod holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The sandbox's id, given by the container runtime.
    pub container: String,
    /// The link's name inside the pod.
    pub interface: String,
    /// The pod's network namespace.
    pub namespace: PathBuf,
    /// At most one per family.
    pub addresses: Vec<IpAddr>,
    /// Ports of the node that lead to the pod.
    #[serde(default)]
    pub ports: Vec<HostPort>,
}

/// Why leases could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// A file operation failed.
    #[error("cannot {step} {path}")]
    File {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A lease's file is not one.
    #[error("{path} is no lease")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: serde_json::Error,
    },
    /// Every address of a range is taken.
    #[error("no free address in pod range {range}")]
    Exhausted {
        /// The range.
        range: IpNet,
    },
}

/// The folder of leases, locked against everybody else.
pub struct Leases {
    folder: PathBuf,
    _lock: Flock<File>,
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LeaseError {
    let path = path.to_owned();
    move |source| LeaseError::File { step, path, source }
}

impl Leases {
    /// Opens a folder, making it if need be, and waits for its lock. Holders keep it for milliseconds.
    pub fn lock(folder: &Path) -> Result<Self, LeaseError> {
        fs::create_dir_all(folder).map_err(failed("make folder", folder))?;
        let path = folder.join("lock");
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(failed("open", &path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_file, errno)| failed("lock", &path)(io::Error::from(errno)))?;
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    /// All leases.
    pub fn list(&self) -> Result<Vec<Lease>, LeaseError> {
        let mut leases = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed("read folder", &self.folder))? {
            let path = entry.map_err(failed("read folder", &self.folder))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                leases.extend(read(&path)?);
            }
        }
        leases.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        Ok(leases)
    }

    /// The lease of an attachment.
    pub fn get(&self, container: &str, interface: &str) -> Result<Option<Lease>, LeaseError> {
        read(&self.path(container, interface))
    }

    /// Hands out one address of every range. An attachment that has a lease gets a new one in its place.
    pub fn allocate(&self, wish: Lease, ranges: &[IpNet]) -> Result<Lease, LeaseError> {
        self.release(&wish.container, &wish.interface)?;
        let leases = self.list()?;
        let taken: BTreeSet<IpAddr> = leases.iter().flat_map(|lease| lease.addresses.iter().copied()).collect();
        let mut lease = wish;
        lease.addresses = Vec::with_capacity(ranges.len());
        for range in ranges {
            let mark = self.folder.join(if range.addr().is_ipv4() { "last4" } else { "last6" });
            let last = fs::read_to_string(&mark).ok().and_then(|text| text.trim().parse().ok());
            let address = next_free(*range, last, &taken).ok_or(LeaseError::Exhausted { range: *range })?;
            write(&mark, address.to_string().as_bytes())?;
            lease.addresses.push(address);
        }
        let path = self.path(&lease.container, &lease.interface);
        let text = serde_json::to_vec(&lease).map_err(|source| LeaseError::Broken { path: path.clone(), source })?;
        write(&path, &text)?;
        Ok(lease)
    }

    /// Takes a lease back. Returns what it was.
    pub fn release(&self, container: &str, interface: &str) -> Result<Option<Lease>, LeaseError> {
        let path = self.path(container, interface);
        let lease = read(&path)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", &path)(error)),
            Ok(()) | Err(_) => Ok(lease),
        }
    }

    /// Takes back the leases for which `keep` is false. Returns them.
    pub fn retain(&self, keep: impl Fn(&Lease) -> bool) -> Result<Vec<Lease>, LeaseError> {
        let mut gone = self.list()?;
        gone.retain(|lease| !keep(lease));
        for lease in &gone {
            self.release(&lease.container, &lease.interface)?;
        }
        Ok(gone)
    }

    fn path(&self, container: &str, interface: &str) -> PathBuf {
        self.folder.join(format!("{container}-{interface}.json"))
    }
}

impl Lease {
    /// Whether its pod's network namespace is still there. After a crash or an unclean stop it may not be.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.namespace.exists()
    }
}

fn read(path: &Path) -> Result<Option<Lease>, LeaseError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|source| LeaseError::Broken { path: path.to_owned(), source })
}

/// Writes a file so that a reader finds the old or the new contents, never half of them.
pub(crate) fn write(path: &Path, contents: &[u8]) -> Result<(), LeaseError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    fs::write(&new, contents).map_err(failed("write", &new))?;
    fs::rename(&new, path).map_err(failed("put in place", path))
}

/// The first free address after `last`, going around at the end of the range.
fn next_free(range: IpNet, last: Option<IpAddr>, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let start = number(range.network());
    // IPv4 keeps its last address for broadcasts.
    let end = number(range.broadcast()).checked_sub(u128::from(range.addr().is_ipv4()))?;
    let first = start.checked_add(RESERVED)?;
    let count = end.checked_sub(first)?.checked_add(1)?;
    let after = match last {
        Some(last) if range.contains(&last) => number(last).saturating_add(1).saturating_sub(first),
        Some(_) | None => 0,
    };
    let candidates = (0..count).take(CANDIDATES).map(|step| first + (after + step) % count);
    candidates.map(|candidate| address(range, candidate)).find(|candidate| !taken.contains(candidate))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(like: IpNet, number: u128) -> IpAddr {
    match like {
        // Numbers of an IPv4 range fit into 32 bits.
        IpNet::V4(net) => IpAddr::V4(u32::try_from(number).map_or(net.network(), Into::into)),
        IpNet::V6(_) => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(container: &str) -> Lease {
        Lease {
            container: container.to_owned(),
            interface: "eth0".to_owned(),
            namespace: PathBuf::from("/proc/self/ns/net"),
            addresses: Vec::new(),
            ports: Vec::new(),
        }
    }

    #[test]
    fn every_address_is_handed_out_once_and_a_freed_one_as_late_as_possible() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::lock(folder.path()).unwrap();
        let ranges: Vec<IpNet> = vec!["10.244.1.0/29".parse().unwrap(), "fd00:1::/120".parse().unwrap()];
        let mut seen = Vec::new();
        for number in 0..5 {
            let lease = leases.allocate(wish(&format!("c{number}")), &ranges).unwrap();
            seen.push(lease.addresses[0].to_string());
            assert!(ranges[1].contains(&lease.addresses[1]));
        }
        assert_eq!(seen, ["10.244.1.2", "10.244.1.3", "10.244.1.4", "10.244.1.5", "10.244.1.6"]);
        let full = leases.allocate(wish("c5"), &ranges).unwrap_err();
        assert_eq!(full.to_string(), "no free address in pod range 10.244.1.0/29");
        assert_eq!(leases.release("c3", "eth0").unwrap().unwrap().addresses[0].to_string(), "10.244.1.5");
        assert!(leases.release("c3", "eth0").unwrap().is_none());
        leases.release("c1", "eth0").unwrap();
        assert_eq!(leases.allocate(wish("c6"), &ranges).unwrap().addresses[0].to_string(), "10.244.1.3");
        assert_eq!(leases.allocate(wish("c7"), &ranges).unwrap().addresses[0].to_string(), "10.244.1.5");
        assert_eq!(leases.allocate(wish("c7"), &ranges).unwrap().addresses[0].to_string(), "10.244.1.5");
    }

    #[test]
    fn leases_of_vanished_pods_are_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::lock(folder.path()).unwrap();
        let ranges = ["10.244.1.0/24".parse().unwrap()];
        leases.allocate(wish("alive"), &ranges).unwrap();
        let mut dead = wish("dead");
        dead.namespace = folder.path().join("gone");
        leases.allocate(dead, &ranges).unwrap();
        let gone = leases.retain(Lease::is_live).unwrap();
        assert_eq!(gone.iter().map(|lease| lease.container.as_str()).collect::<Vec<_>>(), ["dead"]);
        assert_eq!(leases.list().unwrap().len(), 1);
    }
}
