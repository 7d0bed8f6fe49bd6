//! Names of Unix sockets.

use std::borrow::Cow;

/// What a socket is called to the kernel: with `@` in front of its name it lies in no folder.
#[must_use]
pub fn socket_path(name: &str) -> Cow<'_, str> {
    name.strip_prefix('@').map_or(Cow::Borrowed(name), |rest| Cow::Owned(format!("\0{rest}")))
}
