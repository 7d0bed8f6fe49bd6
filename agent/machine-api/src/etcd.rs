//! Members of etcd.

use crate::EtcdMember;

impl EtcdMember {
    /// etcd's number of it.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        u64::from_str_radix(&self.id, 16).ok()
    }

    /// Its name, or where it will be while it has none.
    #[must_use]
    pub fn label(&self) -> &str {
        if self.name.is_empty() { self.peer_urls.first().map_or(&self.id, |url| url.as_str()) } else { &self.name }
    }

    /// Whether it leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.is_leader)
    }

    /// Whether it answers and nothing is wrong.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.state.is_some() && self.trouble.is_none()
    }
}
