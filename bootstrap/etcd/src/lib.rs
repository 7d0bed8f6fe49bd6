//! etcd configuration and membership planning.
