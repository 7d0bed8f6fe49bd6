//! A manifest that is named by its address: the first process has no network, so it writes down what it wants, and gets
//! what came by its inbox.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifecycle::Shutdown;
use machine_api::{Condition, NetworkStatus};
use remote::{Download, Outbound, Source};
use stdx::{Backoff, chain};
use sys::{Linux, System};
use tokio::sync::watch;
use url::Url;

use crate::{chance, unmet};

/// Below the folder of this boot.
const WANTED: &str = "manifest-url";
const INBOX: &str = "inbox/fetched";
const CONDITION: &str = "conditions/manifest-url";
const RETRY: Backoff =
    Backoff { initial: Duration::from_secs(2), factor: 2.0, max: Duration::from_secs(60), jitter: 0.25 };
/// What the address ends in if the content is known before.
const DIGEST: &str = "sha256=";
const DIGEST_CHARS: usize = 64;
/// What may stand in an address for what this machine is, and where that is written.
const FACTS: [(&str, &str); 2] =
    [("{uuid}", "/sys/class/dmi/id/product_uuid"), ("{serial}", "/sys/class/dmi/id/product_serial")];
const MAC: &str = "{mac}";
const CARDS: &str = "/sys/class/net";

/// Fetches what the first process wants, until it is there or shutdown.
pub(crate) async fn run(run: PathBuf, mut network: watch::Receiver<NetworkStatus>, shutdown: Shutdown) {
    let Ok(wanted) = Linux.read(&run.join(WANTED)) else { return };
    let wanted = String::from_utf8_lossy(&wanted).trim().to_owned();
    for tries in 0.. {
        let fetched = tokio::select! {
            fetched = fetch(&Linux, &wanted) => fetched,
            () = shutdown.wait() => return,
        };
        let lack = match fetched.and_then(|text| hand_on(&run, &wanted, &text)) {
            Ok(()) => return unmet::tell(&run.join(CONDITION), None),
            Err(reason) => {
                let fix = "it is tried again by itself; `keelson apply` gives the machine a manifest without it";
                Condition::new("ManifestNotFetched", reason, fix)
            }
        };
        unmet::tell(&run.join(CONDITION), Some(&lack));
        tokio::select! {
            // What was not reached may be now.
            Ok(()) = network.changed() => {}
            () = tokio::time::sleep(RETRY.next(tries, chance::share())) => {}
            () = shutdown.wait() => return,
        }
    }
}

fn hand_on(run: &Path, wanted: &str, text: &str) -> Result<(), String> {
    let content = format!("{wanted}\n{text}");
    Linux.replace(&run.join(INBOX), content.as_bytes(), 0o600).map_err(|error| chain(&error).to_string())
}

async fn fetch(system: &dyn System, wanted: &str) -> Result<String, String> {
    let source = source(system, wanted)?;
    let shown = remote::shown(&source.url);
    let failed = |error: remote::Error| format!("the manifest at {shown} cannot be fetched: {}", chain(&error));
    let mut download = Download::new(source);
    let mut bytes = Vec::new();
    while let Some(part) = download.next().await.map_err(failed)? {
        bytes.extend_from_slice(&part);
    }
    String::from_utf8(bytes).map_err(|_not_text| format!("what is at {shown} is no UTF-8 text, and no manifest"))
}

/// What an address names, for this machine.
fn source(system: &dyn System, wanted: &str) -> Result<Source, String> {
    let filled = fill(system, wanted)?;
    let mut url = Url::parse(&filled).map_err(|error| format!("keelson.manifest is no address: {error}"))?;
    let fragment = url.fragment().map(str::to_owned);
    url.set_fragment(None);
    let digest = |text: String| {
        let digits = text.strip_prefix(DIGEST).map(str::to_ascii_lowercase);
        let is_good = |it: &String| it.len() == DIGEST_CHARS && it.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.filter(is_good).ok_or_else(|| {
            format!(
                "behind the # of keelson.manifest may be sha256= and {DIGEST_CHARS} hexadecimal digits, nothing else"
            )
        })
    };
    let sha256 = fragment.map(digest).transpose()?;
    let peer = Outbound::default().web(&url);
    if sha256.is_none() && !remote::is_private(&url, &peer.trust) {
        let shown = remote::shown(&url);
        return Err(format!("{shown} has no TLS: end the address in #{DIGEST} and the manifest's SHA-256"));
    }
    Ok(Source { url, peer, limit: manifest::MANIFEST_BYTES as u64, bytes: None, sha256 })
}

/// The address with what this machine is.
fn fill(system: &dyn System, wanted: &str) -> Result<String, String> {
    let mut filled = wanted.to_owned();
    for (word, path) in FACTS {
        if filled.contains(word) {
            let fact = system.read(Path::new(path)).map_err(|error| format!("{word}: {}", chain(&error)))?;
            filled = filled.replace(word, String::from_utf8_lossy(&fact).trim());
        }
    }
    if filled.contains(MAC) {
        let mac = first_mac(system).ok_or_else(|| format!("{MAC}: the machine has no network card yet"))?;
        filled = filled.replace(MAC, &mac);
    }
    Ok(filled)
}

/// Of the cards, by name; what has no device behind it is none.
fn first_mac(system: &dyn System) -> Option<String> {
    let mut names = system.list(Path::new(CARDS)).ok()?;
    names.sort_unstable();
    let card = |name: &String| Path::new(CARDS).join(name);
    let name = names.iter().find(|name| system.exists(&card(name).join("device")))?;
    let mac = system.read(&card(name).join("address")).ok()?;
    Some(String::from_utf8_lossy(&mac).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::FakeSystem;

    #[test]
    fn an_address_names_the_machine_and_what_is_there() {
        let system = FakeSystem::new();
        system.file("/sys/class/dmi/id/product_uuid", "4c4c\n");
        system.file("/sys/class/net/lo/address", "00:00:00:00:00:00\n");
        system.file("/sys/class/net/eth0/address", "52:54:00:00:00:01\n");
        system.file("/sys/class/net/eth0/device/vendor", "0x1af4");
        let url = |wanted: &str| source(&system, wanted).map(|source| source.url.to_string());
        assert_eq!(url("https://h/{uuid}/{mac}.toml").unwrap(), "https://h/4c4c/52:54:00:00:00:01.toml");
        assert!(url("https://h/{serial}").unwrap_err().starts_with("{serial}: "));
        assert!(url("http://h/m").unwrap_err().contains("no TLS"));
        assert!(url("https://h/m#sha256=12").unwrap_err().contains("64 hexadecimal digits"));
        let digest = "AB".repeat(32);
        let found = source(&system, &format!("http://h/m#sha256={digest}")).unwrap();
        assert_eq!((found.url.as_str(), found.sha256), ("http://h/m", Some(digest.to_lowercase())));
    }
}
