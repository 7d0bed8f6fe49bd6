//! A machine's disk in words: partition table, layout, EFI system partition, boot entries, kernel images, update files.
//!
//! ```text
//! GPT  1 KEELSON-ESP    loader, one kernel image per slot     ← [`Esp`], [`Entry`], [`uki`]
//!      2 KEELSON-A      root of slot A and its hash tree      ┐ written by turns, as an [`Update`] says
//!      3 KEELSON-B      root of slot B                        ┘
//!      4 KEELSON-STATE  manifest, keys, etcd                  ┐ made on the first boot ([`layout`])
//!      5 KEELSON-DATA   images, pods, logs                    ┘
//! ```
//!
//! Everything works on a [`Device`], which may be memory: what an image holds, what a machine writes and what the tests
//! cut short is one code. It opens no files, knows no clock and no randomness; identifiers are derived from content.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bios;
mod device;
mod entry;
mod esp;
mod extension;
mod gather;
mod gpt;
mod guid;
pub mod iso;
mod kubernetes;
pub mod layout;
pub mod uki;
mod update;
mod verity;

pub use device::{Device, Memory, Window};
pub use entry::{Entry, Slot, Tries, loader_choice};
pub use esp::{ENTRIES, Esp, EspError};
pub use extension::{
    About, EXTENSION_BYTES, EXTENSION_ENDING, EXTENSION_HEAD_BYTES, Extension, ExtensionError, ExtensionHead, Misfit,
    lost,
};
pub use gpt::{GptError, Partition, SECTOR_BYTES, Table};
pub use guid::Guid;
pub use kubernetes::{Around, Kubernetes, NoVersion, Runs, SkewError};
pub use update::{Digesting, HEAD_BYTES, Head, Part, StateFormats, Takes, Update, UpdateError, sha256_hex};
pub use verity::{ARGUMENT as VERITY_ARGUMENT, BLOCK_BYTES, OnDamage, Verity, VerityError};
