//! The program of the sandbox image: the first process of a pod's namespaces. It waits to be told to end, and reaps
//! what a shared process namespace leaves to it. 86 bytes of machine code, because a static program of the usual kind
//! is 700 KB, kept in memory once a pod.

/// SIGINT, SIGTERM and SIGCHLD are blocked, for a first process ignores what it neither handles nor blocks; then they
/// are taken one at a time.
const CODE: &[u8] = &[
    0x68, 0x02, 0x40, 0x01, 0x00, //       push  (1 << SIGINT-1) | (1 << SIGTERM-1) | (1 << SIGCHLD-1)
    0x48, 0x89, 0xe6, //                   mov   rsi, rsp
    0x31, 0xff, //                         xor   edi, edi           SIG_BLOCK
    0x31, 0xd2, //                         xor   edx, edx
    0x6a, 0x08, 0x41, 0x5a, //             push  8; pop r10         bytes in a set
    0x6a, 0x0e, 0x58, //                   push  14; pop rax        rt_sigprocmask
    0x0f, 0x05, //                         syscall
    0x48, 0x89, 0xe7, //             wait: mov   rdi, rsp
    0x31, 0xf6, //                         xor   esi, esi
    0x31, 0xd2, //                         xor   edx, edx
    0x6a, 0x08, 0x41, 0x5a, //             push  8; pop r10
    0xb8, 0x80, 0x00, 0x00, 0x00, //       mov   eax, 128           rt_sigtimedwait
    0x0f, 0x05, //                         syscall
    0x83, 0xf8, 0x11, //                   cmp   eax, SIGCHLD
    0x75, 0x17, //                         jne   other
    0x48, 0x83, 0xcf, 0xff, //       reap: or    rdi, -1
    0x31, 0xf6, //                         xor   esi, esi
    0x6a, 0x01, 0x5a, //                   push  1; pop rdx         WNOHANG
    0x45, 0x31, 0xd2, //                   xor   r10d, r10d
    0x6a, 0x3d, 0x58, //                   push  61; pop rax        wait4
    0x0f, 0x05, //                         syscall
    0x85, 0xc0, //                         test  eax, eax
    0x7f, 0xeb, //                         jg    reap
    0xeb, 0xd2, //                         jmp   wait
    0x83, 0xf8, 0x02, //            other: cmp   eax, SIGINT
    0x74, 0x05, //                         je    end
    0x83, 0xf8, 0x0f, //                   cmp   eax, SIGTERM
    0x75, 0xc8, //                         jne   wait
    0x31, 0xff, //                    end: xor   edi, edi
    0xb8, 0xe7, 0x00, 0x00, 0x00, //       mov   eax, 231           exit_group
    0x0f, 0x05, //                         syscall
];

/// Where the file is mapped.
const BASE: u64 = 0x40_0000;
const HEADER_BYTES: u16 = 64;
const SEGMENT_BYTES: u16 = 56;

/// The whole ELF file.
pub(crate) fn program() -> Vec<u8> {
    let start = u64::from(HEADER_BYTES + 2 * SEGMENT_BYTES);
    let size = start + CODE.len() as u64;
    let mut file = Vec::new();
    // 64 bits, little endian, version 1, System V.
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    half(&mut file, &[2, 62]); // executable, x86-64
    word(&mut file, &[1]);
    long(&mut file, &[BASE + start, u64::from(HEADER_BYTES), 0]);
    word(&mut file, &[0]);
    half(&mut file, &[HEADER_BYTES, SEGMENT_BYTES, 2, 0, 0, 0]);
    // Loaded as it stands, to be read and executed.
    word(&mut file, &[1, 5]);
    long(&mut file, &[0, BASE, BASE, size, size, 0x1000]);
    // A stack that is not executable.
    word(&mut file, &[0x6474_e551, 6]);
    long(&mut file, &[0, 0, 0, 0, 0, 16]);
    file.extend(CODE);
    file
}

fn half(file: &mut Vec<u8>, values: &[u16]) {
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

fn word(file: &mut Vec<u8>, values: &[u32]) {
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

fn long(file: &mut Vec<u8>, values: &[u64]) {
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    fn start(folder: &std::path::Path) -> Child {
        let path = folder.join("pause");
        std::fs::write(&path, program()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Command::new(&path).spawn().unwrap()
    }

    fn wait_until_waiting(child: &Child) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !std::fs::read_to_string(format!("/proc/{}/syscall", child.id())).unwrap().starts_with("128 ") {
            assert!(Instant::now() < deadline, "does not wait for signals");
            std::thread::yield_now();
        }
    }

    #[test]
    fn program_ends_well_when_told_to() {
        let folder = tempfile::tempdir().unwrap();
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let mut child = start(folder.path());
            wait_until_waiting(&child);
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
            kill(pid, Signal::SIGCHLD).unwrap();
            kill(pid, signal).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(0));
        }
    }
}
