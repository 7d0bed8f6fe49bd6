use std::io::{Read, Seek, SeekFrom};

use ring::signature::{Ed25519KeyPair, KeyPair};

use super::*;

const RELEASE: &str = "6.12.1-amd64";

/// The least that a module says of itself: an object file with one section.
fn module(information: &str) -> Vec<u8> {
    const NAMES: &[u8] = b"\0.modinfo\0.shstrtab\0";
    let (text, names) = (information.as_bytes(), NAMES);
    let start = 64;
    let table = (start + text.len() + names.len()).next_multiple_of(8);
    let mut file = vec![0; table + 3 * 64];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    // A relocatable file for x86-64, its table of sections, and their sizes and number.
    for (at, value) in [(16, 1_u16), (18, 62), (52, 64), (58, 64), (60, 3), (62, 2)] {
        put(at, &value.to_le_bytes());
    }
    put(20, &1_u32.to_le_bytes());
    put(40, &(table as u64).to_le_bytes());
    put(start, text);
    put(start + text.len(), names);
    for (number, name, kind, place, bytes) in
        [(1, 1_u32, 1_u32, start, text.len()), (2, 10, 3, start + text.len(), names.len())]
    {
        let row = table + number * 64;
        put(row, &name.to_le_bytes());
        put(row + 4, &kind.to_le_bytes());
        put(row + 24, &(place as u64).to_le_bytes());
        put(row + 32, &(bytes as u64).to_le_bytes());
    }
    file
}

fn file(folder: &Path, path: &str, content: &[u8], mode: u32) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A folder with a bit of everything.
fn source(folder: &Path, release: &str) -> PathBuf {
    let source = folder.join("source");
    let own = format!("vermagic={release} SMP mod_unload\0depends=base,mii\0alias=pci:v000010DE*\0");
    let base = format!("vermagic={release} SMP mod_unload\0depends=\0");
    file(&source, &format!("usr/lib/modules/{RELEASE}/extra/gpu.ko"), &module(&own), 0o600);
    file(&source, &format!("usr/lib/modules/{RELEASE}/extra/base.ko"), &module(&base), 0o644);
    file(&source, "usr/lib/firmware/gpu/fw.bin", &[7; 9000], 0o640);
    file(&source, "usr/bin/gpu-tool", b"program", 0o711);
    symlink("gpu-tool", source.join("usr/bin/gpu")).unwrap();
    source
}

fn about() -> About {
    About { name: "gpu".to_owned(), version: "1.2".to_owned(), ..About::default() }
}

fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn pack(folder: &Path, source: &Path, name: &str) -> Result<(PathBuf, String)> {
    let (work, output) = (folder.join(format!("work-{name}")), folder.join(name));
    fs::create_dir_all(&work).unwrap();
    let sign = |line: &[u8]| stdx::hex(key().sign(line).as_ref());
    let list = make((source, about()), (&work, &output), sign)?;
    Ok((output, list))
}

/// Where nothing can be packed there is nothing to test.
fn is_here() -> bool {
    ["mkfs.erofs", "fsck.erofs"].iter().all(|tool| tools::find(tool).is_some())
}

#[test]
fn the_same_files_make_the_same_extension_and_it_tells_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    if !is_here() {
        return;
    }
    let source = source(folder.path(), RELEASE);
    let (one, list) = pack(folder.path(), &source, "one").unwrap();
    // Neither when a file was made nor who may read a folder counts.
    fs::set_permissions(source.join("usr/lib"), fs::Permissions::from_mode(0o700)).unwrap();
    let program = source.join("usr/bin/gpu-tool");
    fs::write(&program, b"program").unwrap();
    let (two, _) = pack(folder.path(), &source, "two").unwrap();
    assert!(fs::read(&one).unwrap() == fs::read(&two).unwrap());
    let head = ExtensionHead::parse(&fs::read(&one).unwrap()).unwrap();
    assert_eq!((head.about.name.as_str(), head.about.kernel.as_deref()), ("gpu", Some(RELEASE)));
    assert_eq!(head.bytes(), fs::metadata(&one).unwrap().len());
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let names: Vec<&str> =
        list["components"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names[..2], ["usr/bin/gpu-tool", "usr/lib/firmware/gpu/fw.bin"]);
    assert_eq!(list["metadata"]["component"]["purl"], "pkg:generic/gpu@1.2");
    fs::write(&program, b"another").unwrap();
    let (three, _) = pack(folder.path(), &source, "three").unwrap();
    assert!(fs::read(&one).unwrap() != fs::read(&three).unwrap());
}

