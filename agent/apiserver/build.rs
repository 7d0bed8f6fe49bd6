//! Packs the descriptions of built-in kinds: few processes ever read them.

use std::io::Write as _;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=facts/descriptions.tsv");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptions");
    let mut encoder = flate2::write::DeflateEncoder::new(std::fs::File::create(out)?, flate2::Compression::best());
    encoder.write_all(&std::fs::read("facts/descriptions.tsv")?)?;
    encoder.finish()?;
    Ok(())
}
