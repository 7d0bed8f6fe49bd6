//! Hash trees by which the kernel (dm-verity, format version 1) checks every block of a root as it is read.
//!
//! ```text
//! root ┬ blocks of data                 the file system
//!      └ tree, the top first            each block holds the digests of 128 blocks of the level below
//! ```
//!
//! The digest of the top is among the kernel's arguments, and so in the kernel image: whoever trusts that one can trust
//! every block of the root. The salt is the root's identifier, so that the same root has the same tree.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use ring::digest::{Context, SHA256};

use crate::update::hex;

/// Data and digests are kept in blocks of this size.
pub const BLOCK_BYTES: usize = 4096;
const DIGEST: usize = 32;
/// The kernel's argument with a [`Verity`].
pub const ARGUMENT: &str = "keelson.verity";

/// What a root must be: how long it is, and the digest of all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verity {
    /// Blocks of data; the tree follows them.
    pub blocks: u64,
    /// The digest of the top of the tree.
    pub digest: [u8; DIGEST],
}

/// What the kernel does where a block is not what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// Whoever reads it gets an error. A system that has proved itself goes on with all that is whole: started again,
    /// it would meet the same block.
    Fail,
    /// The machine ends and starts again. A system on trial has another one to go back to, and must not prove itself
    /// while parts of it cannot be read.
    Panic,
}

/// Why an argument is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{ARGUMENT} is not BLOCKS:DIGEST")]
pub struct VerityError;

impl Verity {
    /// Makes the tree of this data, which is whole blocks, and what it comes to.
    ///
    /// # Errors
    /// The data cannot be read, are none, or do not end with a block.
    pub fn build(mut data: impl Read, salt: &[u8]) -> io::Result<(Self, Vec<u8>)> {
        let mut digests = Vec::new();
        let mut block = vec![0; BLOCK_BYTES];
        let mut blocks = 0;
        while read_block(&mut data, &mut block)? {
            digests.extend_from_slice(&digest(salt, &block));
            blocks += 1;
        }
        if blocks == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "there is no data"));
        }
        let mut tree = Vec::new();
        while digests.len() > DIGEST {
            digests.resize(digests.len().next_multiple_of(BLOCK_BYTES), 0);
            let above = digests.chunks_exact(BLOCK_BYTES).flat_map(|block| digest(salt, block)).collect();
            // The levels above come before it.
            tree.splice(..0, std::mem::replace(&mut digests, above));
        }
        let mut top = [0; DIGEST];
        top.copy_from_slice(&digests);
        Ok((Self { blocks, digest: top }, tree))
    }

    /// The data's size.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blocks * BLOCK_BYTES as u64
    }

    /// The hash tree's size in blocks.
    #[must_use]
    pub fn tree_blocks(&self) -> u64 {
        const BELOW: u64 = (BLOCK_BYTES / DIGEST) as u64;
        let above = |blocks: &u64| (*blocks > 1).then(|| blocks.div_ceil(BELOW));
        std::iter::successors(above(&self.blocks), above).sum()
    }

    /// What the kernel is told of a target of kind `verity`, for data and tree on this device (`MAJOR:MINOR`).
    #[must_use]
    pub fn parameters(&self, device: &str, salt: &[u8], on_damage: OnDamage) -> String {
        let Self { blocks, digest } = self;
        let options = match on_damage {
            OnDamage::Fail => "",
            OnDamage::Panic => " 1 panic_on_corruption",
        };
        let (digest, salt) = (hex(digest), hex(salt));
        format!("1 {device} {device} {BLOCK_BYTES} {BLOCK_BYTES} {blocks} {blocks} sha256 {digest} {salt}{options}")
    }
}

impl fmt::Display for Verity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.blocks, hex(&self.digest))
    }
}

impl FromStr for Verity {
    type Err = VerityError;

