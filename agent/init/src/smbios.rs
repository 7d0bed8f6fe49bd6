//! What whoever made the machine gave it in its firmware's tables: hypervisors and boards' makers put words there.
//!
//! Source: SMBIOS specification (DMTF DSP0134), sections 6.1.2 "Structure header format", 6.1.3 "Text strings" and 7.12
//! "OEM Strings (Type 11)".

use std::path::Path;

use sys::System;

/// The structures, one after the other, as the kernel found them.
const TABLE: &str = "/sys/firmware/dmi/tables/DMI";
/// More is no table of a machine.
const TABLE_BYTES: usize = 1 << 20;
const OEM_STRINGS: u8 = 11;
const END: u8 = 127;
/// How our word begins: as on the kernel's command line, or as systemd calls credentials.
const WORD: &str = "keelson.manifest=";
const CREDENTIAL: &str = "io.systemd.credential.binary:keelson.manifest=";

/// The word that names the manifest, as one of the kernel's command line: a path, or `data:` and base64.
pub(crate) fn manifest(system: &dyn System) -> Option<String> {
    let table = system.read_at(Path::new(TABLE), 0, TABLE_BYTES).ok()?;
    oem_strings(&table).find_map(|text| {
        let credential = || text.strip_prefix(CREDENTIAL).map(|base64| format!("data:{base64}"));
        text.strip_prefix(WORD).map(str::to_owned).or_else(credential)
    })
}

/// Texts for whoever looks after the machine. A table that is damaged ends where it is.
fn oem_strings(mut table: &[u8]) -> impl Iterator<Item = &str> {
    let structures = std::iter::from_fn(move || {
        let (kind, length) = (*table.first()?, usize::from(*table.get(1)?));
        let texts = table.get(length.max(4)..)?;
        // Two zeros end the texts, also where there are none.
        let end = texts.windows(2).position(|two| two == [0, 0])?;
        table = if kind == END { &[] } else { texts.get(end + 2..)? };
        Some((kind, texts.get(..end)?))
    });
    let texts =
        structures.filter(|(kind, _)| *kind == OEM_STRINGS).flat_map(|(_, texts)| texts.split(|byte| *byte == 0));
    texts.filter_map(|text| std::str::from_utf8(text).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sys::FakeSystem;

    use super::*;

    fn structure(kind: u8, texts: &[&str]) -> Vec<u8> {
        let mut bytes = vec![kind, 5, 0, 0, u8::try_from(texts.len()).unwrap()];
        texts.iter().for_each(|text| bytes.extend([text.as_bytes(), &[0]].concat()));
        bytes.extend(if texts.is_empty() { &[0, 0][..] } else { &[0] });
        bytes
    }

    fn found(table: &[Vec<u8>]) -> Option<String> {
        let system = FakeSystem::new();
        system.file(TABLE, table.concat());
        manifest(&system)
    }

    #[test]
    fn the_manifest_is_among_the_oem_strings() {
        let end = structure(END, &[]);
        let other = structure(1, &["keelson.manifest=/not/here"]);
        let ours = structure(OEM_STRINGS, &["a maker's", "keelson.manifest=data:YQ=="]);
        assert_eq!(found(&[other.clone(), ours.clone(), end.clone()]).as_deref(), Some("data:YQ=="));
        let credential = structure(OEM_STRINGS, &["io.systemd.credential.binary:keelson.manifest=YQ=="]);
        assert_eq!(found(&[structure(0, &[]), credential]).as_deref(), Some("data:YQ=="));
        assert_eq!(found(&[other, end, ours]), None);
        assert_eq!(manifest(&FakeSystem::new()), None);
    }

    proptest! {
        #[test]
        fn no_table_makes_it_panic(table in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(oem_strings(&table).count() <= table.len());
        }
    }
}
