//! Which disk is meant.

use std::fmt;

use super::{ByteSize, Word, WordError, WordFormat, closest, from_str_by_word};

/// How a disk is chosen among those that a machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskSelector {
    /// By its device, such as `/dev/nvme0n1`.
    Path(String),
    /// By its serial number.
    Serial(String),
    /// By the start of its model's name.
    Model(String),
    /// The smallest that has at least this size.
    Size(ByteSize),
    /// The smallest, of a kind if one is named.
    Smallest(Option<DiskKind>),
    /// The largest, of a kind if one is named.
    Largest(Option<DiskKind>),
}

/// What a disk is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskKind {
    /// It has no moving parts.
    Ssd,
    /// Its disks rotate.
    Hdd,
}

impl DiskKind {
    const ALL: [Self; 2] = [Self::Ssd, Self::Hdd];

    /// For people and manifests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ssd => "ssd",
            Self::Hdd => "hdd",
        }
    }

    /// What may stand behind the colon of `smallest` and `largest`.
    fn parse(after: &str, text: &str) -> Result<Self, WordError> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let reason = format!("{} is no kind of disk", quoted(text));
            match closest(text, Self::ALL.map(Self::name)) {
                Some(meant) => WordError::meant(reason, format!("{after}:{meant}")),
                None => WordError::new(reason),
            }
        })
    }
}

const SMALLEST: &str = "smallest";
const LARGEST: &str = "largest";
const KINDS: [&str; 5] = ["serial", "model", "size", SMALLEST, LARGEST];

impl fmt::Display for DiskSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(path),
            Self::Serial(serial) => write!(f, "serial:{serial}"),
            Self::Model(model) => write!(f, "model:{model}"),
            Self::Size(size) => write!(f, "size:{size}"),
            Self::Smallest(None) => f.write_str(SMALLEST),
            Self::Largest(None) => f.write_str(LARGEST),
            Self::Smallest(Some(kind)) => write!(f, "{SMALLEST}:{}", kind.name()),
            Self::Largest(Some(kind)) => write!(f, "{LARGEST}:{}", kind.name()),
        }
    }
}

fn quoted(text: &str) -> String {
    format!("`{}`", text.escape_debug())
}

impl Word for DiskSelector {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "disk",
        expected: "a device such as `/dev/nvme0n1`, `serial:...`, `model:...`, `size:500Gi` (the smallest of at least \
                   this size), `smallest` or `largest`, also as `smallest:ssd` or `largest:hdd`",
        pattern: Some(
            "^(/dev/[^/]+|serial:.+|model:.+|size:[0-9]+(Ki|Mi|Gi|Ti|k|M|G|T)?|(smallest|largest)(:(ssd|hdd))?)$",
        ),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        if text.contains(char::is_control) {
            return Err(WordError::new(format!("{} contains a control character", quoted(text))));
        }
        if let Some(name) = text.strip_prefix("/dev/") {
            return match name {
                // Nobody makes the folders of links that other systems have there.
                name if name.contains('/') => {
                    Err(WordError::new(format!("{} is not directly below `/dev/`", quoted(text))))
                }
                "" | "." | ".." => Err(WordError::new(format!("{} names no device", quoted(text)))),
                _ => Ok(Self::Path(text.to_owned())),
            };
        }
        match text.split_once(':') {
            Some(("serial" | "model", "")) => {
                Err(WordError::new(format!("{} has nothing after the colon", quoted(text))))
            }
            Some(("serial", serial)) => Ok(Self::Serial(serial.to_owned())),
            Some(("model", model)) => Ok(Self::Model(model.to_owned())),
            Some(("size", size)) => ByteSize::parse_word(size).map(Self::Size),
            Some((SMALLEST, kind)) => DiskKind::parse(SMALLEST, kind).map(|kind| Self::Smallest(Some(kind))),
            Some((LARGEST, kind)) => DiskKind::parse(LARGEST, kind).map(|kind| Self::Largest(Some(kind))),
            Some((kind, rest)) => {
                let reason = format!("{} is no way to choose a disk", quoted(kind));
                Err(match closest(kind, KINDS) {
                    Some(meant) => WordError::meant(reason, format!("{meant}:{rest}")),
                    None => WordError::new(reason),
                })
            }
            None if text == SMALLEST => Ok(Self::Smallest(None)),
            None if text == LARGEST => Ok(Self::Largest(None)),
            None if text.is_empty() || text.contains('/') => {
                Err(WordError::new(format!("{} is not below `/dev/`", quoted(text))))
            }
            None => {
                let meant = closest(text, [SMALLEST, LARGEST]).map_or_else(|| format!("/dev/{text}"), str::to_owned);
                Err(WordError::meant(format!("{} is not an absolute path", quoted(text)), meant))
            }
        }
    }
}

from_str_by_word!(DiskSelector);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_was_read() {
        for text in [
            "/dev/sda",
            "serial:S5 GX",
            "model:Samsung SSD",
            "size:500Gi",
            "smallest",
            "largest",
            "smallest:ssd",
            "largest:hdd",
        ] {
            assert_eq!(DiskSelector::parse_word(text).unwrap().to_string(), text);
        }
        let meant = |text: &str| DiskSelector::parse_word(text).unwrap_err().suggestion.unwrap_or_default();
        assert_eq!(
            (meant("smalest"), meant("seriall:1"), meant("sda")),
            ("smallest".into(), "serial:1".into(), "/dev/sda".into())
        );
        assert_eq!((meant("smallest:sdd"), meant("smalest:ssd")), ("smallest:ssd".into(), "smallest:ssd".into()));
        for text in [
            "",
            "/dev/",
            "smallest:",
            "largest:nvme",
            "/dev/disk/by-id/x",
            "/mnt/x",
            "serial:",
            "size:big",
            "colour:red",
        ] {
            DiskSelector::parse_word(text).unwrap_err();
        }
    }
}
