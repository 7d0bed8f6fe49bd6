use super::*;

const CONFIG: &str = "{}";
const LAYER: &str = "layer";

fn sha(text: &str) -> String {
    digest_of(&Sha256::digest(text.as_bytes()))
}

fn archive(files: &[(&str, &str)]) -> Result<Archive, Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut builder = tar::Builder::new(&file);
    for (path, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        builder.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    builder.finish().unwrap();
    Archive::open(file.path())
}

fn planned(files: &[(&str, &str)]) -> Result<Plan, String> {
    archive(files).and_then(|archive| archive.plan()).map_err(|error| error.to_string())
}

fn described(media_type: &str, text: &str) -> serde_json::Value {
    json!({"mediaType": media_type, "digest": sha(text), "size": text.len()})
}

fn manifest() -> String {
    json!({"config": described(OCI_CONFIG, CONFIG), "layers": [described(OCI_LAYER, LAYER)]}).to_string()
}

fn index(name: &str, manifest: &str) -> String {
    let mut root = described(OCI_MANIFEST, manifest);
    root["annotations"] = json!({"io.containerd.image.name": name});
    json!({"manifests": [root]}).to_string()
}

fn path(text: &str) -> String {
    sha(text).replace("sha256:", "blobs/sha256/")
}

fn digests(plan: &Plan) -> Vec<&str> {
    plan.blobs.iter().map(|blob| blob.digest.as_str()).collect()
}

#[test]
fn a_layout_is_written_from_its_leaves() {
    let manifest = manifest();
    let index = index("localhost/sample:1", &manifest);
    let (layer_path, config_path, manifest_path) = (path(LAYER), path(CONFIG), path(&manifest));
    let files = [
        (manifest_path.as_str(), manifest.as_str()),
        ("./index.json", index.as_str()),
        (layer_path.as_str(), LAYER),
        (config_path.as_str(), CONFIG),
    ];
    let archive = archive(&files).unwrap();
    let plan = archive.plan().unwrap();
    assert_eq!(digests(&plan), [sha(CONFIG), sha(LAYER), sha(&manifest)]);
    assert_eq!(plan.blobs[2].labels[&format!("{REFERS}.l.0")], sha(LAYER));
    assert_eq!(plan.blobs[2].labels[&format!("{REFERS}.config")], sha(CONFIG));
    assert_eq!(plan.images[0].name, "localhost/sample:1");
    assert_eq!(plan.images[0].target.digest, sha(&manifest));
    assert_eq!(archive.piece(&plan.blobs[1], 2).unwrap(), b"yer");
}

#[test]
fn an_index_may_lack_other_platforms_but_not_its_own_parts() {
    let manifest = manifest();
    let inner =
        json!({"manifests": [described(OCI_MANIFEST, "of arm64"), described(OCI_MANIFEST, &manifest)]}).to_string();
    let mut root = described("application/vnd.oci.image.index.v1+json", &inner);
    root["annotations"] = json!({"org.opencontainers.image.ref.name": "busybox:1"});
    let index = json!({"manifests": [root]}).to_string();
    let (a, b, c, d) = (path(LAYER), path(CONFIG), path(&manifest), path(&inner));
    let mut files = vec![("index.json", index.as_str()), (&a, LAYER), (&b, CONFIG), (&c, &manifest), (&d, &inner)];
    let plan = planned(&files).unwrap();
    assert_eq!(digests(&plan), [sha(CONFIG), sha(LAYER), sha(&manifest), sha(&inner)]);
    assert_eq!(plan.blobs[3].labels, HashMap::from([(format!("{REFERS}.m.1"), sha(&manifest))]));
    assert_eq!(plan.images[0].name, "docker.io/library/busybox:1");
    files.remove(1);
    assert_eq!(planned(&files).unwrap_err(), format!("{a} in the archive is missing, and {c} needs it"));
}

#[test]
fn what_docker_saved_gets_a_manifest() {
    let saved =
        json!([{"Config": "c.json", "RepoTags": ["team/tool:2", "tool:2"], "Layers": ["l/layer.tar"]}]).to_string();
    let plan = planned(&[("c.json", CONFIG), ("l/layer.tar", "\u{1f}zipped"), ("manifest.json", &saved)]).unwrap();
    assert_eq!(digests(&plan)[..2], [sha(CONFIG), sha("\u{1f}zipped")]);
    let names: Vec<&str> = plan.images.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(names, ["docker.io/team/tool:2", "docker.io/library/tool:2"]);
    assert_eq!(plan.images[0].target.digest, plan.blobs[2].digest);
}

#[test]
fn what_is_no_archive_of_images_is_told() {
    let nameless = json!({"manifests": [described(OCI_MANIFEST, "x")]}).to_string();
    let lying =
        json!({"manifests": [{"digest": sha(LAYER), "size": 1, "annotations": {"io.containerd.image.name": "a"}}]})
            .to_string();
    let traversing = json!({"manifests": [{"digest": "sha256:../../x", "size": 1, "annotations": {"io.containerd.image.name": "a"}}]}).to_string();
    let layer = path(LAYER);
    for (files, expected) in [
        (
            vec![("x", "y")],
            "index.json in the archive is missing, and so is manifest.json: this is no archive of images",
        ),
        (vec![("index.json", "{")], "index.json in the archive is not understood"),
        (vec![("index.json", nameless.as_str())], "index.json in the archive does not name its image 0"),
        (vec![("index.json", lying.as_str()), (layer.as_str(), LAYER)], "has 5 bytes, not 1"),
        (vec![("index.json", traversing.as_str())], "has a digest that is none"),
        (vec![("manifest.json", r#"[{"Config":"c","Layers":[]}]"#)], "c in the archive is missing"),
    ] {
        let error = planned(&files).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let text = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(text.path(), [0x1f, 0x8b, 8, 0].repeat(300)).unwrap();
    assert!(Archive::open(text.path()).is_err());
}
