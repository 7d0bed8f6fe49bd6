//! Devices: those that are there get their drivers at boot, those that come later when they do. USB is slow to tell what
//! hangs on it, and so are controllers of many disks.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use sys::{ModuleIndex, System, UeventSocket, wait_readable};

/// Loads what every machine has and what the devices that are there want. Answers what failed.
pub(crate) fn load_modules(system: &dyn System, list: &Path) -> Vec<String> {
    let mut index = ModuleIndex::read(system);
    let mut failures = index.load_listed(system, list);
    failures.extend(index.load_for_devices(system));
    failures.iter().map(|error| stdx::chain(error).to_string()).collect()
}

/// Lets devices that have no driver look for one again: what theirs lacked may be there now.
pub(crate) fn probe_again(system: &dyn System) {
    let buses = Path::new("/sys/bus");
    for bus in system.list(buses).unwrap_or_default() {
        let bus = buses.join(bus);
        let devices = system.list(&bus.join("devices")).unwrap_or_default();
        for device in devices.iter().filter(|device| !system.exists(&bus.join("devices").join(device).join("driver"))) {
            // One for which there is still none stays as it was.
            system.write(&bus.join("drivers_probe"), device.as_bytes()).ok();
        }
    }
}

/// Loads drivers for what came since the last call. Never waits. Answers whether disks are among it, and what failed.
pub(crate) fn meet(system: &dyn System, events: &UeventSocket) -> (bool, Vec<String>) {
    let news = events.news();
    let failures =
        if news.aliases.is_empty() { Vec::new() } else { ModuleIndex::read(system).load_for(system, news.aliases).1 };
    (news.has_disks, failures.iter().map(|error| stdx::chain(error).to_string()).collect())
}

/// Waits until a device comes or goes, no longer than `time`, and loads its driver.
pub(crate) fn wait(system: &dyn System, events: &UeventSocket, time: Duration) {
    drop(wait_readable(&[events.as_fd()], time));
    meet(system, events);
}
