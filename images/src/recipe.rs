//! What an image is made of. Everything here is an allow-list: a file, library or module that is not named, or
//! needed by one that is, does not get in.

pub(crate) mod modules;

/// The release that the kernel and the base come from.
pub(crate) const BASE_SUITE: &str = "trixie";
/// The release that [`PINNED`] comes from: the base release's containerd is too old.
pub(crate) const NEWER_SUITE: &str = "forky";
/// Taken from [`NEWER_SUITE`]; all else is kept at the base release.
pub(crate) const PINNED: &[&str] = &["containerd", "runc", "etcd-server"];
/// Depends on the kernel of the day, whose package name holds its version.
pub(crate) const KERNEL_PACKAGE: &str = "linux-image-amd64";

/// Arguments with which every kernel is started, whatever starts it: no two kinds of objects share memory, what is handed
/// out is empty, and where things lie, the stack of each call included, cannot be foreseen. Not here: what is Debian's
/// default, and what old programs in containers call (`vsyscall`) or tools that measure read (`debugfs`).
pub const HARDENED: &str = "slab_nomerge init_on_alloc=1 page_alloc.shuffle=1 randomize_kstack_offset=on";

/// systemd's boot loader and the stub of kernel images.
pub(crate) const LOADER_PACKAGE: &str = "systemd-boot-efi";

/// Packages that files are taken from, beside [`PINNED`] and the kernel. A library missing here is named by the
/// check for unresolved libraries.
pub(crate) const PACKAGES: &[&str] = &[
    "base-files",
    "ca-certificates",
    "cryptsetup-bin",
    "e2fsprogs",
    "libblkid1",
    "libbsd0",
    "libc6",
    "libcap2",
    "libcom-err2",
    "libcryptsetup12",
    "libdevmapper1.02.1",
    "libedit2",
    "libext2fs2t64",
    "libgmp10",
    "libjansson4",
    "libjson-c5",
    "libmd0",
    "libmnl0",
    "libnftables1",
    "libnftnl11",
    "libpcre2-8-0",
    "libpopt0",
    "libseccomp2",
    "libselinux1",
    "libssl3t64",
    "libtinfo6",
    "libudev1",
    "libuuid1",
    "libxtables12",
    "libzstd1",
    "nftables",
    "tzdata",
    "zlib1g",
];

/// Files kept, with the libraries that they need.
pub(crate) const FILES: &[&str] = &[
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
    "usr/bin/etcd",
    "usr/lib/os-release",
    "usr/sbin/cryptsetup",
    "usr/sbin/e2fsck",
    "usr/sbin/mke2fs",
    "usr/sbin/nft",
    "usr/sbin/resize2fs",
    "usr/sbin/runc",
    "etc/mke2fs.conf",
];

/// Folders kept with all that is in them: time zones, for CronJobs that name one.
pub(crate) const TREES: &[&str] = &["usr/share/zoneinfo"];

/// Empty folders of the root: places to mount on.
pub(crate) const FOLDERS: &[&str] = &[
    "boot",
    "dev",
    "etc/ssl/certs",
    "home",
    "media",
    "mnt",
    "opt",
    "proc",
    "root",
    "run",
    "srv",
    "state",
    "sys",
    "tmp",
    "usr/lib/cni",
    "usr/libexec/kubernetes",
    "usr/local",
    "usr/share/keelson/images",
    "var",
];

/// Symbolic links: path in the image, target.
pub(crate) const LINKS: &[(&str, &str)] = &[
    ("bin", "usr/bin"),
    ("etc/hostname", "/run/keelson/hostname"),
    ("etc/hosts", "/run/keelson/hosts"),
    ("etc/machine-id", "/run/keelson/machine-id"),
    ("etc/mtab", "/proc/self/mounts"),
    ("etc/os-release", "../usr/lib/os-release"),
    ("etc/resolv.conf", "/run/keelson/resolv.conf"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("sbin", "usr/sbin"),
    ("usr/lib/cni/keelson-cni", "../../bin/keelson"),
    ("usr/sbin/fsck.ext4", "e2fsck"),
    ("usr/sbin/init", "../bin/keelson"),
    ("usr/sbin/mkfs.ext4", "mke2fs"),
    ("usr/sbin/modprobe", "../bin/keelson"),
    ("var/run", "/run"),
];

/// Small files written as they stand. `nft` reads the protocols' names.
pub(crate) const TEXTS: &[(&str, &str)] = &[
    ("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nprotocols: files\nservices: files\n"),
    ("etc/passwd", "root:x:0:0:root:/root:/nonexistent\nnobody:x:65534:65534:nobody:/nonexistent:/nonexistent\n"),
    (
        "etc/protocols",
        "ip 0 IP\nicmp 1 ICMP\nigmp 2 IGMP\ntcp 6 TCP\nudp 17 UDP\ndccp 33 DCCP\ngre 47 GRE\nesp 50 IPSEC-ESP\n\
         ah 51 IPSEC-AH\nipv6-icmp 58 IPv6-ICMP\nsctp 132 SCTP\nudplite 136 UDPLite\n",
    ),
];
