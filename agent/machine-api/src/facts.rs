//! Certificates, images, the clock.

use crate::table::{Row, size, span};
use crate::{CertificateStatus, ImageStatus, KeyStatus, TimeStatus};

/// As much of a pin as tells one CA from another one.
const PIN_CHARS: usize = "sha256:".len() + 12;

impl Row for CertificateStatus {
    const HEAD: &'static [&'static str] = &["FILE", "DAYS LEFT", "CA", "SUBJECT", "SIGNED BY", "STATE", "NAMES"];

    fn cells(&self) -> Vec<String> {
        if let Some(trouble) = &self.trouble {
            return vec![self.file.clone(), String::new(), String::new(), trouble.clone()];
        }
        vec![
            self.file.clone(),
            self.days_left.to_string(),
            crate::system::yes(self.is_ca),
            self.subject.clone(),
            // CAs that take each other's place have one name.
            self.signed_by.chars().take(PIN_CHARS).collect(),
            self.standing().to_owned(),
            self.names.join(","),
        ]
    }
}

impl CertificateStatus {
    /// Where it stands while one CA takes the place of another one.
    fn standing(&self) -> &'static str {
        match (self.is_ca, self.is_of_issuing) {
            (true, true) => "issues",
            (true, false) => "only trusted",
            (false, true) => "current",
            (false, false) if self.signed_by.is_empty() => "of a CA that is not trusted",
            (false, false) => "to be issued anew",
        }
    }
}

impl Row for ImageStatus {
    const HEAD: &'static [&'static str] = &["IMAGE", "SIZE", "PINNED", "ID"];

    fn cells(&self) -> Vec<String> {
        let name = self.names.first().cloned().unwrap_or_default();
        vec![name, size(self.bytes), crate::system::yes(self.is_pinned), self.id.clone()]
    }
}

impl Row for KeyStatus {
    const HEAD: &'static [&'static str] = &["KEY", "VALUE", "SET BY"];

    fn cells(&self) -> Vec<String> {
        vec![self.key.clone(), self.value.clone(), self.origin.clone()]
    }
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
