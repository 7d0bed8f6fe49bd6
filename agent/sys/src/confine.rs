//! What a child gives up before it becomes its program: capabilities, new privileges, system calls.
//!
//! All of it is inherited by whatever the child starts and cannot be taken back. System calls are refused by a list of
//! what nobody needs, not allowed by a list of what is needed: the latter would have to be found out anew with each version
//! of the C library, of Go's runtime and of the kernel, and a machine that does not come up is no safer one. A call that is
//! refused fails with `EPERM` and leaves a line in the kernel's log. It does not end its program, since libraries ask what a
//! kernel has, and a control plane that fell to such a question would be the larger damage.

use std::collections::BTreeMap;
use std::io;

use nix::errno::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, sock_filter};

/// Rights that root has beyond owning files, by the numbers of capabilities(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Capability {
    Chown = 0,
    DacOverride = 1,
    DacReadSearch = 2,
    Fowner = 3,
    Fsetid = 4,
    Kill = 5,
    NetBindService = 10,
    NetAdmin = 12,
    NetRaw = 13,
    SysModule = 16,
    SysPtrace = 19,
    SysAdmin = 21,
    SysBoot = 22,
    SysResource = 24,
    SysTime = 25,
    MacOverride = 32,
    MacAdmin = 33,
    Syslog = 34,
}

/// A set of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// All that the kernel knows.
    pub const ALL: Self = Self(u64::MAX);
    /// None: root is the owner of its files and nothing more.
    pub const NONE: Self = Self(0);

    /// These.
    #[must_use]
    pub fn of(capabilities: &[Capability]) -> Self {
        Self(capabilities.iter().fold(0, |all, one| all | 1 << (*one as u64)))
    }

    /// All but these.
    #[must_use]
    pub fn all_but(capabilities: &[Capability]) -> Self {
        Self(!Self::of(capabilities).0)
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn contains(self, capability: Capability) -> bool {
        self.0 & 1 << (capability as u64) != 0
    }
}

/// System calls by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallGroup {
    /// Another kernel, or an end of this one.
    Boot,
    /// Kernel modules.
    Modules,
    /// Programs inside the kernel, and its counters.
    Programs,
    /// The memory and the files of other processes.
    Others,
    /// Keys that the kernel keeps.
    Keys,
    /// File systems: mounting them, changing roots, swap, quotas.
    Mounts,
    /// Entering and leaving namespaces. New processes may still be made in some: the flags of `clone3` lie in memory, where
    /// no filter reads them.
    Namespaces,
    /// Setting the clock.
    Clock,
    /// The machine's ports, and what programs of the past used.
    Hardware,
    /// Ways into the kernel that have been the start of many attacks, and that nothing here takes.
    Fresh,
}

/// What belongs to which group.
const GROUPS: [(CallGroup, &[libc::c_long]); 10] = [
    (CallGroup::Boot, &[libc::SYS_reboot, libc::SYS_kexec_load, libc::SYS_kexec_file_load]),
    (CallGroup::Modules, &[libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module]),
    (CallGroup::Programs, &[libc::SYS_bpf, libc::SYS_perf_event_open]),
    (
        CallGroup::Others,
        &[
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_process_madvise,
            libc::SYS_pidfd_getfd,
            libc::SYS_kcmp,
            libc::SYS_open_by_handle_at,
        ],
    ),
    (CallGroup::Keys, &[libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl]),
    (
        CallGroup::Mounts,
        &[
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_mount_setattr,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_quotactl,
            libc::SYS_quotactl_fd,
            libc::SYS_acct,
        ],
    ),
    (CallGroup::Namespaces, &[libc::SYS_setns, libc::SYS_unshare]),
    (CallGroup::Clock, &[libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_adjtimex, libc::SYS_clock_adjtime]),
    (
        CallGroup::Hardware,
        &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_personality, libc::SYS_vhangup],
    ),
    (
        CallGroup::Fresh,
        &[
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_fanotify_init,
        ],
    ),
];

/// What a program is left with. By default everything that whoever starts it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// The capabilities that it keeps, and its children may have.
    pub keeps: Capabilities,
    /// System calls that it may use of those that are refused otherwise; `None` refuses none, and lets programs that it
    /// starts gain privileges, as those of containers may.
    pub uses: Option<Vec<CallGroup>>,
}

