//! Revisioned keys and bytes with watch: etcd and embedded implementations.
