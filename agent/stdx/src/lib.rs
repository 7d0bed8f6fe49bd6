//! Words every crate shares: back-off, error chains, bounded containers.
