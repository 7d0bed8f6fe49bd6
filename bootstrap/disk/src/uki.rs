//! Unified kernel images: systemd's stub with the kernel, its arguments and its first file system as further sections
//! of one program that the firmware starts.

/// Section of the image's name, as an os-release file.
pub const NAME: &str = ".osrel";
/// Section of the kernel's arguments.
pub const ARGUMENTS: &str = ".cmdline";
/// The argument that tells which format of STATE a system writes.
pub const STATE_FORMAT: &str = "keelson.state";
/// Section of the initramfs.
pub const INITRAMFS: &str = ".initrd";
/// Section of the kernel.
pub const KERNEL: &str = ".linux";

/// Section of the kernel's release, as modules are made for it.
pub const RELEASE: &str = ".uname";
/// Section of what the system reads of manifests, one key a line.
pub const MANIFEST_KEYS: &str = ".keys";

const SECTION_HEADER: usize = 40;
/// The processor, and the form of the optional header.
const AMD64: u16 = 0x8664;
const PE32_PLUS: u16 = 0x20b;
/// Initialized data, readable.
const DATA: u32 = 0x4000_0040;

/// What is wrong with a program for the firmware.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UkiError {
    /// It is none.
    #[error("this is no program for 64-bit UEFI firmware: {0}")]
    NoProgram(&'static str),
    /// There is no room for further sections in its header.
    #[error("the header of the stub has no room for {0} more sections")]
    NoRoom(usize),
    /// Something is larger than four gigabytes.
    #[error("the parts are too large for one program")]
    TooLarge,
}

/// Where things are in a program.
struct Header {
    coff: usize,
    optional: usize,
    table: usize,
    sections: usize,
    file_alignment: usize,
    section_alignment: usize,
    headers_bytes: usize,
}

impl Header {
    fn parse(program: &[u8]) -> Result<Self, UkiError> {
        if program.get(..2) != Some(b"MZ".as_slice()) {
            return Err(UkiError::NoProgram("it does not begin with MZ"));
        }
        let at = word(program, 0x3c)?;
        if program.get(at..at + 4) != Some(b"PE\0\0".as_slice()) {
            return Err(UkiError::NoProgram("it has no PE header"));
        }
        let (coff, optional) = (at + 4, at + 24);
        if half(program, coff)? != usize::from(AMD64) || half(program, optional)? != usize::from(PE32_PLUS) {
            return Err(UkiError::NoProgram("it is for another processor"));
        }
        Ok(Self {
            coff,
            optional,
            table: optional + half(program, coff + 16)?,
            sections: half(program, coff + 2)?,
            section_alignment: word(program, optional + 32)?,
            file_alignment: word(program, optional + 36)?,
            headers_bytes: word(program, optional + 60)?,
        })
    }
}

fn half(bytes: &[u8], at: usize) -> Result<usize, UkiError> {
    let found = bytes.get(at..at + 2).ok_or(UkiError::NoProgram("it is too short"))?;
    Ok(usize::from(u16::from_le_bytes([found[0], found[1]])))
}

fn word(bytes: &[u8], at: usize) -> Result<usize, UkiError> {
    let found = bytes.get(at..at + 4).ok_or(UkiError::NoProgram("it is too short"))?;
    let value = u32::from_le_bytes([found[0], found[1], found[2], found[3]]);
    usize::try_from(value).map_err(|_| UkiError::TooLarge)
}

fn set_word(bytes: &mut [u8], at: usize, value: usize) -> Result<(), UkiError> {
    let value = u32::try_from(value).map_err(|_| UkiError::TooLarge)?;
    bytes.get_mut(at..at + 4).ok_or(UkiError::NoProgram("it is too short"))?.copy_from_slice(&value.to_le_bytes());
    Ok(())
}

/// The stub with further sections.
///
/// # Errors
/// The stub is none, or the sections do not fit.
pub fn assemble(stub: &[u8], sections: &[(&str, &[u8])]) -> Result<Vec<u8>, UkiError> {
    let header = Header::parse(stub)?;
    // Zero or something enormous would make a program of gigabytes.
    if ![header.file_alignment, header.section_alignment].iter().all(|it| (512..=65536).contains(it)) {
        return Err(UkiError::NoProgram("its alignment is unusual"));
    }
    let after = header.table + (header.sections + sections.len()) * SECTION_HEADER;
    if after > header.headers_bytes {
        return Err(UkiError::NoRoom(sections.len()));
    }
    let mut out = stub.to_vec();
    let mut address = word(stub, header.optional + 56)?;
    for (number, (name, content)) in sections.iter().enumerate() {
        out.resize(out.len().next_multiple_of(header.file_alignment), 0);
        let (place, raw) = (out.len(), content.len().next_multiple_of(header.file_alignment));
        out.extend_from_slice(content);
        out.resize(place + raw, 0);
        let row = header.table + (header.sections + number) * SECTION_HEADER;
        out[row..row + SECTION_HEADER].fill(0);
        for (to, byte) in out[row..row + 8].iter_mut().zip(name.bytes()) {
            *to = byte;
        }
        for (at, value) in [(8, content.len()), (12, address), (16, raw), (20, place), (36, DATA as usize)] {
            set_word(&mut out, row + at, value)?;
        }
        address = (address + content.len()).next_multiple_of(header.section_alignment);
    }
    let count = u16::try_from(header.sections + sections.len()).map_err(|_| UkiError::TooLarge)?;
    out[header.coff + 2..header.coff + 4].copy_from_slice(&count.to_le_bytes());
    set_word(&mut out, header.optional + 56, address)?;
    // Its check sum; the firmware takes none as well.
    set_word(&mut out, header.optional + 64, 0)?;
    Ok(out)
}

