//! Extension files: further files of the system in one file, as a file system that nobody can change unseen.
//!
//! ```text
//! head  ┬ a line that says what it is, a line of metadata, a line with its signature, zeros up to its end
//! data  ├ a file system
//! tree  └ its hash tree; what it comes to is in the metadata
//! ```
//!
//! The signature is over the line of metadata, and so over every block: the kernel checks each by the hash tree.

use serde::{Deserialize, Serialize};

use crate::update::numbers;
use crate::verity::{BLOCK_BYTES, Verity};

const MAGIC: &str = "KEELSON-EXTENSION 1";
/// The only kind of machine so far.
const ARCHITECTURE: &str = "x86_64";
/// The head has this length, so that the data begin with a block.
pub const EXTENSION_HEAD_BYTES: usize = 16 * 1024;
/// No extension file is longer: it lies on STATE, beside etcd.
pub const EXTENSION_BYTES: u64 = 512 << 20;
/// How the names of extension files end on a machine.
pub const EXTENSION_ENDING: &str = ".extension";
const NAME_CHARS: usize = 40;
const VERSION_CHARS: usize = 64;

/// What an extension says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// Its name; a machine has one of each.
    pub name: String,
    /// Its version, for people.
    pub version: String,
    /// The release of the kernel that its modules are for; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The least version of the system that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
}

/// The metadata of an extension file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extension {
    /// What it says of itself.
    pub about: About,
    /// What it is for.
    pub architecture: String,
    /// The identifier of its file system, and the salt of the hash tree: 32 hexadecimal digits.
    pub id: String,
    /// What its file system must be, as a [`Verity`] is written.
    pub verity: String,
}

/// The head of an extension file, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionHead {
    /// What it says of itself.
    pub about: About,
    /// The salt of the hash tree.
    pub id: [u8; 16],
    /// What its file system must be.
    pub verity: Verity,
    /// What the signature is over.
    pub signed: Vec<u8>,
    /// In hexadecimal digits; empty without one.
    pub signature: String,
}

/// Why something is no extension of this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// It is none.
    #[error("this is no extension file: {0}")]
    NoExtension(String),
    /// Its metadata cannot be.
    #[error("the extension's {what} is {found:?}: {wanted}")]
    Field {
        /// Which of them.
        what: &'static str,
        /// What is there.
        found: String,
        /// What may be.
        wanted: &'static str,
    },
    /// It is larger than any may be.
    #[error("the extension has {0} bytes, and {EXTENSION_BYTES} are the most")]
    TooLarge(u64),
}

/// Why an extension does not go with a system.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// It has modules of another kernel.
    #[error("it has modules for the kernel {wanted}, and the kernel is {found}")]
    Kernel {
        /// What it is for.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// It wants a newer system.
    #[error("it is for version {wanted} or newer, and the system is {found}")]
    System {
        /// What it is for.
        wanted: String,
        /// What there is.
        found: String,
    },
}

impl About {
    /// Whether all of it can be.
    ///
    /// # Errors
    /// Something cannot.
    pub fn check(&self) -> Result<(), ExtensionError> {
        let refuse = |what, found: &str, wanted| Err(ExtensionError::Field { what, found: found.to_owned(), wanted });
        if !is_name(&self.name) {
            return refuse("name", &self.name, "it is of at most 40 small letters, digits and dashes, a letter first");
        }
        const WORD: &str = "it is of at most 64 letters, digits and the characters . + ~ _ -";
        let words = [("version", Some(&self.version)), ("kernel", self.kernel.as_ref())];
        if let Some((what, text)) = words.iter().find_map(|(what, text)| Some((*what, text.filter(|it| !is_word(it))?)))
        {
            return refuse(what, text, WORD);
        }
        let is_release = |text: &&String| text.split('.').all(|part| part.parse::<u32>().is_ok()) && is_word(text);
        match self.system.as_ref().filter(|text| !is_release(text)) {
            Some(text) => refuse("least system", text, "it is a version such as 0.2.0"),
            None => Ok(()),
        }
    }

    /// The name of its file on a machine. One for another kernel has another: it may lie there before the update comes.
    #[must_use]
    pub fn file_name(&self) -> String {
        let kernel = self.kernel.as_ref().map(|kernel| format!("@{kernel}")).unwrap_or_default();
        format!("{}{kernel}{EXTENSION_ENDING}", self.name)
    }

