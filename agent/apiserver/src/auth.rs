//! Who makes a request and what they may do.
//!
//! ```text
//!   headers, certificates ─▶ authn ─▶ UserInfo ─▶ impersonate ─▶ authz ─▶ Decision
//! ```
//!
//! Everything a request depends on is in memory: `authn` looks objects up through [`authn::Lookup`], the authorizers
//! are fed by `apply` and `delete` calls. Nothing here waits for anything but a lock, reads files or knows the time
//! other than through the clock it was given.

pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod identity;
pub mod impersonate;
mod jws;
pub mod keys;
pub mod token;
