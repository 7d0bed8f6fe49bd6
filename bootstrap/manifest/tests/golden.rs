//! Manifests with exact expected diagnostics, good manifests, and the examples of `configs/`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p manifest` rewrites the expectations; read the difference before it is committed.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};

fn files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension().and_then(|extension| extension.to_str()) {
                _ if path.is_dir() => folders.push(path),
                Some("toml") => files.push(path),
                _ => {}
            }
        }
    }
    files.sort();
    assert!(!files.is_empty(), "{folder} is empty");
    files
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn bad_manifests_have_exactly_the_expected_diagnostics() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    let files = files("tests/bad");
    assert!(files.len() >= 200, "only {} bad manifests", files.len());
    for path in files {
        let (_, diagnostics) = manifest::check(name(&path), &std::fs::read_to_string(&path).unwrap());
        assert!(!diagnostics.is_empty(), "{} has no findings", name(&path));
        let found = format!("{diagnostics}\n");
        let expected_path = path.with_extension("expected");
        if update {
            std::fs::write(&expected_path, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
        if expected != found {
            wrong.push(format!("{}: expected\n{expected}\nfound\n{found}", name(&path)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn good_manifests_have_no_findings() {
    for path in files("tests/good") {
        let (manifest, diagnostics) = manifest::check(name(&path), &std::fs::read_to_string(&path).unwrap());
        assert!(manifest.is_some() && diagnostics.is_empty(), "{diagnostics}");
    }
}

#[test]
fn the_examples_of_configs_have_no_findings() {
    for path in files("../../configs") {
        let (manifest, diagnostics) = manifest::check(name(&path), &std::fs::read_to_string(&path).unwrap());
        assert!(manifest.is_some() && diagnostics.is_empty(), "{}: {diagnostics}", path.display());
    }
}
