//! Turns the tables of `facts/` into typed messages and static schema tables.

#[path = "build/facts.rs"]
mod facts;
#[path = "build/messages.rs"]
mod messages;
#[path = "build/tables.rs"]
mod tables;

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=facts");
    println!("cargo:rerun-if-changed=build");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let schema = facts::Schema::read(&std::fs::read_to_string("facts/schema.tsv")?)?;
    let kinds = facts::read_kinds(&std::fs::read_to_string("facts/kinds.tsv")?)?;
    let subresources = facts::read_rows(&std::fs::read_to_string("facts/subresources.tsv")?, 7);
    messages::compile(&schema)?;
    std::fs::write(out.join("resources.rs"), messages::resources(&schema, &kinds))?;
    std::fs::write(out.join("schema.rs"), tables::schema(&schema)?)?;
    std::fs::write(out.join("kinds.rs"), tables::kinds(&schema, &kinds, &subresources)?)?;
    Ok(())
}