    /// Whether it goes with a system of this kernel and version.
    ///
    /// # Errors
    /// It does not, and why.
    pub fn fits(&self, kernel: &str, version: &str) -> Result<(), Misfit> {
        if let Some(wanted) = self.kernel.clone().filter(|wanted| wanted != kernel) {
            return Err(Misfit::Kernel { wanted, found: kernel.to_owned() });
        }
        match self.system.clone().filter(|wanted| numbers(wanted) > numbers(version)) {
            Some(wanted) => Err(Misfit::System { wanted, found: version.to_owned() }),
            None => Ok(()),
        }
    }
}

/// The extensions that a system of this kernel and version would lose of those that a machine has: none of the files of
/// that name goes with it. With each, why.
#[must_use]
pub fn lost<'a>(held: &'a [About], kernel: &str, version: &str) -> Vec<(&'a About, Misfit)> {
    let fits = |about: &About| about.fits(kernel, version);
    let is_there = |name: &str| held.iter().any(|it| it.name == name && fits(it).is_ok());
    let misfits = held.iter().filter_map(|about| Some((about, fits(about).err()?)));
    misfits.filter(|(about, _)| !is_there(&about.name)).collect()
}

impl Extension {
    /// The metadata of this file system.
    #[must_use]
    pub fn new(about: About, id: &str, verity: &Verity) -> Self {
        Self { about, architecture: ARCHITECTURE.to_owned(), id: id.to_owned(), verity: verity.to_string() }
    }

    /// The head of the file. `sign` makes the signature, empty for none.
    ///
    /// # Errors
    /// The metadata cannot be, or are too long.
    pub fn head(&self, sign: impl FnOnce(&[u8]) -> String) -> Result<Vec<u8>, ExtensionError> {
        self.about.check()?;
        let no = |error: serde_json::Error| ExtensionError::NoExtension(error.to_string());
        let line = serde_json::to_string(self).map_err(no)?;
        let signature = sign(line.as_bytes());
        let mut head = format!("{MAGIC}\n{line}\n{signature}\n").into_bytes();
        if head.len() > EXTENSION_HEAD_BYTES {
            return Err(ExtensionError::NoExtension("its metadata are too long".to_owned()));
        }
        head.resize(EXTENSION_HEAD_BYTES, 0);
        Ok(head)
    }
}

impl ExtensionHead {
    /// Reads the head of a file, all of it.
    ///
    /// # Errors
    /// It is no extension file, or its metadata cannot be.
    pub fn parse(start: &[u8]) -> Result<Self, ExtensionError> {
        let none = |why: &str| ExtensionError::NoExtension(why.to_owned());
        if !start.starts_with(MAGIC.as_bytes()) {
            return Err(ExtensionError::NoExtension(format!("it does not begin with {MAGIC:?}")));
        }
        let head = start.get(..EXTENSION_HEAD_BYTES).ok_or_else(|| none("it ends within its head"))?;
        let mut lines = head.splitn(4, |byte| *byte == b'\n');
        let (Some(magic), Some(signed), Some(signature), Some(rest)) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(none("its metadata have no end"));
        };
        if magic != MAGIC.as_bytes() || rest.iter().any(|byte| *byte != 0) {
            return Err(none("its head holds more than its metadata"));
        }
        let found: Extension =
            serde_json::from_slice(signed).map_err(|error| ExtensionError::NoExtension(error.to_string()))?;
        let field = |what, found: &str, wanted| ExtensionError::Field { what, found: found.to_owned(), wanted };
        if found.architecture != ARCHITECTURE {
            return Err(field("architecture", &found.architecture, "this machine is x86_64"));
        }
        found.about.check()?;
        let is_id = found.id.len() == 32 && found.id.bytes().all(|digit| digit.is_ascii_hexdigit());
        let id = u128::from_str_radix(&found.id, 16).ok().filter(|_| is_id);
        let id = id.ok_or_else(|| field("identifier", &found.id, "it has 32 hexadecimal digits"))?;
        let verity: Verity =
            found.verity.parse().map_err(|_error| field("digest", &found.verity, "it is BLOCKS:DIGEST"))?;
        let (signed, signature) = (signed.to_vec(), String::from_utf8_lossy(signature).into_owned());
        let head = Self { about: found.about, id: id.to_be_bytes(), verity, signed, signature };
        match head.bytes() {
            bytes if bytes > EXTENSION_BYTES => Err(ExtensionError::TooLarge(bytes)),
            _ => Ok(head),
        }
    }

    /// The size of the whole file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        EXTENSION_HEAD_BYTES as u64 + self.verity.bytes() + self.verity.tree_blocks() * BLOCK_BYTES as u64
    }
}

