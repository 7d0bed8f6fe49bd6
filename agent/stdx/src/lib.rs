//! Words every crate shares: back-off, error chains, quotes, bounded containers, documents read with precise errors,
//! histograms and the text that shows them, names of sockets.
//!
//! Nothing here knows the domain, a clock, a file or a socket. Randomness and time are arguments.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backoff;
mod chain;
pub mod document;
pub mod exposition;
mod hex;
mod histogram;
mod number;
mod quote;
mod ring;
mod socket;

pub use backoff::Backoff;
pub use chain::{Chain, chain};
pub use hex::hex;
pub use histogram::Histogram;
pub use number::{go_float, go_json_float, go_number};
pub use quote::{Quoted, quoted};
pub use ring::LineRing;
pub use socket::socket_path;
