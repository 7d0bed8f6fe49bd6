//! What happens on a machine: a table of kinds, and one event.

use crate::table::Row;
use crate::{Event, Severity, time_of};

/// The log in which the first process keeps them, a line each.
pub const EVENTS_LOG: &str = "events";

/// Names of what is known of an event beside its words, as they are in JSON.
pub mod detail {
    /// Seconds that something took, or ran.
    pub const SECONDS: &str = "seconds";
    /// How a process ended.
    pub const HOW: &str = "how";
    /// The last line that it printed.
    pub const LAST_LINE: &str = "lastLine";
    /// Seconds until it is started again.
    pub const RESTARTS_IN: &str = "restartsInSeconds";
    /// Its number.
    pub const PID: &str = "pid";
    /// What a service waits for.
    pub const WAITING: &str = "waiting";
    /// Why it is so.
    pub const WHY: &str = "why";
    /// What mends it.
    pub const FIX: &str = "fix";
    /// Of which image a container is.
    pub const IMAGE: &str = "image";
    /// Who asked for it.
    pub const CALLER: &str = "caller";
    /// What was on a disk.
    pub const HELD: &str = "held";
}

macro_rules! kinds {
    ($($(#[doc = $what:literal])+ $kind:ident: $severity:ident,)*) => {
        /// What can happen. The names are stable: programs wait for them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum EventKind {
            $($(#[doc = $what])+ $kind,)*
        }

        impl EventKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Its name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => stringify!($kind),)*
                }
            }

            /// How much it matters.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$kind => Severity::$severity,)*
                }
            }

            /// What it means.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$kind => concat!($($what),+).trim(),)*
                }
            }
        }
    };
}

kinds! {
    /// A system was started, of a slot of a disk.
    SystemStarted: Info,
    /// The boot phases have run.
    Booted: Info,
    /// Something went wrong in a boot phase; the machine went on.
    PhaseFailed: Warning,
    /// A boot phase took long.
    PhaseSlow: Warning,
    /// The start before this one crashed, or left something behind.
    LastStartEndedBadly: Warning,
    /// The machine goes down.
    Stopping: Info,
    /// The processes that are no service's are ended: those of pods, and orphans.
    ProcessesEnding: Info,
    /// Something did not end or let go on the way out.
    LeftBehind: Warning,
    /// All processes have ended, and the disks are about to be let go. What is told later is at the console only.
    Stopped: Info,
    /// A service is ready.
    ServiceReady: Info,
    /// A service that does something once has done it.
    ServiceDone: Info,
    /// A service is still not ready.
    ServiceSlow: Warning,
    /// A service ended by itself.
    ServiceEnded: Warning,
    /// A service ended, as it was asked to.
    ServiceStopped: Info,
    /// A service did not end when it was asked to.
    ServiceKilled: Warning,
    /// A service waits for others to end on the way out.
    ServiceWaiting: Info,
    /// A service starts anew, as somebody or the manifest wants it.
    ServiceRestarting: Info,
    /// All services are ready.
    ServicesReady: Info,
    /// The services cannot be started.
    ServicesRefused: Error,
    /// A condition has come up.
    ConditionUnmet: Warning,
    /// A condition has gone.
    ConditionMet: Info,
    /// A manifest was handed in.
    ManifestHandedIn: Info,
    /// A manifest is in force.
    ManifestInForce: Info,
    /// Something about the manifest is doubtful.
    ManifestDoubtful: Warning,
    /// A manifest has errors.
    ManifestWrong: Error,
    /// A manifest was found or handed in, and does not count, or not yet.
    ManifestNotTaken: Warning,
    /// A manifest is tried.
    ManifestTried: Info,
    /// The manifest that was tried is kept.
    ManifestKept: Info,
    /// The manifest before the one that was tried is back.
    ManifestTakenBack: Warning,
    /// The machine waits for somebody: for a manifest, or a key of the disk.
    Waiting: Warning,
    /// Partitions are made, or the system is installed.
    DiskPrepared: Info,
    /// An encrypted partition was opened.
    DiskOpened: Info,
    /// Something did not open an encrypted partition.
    DiskNotOpened: Warning,
    /// Somebody, or a server, gave a key of the disk.
    DiskKeyGiven: Info,
    /// The keys of an encrypted partition are others.
    DiskKeysChanged: Info,
    /// A disk is wiped, or was.
    DiskWiped: Info,
    /// STATE got another format.
    StateFormat: Info,
    /// What became of an update, or is about to.
    Update: Info,
    /// An update does not stay, or cannot be finished.
    UpdateFailed: Warning,
    /// Which extensions of the system are in use, and which are not.
    Extensions: Info,
    /// The network was set at the console.
    NetworkMended: Info,
    /// The API's virtual address came or went.
    VirtualAddressMoved: Info,
    /// A debug container was made, or is gone.
    DebugContainer: Info,
    /// Something was told that is of no kind here.
    Told: Info,
    /// Something failed that nothing depends on, or that is tried again.
    Fault: Error,
}

impl EventKind {
    /// The one of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }
}

impl Row for EventKind {
    const HEAD: &'static [&'static str] = &["KIND", "SEVERITY", "WHAT"];

    fn cells(&self) -> Vec<String> {
        vec![self.as_str().to_owned(), self.severity().word().to_owned(), self.meaning().to_owned()]
    }
}

impl Severity {
    /// From least to most.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Error];

    /// Its name.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// The one of a name.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.word() == word)
    }
}

impl Event {
    /// One that happens now, to `subject` where there can be several.
    #[must_use]
    pub fn new(kind: EventKind, subject: &str, message: impl Into<String>) -> Self {
        Self {
            kind: kind.as_str().to_owned(),
            severity: kind.severity().into(),
            subject: subject.to_owned(),
            message: message.into(),
            ..Self::default()
        }
    }

    /// The same, of which this is known, too.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.details.insert(name.to_owned(), value.to_string());
        self
    }

    /// Reads what was written as JSON. A text that is none is told as it is.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|_| Self::new(EventKind::Told, "", text))
    }

    /// For a file.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For people, in a line, or as many as what happened takes to be told.
    #[must_use]
    pub fn describe(&self) -> String {
        let severity = self.severity().word();
        format!("{} {severity} {}: {}", time_of(self.time), self.kind, self.message.trim_end())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_names_of_their_own_and_say_what_they_mean() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::of_name(kind.as_str()), Some(*kind));
            assert!(kind.meaning().ends_with('.'), "{kind:?}");
        }
        assert_eq!(EventKind::of_name("Reboot"), None);
        assert_eq!(Severity::of_word("warning"), Some(Severity::Warning));
    }

    #[test]
    fn an_event_is_an_object_for_programs_and_a_line_for_people() {
        let event = Event::new(EventKind::ServiceEnded, "etcd", "etcd: ended after 3.0 s").with("seconds", 3);
        let event = Event { time: 1_790_000_000.25, uptime: 12.5, ..event };
        assert_eq!(Event::parse(&event.to_json()), event);
        let json: serde_json::Value = serde_json::from_str(&event.to_json()).unwrap();
        assert_eq!((&json["kind"], &json["severity"]), (&"ServiceEnded".into(), &"warning".into()));
        assert_eq!(json["details"]["seconds"], "3");
        let line = "2026-09-21T14:13:20.250Z warning ServiceEnded: etcd: ended after 3.0 s";
        assert_eq!(event.describe(), line);
        assert_eq!(Event::parse("ann was here"), Event::new(EventKind::Told, "", "ann was here"));
    }
}
