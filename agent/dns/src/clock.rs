//! What is known of the clock that certificates are judged by.

use std::sync::Arc;

use tokio::sync::watch;

/// Whether somebody has told the machine the time. Until then its clock is a time that has passed, and nothing more: it
/// is never before the last one that the machine knew.
#[derive(Clone, Debug)]
pub(crate) struct Clock(Arc<watch::Sender<bool>>);

impl Clock {
    pub(crate) fn new(is_told: bool) -> Self {
        Self(Arc::new(watch::Sender::new(is_told)))
    }

    pub(crate) fn tell(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn is_told(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once it is. Cancel-safe.
    pub(crate) async fn told(&self) {
        let mut told = self.0.subscribe();
        // The sender is this clock's own, and stays.
        let _told = told.wait_for(|is_told| *is_told).await;
    }
}
