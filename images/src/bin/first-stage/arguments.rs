//! What the kernel's arguments say about the root.

use ::disk::{VERITY_ARGUMENT, Verity};
use anyhow::{Context, Result};

/// The root that this kernel is for.
pub(crate) struct Wanted {
    /// The identifier of its file system, and the salt of its hash tree.
    pub(crate) id: [u8; 16],
    /// What it must be; without it nothing is checked.
    pub(crate) verity: Option<Verity>,
}

impl Wanted {
    pub(crate) fn parse(line: &str) -> Result<Self> {
        let text = value(line, "keelson.root").context("the kernel's arguments lack keelson.root=IDENTIFIER")?;
        let id = u128::from_str_radix(text, 16).with_context(|| format!("keelson.root={text} is no identifier"))?;
        // One that cannot be read is an error: nobody may switch the check off by damaging it.
        let verity = value(line, VERITY_ARGUMENT).map(str::parse).transpose().context("the kernel's arguments")?;
        Ok(Self { id: id.to_be_bytes(), verity })
    }
}

/// The first of them counts: those of the kernel image come before what a loader adds.
fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_root_and_what_it_must_be_are_found() {
        let digits = "0f".repeat(32);
        let root = "quiet keelson.root=000102030405060708090a0b0c0d0e0f";
        let wanted =
            Wanted::parse(&format!("{root} keelson.verity=9:{digits} keelson.verity=1:00 panic=10\n")).unwrap();
        assert_eq!((wanted.id[15], wanted.verity.unwrap().to_string()), (15, format!("9:{digits}")));
        assert!(Wanted::parse(root).unwrap().verity.is_none());
        for line in
            ["quiet", "keelson.root=x", &format!("{root} keelson.verity=9:0f"), &format!("{root} keelson.verity=")]
        {
            assert!(Wanted::parse(line).is_err(), "{line}");
        }
    }
}
