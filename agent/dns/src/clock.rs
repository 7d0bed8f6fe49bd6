//! What is known of the clock that certificates are judged by.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether somebody has told the machine the time. Until then its clock is a time that has passed, and nothing more: it
/// is never before the last one that the machine knew.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock(Arc<AtomicBool>);

impl Clock {
    pub(crate) fn new(is_told: bool) -> Self {
        Self(Arc::new(is_told.into()))
    }

    pub(crate) fn tell(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
