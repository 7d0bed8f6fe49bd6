//! Refusals: a code for programs, a sentence for people.

use tonic::{Code, Status};

/// A sentence travels in a header, of which callers take 16 KiB, up to three for each byte.
const REASON_BYTES: usize = 4 << 10;

/// What is asked for cannot be understood, or never be done.
pub(super) fn bad(reason: impl Into<String>) -> Status {
    refused(Code::InvalidArgument, reason)
}

/// There is nothing of the name.
pub(super) fn absent(reason: impl Into<String>) -> Status {
    refused(Code::NotFound, reason)
}

/// The machine, or the cluster, is not as it would have to be.
pub(super) fn conflict(reason: impl Into<String>) -> Status {
    refused(Code::FailedPrecondition, reason)
}

/// As much is done already as this machine does at once.
pub(super) fn busy(reason: impl Into<String>) -> Status {
    refused(Code::ResourceExhausted, reason)
}

/// What is needed for it does not answer now.
pub(super) fn away(reason: impl Into<String>) -> Status {
    refused(Code::Unavailable, reason)
}

/// Something went wrong here.
pub(super) fn failed(reason: impl Into<String>) -> Status {
    refused(Code::Internal, reason)
}

fn refused(code: Code, reason: impl Into<String>) -> Status {
    let mut reason = reason.into();
    if reason.len() > REASON_BYTES {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES));
        reason += " …";
    }
    reason.truncate(reason.trim_end().len());
    Status::new(code, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_fits_in_a_header() {
        assert_eq!(bad("no\n").message(), "no");
        let long = bad("ä".repeat(5000));
        assert!(long.message().len() <= REASON_BYTES + 4 && long.message().ends_with("ä …"));
    }
}
