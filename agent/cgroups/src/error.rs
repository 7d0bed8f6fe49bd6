//! What can go wrong with control groups.

/// A failed operation on the tree.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is mounted.
    #[error("no control group hierarchy is mounted")]
    NotMounted,
    /// The mount table could not be read.
    #[error("find the control group hierarchy")]
    Detect(#[source] sys::Error),
    /// A group could not be made.
    #[error("create control group {group}")]
    Create {
        /// Its name.
        group: String,
        /// The kernel's answer.
        #[source]
        source: sys::Error,
    },
    /// A controller could not be handed down.
    #[error("enable the {controller} controller below control group {group}")]
    Enable {
        /// The parent's name.
        group: String,
        /// The controller's name.
        controller: &'static str,
        /// The kernel's answer.
        #[source]
        source: sys::Error,
    },
    /// A limit was refused.
    #[error("set {file} of control group {group}")]
    Set {
        /// The group's name.
        group: String,
        /// The control file.
        file: &'static str,
        /// The kernel's answer.
        #[source]
        source: sys::Error,
    },
    /// A control file could not be read.
    #[error("read {file} of control group {group}")]
    Read {
        /// The group's name.
        group: String,
        /// The control file.
        file: &'static str,
        /// The kernel's answer.
        #[source]
        source: sys::Error,
    },
    /// A group could not be removed.
    #[error("remove control group {group}")]
    Remove {
        /// The group's name.
        group: String,
        /// The kernel's answer.
        #[source]
        source: sys::Error,
    },
}
