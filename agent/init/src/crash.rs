//! How the start before this one ended: the kernel leaves its last lines with the firmware when it panics.
//!
//! They are moved to STATE, where the last crash is kept, and room is made for the next one.

use std::path::Path;

use machine_api::EventKind;
use sys::System;

use crate::machine::Machine;

/// What the kernel could leave somewhere.
const STORE: &str = "/sys/fs/pstore";
/// One record; the kernel cuts its lines into such pieces.
const RECORD_BYTES: usize = 64 << 10;
/// The oldest lines are left out beyond this.
const KEPT_BYTES: usize = 256 << 10;
/// How lines begin that say why, the most telling first. Where the first stage gives up the kernel only says that its first
/// process has ended.
const REASONS: [&str; 5] = [
    "keelson: cannot reach the root file system: ",
    "Kernel panic - not syncing: ",
    "Oops: ",
    "BUG: ",
    "kernel BUG at ",
];

/// Takes over what there is.
pub(crate) fn collect(machine: &mut Machine) -> Vec<String> {
    if machine.storage.is_waiting() {
        // What is taken from the firmware has to be kept.
        return Vec::new();
    }
    let system = machine.system.clone();
    let names = system.list(Path::new(STORE)).unwrap_or_default();
    let Some(text) = lines(&*system, &names) else { return Vec::new() };
    let told = reason(&text).unwrap_or("the kernel did not say why").to_owned();
    let told = format!("the kernel ended: {told}");
    machine.say(EventKind::LastStartEndedBadly, "", format!("the start before this one: {told}"));
    let path = machine.config.paths.crash();
    machine.crash = Some(told);
    if let Err(error) = system.replace(&path, text.as_bytes(), 0o600) {
        return vec![stdx::chain(&error).to_string()];
    }
    let removed = names.iter().map(|name| system.remove_file(&Path::new(STORE).join(name)));
    removed.filter_map(Result::err).map(|error| stdx::chain(&error).to_string()).collect()
}

/// The kernel's lines in their order. Names hold growing numbers, and the piece with the newest lines has the lowest.
fn lines(system: &dyn System, names: &[String]) -> Option<String> {
    let mut names: Vec<&String> = names.iter().filter(|name| name.starts_with("dmesg-")).collect();
    names.sort_by_key(|name| (name.len(), (*name).clone()));
    let mut text = String::new();
    for name in names.into_iter().rev() {
        let piece = system.read_at(&Path::new(STORE).join(name), 0, RECORD_BYTES).unwrap_or_default();
        text += String::from_utf8_lossy(&piece).trim_end();
        text.push('\n');
    }
    let surplus = text.len().saturating_sub(KEPT_BYTES);
    let start = (surplus..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    let text = text.split_off(start);
    (!text.trim().is_empty()).then_some(text)
}

/// The line that says why.
fn reason(text: &str) -> Option<&str> {
    REASONS.iter().find_map(|reason| text.lines().find_map(|line| line.find(reason).map(|at| line[at..].trim_end())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::FakeSystem;

    #[test]
    fn pieces_are_put_in_order_and_tell_why() {
        let system = FakeSystem::new();
        let put = |name: &str, text: &str| system.file(format!("{STORE}/{name}"), text);
        put("dmesg-efi_pstore-900", "Panic#1 Part1\n<0>[ 2.0] Kernel panic - not syncing: no init found\n");
        put("dmesg-efi_pstore-1900", "Panic#1 Part2\n<4>[ 1.0] BUG: first\n");
        let names = system.list(Path::new(STORE)).unwrap();
        let text = lines(&system, &names).unwrap();
        assert!(text.find("Part2").unwrap() < text.find("Part1").unwrap(), "{text}");
        assert_eq!(reason(&text), Some("Kernel panic - not syncing: no init found"));
        assert_eq!(lines(&system, &[]), None);
        let first_stage = "<2>[ 9.0] keelson: cannot reach the root file system: no disk holds it; disks here: sr0\n\
                           <0>[ 9.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000000\n";
        assert_eq!(
            reason(first_stage),
            Some("keelson: cannot reach the root file system: no disk holds it; disks here: sr0")
        );
    }
}
