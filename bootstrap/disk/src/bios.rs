//! What a BIOS finds on a disk of ours. It would start the first sector of it; what it starts here says what is wrong.

/// Where a BIOS puts the sector that it starts.
const PLACE: u16 = 0x7c00;
const MESSAGE: &str = "\r\nKeelson is started by UEFI firmware only, and this machine has started its disk as a BIOS \
                       does.\r\nSet the firmware to UEFI (often by turning \"Legacy\" or \"CSM\" off), and start again.\r\n";
const PROGRAM_BYTES: usize = 25;
/// The old kind of partition table begins here.
const TABLE: usize = 446;

/// Says the message and halts.
const PROGRAM: [u8; PROGRAM_BYTES] = {
    let message = (PLACE + 25).to_le_bytes();
    [
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xfc, // cld
        0xbe, message[0], message[1], // mov si, message
        0xac,       // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x09, // jz done
        0xb4, 0x0e, // mov ah, 14: say a character
        0xbb, 0x07, 0x00, // mov bx, 7: in grey
        0xcd, 0x10, // int 16
        0xeb, 0xf2, // jmp next
        0xf4, // done: hlt
        0xeb, 0xfd, // jmp done
    ]
};
const _: () = assert!(PROGRAM_BYTES + MESSAGE.len() < TABLE, "the message runs into the partition table");

/// Puts it into a disk's first sector.
pub(crate) fn put(sector: &mut [u8]) {
    sector[..PROGRAM_BYTES].copy_from_slice(&PROGRAM);
    sector[PROGRAM_BYTES..PROGRAM_BYTES + MESSAGE.len()].copy_from_slice(MESSAGE.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jumps_lead_where_they_should() {
        let lands = |at: usize| at + 2 + usize::from(PROGRAM[at + 1]);
        let back = |at: usize| at + 2 - usize::from(PROGRAM[at + 1].wrapping_neg());
        assert_eq!((PROGRAM[lands(0x0b)], PROGRAM[back(0x14)], back(0x17)), (0xf4, 0xac, lands(0x0b)));
        let mut sector = [0; 512];
        put(&mut sector);
        assert!(sector[PROGRAM_BYTES..].starts_with(b"\r\nKeelson") && sector[TABLE - 1..] == [0; 67]);
    }
}
