//! The machine's status: what the first process and the virtual address's service wrote down when something changed, seen
//! from now.

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
    let virtual_address = Linux.read(&run.join("virtual-address.json")).ok();
    let virtual_address = virtual_address.and_then(|text| serde_json::from_slice(&text).ok());
    Ok(MachineStatus { uptime_seconds: Linux.uptime().as_secs_f64(), virtual_address, ..status })
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
        assert!(status.hostname == "m1" && status.uptime_seconds > 0.001 && status.virtual_address.is_none());
        let told = r#"{"address": "10.0.0.5", "isHere": true}"#;
        std::fs::write(folder.path().join("virtual-address.json"), told).unwrap();
        assert!(read(folder.path()).unwrap().virtual_address.is_some_and(|it| it.is_here && it.address == "10.0.0.5"));
    }
}
