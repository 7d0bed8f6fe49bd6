//! What an image is made of. Everything here is an allow-list: a file, library or module that is not named, or
//! needed by one that is, does not get in.

/// The release that the kernel and the base come from.
pub(crate) const BASE_SUITE: &str = "trixie";
/// The release that [`PINNED`] comes from: the base release's containerd is too old.
pub(crate) const NEWER_SUITE: &str = "forky";
/// Taken from [`NEWER_SUITE`]; all else is kept at the base release.
pub(crate) const PINNED: &[&str] = &["containerd", "runc", "etcd-server"];
/// Depends on the kernel of the day, whose package name holds its version.
pub(crate) const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";

/// systemd's boot loader and the stub of kernel images.
pub(crate) const LOADER_PACKAGE: &str = "systemd-boot-efi";

/// Packages that files are taken from, beside [`PINNED`] and the kernel. A library missing here is named by the
/// check for unresolved libraries.
pub(crate) const PACKAGES: &[&str] = &[
    "base-files",
    "ca-certificates",
    "e2fsprogs",
    "libblkid1",
    "libbsd0",
    "libc6",
    "libcom-err2",
    "libedit2",
    "libext2fs2t64",
    "libgmp10",
    "libjansson4",
    "libmd0",
    "libmnl0",
    "libnftables1",
    "libnftnl11",
    "libseccomp2",
    "libtinfo6",
    "libuuid1",
    "libxtables12",
    "nftables",
    "tzdata",
];

/// Files kept, with the libraries that they need.
pub(crate) const FILES: &[&str] = &[
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
    "usr/bin/etcd",
    "usr/lib/os-release",
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

/// Modules that the first stage needs to leave word of a panic, to learn what the loader has started, and to mount the
/// root from whatever disk or optical medium, each of its blocks checked.
pub(crate) const ROOT_MODULES: &[&str] = &[
    "efi_pstore",
    "efivarfs",
    "erofs",
    "virtio_blk",
    "virtio_scsi",
    "sd_mod",
    "sr_mod",
    "ahci",
    "dm_verity",
    "sha256_ssse3",
];

/// Modules that every machine loads at boot. There is no modprobe, so whatever the kernel would ask for by itself
/// (file systems, nftables expressions) must be named too.
pub(crate) const BOOT_MODULES: &[&str] = &[
    "qemu_fw_cfg",
    "virtio_net",
    "virtio_rng",
    "button",
    "evdev",
    "overlay",
    "veth",
    "bridge",
    "br_netfilter",
    "vxlan",
    "dummy",
    "nf_tables",
    "nf_conntrack",
    "nf_conntrack_netlink",
    "nf_nat",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib",
    "nft_fib_inet",
    "nft_fib_ipv4",
    "nft_fib_ipv6",
    "nft_hash",
    "nft_limit",
    "nft_log",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_redir",
    "nft_reject",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "inet_diag",
    "tcp_diag",
];

/// Modules that a machine loads when its manifest has interfaces of their sort.
pub(crate) const NETWORK_MODULES: &[&str] = &["8021q", "bonding", "bridge", "wireguard"];

/// Modules that a manifest or a pod's volume may ask for.
pub(crate) const SPARE_MODULES: &[&str] = &[
    "loop",
    "virtio_balloon",
    "ena",
    "gve",
    "tun",
    "macvlan",
    "ipvlan",
    "ipip",
    "sit",
    "nft_compat",
    "nft_connlimit",
    "nft_dup_ipv4",
    "nft_dup_ipv6",
    "nft_flow_offload",
    "nft_fwd_netdev",
    "nft_queue",
    "nft_quota",
    "nft_socket",
    "nft_synproxy",
    "nft_tproxy",
    "nft_tunnel",
    "nft_xfrm",
    "ip_vs",
    "ip_vs_rr",
    "ip_set",
    "xt_MASQUERADE",
    "xt_addrtype",
    "xt_comment",
    "xt_conntrack",
    "xt_mark",
    "xt_multiport",
    "xt_nat",
    "xt_set",
    "xt_statistic",
    "xt_tcpudp",
    "ip_tables",
    "ip6_tables",
    "iptable_filter",
    "iptable_nat",
    "cls_bpf",
    "sch_ingress",
    "sch_netem",
    "sch_tbf",
    "dm_crypt",
    "xfs",
    "btrfs",
    "nfs",
    "nfsv4",
    "ceph",
    "rbd",
    "iscsi_tcp",
    "nvme_tcp",
    "vhost_net",
    "vsock",
    "i6300esb",
    "softdog",
    "wdat_wdt",
    "sctp",
    "fuse",
    "configs",
];
