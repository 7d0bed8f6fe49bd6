//! The kernel's tables of what is mounted.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// A path of `/proc/self/mounts` or `/proc/self/mountinfo`, where a blank, a tab, a new line and a backslash stand as a
/// backslash and three octal digits.
#[must_use]
pub fn mounted_path(word: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = if first == b'\\' { after.split_first_chunk::<3>() } else { None };
        let (byte, after) = match escaped.and_then(|(digits, after)| Some((octal(digits)?, after))) {
            Some(read) => read,
            None => (first, after),
        };
        path.push(byte);
        rest = after;
    }
    OsString::from_vec(path).into()
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn what_the_kernel_writes_as_octal_digits_is_read() {
        let read = |word: &[u8]| mounted_path(word).as_os_str().as_bytes().to_vec();
        assert_eq!(read(br"/var/my\040data\011x"), b"/var/my data\tx");
        // A backslash before digits is no further escape.
        assert_eq!(read(br"/a\134040"), br"/a\040");
        assert_eq!(read(b"/\xc3\xa9\xff"), b"/\xc3\xa9\xff");
        assert_eq!(read(br"a\9b\13"), br"a\9b\13");
    }
}
