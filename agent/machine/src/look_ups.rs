//! The cache of the machine's look-ups: tells it when the clock can be relied on, and the machine what is wrong with name
//! servers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::Shutdown;
use machine_api::{Condition, TimeStatus};
use tokio::sync::watch;

use crate::config::LookUps;
use crate::unmet;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// Where it is told; it keeps nothing from being ready.
const TOLD: &str = "conditions/name-servers.concern";

/// Looks until shutdown.
pub(crate) async fn run(
    run: PathBuf,
    look_ups: Arc<dyn LookUps>,
    mut time: watch::Receiver<TimeStatus>,
    shutdown: Shutdown,
) {
    let mut is_watched = true;
    loop {
        let is_told = {
            let time = time.borrow_and_update();
            // A clock that follows nobody is what it is.
            !time.follows || time.synchronized_seconds.is_some()
        };
        if is_told {
            look_ups.tell_clock();
        }
        unmet::tell(&run.join(TOLD), trouble(&look_ups.troubles()).as_ref());
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(LOOK) => {}
            changed = time.changed(), if is_watched => is_watched = changed.is_ok(),
        }
    }
}

fn trouble(troubles: &[String]) -> Option<Condition> {
    if troubles.is_empty() {
        return None;
    }
    let why = format!("by TLS it cannot be asked, and nobody is asked without: {}", troubles.join("; "));
    let fix = "`network.dns-servers` and `network.dns-domains` tell where they are and the names in their certificates, \
               `dns-ca` and `ca` their CAs; their port, 853 if none is given, has to be reached. By a clock that is ahead \
               (`keelson get time`) good certificates have expired: a time server by its address \
               (`network.ntp-servers`) sets it";
    Some(Condition::new("NameServerFails", why, fix))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct Made {
        is_told: AtomicBool,
        troubles: Mutex<Vec<String>>,
    }

    impl LookUps for Made {
        fn metrics(&self) -> String {
            String::new()
        }

        fn troubles(&self) -> Vec<String> {
            self.troubles.lock().unwrap().clone()
        }

        fn tell_clock(&self) {
            self.is_told.store(true, Ordering::Relaxed);
        }
    }

    async fn until(is_so: impl Fn() -> bool) {
        let waiting = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn name_servers_are_told_of_and_the_clock_once_somebody_told_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("conditions")).unwrap();
        let made = Arc::new(Made::default());
        let (sender, time) = watch::channel(TimeStatus { follows: true, ..TimeStatus::default() });
        let shutdown = Shutdown::new();
        drop(tokio::spawn(run(folder.path().to_owned(), made.clone(), time, shutdown.clone())));
        let told = || std::fs::read_to_string(folder.path().join(TOLD)).unwrap_or_default();
        made.troubles.lock().unwrap().push("192.0.2.1:853 (a): its certificate is not for a".to_owned());
        until(|| told().starts_with("NameServerFails: ")).await;
        assert!(told().contains("its certificate is not for a") && !made.is_told.load(Ordering::Relaxed));
        made.troubles.lock().unwrap().clear();
        until(|| told().is_empty()).await;
        sender.send_modify(|time| time.synchronized_seconds = Some(1.0));
        until(|| made.is_told.load(Ordering::Relaxed)).await;
        shutdown.trigger();
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_follows_nobody_counts_as_told() {
        let folder = tempfile::tempdir().unwrap();
        let made = Arc::new(Made::default());
        let (_, time) = watch::channel(TimeStatus::default());
        drop(tokio::spawn(run(folder.path().to_owned(), made.clone(), time, Shutdown::new())));
        until(|| made.is_told.load(Ordering::Relaxed)).await;
    }
}
