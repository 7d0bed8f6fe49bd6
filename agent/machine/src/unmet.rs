//! Conditions, told to the first process by files.

use std::path::Path;

use machine_api::Condition;
use stdx::chain;
use sys::{Linux, System};

/// Tells what is lacking, or that nothing is any more, if that is news.
pub(crate) fn tell(path: &Path, lack: Option<&Condition>) {
    let lack = lack.map(Condition::to_text).unwrap_or_default();
    let told = Linux.read(path).unwrap_or_default();
    if told == lack.as_bytes() {
        return;
    }
    if !lack.is_empty() {
        tracing::warn!("{}", lack.lines().next().unwrap_or_default());
    }
    if let Err(error) = Linux.replace(path, lack.as_bytes(), 0o644) {
        tracing::warn!(error = %chain(&error), path = %path.display(), "a condition was not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_longer_lacking_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("conditions")).unwrap();
        let file = folder.path().join("conditions/it");
        tell(&file, None);
        assert!(!file.exists());
        tell(&file, Some(&Condition::new("StateFull", "why", "fix")));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "StateFull: why\nfix\n");
        tell(&file, None);
        assert_eq!(std::fs::read(&file).unwrap(), b"");
    }
}