#[test]
fn a_part_of_an_image_is_what_was_packed() {
    let folder = tempfile::tempdir().unwrap();
    if !is_here() {
        return;
    }
    let (packed, _) = pack(folder.path(), &source(folder.path(), RELEASE), "gpu.extension").unwrap();
    let root = folder.path().join("root");
    fs::create_dir_all(root.join(format!("usr/lib/modules/{RELEASE}"))).unwrap();
    let own = key().public_key().as_ref().to_vec();
    let merge = |root: &Path, key: &[u8]| merge(std::slice::from_ref(&packed), root, Some(key));
    assert_eq!(merge(&root, &own).unwrap()[0].version, "1.2");
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((text("usr/bin/gpu").as_str(), mode("usr/bin/gpu-tool")), ("program", 0o755));
    assert_eq!(
        (fs::read(root.join("usr/lib/firmware/gpu/fw.bin")).unwrap().len(), mode("usr/lib/firmware/gpu/fw.bin")),
        (9000, 0o644)
    );
    let tables = "usr/lib/keelson/extensions/gpu";
    assert_eq!(text(&format!("{tables}/modules.dep")), "extra/base.ko:\nextra/gpu.ko: mii extra/base.ko\n");
    assert_eq!(text(&format!("{tables}/modules.alias")), "alias pci:v000010DE* gpu\n");
    assert_eq!(
        text(&format!("{tables}/about.json")),
        format!(r#"{{"name":"gpu","version":"1.2","kernel":"{RELEASE}"}}"#)
    );

    let told = |root: &Path, key: &[u8]| format!("{:#}", merge(root, key).unwrap_err());
    assert!(told(&root, &own).contains("the image has usr/bin/gpu already"), "{}", told(&root, &own));
    let other = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap().public_key().as_ref().to_vec();
    assert!(told(&root, &other).contains("not by the key"));
    let newer = folder.path().join("newer");
    fs::create_dir_all(newer.join("usr/lib/modules/6.13")).unwrap();
    assert!(told(&newer, &own).contains("modules for the kernel 6.12.1-amd64, and the kernel is 6.13"));
    let mut damaged = fs::read(&packed).unwrap();
    damaged[EXTENSION_HEAD_BYTES + 2000] ^= 1;
    fs::write(&packed, damaged).unwrap();
    assert!(told(&newer, &own).contains("is damaged"));
}

#[test]
fn modules_that_are_not_what_they_seem_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    if !is_here() {
        return;
    }
    let told = |change: &dyn Fn(&Path)| {
        let again = tempfile::tempdir().unwrap();
        let source = source(again.path(), RELEASE);
        change(&source);
        format!("{:#}", pack(folder.path(), &source, "bad").unwrap_err())
    };
    let at = |name: &str| format!("usr/lib/modules/{RELEASE}/extra/{name}");
    let other = module("vermagic=6.1 SMP\0");
    assert!(told(&|it| file(it, &at("x.ko"), &other, 0o644)).contains("made for the kernel \"6.1\""));
    assert!(told(&|it| file(it, &at("x.ko.xz"), b"packed", 0o644)).contains("unpacked, it ends in .ko"));
    let twice = module(&format!("vermagic={RELEASE} SMP\0"));
    assert!(told(&|it| file(it, &at("more/gpu.ko"), &twice, 0o644)).contains("two modules gpu"));
    assert!(told(&|it| file(it, "etc/passwd", b"", 0o644)).contains("are below usr"));
}

/// What the agent does with one, but for the check of each block, which takes a kernel with dm-verity: a loop device of
/// the file, its file system, and the two together, in a mount namespace of its own.
#[test]
fn what_was_packed_is_seen_beneath_a_system_that_it_cannot_change() {
    let folder = tempfile::tempdir().unwrap();
    if !is_here() {
        return;
    }
    let source = source(folder.path(), RELEASE);
    file(&source, "usr/bin/keelson", b"not the agent", 0o755);
    let (packed, _) = pack(folder.path(), &source, "gpu.extension").unwrap();
    let usr = folder.path().join("usr");
    file(&usr, "bin/keelson", b"the agent", 0o755);
    let script = format!(
        "set -e; cd {}; mkdir at; mount -o ro,loop,offset={EXTENSION_HEAD_BYTES} -t erofs {} at
        mount -t overlay -o ro,lowerdir=usr:at/usr keelson usr
        cat usr/bin/keelson usr/bin/gpu; ls usr/lib/firmware/gpu; ! touch usr/bin/new 2>&1",
        folder.path().display(),
        packed.display()
    );
    let run = tools::run(tools::command("unshare").args(["--mount", "sh", "-c", &script]));
    match run {
        Ok(said) => assert!(said.starts_with("the agentprogramfw.bin\n") && said.contains("Read-only"), "{said}"),
        // Nobody but root mounts, and not everywhere.
        Err(error) => println!("SKIPPED: {error:#}"),
    }
    let mut start = Vec::new();
    let mut packed = fs::File::open(packed).unwrap();
    packed.seek(SeekFrom::Start(EXTENSION_HEAD_BYTES as u64 + 1024)).unwrap();
    packed.take(4).read_to_end(&mut start).unwrap();
    assert_eq!(start, 0xe0f5_e1e2_u32.to_le_bytes(), "the file system begins behind the head");
}
