//! What the controllers are told.

use ipnet::IpNet;

/// Configuration of all controllers.
#[derive(Clone, Default)]
pub struct Config {
    /// Ranges that nodes get their pod ranges from; none leaves nodes without.
    pub cluster_cidrs: Vec<IpNet>,
    /// Prefix length of a node's IPv4 range; 0 means 24.
    pub node_mask_v4: u8,
    /// Prefix length of a node's IPv6 range; 0 means 64.
    pub node_mask_v6: u8,
    /// The CA bundle that is published in every namespace.
    pub root_ca_pem: String,
    /// Signs certificate signing requests; without one they stay pending.
    pub signer: Option<Signer>,
    /// The key that signs service account tokens, PEM; without one, Secrets that ask for a token stay empty.
    pub service_account_key_pem: Option<String>,
    /// Lead under a lease with this identity; `None` leads at once.
    pub leader_identity: Option<String>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Config(..)")
    }
}

/// The cluster CA.
#[derive(Clone)]
pub struct Signer {
    /// Its certificate, PEM.
    pub cert_pem: String,
    /// Its key, PEM.
    pub key_pem: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(..)")
    }
}
