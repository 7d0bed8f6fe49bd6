//! Devices: those that are there get their drivers at boot, those that come later when they do. USB is slow to tell what
//! hangs on it, and so are controllers of many disks.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use machine_api::{Event, EventKind};
use sys::{ModuleIndex, System, UeventSocket, wait_readable};

use crate::machine::Machine;

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

/// Lets the kernel know the partitions that a disk has now. A disk may hang: what fails comes back as an event.
pub(crate) fn read_partitions(machine: &mut Machine, disk: String) {
    if disk.is_empty() || disk.contains('/') {
        return machine.fault(format!("{disk:?} is no name of a disk"));
    }
    let (system, told) = (machine.system.clone(), machine.config.paths.inbox().join("say-partitions"));
    let work = move || {
        if let Err(error) = system.read_partitions(&Path::new("/dev").join(&disk)) {
            let event = Event::new(EventKind::Fault, &disk, stdx::chain(&error).to_string());
            system.replace(&told, event.to_json().as_bytes(), 0o600).ok();
        }
    };
    if let Err(error) = std::thread::Builder::new().name("partitions".to_owned()).spawn(work) {
        machine.fault(format!("partitions are not looked for: {error}"));
    }
}

/// Waits until a device comes or goes, no longer than `time`, and loads its driver.
pub(crate) fn wait(system: &dyn System, events: &UeventSocket, time: Duration) {
    drop(wait_readable(&[events.as_fd()], time));
    meet(system, events);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn only_names_are_disks_and_what_fails_comes_back_as_an_event() {
        let system = Arc::new(sys::FakeSystem::new());
        system.fail("ReadPartitions", 16);
        let mut machine = Machine::of_a_test(&system);
        read_partitions(&mut machine, "../vda".to_owned());
        assert_eq!(machine.events.len(), 1);
        read_partitions(&mut machine, "vdb".to_owned());
        let told = machine.config.paths.inbox().join("say-partitions");
        let until = std::time::Instant::now() + Duration::from_secs(10);
        let text = loop {
            match system.read(&told) {
                Ok(text) => break text,
                Err(_) if std::time::Instant::now() < until => std::thread::yield_now(),
                Err(error) => panic!("nothing came: {error}"),
            }
        };
        let event = Event::parse(&String::from_utf8(text).unwrap());
        assert_eq!((event.kind.as_str(), event.subject.as_str()), ("Fault", "vdb"));
    }
}
