//! What comes from outside: licences, sources, crates that are not wanted.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// Licences of which one has to be offered.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "MPL-2.0",
    "MPL-2.0+",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "0BSD",
    "Unlicense",
    "BSL-1.0",
];

/// Crates that must not come in, and why.
const BANNED: &[(&str, &str)] = &[
    ("openssl", "TLS is rustls with ring"),
    ("aws-lc-sys", "one crypto provider: ring"),
    ("native-tls", "TLS is rustls with ring"),
    ("serde_yaml", "not maintained; serde_yaml_ng is"),
    ("chrono", "times are jiff's"),
];

/// Checks the whole tree as it is locked.
pub(crate) fn check(root: &Path) -> Result<()> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .other_options(vec!["--filter-platform".to_owned(), "x86_64-unknown-linux-gnu".to_owned()])
        .exec()
        .context("reading the dependency tree")?;
    let used: std::collections::BTreeSet<_> =
        metadata.resolve.iter().flat_map(|r| r.nodes.iter().map(|n| n.id.clone())).collect();
    let mut wrong = Vec::new();
    let mut count = 0;
    for package in metadata.packages.iter().filter(|p| used.contains(&p.id)) {
        let Some(source) = &package.source else { continue };
        count += 1;
        if !source.is_crates_io() {
            wrong.push(format!("{} {} comes from {}", package.name, package.version, source.repr));
        }
        if let Some((_, why)) = BANNED.iter().find(|(name, _)| *name == package.name.as_str()) {
            wrong.push(format!("{} is banned: {why}", package.name));
        }
        match &package.license {
            Some(text) if offers_known(text) => {}
            Some(text) => wrong.push(format!("{} has the licence {text}", package.name)),
            None if package.license_file.is_some() => {}
            None => wrong.push(format!("{} tells no licence", package.name)),
        }
    }
    println!("{count} crates from outside");
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

/// Whether an SPDX expression can be met with known licences: each part of an AND, one part of an OR.
fn offers_known(text: &str) -> bool {
    let text = text.replace('/', " OR ").replace(['(', ')'], "");
    text.split(" AND ").all(|part| part.split(" OR ").any(|licence| LICENCES.contains(&licence.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_known_licence_of_an_or_is_enough_and_all_of_an_and_are_needed() {
        assert!(offers_known("MIT OR GPL-3.0"));
        assert!(offers_known("MIT/Apache-2.0"));
        assert!(offers_known("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!offers_known("MIT AND GPL-3.0"));
    }
}
