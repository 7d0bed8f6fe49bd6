//! What can go wrong, by step.

use std::path::PathBuf;

/// A failure of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source of randomness failed.
    #[error("no random bytes can be had")]
    Random,
    /// A private key could not be read.
    #[error("the private key {name} is damaged or of an unknown kind")]
    Key {
        /// Which key.
        name: String,
    },
    /// A certificate could not be read.
    #[error("the certificate {name} is damaged")]
    Certificate {
        /// Which certificate.
        name: String,
    },
    /// A certificate could not be made.
    #[error("the certificate {name} cannot be made")]
    Issue {
        /// Whose certificate.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
    /// A CA is there only in part.
    #[error("of the CA {name} only one of certificate and key is there; restore the other one from a backup")]
    HalfAuthority {
        /// Which CA.
        name: String,
    },
    /// The key of a CA is another CA's.
    #[error("the CA {name} has a key that is not its certificate's")]
    AuthorityKey {
        /// Which CA.
        name: String,
    },
    /// The manifest has another secret than the one the CA was made with.
    #[error("the CA {name} was not derived from the secret in the manifest; correct `control-plane.secret`")]
    AuthoritySecret {
        /// Which CA.
        name: String,
    },
    /// Another CA is to issue, which is not trusted here yet.
    #[error(
        "the CA {name} of `control-plane.secret` is not trusted here yet; let all machines trust it first, as \
         `control-plane.accepted-secret` beside the one that issues"
    )]
    AuthorityTooEarly {
        /// Which CA, or which key.
        name: String,
    },
    /// The CA that has issued so far would not be trusted any more.
    #[error(
        "the CA {name} that has issued so far would not be trusted any more; keep its secret as \
         `control-plane.accepted-secret` until all machines have certificates of the new one"
    )]
    AuthorityInUse {
        /// Which CA.
        name: String,
    },
    /// A machine that has joined would trust nobody whom it knows.
    #[error(
        "none of the CAs that this machine trusts ({known}) would be trusted any more, and with them not its cluster; \
         let it trust the old and the new one first"
    )]
    NothingTrusted {
        /// The pins of those that it trusts.
        known: String,
    },
    /// A machine that has joined would have certificates of a CA that it does not know yet.
    #[error(
        "the CA {ca} is not known here yet; let the machine trust it first, beside the one that issues, and the masters \
         before it"
    )]
    NotYetKnown {
        /// Its pin.
        ca: manifest::CaHash,
    },
    /// A machine that has joined has a certificate of a CA that would not be trusted any more.
    #[error(
        "the certificate {name} is still of the CA {ca}, which would not be trusted any more; wait for its renewal"
    )]
    NotYetReissued {
        /// Which certificate.
        name: String,
        /// The CA's pin.
        ca: manifest::CaHash,
    },
    /// The secret in the manifest is elsewhere, and was not found.
    #[error(transparent)]
    Secret(#[from] manifest::Unknown),
    /// A CA has expired.
    #[error("the CA {name} is not valid at this time; check the clock, else the cluster needs a new CA")]
    AuthorityTime {
        /// Which CA.
        name: String,
    },
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A request was refused.
    #[error("the certificate signing request is refused")]
    Denied(#[from] CsrDenied),
}

/// Why a certificate signing request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrDenied {
    /// It is not a request.
    #[error("this is not a PEM certificate signing request")]
    Unreadable,
    /// The requester does not hold the key.
    #[error("the signature is not by the key in the request")]
    Signature,
    /// The subject has a form that is not signed here.
    #[error("the subject has an empty part, or several names in one part")]
    Subject,
    /// The subject has more than one organization.
    #[error("the subject has {0} organizations; at most one is signed here")]
    Organizations(usize),
    /// Something is asked for that is not signed here.
    #[error("the request has an extension that is not signed here")]
    Extension,
    /// A CA certificate is asked for.
    #[error("the request is for a CA")]
    Authority,
    /// A usage is not known.
    #[error("the usage {0:?} is not known")]
    UnknownUsage(String),
    /// The usages are not those that the signer gives.
    #[error("the usages are not those that this signer gives: {expected}")]
    Usages {
        /// What the signer gives.
        expected: &'static str,
    },
    /// The common name is not a node's.
    #[error("the common name is not system:node:NAME")]
    NotANode,
    /// The organization is not the nodes'.
    #[error("the organization is not exactly system:nodes")]
    NotInNodes,
    /// Names are asked for that a client certificate has not.
    #[error("a client certificate has no DNS names, addresses, e-mail addresses or URIs")]
    Names,
    /// No name is asked for.
    #[error("a serving certificate has at least one DNS name or address")]
    NoNames,
    /// E-mail addresses or URIs are asked for.
    #[error("a serving certificate has no e-mail addresses or URIs")]
    OtherNames,
    /// Somebody asks for a node's certificate that is not that node.
    #[error("{requester} may not ask for a certificate of {node}")]
    Requester {
        /// Who asks.
        requester: String,
        /// Whose certificate.
        node: String,
    },
    /// A name or an address is asked for that the node does not have.
    #[error("{0} is not a name or an address of the node")]
    ForeignName(String),
}
