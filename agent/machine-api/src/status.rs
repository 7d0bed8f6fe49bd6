//! A machine's status, for people.

use crate::table::Row;
use crate::{ExtensionStatus, MachineStatus, Shown, Stage, UpdateState, VolumeStatus};

impl MachineStatus {
    /// How far an update has come, if there was one.
    #[must_use]
    pub fn state_of_update(&self) -> Option<UpdateState> {
        self.update_state.and_then(|number| UpdateState::try_from(number).ok())
    }

    /// For people, some seconds after boot: what they see who ask for it, and who stand at the console.
    #[must_use]
    pub fn describe(&self) -> String {
        let stage = match self.stage() {
            Stage::Booting => "booting",
            Stage::Maintenance => "in maintenance",
            Stage::Running => "running",
            Stage::Stopping => "stopping",
        };
        let (ready, now) = (if self.ready { "ready" } else { "not ready" }, self.uptime_seconds);
        let mut lines = vec![format!("{}: {stage}, {ready}, up {now:.0} s", self.hostname)];
        lines.extend(self.manifest_source.iter().map(|source| format!("manifest: {source}")));
        lines.extend(self.manifest_pending.iter().map(|pending| format!("manifest: {pending}")));
        lines.extend(self.manifest_tried_until.map(|until| {
            let left = until - now;
            format!("manifest: the one before is back in {left:.0} s unless this one is kept (keelson apply --keep)")
        }));
        let slot = self.slot.as_deref().unwrap_or_default();
        lines.extend(self.version.iter().map(|version| format!("system: version {version} in slot {slot}")));
        lines.extend(self.secure_boot.map(|is_on| {
            let what =
                if is_on { "starts only what is signed (Secure Boot)" } else { "starts anything: Secure Boot is off" };
            format!("firmware: {what}")
        }));
        lines.extend(self.extensions.iter().map(ExtensionStatus::describe));
        lines.extend(self.volumes.iter().map(VolumeStatus::describe));
        lines.extend(self.crash.iter().map(|crash| format!("the start before this one: {crash} (keelson crash)")));
        lines.extend(self.update.iter().map(|update| format!("last {update}")));
        lines.extend(self.virtual_address.iter().map(|address| address.describe(now)));
        if self.conditions.is_empty() {
            // An agent of before conditions had names.
            lines.extend(self.unmet.iter().map(|unmet| format!("unmet: {unmet}")));
        }
        lines.extend(self.conditions.iter().map(|condition| format!("unmet: {}", condition.describe(now))));
        if !self.services.is_empty() {
            lines.extend([String::new(), self.text().trim_end().to_owned()]);
        }
        lines.extend(self.diagnostics.iter().map(|text| format!("\nthe manifest that was offered last:\n{text}")));
        lines.join("\n") + "\n"
    }
}

impl VolumeStatus {
    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        let Self { name, device, .. } = self;
        match self.mounted_at.as_deref() {
            Some("") => return format!("volume {name} ({device}): left as it is, as the manifest does not name it"),
            Some(place) => return format!("volume {name} ({device}): mounted at {place}"),
            None => {}
        }
        if !self.is_encrypted {
            return format!("{name} ({device}): not encrypted");
        }
        let opened = self.opened_by.as_ref().map(|by| format!("; opened by {by}")).unwrap_or_default();
        format!("{name} ({device}): encrypted, keys: {}{opened}", self.keys.join(", "))
    }
}

impl ExtensionStatus {
    /// Is part of the system.
    pub const IN_USE: &'static str = "in use";
    /// Cannot be.
    pub const NOT_USED: &'static str = "not used";
    /// Another one of the name is in use.
    pub const SPARE: &'static str = "spare";
    /// Was added since.
    pub const ADDED: &'static str = "from the next start";
    /// Was removed since.
    pub const REMOVED: &'static str = "until the next start";
    /// It came with the image.
    pub const IMAGE: &'static str = "image";
    /// It was added on its own.
    pub const STATE: &'static str = "STATE";

    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        let why = if self.why.is_empty() { String::new() } else { format!(": {}", self.why) };
        format!("extension {} {} ({}): {}{why}", self.name, self.version, self.origin, self.state)
    }
}