fn is_name(text: &str) -> bool {
    let is_letter = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-';
    text.len() <= NAME_CHARS
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(is_letter)
}

fn is_word(text: &str) -> bool {
    let is_letter = |letter: u8| letter.is_ascii_alphanumeric() || b".+~_-".contains(&letter);
    !text.starts_with('.') && (1..=VERSION_CHARS).contains(&text.len()) && text.bytes().all(is_letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(name: &str, kernel: Option<&str>) -> About {
        let kernel = kernel.map(str::to_owned);
        About { name: name.to_owned(), version: "1.0".to_owned(), kernel, system: None }
    }

    fn extension() -> Extension {
        let verity = Verity { blocks: 300, digest: [7; 32] };
        Extension::new(about("gpu", Some("6.12.1-amd64")), &"0f".repeat(16), &verity)
    }

    #[test]
    fn a_head_is_read_as_it_is_written() {
        let head = extension().head(|line| format!("{:04x}", line.len())).unwrap();
        assert_eq!(head.len(), EXTENSION_HEAD_BYTES);
        let read = ExtensionHead::parse(&head).unwrap();
        assert_eq!((&read.about, read.id, read.verity.blocks), (&extension().about, [0x0f; 16], 300));
        assert_eq!(read.signature, format!("{:04x}", read.signed.len()));
        // The head, 300 blocks of data, three with their digests, and one with those of these.
        assert_eq!(read.bytes(), 16384 + 4096 * (300 + 3 + 1));
        assert_eq!(read.about.file_name(), "gpu@6.12.1-amd64.extension");
        assert_eq!(about("gpu", None).file_name(), "gpu.extension");
        for cut in 0..head.len() {
            assert!(ExtensionHead::parse(&head[..cut]).is_err());
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let told = |change: &dyn Fn(&mut Extension)| {
            let mut other = extension();
            change(&mut other);
            let mut head = format!("{MAGIC}\n{}\n\n", serde_json::to_string(&other).unwrap()).into_bytes();
            head.resize(EXTENSION_HEAD_BYTES, 0);
            ExtensionHead::parse(&head).unwrap_err().to_string()
        };
        for name in ["", "../x", "a/b", "-a", "1a", "A", "a.b", &"a".repeat(41)] {
            assert!(told(&|it| it.about.name = name.to_owned()).starts_with("the extension's name is"), "{name}");
        }
        for word in ["", "..", ".hidden", "a b", "a/b", &"1".repeat(65)] {
            assert!(told(&|it| it.about.version = word.to_owned()).contains("version"), "{word}");
            assert!(told(&|it| it.about.kernel = Some(word.to_owned())).contains("kernel"), "{word}");
        }
        assert!(told(&|it| it.about.system = Some("new".to_owned())).contains("least system"));
        assert!(told(&|it| it.architecture = "aarch64".to_owned()).contains("this machine is x86_64"));
        assert!(told(&|it| it.id = "0f".to_owned()).contains("32 hexadecimal digits"));
        assert!(told(&|it| it.verity = "3".to_owned()).contains("BLOCKS:DIGEST"));
        let large = format!("{}:{}", EXTENSION_BYTES / 4096, "ab".repeat(32));
        assert!(told(&|it| it.verity = large.clone()).contains("are the most"));
        let mut head = extension().head(|_line| String::new()).unwrap();
        *head.last_mut().unwrap() = 1;
        assert!(ExtensionHead::parse(&head).unwrap_err().to_string().contains("more than its metadata"));
        let unknown = format!("{MAGIC}\n{{\"needs\":\"more\"}}\n\n{}", "\0".repeat(EXTENSION_HEAD_BYTES));
        assert!(ExtensionHead::parse(unknown.as_bytes()).is_err());
    }

    #[test]
    fn a_system_loses_those_that_have_no_file_for_it() {
        let mut held = vec![about("gpu", Some("6.12.1")), about("gpu", Some("6.12.2")), about("net", None)];
        assert!(lost(&held, "6.12.2", "0.1.0").is_empty());
        let names = |held: &[About], kernel| {
            lost(held, kernel, "0.1.0+ab").iter().map(|(about, why)| format!("{}: {why}", about.file_name())).collect()
        };
        let told: Vec<String> = names(&held, "6.13");
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("modules for the kernel 6.12.1, and the kernel is 6.13"), "{told:?}");
        held[2].system = Some("0.2".to_owned());
        let told: Vec<String> = names(&held, "6.12.1");
        assert_eq!(told, ["net.extension: it is for version 0.2 or newer, and the system is 0.1.0+ab"]);
    }
}
