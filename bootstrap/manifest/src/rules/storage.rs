//! Rules of `[[storage.volumes]]`.

use super::Rules;
use crate::model::UserVolume;
use crate::words::DiskSelector;

/// More disks than machines have for this, and few enough to look at all of them.
const MOST: usize = 32;

pub(super) fn check(rules: &mut Rules<'_>) {
    let volumes = &rules.parts.storage.volumes;
    let of_system = rules.parts.install.as_ref().and_then(|install| install.disk.as_ref());
    // Where one of them could not be read, their numbers are others.
    if rules.has(&format!("storage.volumes[{}]", volumes.len())) {
        return;
    }
    if volumes.len() > MOST {
        let reason = format!("these are {} volumes, and a machine takes {MOST}", volumes.len());
        rules.error("storage.volumes", reason).expected("fewer");
    }
    for (index, volume) in volumes.iter().enumerate() {
        let UserVolume { name, disk, wipe } = volume;
        let at = format!("storage.volumes[{index}]");
        let before = &volumes[..index];
        if before.iter().any(|other| other.name == *name) {
            rules
                .error(&format!("{at}.name"), format!("there is a volume `{name}` already"))
                .expected("each name once");
        }
        let other = before.iter().find(|other| other.disk == *disk).filter(|_| is_one_disk(disk));
        if let Some(other) = other {
            let reason = format!("the volume `{}` is on this disk", other.name);
            rules.error(&format!("{at}.disk"), reason).expected("a disk for each volume");
        }
        if of_system == Some(disk) && is_one_disk(disk) {
            let reason = "the machine itself is installed to this disk";
            rules.error(&format!("{at}.disk"), reason).expected("another disk than `install.disk`");
        }
        if *wipe && !matches!(disk, DiskSelector::Serial(_) | DiskSelector::Model(_)) {
            let reason = format!("which disk `{disk}` means depends on what else is there, and any may be lost");
            let expected = "`disk = \"serial:...\"` or `\"model:...\"` beside it";
            rules.error(&format!("{at}.wipe"), reason).expected(expected);
        }
    }
}

/// Whether this can mean but one disk.
fn is_one_disk(disk: &DiskSelector) -> bool {
    match disk {
        DiskSelector::Path(_) | DiskSelector::Serial(_) => true,
        DiskSelector::Model(_) | DiskSelector::Size(_) | DiskSelector::Smallest(_) | DiskSelector::Largest(_) => false,
    }
}
