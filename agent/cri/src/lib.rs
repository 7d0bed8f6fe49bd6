//! A thin typed wrapper of the container runtime interface.
