//! Memory store, real API server and in-process client for component tests.
