//! Why a run of a controller failed. All of it is tried again with back-off.

/// The step that writes an object's own status.
const STATUS: &str = "writing the status";

/// A failed run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request failed.
    #[error("{step}")]
    Request {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: client::Error,
    },
    /// Leadership was lost.
    #[error("leading the controllers")]
    Lease(#[from] reconcile::LeaseError),
    /// An object's selector is wrong.
    #[error("reading the selector")]
    Selector(#[from] api::labels::SelectorError),
    /// The cache does not show the effect of our own writes yet.
    #[error("the cache is behind our own writes")]
    Behind,
    /// A namespace still has objects.
    #[error("namespace content remains: {0}")]
    ContentRemains(String),
}

impl Error {
    /// Whether this run decided on a state that was not the newest.
    pub(crate) fn is_race(&self) -> bool {
        match self {
            // A status that has no object any more: the event that says so is under way.
            Self::Request { step, source } => source.is_conflict() || (*step == STATUS && source.is_not_found()),
            Self::Behind => true,
            Self::Lease(_) | Self::Selector(_) | Self::ContentRemains(_) => false,
        }
    }
}

/// Gives a request's failure the step it belongs to.
pub(crate) trait During<T> {
    /// Names the step.
    fn during(self, step: &'static str) -> Result<T, Error>;
}

impl<T> During<T> for Result<T, client::Error> {
    fn during(self, step: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Request { step, source })
    }
}
