//! Texts for people: what they link to is there, and no merge is left half done in them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// How a line begins that a merge leaves behind.
const MARKS: [&str; 2] = ["<<<<<<< ", ">>>>>>> "];

/// Reads all Markdown files and fails on what is wrong in them.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    collect(root, &mut files)?;
    let mut wrong = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let folder = file.parent().unwrap_or(root);
        let name = file.strip_prefix(root).unwrap_or(file).display();
        for (number, line) in text.lines().enumerate() {
            let place = format!("{name}:{}", number + 1);
            if MARKS.iter().any(|mark| line.starts_with(mark)) {
                wrong.push(format!("{place}: a merge is left half done"));
            }
            let missing = links(line).filter(|link| !folder.join(link).exists());
            wrong.extend(missing.map(|link| format!("{place}: there is no {link}")));
        }
    }
    println!("{} texts", files.len());
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

/// The files of this project that a line links to, as `[text](file#part)`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter_map(|target| target.split('#').next());
    files.filter(|file| !file.is_empty() && !file.contains("://") && !file.contains(' '))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !["target", ".git"].contains(&name) {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_files_are_found() {
        let line = "see [a](b/c.md#part), [d](https://example.com/x) and [e](#here), [f](../g)";
        assert_eq!(links(line).collect::<Vec<_>>(), ["b/c.md", "../g"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(folder.path().join("README.md"), text).unwrap();
        write("[this](README.md)\n");
        check(folder.path()).unwrap();
        write("fine\n<<<<<<< ours\n[that](gone.md)\n");
        let told = check(folder.path()).unwrap_err().to_string();
        assert_eq!(told, "README.md:2: a merge is left half done\nREADME.md:3: there is no gone.md");
    }
}
