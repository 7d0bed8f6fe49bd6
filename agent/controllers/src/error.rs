//! Why a run of a controller failed. All of it is tried again with back-off.

/// The steps that write the object itself.
const OWN_WRITES: [&str; 2] = ["writing the status", "writing the revision"];
/// How the server refuses new objects in a namespace that is going.
const CLOSING: &str = "because it is being terminated";

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
    /// It is not known which kinds are served.
    #[error("reading discovery: {0}")]
    Discovery(String),
    /// A namespace still has objects.
    #[error("namespace content remains: {0}")]
    ContentRemains(String),
}

impl Error {
    /// Whether this run decided on a state that was not the newest.
    pub(crate) fn is_race(&self) -> bool {
        match self {
            // An object that is no more: the event that says so is under way.
            Self::Request { step, source } => {
                source.is_conflict() || (OWN_WRITES.contains(step) && source.is_not_found())
            }
            Self::Behind => true,
            Self::Lease(_) | Self::Selector(_) | Self::Discovery(_) | Self::ContentRemains(_) => false,
        }
    }

    /// Whether the namespace takes no new objects any more: what was to be made there is not needed.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self, Self::Request { source, .. } if source.is_forbidden() && source.to_string().contains(CLOSING))
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