    fn from_str(text: &str) -> Result<Self, VerityError> {
        let (blocks, digits) = text.split_once(':').ok_or(VerityError)?;
        // The kernel counts sectors in 64 bits.
        const MOST: u64 = 1 << 50;
        let blocks = blocks.parse().ok().filter(|blocks| (1..MOST).contains(blocks)).ok_or(VerityError)?;
        if digits.len() != 2 * DIGEST || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(VerityError);
        }
        let mut digest = [0; DIGEST];
        for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| VerityError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| VerityError)?;
        }
        Ok(Self { blocks, digest })
    }
}

fn digest(salt: &[u8], block: &[u8]) -> [u8; DIGEST] {
    let mut context = Context::new(&SHA256);
    context.update(salt);
    context.update(block);
    let mut out = [0; DIGEST];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// Fills the block; `false` where the data have ended.
fn read_block(data: &mut impl Read, block: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < block.len() {
        match data.read(&mut block[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the data do not end with a block")),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: [u8; 16] = [0x5a; 16];

    fn data(blocks: usize) -> Vec<u8> {
        (0..blocks * BLOCK_BYTES).map(|at| u8::try_from(at / 7 % 251).unwrap()).collect()
    }

    fn built(blocks: usize) -> (Verity, Vec<u8>) {
        Verity::build(data(blocks).as_slice(), &SALT).unwrap()
    }

    #[test]
    fn a_tree_has_a_block_for_each_128_below() {
        for (blocks, levels) in [(1, 0), (2, 1), (128, 1), (129, 2 + 1), (300, 3 + 1), (128 * 128 + 1, 129 + 2 + 1)] {
            let (verity, tree) = built(blocks);
            assert_eq!((verity.blocks, tree.len() / BLOCK_BYTES), (blocks as u64, levels), "{blocks} blocks");
            assert_eq!(verity.tree_blocks(), levels as u64, "{blocks} blocks");
        }
        assert!(Verity::build([].as_slice(), &SALT).is_err());
        assert!(Verity::build([7; 5000].as_slice(), &SALT).is_err());
    }

    #[test]
    fn every_block_leads_to_the_top() {
        let (verity, tree) = built(300);
        let digest_of = |block: &[u8]| digest(&SALT, block);
        // The top first, then the three blocks with the digests of the data.
        let [top, level] = [&tree[..BLOCK_BYTES], &tree[BLOCK_BYTES..]];
        assert_eq!(digest_of(top), verity.digest);
        for (number, block) in data(300).chunks_exact(BLOCK_BYTES).enumerate() {
            assert_eq!(level[number * DIGEST..][..DIGEST], digest_of(block));
            let above = number / 128;
            assert_eq!(top[above * DIGEST..][..DIGEST], digest_of(&level[above * BLOCK_BYTES..][..BLOCK_BYTES]));
        }
        let mut other = data(300);
        other[299 * BLOCK_BYTES + 5] ^= 1;
        assert_ne!(Verity::build(other.as_slice(), &SALT).unwrap().0.digest, verity.digest);
        assert_ne!(Verity::build(data(300).as_slice(), &[1]).unwrap().0.digest, verity.digest);
    }

    #[test]
    fn arguments_are_read_as_they_are_written() {
        let (verity, _) = built(3);
        assert_eq!(verity.to_string().parse(), Ok(verity.clone()));
        let digits = "ab".repeat(DIGEST);
        for text in
            ["", "3", &digits, &format!("0:{digits}"), &format!("3:{digits}0"), &format!("3:+b{}", &digits[2..])]
        {
            assert_eq!(text.parse::<Verity>(), Err(VerityError), "{text}");
        }
        let verity: Verity = format!("7:{digits}").parse().unwrap();
        let told = verity.parameters("259:2", &[0, 0xff], OnDamage::Panic);
        assert_eq!(told, format!("1 259:2 259:2 4096 4096 7 7 sha256 {digits} 00ff 1 panic_on_corruption"));
    }
}
