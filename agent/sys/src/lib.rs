//! The kernel as a trait, its Linux implementation and a recording fake.
//!
//! [`System`] is what code with effects on the machine is given, so that boot and service logic is tested without a
//! machine. The modules beside it are thin, safe forms of kernel interfaces (descriptors to wait on, sockets that
//! std does not know). Only this crate contains `unsafe`. It knows nothing of manifests, services or Kubernetes.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod block;
mod capture;
mod children;
mod claim;
mod confine;
mod error;
mod fake;
mod linux;
mod loops;
mod mapper;
mod memory;
mod modules;
mod mounts;
mod netns;
mod notify;
mod packet;
mod partition;
mod power;
mod pressure;
mod probe;
mod replace;
mod signals;
mod space;
mod spawn;
mod stdio;
mod system;
mod uevent;
mod watch;
mod watchdog;

pub use block::{BlockDevice, block_devices};
pub use capture::{CaptureSocket, FilterInstruction, Frame, attach_filter};
pub use claim::{claim, discard};
pub use confine::{CallGroup, Capabilities, Capability, Confinement};
pub use error::Error;
pub use fake::{Call, FakeSystem};
pub use linux::Linux;
pub use mapper::{FileMapping, Mapping, map_read_only};
pub use memory::give_memory_back;
pub use modules::ModuleIndex;
pub use mounts::mounted_path;
pub use netns::in_network_namespace;
pub use notify::{Notification, NotifySocket, notify};
pub use packet::PacketSocket;
pub use power::{PowerButton, power_buttons};
pub use pressure::PressureTrigger;
pub use probe::{Filesystem, FilesystemKind, PROBE_BYTES, probe_filesystem};
pub use signals::{Signals, ignore_ctrl_alt_del_reboot};
pub use space::{Space, space};
pub use spawn::{Ended, Spawn, Spawned};
pub use stdio::{redirect_stdio, show_typed};
pub use system::{Mount, MountFlags, Power, Signal, System, UnmountFlags};
pub use uevent::{DeviceNews, UeventSocket};
pub use watch::{FileWatch, wait_readable};
pub use watchdog::Watchdog;