/// Whether a signature for Secure Boot is at the end of a program. Whose, it does not say.
///
/// # Errors
/// The program is none.
pub fn is_signed(program: &[u8]) -> Result<bool, UkiError> {
    /// Of the directories behind the header, the one of certificates; in it the kind that firmware takes.
    const CERTIFICATES: usize = 112 + 4 * 8;
    const KIND: [u8; 4] = [0, 2, 2, 0];
    const HEAD: usize = 8;
    let header = Header::parse(program)?;
    let directory = header.optional + CERTIFICATES;
    let (place, bytes) = (word(program, directory)?, word(program, directory + 4)?);
    let table = program.get(place..).filter(|table| place != 0 && table.len() == bytes && bytes > HEAD);
    let Some(table) = table else { return Ok(false) };
    let length = word(table, 0)?;
    Ok((HEAD + 1..=bytes).contains(&length) && table[4..HEAD] == KIND)
}

/// The content of a section.
///
/// # Errors
/// The program is none.
pub fn section<'a>(program: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, UkiError> {
    let header = Header::parse(program)?;
    for number in 0..header.sections {
        let row = header.table + number * SECTION_HEADER;
        let found = program.get(row..row + 8).ok_or(UkiError::NoProgram("it is too short"))?;
        let found = found.split(|byte| *byte == 0).next().unwrap_or_default();
        if found == name.as_bytes() {
            let (length, raw, place) = (word(program, row + 8)?, word(program, row + 16)?, word(program, row + 20)?);
            let content = program.get(place..place.saturating_add(length.min(raw)));
            return content.map(Some).ok_or(UkiError::NoProgram("it is cut short"));
        }
    }
    Ok(None)
}

/// The value of one of the kernel's arguments in a kernel image.
#[must_use]
pub fn argument(program: &[u8], name: &str) -> Option<String> {
    let line = section(program, ARGUMENTS).ok()??;
    let line = String::from_utf8_lossy(line);
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.map(|value| value.trim_end_matches('\0').to_owned())
}

/// The release of the kernel in a kernel image, if it tells.
#[must_use]
pub fn release(program: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(section(program, RELEASE).ok()??).into_owned();
    Some(text.trim_end_matches('\0').trim().to_owned()).filter(|text| !text.is_empty())
}

/// Where [`bare_program`] has its two headers.
const COFF: usize = 0x44;
const OPTIONAL: usize = COFF + 20;

/// The least that firmware would take for a program: headers and no section. It stands for systemd's stub in tests, of
/// other crates too, and does nothing.
#[must_use]
pub fn bare_program() -> Vec<u8> {
    const OPTIONAL_BYTES: u16 = 240;
    let mut program = vec![0; 0x400];
    let mut put = |at: usize, bytes: &[u8]| program[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &[0x40]);
    put(0x40, b"PE\0\0");
    for (at, value) in [(COFF, AMD64), (COFF + 16, OPTIONAL_BYTES), (OPTIONAL, PE32_PLUS)] {
        put(at, &value.to_le_bytes());
    }
    // Alignment of sections in memory and in the file, memory in all, headers in the file.
    for (at, value) in [(32, 0x1000_u32), (36, 0x200), (56, 0x2000), (60, 0x400)] {
        put(OPTIONAL + at, &value.to_le_bytes());
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program with one section and room for three.
    fn stub() -> Vec<u8> {
        let mut stub = bare_program();
        stub[COFF + 2] = 1;
        set_word(&mut stub, OPTIONAL + 60, 0x1f0).unwrap();
        stub
    }

    #[test]
    fn sections_are_added_and_found() {
        let kernel = vec![1; 5000];
        let image = assemble(&stub(), &[(ARGUMENTS, b"quiet keelson.root=ab panic=1"), (KERNEL, &kernel)]).unwrap();
        assert_eq!(section(&image, KERNEL).unwrap().unwrap(), kernel);
        assert_eq!(argument(&image, "keelson.root").unwrap(), "ab");
        assert_eq!(section(&image, INITRAMFS).unwrap(), None);
        // The addresses follow one another.
        assert_eq!(word(&image, OPTIONAL + 56).unwrap(), 0x2000 + 0x1000 + 0x2000);
        assert_eq!(image.len() % 0x200, 0);
    }

    #[test]
    fn a_signature_is_seen() {
        let mut program = assemble(&stub(), &[(KERNEL, b"kernel")]).unwrap();
        assert_eq!(is_signed(&program), Ok(false));
        let place = program.len();
        program.extend_from_slice(&[16, 0, 0, 0, 0, 2, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        set_word(&mut program, OPTIONAL + 144, place).unwrap();
        set_word(&mut program, OPTIONAL + 148, 16).unwrap();
        assert_eq!(is_signed(&program), Ok(true));
        program.pop();
        assert_eq!(is_signed(&program), Ok(false));
        assert!(is_signed(b"MZ").is_err());
    }

    #[test]
    fn what_is_no_stub_or_has_no_room_is_refused() {
        assert!(matches!(assemble(b"hello", &[]), Err(UkiError::NoProgram(_))));
        let many = [(KERNEL, b"x".as_slice()); 9];
        assert_eq!(assemble(&stub(), &many).unwrap_err(), UkiError::NoRoom(9));
        assert!(section(&stub()[..0x60], KERNEL).is_err());
    }
}