impl Default for Confinement {
    fn default() -> Self {
        Self { keeps: Capabilities::ALL, uses: None }
    }
}

/// A confinement as it is applied between fork and exec, where nothing may be allocated.
pub(crate) struct Prepared {
    keeps: u64,
    program: Option<BpfProgram>,
}

/// Makes ready what [`Prepared::apply`] does.
pub(crate) fn prepare(confinement: &Confinement) -> io::Result<Option<Prepared>> {
    if *confinement == Confinement::default() {
        return Ok(None);
    }
    let program = confinement.uses.as_ref().map(|uses| refuse(uses)).transpose().map_err(io::Error::other)?;
    Ok(Some(Prepared { keeps: confinement.keeps.0, program }))
}

/// A filter that refuses all groups but these.
fn refuse(uses: &[CallGroup]) -> Result<BpfProgram, seccompiler::BackendError> {
    let refused = GROUPS.iter().filter(|(group, _)| !uses.contains(group)).flat_map(|(_, calls)| calls.iter());
    let rules: BTreeMap<i64, _> = refused.map(|call| (*call, Vec::new())).collect();
    let refusal = SeccompAction::Errno(Errno::EPERM as u32);
    // Calls of other architectures end the process: nothing here was built for one.
    SeccompFilter::new(rules, SeccompAction::Allow, refusal, TargetArch::x86_64)?.try_into()
}

impl Prepared {
    /// Gives everything else up. Async-signal-safe.
    pub(crate) fn apply(&self) -> io::Result<()> {
        drop_bounds(self.keeps)?;
        let cleared = prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong);
        // A kernel without them has none.
        cleared.map_or_else(|error| if is_unknown(&error) { Ok(0) } else { Err(error) }, Ok)?;
        keep(self.keeps)?;
        if let Some(program) = &self.program {
            prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
            install(program)?;
        }
        Ok(())
    }
}

