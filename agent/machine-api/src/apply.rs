//! What another manifest changes.

use crate::table::{Row, table};
use crate::{Applied, KeyChange};

impl Row for KeyChange {
    const HEAD: &'static [&'static str] = &["KEY", "BEFORE", "AFTER", "IMPACT"];

    fn cells(&self) -> Vec<String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        vec![self.key.clone(), text(&self.before), text(&self.after), self.impact.clone()]
    }
}

impl Applied {
    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = self.warnings.clone().unwrap_or_default();
        if self.is_first {
            text.extend(self.steps.iter().map(|step| format!("- {step}\n")));
            return text + if self.is_dry { "the manifest is good\n" } else { "the manifest is good and taken in\n" };
        }
        if self.changes.is_empty() {
            return text + "nothing changes\n";
        }
        text += &table(&self.changes);
        let would = |is: &str, would: &str| if self.is_dry { would.to_owned() } else { is.to_owned() };
        text.extend(self.steps.iter().map(|step| format!("- {step}\n")));
        text += &match (self.needs_reboot, self.restarts.as_slice()) {
            (true, _) if self.starts_again => {
                would("the machine starts again now", "the machine would start again at once")
            }
            (true, _) => would(
                "all of it counts from the next start: `keelson reboot`",
                "all of it would count from the next start",
            ),
            (false, []) => would("it is in force", "it would be in force at once"),
            (false, services) => {
                let services = services.join(", ");
                format!(
                    "{} {services}",
                    would("it is in force, and starts anew:", "it would be in force at once, and start anew:")
                )
            }
        };
        if let Some(key) = &self.tried_for {
            text += &format!("\n{key} may cut the machine off, and is tried first");
        }
        if let Some(seconds) = self.tried_seconds {
            text += &format!(
                "\nthe manifest before is back in {seconds} s unless this one is kept: `keelson apply --keep`"
            );
        }
        text + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_told_with_what_it_takes() {
        let change = KeyChange {
            key: "kubelet.max-pods".to_owned(),
            after: Some("250".to_owned()),
            impact: "restarts node".to_owned(),
            ..KeyChange::default()
        };
        let applied = Applied {
            changes: vec![change],
            restarts: vec!["node".to_owned()],
            tried_seconds: Some(60),
            ..Applied::default()
        };
        let text = applied.describe();
        assert!(text.contains("kubelet.max-pods  -"), "{text}");
        assert!(text.contains("starts anew: node\nthe manifest before is back in 60 s"), "{text}");
        assert!(Applied { is_dry: true, ..applied.clone() }.describe().contains("would be in force"));
        let tried_for = Some("network.interfaces[0].mtu".to_owned());
        let text = Applied { tried_for, ..applied.clone() }.describe();
        assert!(text.contains("network.interfaces[0].mtu may cut the machine off, and is tried first\n"), "{text}");
        let steps = vec!["its member leaves etcd".to_owned()];
        let text = Applied { steps, needs_reboot: true, starts_again: true, ..applied.clone() }.describe();
        assert!(text.contains("- its member leaves etcd\nthe machine starts again now\n"), "{text}");
        assert_eq!(Applied::default().describe(), "nothing changes\n");
        let steps = vec!["installs".to_owned()];
        let text = Applied { steps, is_first: true, is_dry: true, ..Applied::default() }.describe();
        assert_eq!(text, "- installs\nthe manifest is good\n");
    }
}
