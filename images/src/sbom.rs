//! The list of what an image is made of, with versions: CycloneDX, in JSON. It has neither a date nor a random number,
//! so that the same image has the same list.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ::disk::About;
use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::tools;

/// Where the list is in the root.
pub const PLACE: &str = "usr/share/keelson/sbom.json";
/// The packages of the workspace whose programs are in an image.
const OWN: &[&str] = &["agentd", "images"];

/// Something with a version that an image is made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Component {
    /// By which it is known everywhere: a package URL.
    url: String,
    name: String,
    version: String,
}

impl Component {
    /// A Debian package, from the name of its file: `NAME_VERSION_ARCHITECTURE.deb`.
    pub(crate) fn of_package(file: &str) -> Result<Self> {
        let parts: Vec<&str> = file.strip_suffix(".deb").unwrap_or_default().split('_').collect();
        let [name, version, architecture] = parts.as_slice() else {
            anyhow::bail!("{file} is not named as packages are");
        };
        let url = format!("pkg:deb/debian/{name}@{}?arch={architecture}", version.replace('+', "%2B"));
        Ok(Self { url, name: (*name).to_owned(), version: version.replace("%3a", ":") })
    }

    /// An extension.
    pub(crate) fn of_extension(about: &About) -> Self {
        let About { name, version, .. } = about.clone();
        Self { url: format!("pkg:generic/{name}@{}", version.replace('+', "%2B")), name, version }
    }

    fn of_crate(name: &str, version: &str) -> Self {
        let url = format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"));
        Self { url, name: name.to_owned(), version: version.to_owned() }
    }
}

/// The list.
pub(crate) fn render(version: &str, components: &[Component]) -> Result<String> {
    let components: BTreeSet<&Component> = components.iter().collect();
    let component = |it: &Component| json!({ "type": "library", "bom-ref": it.url, "name": it.name, "version": it.version, "purl": it.url });
    let list = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": { "type": "operating-system", "name": "keelson", "version": version } },
        "components": components.into_iter().map(component).collect::<Vec<_>>(),
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&list)?))
}

/// The list of what an extension is made of: its files, with their digests.
pub(crate) fn of_files(about: &About, files: &[(String, String)]) -> Result<String> {
    let own = Component::of_extension(about);
    let file = |(path, digest): &(String, String)| {
        let hashes = json!([{ "alg": "SHA-256", "content": digest }]);
        json!({ "type": "file", "bom-ref": path, "name": path, "hashes": hashes })
    };
    let component =
        json!({ "type": "library", "bom-ref": own.url, "name": own.name, "version": own.version, "purl": own.url });
    let list = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": component },
        "components": files.iter().map(file).collect::<Vec<_>>(),
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&list)?))
}

/// A list with one more package, named by its file.
pub(crate) fn with_package(list: &str, file: &str) -> Result<String> {
    let mut list: Value = serde_json::from_str(list).context("read the list of what the image holds")?;
    let more = render("", &[Component::of_package(file)?])?;
    let mut more: Value = serde_json::from_str(&more)?;
    let further = more["components"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let components = list["components"].as_array_mut().context("the list of what the image holds has no components")?;
    components.extend(further);
    Ok(format!("{}\n", serde_json::to_string_pretty(&list)?))
}

/// The crates that our own programs are built from, as cargo resolves them, without those for building and testing.
pub(crate) fn crates(workspace: &Path, target: &str) -> Result<Vec<Component>> {
    let mut command = tools::command("cargo");
    if let Some(cargo) = std::env::var_os("CARGO") {
        command = std::process::Command::new(cargo);
    }
    command.current_dir(workspace).args(["metadata", "--format-version", "1", "--locked"]);
    let text = tools::run(command.args(["--filter-platform", target]))?;
    used(&serde_json::from_str(&text).context("read what cargo resolved")?)
}

fn used(metadata: &Value) -> Result<Vec<Component>> {
    let rows = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> =
        rows(&metadata["packages"]).into_iter().map(|it| (text(&it["id"]), it)).collect();
    let nodes: BTreeMap<String, Value> =
        rows(&metadata["resolve"]["nodes"]).into_iter().map(|it| (text(&it["id"]), it)).collect();
    let is_own = |it: &&Value| OWN.contains(&it["name"].as_str().unwrap_or_default()) && it["source"].is_null();
    let mut queue: Vec<String> = packages.values().filter(is_own).map(|it| text(&it["id"])).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = queue.pop() {
        let node = nodes.get(&id).with_context(|| format!("cargo resolved no {id}"))?;
        if seen.insert(id) {
            let is_linked = |it: &Value| rows(&it["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            queue.extend(rows(&node["deps"]).iter().filter(|it| is_linked(it)).map(|it| text(&it["pkg"])));
        }
    }
    let found = seen.iter().filter_map(|id| packages.get(id));
    Ok(found.map(|it| Component::of_crate(&text(&it["name"]), &text(&it["version"]))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_by_their_files() {
        let found = Component::of_package("libgmp10_2%3a6.3.0+dfsg-3_amd64.deb").unwrap();
        assert_eq!((found.name.as_str(), found.version.as_str()), ("libgmp10", "2:6.3.0+dfsg-3"));
        assert_eq!(found.url, "pkg:deb/debian/libgmp10@2%3a6.3.0%2Bdfsg-3?arch=amd64");
        assert!(Component::of_package("readme.txt").is_err());
    }

    #[test]
    fn crates_that_only_build_or_test_are_left_out() {
        let package =
            |name: &str, source: Value| json!({ "id": name, "name": name, "version": "1.0.0", "source": source });
        let needs = |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let deps =
            json!([needs("linked", Value::Null), needs("builder", json!("build")), needs("tester", json!("dev"))]);
        let names = ["linked", "builder", "tester", "below"].map(|name| package(name, json!("registry")));
        let packages: Vec<Value> = names.into_iter().chain([package("agentd", Value::Null)]).collect();
        let leaf = |name: &str, deps: Value| json!({ "id": name, "deps": deps });
        let below = json!([needs("below", Value::Null)]);
        let nodes = json!([leaf("agentd", deps), leaf("linked", below), leaf("below", json!([]))]);
        let found = used(&json!({ "packages": packages, "resolve": { "nodes": nodes } })).unwrap();
        let found: Vec<&str> = found.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(found, ["agentd", "below", "linked"]);
    }

    #[test]
    fn the_same_components_make_the_same_list() {
        let [one, two] = ["a_1_all.deb", "b_2_all.deb"].map(|file| Component::of_package(file).unwrap());
        let list = render("1.0", &[two.clone(), one.clone()]).unwrap();
        assert_eq!(list, render("1.0", &[one, two.clone(), two]).unwrap());
        let more = with_package(&list, "loader_3_amd64.deb").unwrap();
        let more: Value = serde_json::from_str(&more).unwrap();
        assert_eq!(more["components"].as_array().unwrap().len(), 3);
        assert_eq!(more["components"][2]["purl"], "pkg:deb/debian/loader@3?arch=amd64");
    }
}
