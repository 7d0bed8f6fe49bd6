//! Certificates, images, the clock.

use serde::{Deserialize, Serialize};

use crate::table::{Row, size, span};

/// A certificate that the machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateStatus {
    /// The file, below the folder of certificates.
    pub file: String,
    /// Whom it names.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Names and addresses that it is good for.
    pub names: Vec<String>,
    /// Whether it signs others.
    pub is_ca: bool,
    /// From when it is valid, in seconds since 1970.
    pub not_before: i64,
    /// Until when.
    pub not_after: i64,
    /// Days until then; negative once it has expired.
    pub days_left: i64,
    /// What is wrong with the file, if anything is.
    pub trouble: Option<String>,
}

impl Row for CertificateStatus {
    const HEAD: &'static [&'static str] = &["FILE", "DAYS LEFT", "CA", "SUBJECT", "ISSUER", "NAMES"];

    fn cells(&self) -> Vec<String> {
        if let Some(trouble) = &self.trouble {
            return vec![self.file.clone(), String::new(), String::new(), trouble.clone()];
        }
        vec![
            self.file.clone(),
            self.days_left.to_string(),
            crate::system::yes(self.is_ca),
            self.subject.clone(),
            self.issuer.clone(),
            self.names.join(","),
        ]
    }
}

/// A container image that the machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageStatus {
    /// Its digest.
    pub id: String,
    /// Its names.
    pub names: Vec<String>,
    /// Its size.
    pub bytes: u64,
    /// Whether it is kept although nobody uses it.
    pub is_pinned: bool,
}

impl Row for ImageStatus {
    const HEAD: &'static [&'static str] = &["IMAGE", "SIZE", "PINNED", "ID"];

    fn cells(&self) -> Vec<String> {
        let name = self.names.first().cloned().unwrap_or_default();
        vec![name, size(self.bytes), crate::system::yes(self.is_pinned), self.id.clone()]
    }
}

/// The clock, and whom it follows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TimeStatus {
    /// Seconds since 1970, by the machine's clock.
    pub now: f64,
    /// Whether the clock follows time servers; not where it is somebody else's, or the manifest says so.
    pub follows: bool,
    /// Time servers, best first.
    pub servers: Vec<String>,
    /// The server that answered last.
    pub source: Option<String>,
    /// How far the clock was behind it (positive) or ahead, in seconds, before it was set right.
    pub offset_seconds: Option<f64>,
    /// When it answered, in seconds since boot.
    pub synchronized_seconds: Option<f64>,
    /// Why nobody answered the last time.
    pub trouble: Option<String>,
    /// When this was told, in seconds since boot.
    pub uptime_seconds: f64,
}

impl TimeStatus {
    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut lines = vec![format!("now          {}", crate::log::time_of(self.now))];
        let follows = if self.follows { "time servers" } else { "nobody: the clock is left as it is" };
        lines.push(format!("follows      {follows}"));
        lines.push(format!("servers      {}", self.servers.join(", ")).trim_end().to_owned());
        let (source, offset) = (self.source.as_deref().unwrap_or_default(), self.offset_seconds.unwrap_or_default());
        lines.push(match self.synchronized_seconds {
            Some(then) => {
                let ago = span(self.uptime_seconds - then);
                format!("synchronized {ago} ago with {source}; the clock was {offset:+.6} s behind")
            }
            None => "synchronized never since boot".to_owned(),
        });
        lines.extend(self.trouble.iter().map(|trouble| format!("trouble      {trouble}")));
        lines.join("\n") + "\n"
    }
}
