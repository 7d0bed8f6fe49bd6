//! What a real Tang server and a real Clevis say of what is made here.
#![allow(clippy::unwrap_used)]

mod real;

use std::process::Command;

use real::{Tang, run};
use tang::{Advertisement, Binding, Error};

/// A JWE in one line, as Clevis writes and reads it, and as JSON, as it is kept.
fn compact(binding: &Binding) -> String {
    run(Command::new("jose").args(["jwe", "fmt", "-i-", "-c"]), &serde_json::to_string(binding).unwrap())
}

fn parsed(compact: &str) -> Binding {
    let parts: Vec<&str> = compact.trim_end().split('.').collect();
    let [protected, encrypted_key, iv, ciphertext, tag] = parts[..] else { panic!("{compact}") };
    let jwe = serde_json::json!({ "protected": protected, "encrypted_key": encrypted_key, "iv": iv,
        "ciphertext": ciphertext, "tag": tag });
    serde_json::from_value(jwe).unwrap()
}

#[test]
fn what_is_sealed_for_a_server_comes_back_also_after_its_keys_were_rotated() {
    let server = Tang::start();
    let (binding, secret) = server.bind();
    let before = server.thumbprints("verify");
    assert!(binding.is_signed_by(&before) && binding.url() == server.url);
    let recover = || {
        let (recovery, path, body) = binding.ask().unwrap();
        let (status, answer) = server.call(&format!("POST {path}"), &body);
        assert_eq!(status, "HTTP/1.1 200 OK");
        recovery.finish(&answer).unwrap()
    };
    assert_eq!(recover(), secret);
    for entry in std::fs::read_dir(server.keys.path()).unwrap().map(Result::unwrap) {
        let hidden = format!(".{}", entry.file_name().into_string().unwrap());
        std::fs::rename(entry.path(), server.keys.path().join(hidden)).unwrap();
    }
    run(Command::new("/usr/libexec/tangd-keygen").arg(server.keys.path()), "");
    assert_eq!(recover(), secret);
    let (_, said) = server.call("GET /adv", b"");
    let refused = Advertisement::read(&said, &before).unwrap_err();
    let Error::Unpinned { offered } = refused else { panic!("{refused}") };
    assert!(!before.contains(&offered[0]) && server.thumbprints("verify").contains(&offered[0]));
}

#[test]
fn clevis_opens_what_we_seal_and_we_what_it_seals() {
    let server = Tang::start();
    let (binding, secret) = server.bind();
    assert_eq!(run(Command::new("clevis").arg("decrypt"), &compact(&binding)), secret.as_str());
    let how = serde_json::json!({ "url": server.url, "thp": server.thumbprints("verify")[0] }).to_string();
    let theirs = parsed(&run(Command::new("clevis").args(["encrypt", "tang", &how]), "their secret"));
    let (recovery, path, body) = theirs.ask().unwrap();
    let (_, answer) = server.call(&format!("POST {path}"), &body);
    assert_eq!(recovery.finish(&answer).unwrap().as_str(), "their secret");
}

#[test]
fn another_server_does_not_know_the_key() {
    let (ours, other) = (Tang::start(), Tang::start());
    let (binding, _) = ours.bind();
    let (recovery, path, body) = binding.ask().unwrap();
    let (status, answer) = other.call(&format!("POST {path}"), &body);
    assert_eq!(status, "HTTP/1.1 404 Not Found");
    assert!(recovery.finish(&answer).is_err());
}
