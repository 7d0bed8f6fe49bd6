//! Cluster DNS answered from watch caches.
