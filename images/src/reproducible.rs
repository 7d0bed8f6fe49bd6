//! The same inputs make the same image, byte for byte: in another folder, at another time, from files that were made in
//! another order, by whoever keeps theirs from others.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, UNIX_EPOCH};

use ::disk::uki;

use super::*;
use crate::disk::{Flashable, Loader};

const ID: &str = "00112233445566778899aabbccddeeff";
const RELEASE: &str = "6.12.1-amd64";

/// What differs between two who make the same image.
struct Maker {
    /// Of the files that they have.
    mode: u32,
    is_reversed: bool,
    seconds: u64,
}

/// The files below a folder by their names.
type Files = BTreeMap<String, Vec<u8>>;

fn put(root: &Path, maker: &Maker, names: &[String]) {
    let mut names = names.to_vec();
    if maker.is_reversed {
        names.reverse();
    }
    for name in names {
        let path = root.join(&name);
        tree::make_folder(path.parent().unwrap()).unwrap();
        fs::write(&path, name.repeat(3000)).unwrap();
        let time = UNIX_EPOCH + Duration::from_secs(maker.seconds);
        fs::File::open(&path).unwrap().set_modified(time).unwrap();
    }
}

fn made_by(maker: &Maker) -> Files {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let own = ["keelson", "first-stage", "sample", "manifest"].map(str::to_owned);
    put(folder.path(), maker, &own);
    for name in &own {
        fs::set_permissions(at(name), fs::Permissions::from_mode(maker.mode)).unwrap();
    }
    let base = at("base");
    let inputs = Fingerprint::default();
    fingerprint::stage(&base, &inputs, |base| {
        let modules = (0..20).map(|number| format!("usr/lib/modules/{RELEASE}/{number}.ko"));
        let others = ["usr/bin/etcd", "usr/share/keelson/images/none", "etc/hosts"].map(str::to_owned);
        put(&base.join("root"), maker, &modules.chain(others).collect::<Vec<_>>());
        put(&base.join(FIRST_STAGE), maker, &["a.ko", "b/c.ko", "b/d.ko"].map(str::to_owned));
        put(base, maker, &["vmlinuz".to_owned()]);
        Ok(())
    })
    .unwrap();
    let options = Options {
        work: folder.path().to_owned(),
        cache: folder.path().to_owned(),
        name: "image".to_owned(),
        programs: Programs { keelson: at("keelson"), first_stage: at("first-stage"), sample: at("sample") },
        manifest: Some(at("manifest")),
        update_key: Some(vec![7; 32]),
        firmware: Vec::new(),
        extensions: Vec::new(),
        mirror: String::new(),
        refresh: false,
        compression: Compression::Small,
    };
    let packages = [PathBuf::from("etcd-server_3.5.16-4_amd64.deb")];
    fingerprint::stage(&at("image"), &inputs, |image| make(&options, &base, (image, ID), packages.iter())).unwrap();
    let image = Image::open(&at("image")).unwrap();
    fs::write(at("stub"), uki::bare_program()).unwrap();
    let loader = Loader::of_a_test(at("keelson"), at("stub"));
    let flashable = Flashable { image: &image, loader: &loader, version: "1.0", arguments: "", secure_boot: None };
    // Disks of the same parts are compared where they are made.
    flashable.write_update(&at("update"), |_metadata| String::new()).unwrap();
    let files = [&image.root, &image.initramfs, &image.kernel, &at("update")];
    let read = |path: &&PathBuf| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap());
    files.iter().map(read).collect()
}

#[test]
#[ignore = "wants mkfs.erofs"]
fn the_same_inputs_make_the_same_image_byte_for_byte() {
    let one = made_by(&Maker { mode: 0o644, is_reversed: false, seconds: 1_000_000_000 });
    let other = made_by(&Maker { mode: 0o700, is_reversed: true, seconds: 2_000_000_000 });
    assert_eq!(one.len(), 4);
    for (name, content) in &one {
        assert!(other.get(name) == Some(content), "{name} is another one");
    }
}
