//! A machine's disk in memory, systems that are known by a number, and what the loader makes of them.
#![allow(dead_code)] // No test needs all of it.

use disk::layout::{self, Sizes};
use disk::{
    Around, Device, ENTRIES, Entry, Esp, Memory, Part, Slot, StateFormats, Table, Update, Window, loader_choice, uki,
};
use install::{Error, OwnDisk, Policy, Receiver};

pub(crate) const SLOT: u64 = 1 << 20;
/// As small as FAT32 can be, so that disks can be copied often.
pub(crate) const ESP: u64 = 34 << 20;
pub(crate) const SIZES: Sizes = Sizes { esp: ESP, slot: SLOT, state: 1 << 20, data: Some(1 << 20) };

/// A root is known by its identifier, of sixteen equal bytes here.
pub(crate) fn root(id: u8) -> Vec<u8> {
    let mut root = vec![id ^ 0xff; 300_000];
    root[1072..1088].fill(id);
    root
}

/// The least that the firmware would take for a program, with the kernel's arguments. Its system writes the format of STATE
/// that has its number.
pub(crate) fn kernel(id: u8) -> Vec<u8> {
    let digits = format!("{id:02x}").repeat(16);
    kernel_with(id, &format!("keelson.root={digits} keelson.verity=1:{digits}{digits} keelson.state={id}"))
}

pub(crate) fn kernel_with(id: u8, arguments: &str) -> Vec<u8> {
    uki::assemble(&uki::bare_program(), &[(uki::ARGUMENTS, arguments.as_bytes()), (uki::KERNEL, &[id; 200_000])])
        .unwrap()
}

pub(crate) fn update_file(id: u8) -> Vec<u8> {
    update_with(id, kernel(id))
}

pub(crate) fn update_with(id: u8, kernel: Vec<u8>) -> Vec<u8> {
    let root = root(id);
    let update = Update::new(
        &format!("{id}.0"),
        StateFormats { format: id.into(), oldest: 1 },
        Part::of(&kernel),
        Part::of(&root),
    );
    [update.head(|_| String::new()).unwrap(), kernel, root].concat()
}

/// A disk that runs slot A with root 1; what was in slot B before never proved itself.
pub(crate) fn disk() -> Memory {
    let table = layout::installed(b"seed", (40 << 20) / 512 + 4096, &SIZES).unwrap();
    let mut device = Memory::new(usize::try_from(table.sectors * 512).unwrap());
    table.write(&mut device).unwrap();
    let mut esp = Esp::format(window(&mut device, layout::ESP_NAME), 1).unwrap();
    esp.put(&format!("{ENTRIES}/keelson-1-a.efi"), &kernel(1)).unwrap();
    esp.put(&format!("{ENTRIES}/keelson-0-b+0-2.efi"), &kernel(9)).unwrap();
    window(&mut device, Slot::A.partition()).write_at(0, &root(1)).unwrap();
    device
}

pub(crate) fn window<'a>(device: &'a mut Memory, name: &str) -> Window<&'a mut Memory> {
    let table = Table::read(device).unwrap();
    let (_, partition) = table.named(name).unwrap();
    Window::new(device, partition.start(), partition.bytes())
}

/// What the loader starts, and whether it is whole: the entry and the number of its root.
pub(crate) fn starts(device: &mut Memory) -> (Entry, u8) {
    let mut esp = Esp::open(window(device, layout::ESP_NAME));
    let entry = loader_choice(&esp.entries().unwrap()).expect("something to start");
    let program = esp.read(&format!("{ENTRIES}/{entry}")).unwrap().unwrap();
    let digits = uki::argument(&program, "keelson.root").expect("a whole kernel image");
    let id = u8::from_str_radix(&digits[..2], 16).unwrap();
    assert!(program == kernel(id), "the kernel image of {entry} is damaged");
    let mut found = vec![0; root(id).len()];
    window(device, entry.slot.partition()).read_at(0, &mut found).unwrap();
    assert!(found == root(id), "the root of {entry} is damaged");
    (entry, id)
}

/// Takes updates of all formats of STATE.
const ANY: StateFormats = StateFormats { format: 9, oldest: 0 };

pub(crate) fn policy(running: Slot) -> Policy {
    Policy {
        running,
        version: "1.0".to_owned(),
        state: ANY,
        key: None,
        may_downgrade: false,
        extensions: Vec::new(),
        around: Around::Nobody,
        manifests: Vec::new(),
    }
}

pub(crate) fn install(device: &mut Memory, file: &[u8], running: Slot) -> Result<(), Error> {
    let mut receiver = Receiver::new(OwnDisk::open(device)?, policy(running))?;
    for part in file.chunks(50_000) {
        receiver.add(part)?;
    }
    receiver.finish()?.commit().map(drop)
}
