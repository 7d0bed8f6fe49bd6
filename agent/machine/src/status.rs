//! The machine's status: what the first process wrote down when something changed, seen from now.

use std::path::Path;

use machine_api::MachineStatus;
use stdx::chain;
use sys::{Linux, System};

/// Reads it from the folder of the first process.
///
/// # Errors
/// It is not there yet, or is not readable, with the reason for people.
pub(crate) fn read(run: &Path) -> Result<MachineStatus, String> {
    let path = run.join("status.json");
    let text = Linux.read(&path).map_err(|error| chain(&error).to_string())?;
    let status: MachineStatus =
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(MachineStatus { uptime_seconds: Linux.uptime().as_secs_f64(), ..status })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_after_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap_err().contains("status.json"));
        std::fs::write(folder.path().join("status.json"), r#"{"hostname": "m1", "uptimeSeconds": 0.001}"#).unwrap();
        let status = read(folder.path()).unwrap();
        assert!(status.hostname == "m1" && status.uptime_seconds > 0.001);
    }
}
