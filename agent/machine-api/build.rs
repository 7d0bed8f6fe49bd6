//! Turns the service description into messages, a client, the frame of a server, and the table of calls.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message;

const ROOT: &str = "proto";
const MAIN: &str = "keelson/machine/v1/machine.proto";
const SERVICE: &str = "keelson.machine.v1.Machine";
/// Their messages are also kept in files and shown to people, as JSON.
const SHOWN: [&str; 5] = ["answers", "etcd", "facts", "network", "status"];
const AS_JSON: &str = "#[derive(serde::Serialize, serde::Deserialize)] #[serde(rename_all = \"camelCase\", default)]";
const WORDS: &str = "#[derive(serde::Serialize, serde::Deserialize)] #[serde(rename_all = \"kebab-case\")]";
/// The numbers of enums are words in JSON; and what there seldom is, is left out.
const FIELDS: [(&str, &str); 7] = [
    ("Event.severity", "#[serde(with = \"crate::words::severity\")]"),
    ("Plan.digest", "#[serde(skip_serializing_if = \"String::is_empty\")]"),
    ("Interface.tunnel", "#[serde(skip_serializing_if = \"Option::is_none\")]"),
    ("VolumeStatus.mounted_at", "#[serde(skip_serializing_if = \"Option::is_none\")]"),
    ("MachineStatus.virtual_address", "#[serde(skip_serializing_if = \"Option::is_none\")]"),
    ("MachineStatus.stage", "#[serde(with = \"crate::words::stage\")]"),
    ("MachineStatus.update_state", "#[serde(with = \"crate::words::update_state\")]"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={ROOT}");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let files = prost_build::Config::new().load_fds(&[Path::new(ROOT).join(MAIN)], &[ROOT])?;
    let mut builder = tonic_prost_build::configure().bytes(".").btree_map(".").build_transport(false);
    for file in &files.file {
        if !SHOWN.iter().any(|shown| file.name().ends_with(&format!("/{shown}.proto"))) {
            continue;
        }
        for message in &file.message_type {
            let name = format!("{}.{}", file.package(), message.name());
            // A list is shown as its rows.
            let is_list = message.name().ends_with("List");
            let attribute = if is_list {
                AS_JSON.replace("rename_all = \"camelCase\", default", "transparent")
            } else {
                AS_JSON.to_owned()
            };
            builder = builder.message_attribute(name, attribute);
        }
        for kind in &file.enum_type {
            builder = builder.enum_attribute(format!("{}.{}", file.package(), kind.name()), WORDS);
        }
    }
    for (field, attribute) in FIELDS {
        builder = builder.field_attribute(field, attribute);
    }
    builder.compile_fds(files)?;
    let described = describe(&out.join("machine.pb"))?;
    std::fs::write(out.join("calls.rs"), calls(&described)?)?;
    Ok(())
}

/// The description as it is served to whoever asks, without comments.
fn describe(path: &Path) -> Result<Files, Box<dyn Error>> {
    let mut protoc = Command::new(prost_build::protoc_from_env());
    protoc.arg("--include_imports").arg("--descriptor_set_out").arg(path).arg("-I").arg(ROOT).arg(MAIN);
    if !protoc.status()?.success() {
        return Err(format!("{protoc:?} failed").into());
    }
    Ok(Files::decode(std::fs::read(path)?.as_slice())?)
}

/// The table of calls.
fn calls(files: &Files) -> Result<String, Box<dyn Error>> {
    let services = files.files.iter().flat_map(|file| &file.services);
    let methods = services.flat_map(|service| &service.methods);
    let mut rows = String::new();
    for method in methods {
        let name = &method.name;
        let options = method.options.clone().unwrap_or_default();
        if options.needs.is_empty() {
            return Err(format!("{name} says nobody who may make it").into());
        }
        let needs: Vec<String> = options.needs().map(|role| format!("Role::{role:?}")).collect();
        rows += &format!(
            "    Call {{ name: \"{name}\", path: \"/{SERVICE}/{name}\", needs: &[{}], before_manifest: {}, is_upload: {} }},\n",
            needs.join(", "),
            options.before_manifest,
            method.client_streaming
        );
    }
    Ok(format!("/// Every call. Nothing is served that has no row.\npub const CALLS: &[Call] = &[\n{rows}];\n"))
}

// As much of a description as the table is made from; `prost-types` drops options of our own.

#[derive(Clone, PartialEq, prost::Message)]
struct Files {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(message, repeated, tag = "6")]
    services: Vec<Service>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Service {
    #[prost(message, repeated, tag = "2")]
    methods: Vec<Method>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "4")]
    options: Option<Options>,
    #[prost(bool, tag = "5")]
    client_streaming: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Options {
    #[prost(enumeration = "Role", repeated, packed = "false", tag = "50001")]
    needs: Vec<i32>,
    #[prost(bool, tag = "50002")]
    before_manifest: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum Role {
    Admin = 0,
    Operator = 1,
    Reader = 2,
    Backup = 3,
}
