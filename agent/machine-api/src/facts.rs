//! Certificates, images, the clock.

use crate::table::{Row, size, span};
use crate::{CertificateStatus, ImageStatus, KeyStatus, TimeStatus};

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
