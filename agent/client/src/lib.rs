//! Typed API client over any tower service.