fn is_unknown(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<libc::c_int> {
    const NOTHING: libc::c_ulong = 0;
    // SAFETY: none of the options used here takes a pointer. nix has no form of those about capabilities.
    #[allow(unsafe_code)]
    let result = unsafe { libc::prctl(option, argument, NOTHING, NOTHING, NOTHING) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Takes what is not kept out of reach of all programs to come, root's among them.
fn drop_bounds(keeps: u64) -> io::Result<()> {
    for capability in 0..u64::from(u64::BITS) {
        match prctl(libc::PR_CAPBSET_READ, capability) {
            // The kernel's last one was before.
            Err(_unknown) => break,
            Ok(1) if keeps & 1 << capability == 0 => drop(prctl(libc::PR_CAPBSET_DROP, capability)?),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// As the kernel takes it; the second half holds capabilities from 32 on.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// Leaves this process with those of its capabilities that are kept, and its children with none by inheritance.
fn keep(keeps: u64) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let mut halves = [Half::default(); 2];
    // SAFETY: the kernel reads one header and writes two halves, which are laid out as it wants them and outlive the call.
    // Neither nix nor std has a form of it.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw const header, halves.as_mut_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let masks = [keeps & u64::from(u32::MAX), keeps >> u32::BITS];
    for (half, mask) in halves.iter_mut().zip(masks) {
        half.permitted &= u32::try_from(mask).unwrap_or(0);
        half.effective &= half.permitted;
        half.inheritable = 0;
    }
    // SAFETY: as above; the kernel only reads.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[repr(C)]
struct Filter {
    len: libc::c_ushort,
    program: *const sock_filter,
}

/// Puts the filter in force for this process and its children. What it refuses is logged, where the kernel can.
fn install(program: &BpfProgram) -> io::Result<()> {
    let len = libc::c_ushort::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let filter = Filter { len, program: program.as_ptr() };
    let set = |flags: libc::c_ulong| {
        // SAFETY: the kernel copies the program, which `filter` describes and which outlives the call. The crate that made
        // it cannot ask for the log, and nix has no form of it.
        #[allow(unsafe_code)]
        let result =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    match set(libc::SECCOMP_FILTER_FLAG_LOG) {
        Err(error) if is_unknown(&error) => set(0),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Spawn, spawn::spawn};
    use std::io::Read;

    /// What a shell prints that is confined like this.
    fn tell(confinement: Confinement, script: &str) -> String {
        let argv = ["/bin/sh", "-c", script].map(String::from).to_vec();
        let env = vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())];
        let spawned = spawn(&Spawn { argv, env, confinement, ..Spawn::default() }).unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(spawned.pid).unwrap());
        nix::sys::wait::waitpid(pid, None).unwrap();
        let mut text = String::new();
        std::fs::File::from(spawned.output.unwrap()).read_to_string(&mut text).unwrap();
        text
    }

    fn is_root() -> bool {
        nix::unistd::geteuid().is_root()
    }

    fn status(text: &str, key: &str) -> String {
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key} in {text}"));
        line.trim_start_matches(':').trim().to_owned()
    }

    #[test]
    fn a_child_keeps_what_it_may_and_cannot_get_more() {
        if !is_root() {
            println!("SKIPPED: only root has something to give up");
            return;
        }
        let keeps = Capabilities::of(&[Capability::NetRaw, Capability::Kill]);
        let text = tell(Confinement { keeps, uses: Some(Vec::new()) }, "cat /proc/self/status");
        let expected = format!("{:016x}", 1 << 13 | 1 << 5);
        // Two programs later, each of which root would have started with everything.
        for key in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(status(&text, key), expected, "{key}");
        }
        for key in ["CapInh", "CapAmb"] {
            assert_eq!(status(&text, key), "0".repeat(16), "{key}");
        }
        assert_eq!(status(&text, "NoNewPrivs"), "1");
        assert_eq!(status(&text, "Seccomp"), "2");
    }

    #[test]
    fn what_is_not_kept_is_gone_before_the_program_starts() {
        if !is_root() {
            println!("SKIPPED: only root has something to give up");
            return;
        }
        // Capabilities are each thread's own.
        let after = std::thread::spawn(|| {
            keep(1 << 5).unwrap();
            std::fs::read_to_string("/proc/thread-self/status").unwrap()
        });
        let text = after.join().unwrap();
        let expected = [("CapPrm", 1 << 5), ("CapEff", 1 << 5), ("CapInh", 0)];
        for (key, mask) in expected {
            assert_eq!(status(&text, key), format!("{mask:016x}"), "{key}");
        }
    }

    #[test]
    fn who_starts_containers_loses_capabilities_and_nothing_else() {
        if !is_root() {
            println!("SKIPPED: only root has something to give up");
            return;
        }
        let keeps = Capabilities::all_but(&[Capability::SysModule, Capability::SysBoot]);
        let text = tell(Confinement { keeps, uses: None }, "cat /proc/self/status");
        let bounds = u64::from_str_radix(&status(&text, "CapBnd"), 16).unwrap();
        assert_eq!(bounds & (1 << 16 | 1 << 22), 0);
        assert_ne!(bounds & 1 << 5, 0);
        assert_eq!((status(&text, "NoNewPrivs"), status(&text, "Seccomp")), ("0".to_owned(), "0".to_owned()));
    }

    #[test]
    fn a_refused_call_fails_and_the_program_goes_on() {
        if !is_root() {
            println!("SKIPPED: only root may ask for namespaces");
            return;
        }
        let script = "unshare --mount true 2>/dev/null && echo made || echo refused; echo alive";
        let confine = |uses| Confinement { keeps: Capabilities::ALL, uses };
        assert_eq!(tell(confine(Some(vec![CallGroup::Mounts])), script), "refused\nalive\n");
        assert_eq!(tell(confine(Some(vec![CallGroup::Mounts, CallGroup::Namespaces])), script), "made\nalive\n");
    }

    #[test]
    fn every_group_is_named_once_and_compiles() {
        let mut calls: Vec<libc::c_long> = GROUPS.iter().flat_map(|(_, calls)| calls.iter().copied()).collect();
        let all = calls.len();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), all);
        assert!(refuse(&[]).unwrap().len() > all);
    }
}
