//! Words of which only a few exist.

use super::{Word, WordError, WordFormat, closest, from_str_by_word};

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident, $format_name:literal, $expected:literal,
     { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// The text in a manifest.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Word for $name {
            const FORMAT: &'static WordFormat =
                &WordFormat { name: $format_name, expected: $expected, pattern: None, choices: &[$($text),+] };

            fn parse_word(text: &str) -> Result<Self, WordError> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(WordError {
                        reason: format!("`{}` is not a {}", text.escape_debug(), $format_name),
                        suggestion: closest(text, Self::FORMAT.choices.iter().copied()).map(str::to_owned),
                    }),
                }
            }
        }

        from_str_by_word!($name);
    };
}

pub(super) use choice;

choice! {
    /// What a machine is in its cluster.
    Role, "role", "`master`, `worker` or `single`", {
        /// Control plane and etcd; ordinary pods are kept away by the usual taint.
        Master = "master",
        /// Runs pods.
        Worker = "worker",
        /// A master that also runs ordinary pods.
        Single = "single",
    }
}

choice! {
    /// A partition that the machine writes to.
    Volume, "volume", "`state` or `data`", {
        /// The manifest, keys and etcd.
        State = "state",
        /// Images, pods and logs.
        Data = "data",
    }
}

choice! {
    /// Which address families an interface asks a server about.
    DhcpMode, "DHCP mode", "`none`, `ipv4`, `ipv6` or `both`", {
        /// No DHCP.
        None = "none",
        /// DHCPv4.
        Ipv4 = "ipv4",
        /// DHCPv6.
        Ipv6 = "ipv6",
        /// DHCPv4 and DHCPv6.
        Both = "both",
    }
}

impl DhcpMode {
    /// Whether DHCPv4 is wanted.
    #[must_use]
    pub const fn ipv4(self) -> bool {
        matches!(self, Self::Ipv4 | Self::Both)
    }

    /// Whether DHCPv6 is wanted.
    #[must_use]
    pub const fn ipv6(self) -> bool {
        matches!(self, Self::Ipv6 | Self::Both)
    }
}

choice! {
    /// A part of the control plane that somebody else may run in place of ours.
    ControlPlanePart, "part of the control plane", "`scheduler` or `controller-manager`", {
        /// Finds nodes for pods.
        Scheduler = "scheduler",
        /// All controllers.
        ControllerManager = "controller-manager",
    }
}

choice! {
    /// How packets between pods of different nodes travel.
    PodNetworkMode, "pod network mode", "`auto`, `direct` or `vxlan`", {
        /// Direct routes to nodes on the same segment, VXLAN to the others.
        Auto = "auto",
        /// Direct routes only.
        Direct = "direct",
        /// VXLAN to every node.
        Vxlan = "vxlan",
    }
}

choice! {
    /// What a taint does to pods that do not tolerate it.
    TaintEffect, "taint effect", "`NoSchedule`, `PreferNoSchedule` or `NoExecute`", {
        /// New pods are not scheduled.
        NoSchedule = "NoSchedule",
        /// New pods are scheduled only if nothing else fits.
        PreferNoSchedule = "PreferNoSchedule",
        /// Running pods are evicted, too.
        NoExecute = "NoExecute",
    }
}
