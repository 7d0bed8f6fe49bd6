//! A machine's status, for people.

use crate::{MachineStatus, UpdateState, VolumeStatus};

impl MachineStatus {
    /// How far an update has come, if there was one.
    #[must_use]
    pub fn state_of_update(&self) -> Option<UpdateState> {
        self.update_state.and_then(|number| UpdateState::try_from(number).ok())
    }
}

impl VolumeStatus {
    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        let Self { name, device, .. } = self;
        if !self.is_encrypted {
            return format!("{name} ({device}): not encrypted");
        }
        let opened = self.opened_by.as_ref().map(|by| format!("; opened by {by}")).unwrap_or_default();
        format!("{name} ({device}): encrypted, keys: {}{opened}", self.keys.join(", "))
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
        assert!(text.ends_with(r#""updateState":null,"services":[]}"#), "{text}");
        let status: MachineStatus = serde_json::from_str(r#"{"updateState":"taken-back"}"#).unwrap();
        assert_eq!(status.state_of_update(), Some(UpdateState::TakenBack));
        assert!(serde_json::to_string(&status).unwrap().contains(r#""updateState":"taken-back""#));
    }
}
