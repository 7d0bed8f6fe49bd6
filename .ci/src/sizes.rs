//! Lengths of our source files. Clippy's `too_many_lines` keeps functions short; this keeps files so.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A file longer than this fails.
const MAX_LINES: usize = 800;
/// A file longer than this is named in the report.
const LONG_LINES: usize = 600;
/// Folders at the top level that hold our sources.
const ROOTS: &[&str] = &[".ci", "agent", "bootstrap", "images", "vm-tests"];

/// Reports the median and the longest files, fails on those that are too long.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    for folder in ROOTS {
        collect(&root.join(folder), &mut files)?;
    }
    let mut lengths = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        lengths.push((text.lines().count(), file));
    }
    lengths.sort();
    let total: usize = lengths.iter().map(|(lines, _)| lines).sum();
    let median = lengths.get(lengths.len() / 2).map_or(0, |(lines, _)| *lines);
    println!("{} files, {total} lines, median {median}", lengths.len());
    for (lines, file) in lengths.iter().rev().take_while(|(lines, _)| *lines > LONG_LINES) {
        println!("{lines:6} {}", file.strip_prefix(root).unwrap_or(file).display());
    }
    match lengths.last() {
        Some((lines, file)) if *lines > MAX_LINES => {
            bail!("{} has {lines} lines; split it below {MAX_LINES}", file.display())
        }
        _ => Ok(()),
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}