impl Row for ExtensionStatus {
    const HEAD: &'static [&'static str] = &["EXTENSION", "VERSION", "KERNEL", "FROM", "STATE", "WHY"];

    fn cells(&self) -> Vec<String> {
        let kernel = self.kernel.clone().unwrap_or_default();
        let [name, version, origin] = [&self.name, &self.version, &self.origin].map(Clone::clone);
        vec![name, version, kernel, origin, self.state.clone(), self.why.clone()]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Stage;

    #[test]
    fn a_status_of_another_version_still_reads() {
        let status: MachineStatus = serde_json::from_str(r#"{"stage":"maintenance","added":1}"#).unwrap();
        assert_eq!((status.stage(), status.state_of_update()), (Stage::Maintenance, None));
        let text = serde_json::to_string(&status).unwrap();
        assert!(text.starts_with(r#"{"stage":"maintenance","ready":false,"#), "{text}");
        assert!(text.contains(r#""uptimeSeconds":0.0,"manifestSource":null"#), "{text}");
        assert!(text.ends_with(r#""updateState":null,"extensions":[],"services":[],"keysTried":0}"#), "{text}");
        let status: MachineStatus = serde_json::from_str(r#"{"updateState":"taken-back"}"#).unwrap();
        assert_eq!(status.state_of_update(), Some(UpdateState::TakenBack));
        assert!(serde_json::to_string(&status).unwrap().contains(r#""updateState":"taken-back""#));
    }

    #[test]
    fn a_status_says_what_is_unmet() {
        let status: MachineStatus = serde_json::from_value(serde_json::json!({
            "stage": "running", "hostname": "m1", "uptimeSeconds": 12.4, "secureBoot": true, "unmet": ["etcd is starting"],
            "conditions": [{"name": "ServiceNotReady", "subject": "etcd", "sinceSeconds": 2.0, "why": "etcd is starting",
                            "fix": "keelson logs etcd"}],
            "services": [{"name": "etcd", "state": "starting", "pid": 7, "restarts": 1, "why": "waits for its peers"}],
        }))
        .unwrap();
        let text = status.describe();
        assert!(text.starts_with("m1: running, not ready, up 12 s\nfirmware: starts only what is signed"), "{text}");
        assert!(text.contains("\nunmet: ServiceNotReady etcd, for 10s: "), "{text}");
        assert!(text.contains("what helps: keelson logs etcd\n"), "{text}");
        assert!(text.contains("waits for its peers"), "{text}");
    }

    #[test]
    fn a_volume_says_where_it_is_and_what_the_manifest_does_not_name_that_it_stays() {
        let status: MachineStatus = serde_json::from_value(serde_json::json!({ "volumes": [
            {"name": "KEELSON-STATE", "device": "/dev/vda4"},
            {"name": "longhorn", "device": "/dev/vdb1", "mountedAt": "/mnt/longhorn"},
            {"name": "old", "device": "/dev/vdc1", "mountedAt": ""},
        ]}))
        .unwrap();
        let text = status.describe();
        assert!(text.contains("\nKEELSON-STATE (/dev/vda4): not encrypted\n"), "{text}");
        assert!(text.contains("\nvolume longhorn (/dev/vdb1): mounted at /mnt/longhorn\n"), "{text}");
        assert!(text.contains("\nvolume old (/dev/vdc1): left as it is, as the manifest does not name it"), "{text}");
    }

    #[test]
    fn an_extension_says_why_it_is_not_used() {
        let status: MachineStatus = serde_json::from_value(serde_json::json!({
            "extensions": [{"name": "gpu", "version": "1", "origin": "STATE", "state": "not used", "why": "it is damaged"}],
        }))
        .unwrap();
        assert!(
            status.describe().contains("\nextension gpu 1 (STATE): not used: it is damaged\n"),
            "{}",
            status.describe()
        );
    }
}
