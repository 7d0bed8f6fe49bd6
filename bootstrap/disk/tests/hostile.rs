//! Whatever is on a disk or in a file: it is read or refused, and nothing panics.
#![allow(clippy::unwrap_used)]

use disk::{Device, EXTENSION_HEAD_BYTES, Entry, ExtensionHead, Guid, Memory, Table, Update, layout, uki};
use proptest::prelude::*;

const SECTORS: usize = 128;

fn table() -> Memory {
    let mut table = Table::new(Guid::derive(b"x", "disk"), SECTORS as u64);
    let partition = layout::image(b"x", 1).partitions[&1].clone();
    table.partitions.insert(1, disk::Partition { first: 40, last: 60, ..partition });
    let mut device = Memory::new(SECTORS * 512);
    table.write(&mut device).unwrap();
    device
}

proptest! {
    // Each case of a table is a disk of its own.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_damaged_table_is_read_from_its_copy_or_refused(
        damage in proptest::collection::vec((0..SECTORS * 512, any::<u8>()), 1..20)
    ) {
        let mut device = table();
        let whole = Table::read(&mut device).unwrap();
        for (at, byte) in damage {
            device.write_at(at as u64, &[byte]).unwrap();
        }
        if let Ok(found) = Table::read(&mut device) {
            prop_assert_eq!(found, whole);
        }
    }

    #[test]
    fn any_bytes_are_an_update_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        drop(Update::parse_head(&bytes));
        drop(Update::parse_head(&[b"KEELSON-UPDATE 1\n", bytes.as_slice()].concat()));
    }

    #[test]
    fn any_bytes_are_an_extension_or_none(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        name in "[a-z0-9./-]{0,12}", kernel in proptest::option::of("[0-9./ -]{0,12}"), blocks in any::<u64>()
    ) {
        drop(ExtensionHead::parse(&bytes));
        let kernel = kernel.map(|it| format!("\"kernel\":\"{it}\",")).unwrap_or_default();
        let about = format!("{{{kernel}\"name\":\"{name}\",\"version\":\"1\"}}");
        let digest = "0f".repeat(32);
        let line = format!(
            "{{\"about\":{about},\"architecture\":\"x86_64\",\"id\":\"{}\",\"verity\":\"{blocks}:{digest}\"}}",
            &digest[..32]
        );
        for middle in [bytes.as_slice(), line.as_bytes()] {
            let mut file = [b"KEELSON-EXTENSION 1\n", middle, b"\n\n"].concat();
            file.resize(EXTENSION_HEAD_BYTES, 0);
            if let Ok(head) = ExtensionHead::parse(&file) {
                // What is taken is a file within its folder, and no longer than any may be.
                let file = head.about.file_name();
                prop_assert!(!file.contains('/') && !file.starts_with('.'), "{}", file);
                prop_assert!(head.bytes() <= disk::EXTENSION_BYTES);
            }
        }
    }

    #[test]
    fn any_bytes_are_a_kernel_image_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..600), at in 0_u8..255) {
        let mut program = [b"MZ".as_slice(), &bytes].concat();
        drop(uki::section(&program, uki::KERNEL));
        if program.len() > 0x140 {
            program[0x3c..0x40].copy_from_slice(&[at, 0, 0, 0]);
            let at = usize::from(at).min(program.len() - 40);
            program[at..at + 6].copy_from_slice(b"PE\0\0\x64\x86");
            program[at + 24..at + 26].copy_from_slice(&[0x0b, 0x02]);
            drop(uki::section(&program, uki::KERNEL));
            drop(uki::assemble(&program, &[(uki::KERNEL, b"kernel")]));
        }
    }

    #[test]
    fn a_name_that_is_an_entry_is_written_as_it_was_read(name in "keelson-[0-9]{1,4}-[ab](\\+[0-9]{1,2}(-[0-9])?)?\\.efi") {
        let entry = Entry::parse(&name).unwrap();
        prop_assert_eq!(Entry::parse(&entry.to_string()), Some(entry));
    }
}
