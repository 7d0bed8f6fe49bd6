//! Drivers of what the root may lie on: for the devices that are there, and for those that come while it is looked for, as
//! what hangs on USB does.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use sys::{Error, Linux, ModuleIndex, UeventSocket, wait_readable};

/// The names of the modules that do not depend on devices.
const LIST: &str = "/usr/lib/keelson/modules.list";

/// The modules of the initramfs, and what the kernel tells about devices.
pub(crate) struct Drivers {
    index: ModuleIndex,
    events: UeventSocket,
}

impl Drivers {
    /// Loads what every machine has and what the devices that are there want.
    pub(crate) fn load() -> Result<Self> {
        // Before the first look at what is there, so that nothing is missed in between.
        let events = UeventSocket::listen()?;
        let mut index = ModuleIndex::read(&Linux);
        if let Some(error) = index.load_listed(&Linux, Path::new(LIST)).into_iter().next() {
            return Err(error).context("load what every machine needs");
        }
        tell(index.load_for_devices(&Linux));
        Ok(Self { index, events })
    }

    /// Waits until disks may have come, no longer than `time`. Drivers are loaded for whatever else came.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = std::time::Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            drop(wait_readable(&[self.events.as_fd()], left));
            let news = self.events.news();
            tell(self.index.load_for(&Linux, news.aliases).1);
            if news.has_disks || left.is_zero() {
                return;
            }
        }
    }
}

/// One device that cannot be driven need not be the one with the root.
fn tell(failures: Vec<Error>) {
    for error in failures {
        crate::tell(&format!("keelson: {:#}", anyhow::Error::new(error)));
    }
}
