//! Tests of the key table against its users, and of the parser against any text.

use std::collections::BTreeSet;

use proptest::prelude::*;
use toml::de::{DeTable, DeValue};

use crate::keys::{self, Kind, Presence};
use crate::reader::{Notes, Section};
use crate::{check, explain, parse, read, schema};

const EVERY_MAP: &str = r#"
[[network.interfaces]]
name = "eth0"
[[network.interfaces.routes]]
to = "default"
[[network.interfaces.wireguard.peers]]
keepalive = "1s"
[[install.encryption]]
volumes = ["state"]
[[install.encryption.network]]
url = "http://10.0.0.5"
[[storage.volumes]]
name = "v"
[[network.rules]]
priority = 1
[[network.dns-domains]]
domains = []
[[network.firewall.rules]]
action = "block"
[[etcd.members]]
name = "m"
address = "10.0.0.1"
[registries.mirrors."docker.io"]
endpoints = []
[outbound.servers."r.example.com"]
username = "u"
[[control-plane.files]]
name = "f"
content = "x"
"#;

#[test]
fn every_row_of_the_table_is_read() {
    let tree = DeTable::parse(EVERY_MAP).unwrap();
    let notes = Notes::new(&crate::secret::Nobody);
    let _parts = read::Parts::read(&Section::root(tree.get_ref(), &notes));
    let read: BTreeSet<&str> = notes.rows.into_inner();
    let missing: Vec<&str> = keys::all().iter().map(|key| key.path).filter(|path| !read.contains(path)).collect();
    assert!(missing.is_empty(), "nobody reads {missing:?}");
}

#[test]
fn every_row_is_well_formed() {
    let mut paths = BTreeSet::new();
    for key in keys::all() {
        assert!(paths.insert(key.path), "{} is there twice", key.path);
        assert!(key.doc.ends_with('.'), "{}: the description is no sentence", key.path);
        assert!(explain(key.path).is_some(), "{} cannot be explained", key.path);
        let parent = key.parent().trim_end_matches("[]");
        assert!(parent.is_empty() || keys::find(parent).is_some(), "{} has no parent", key.path);
        if let Presence::Default(text) = key.presence {
            assert!(DeValue::parse(text).is_ok(), "the default of {} is not TOML", key.path);
        }
        if matches!(key.kind, Kind::One(_) | Kind::List(_)) {
            assert!(DeValue::parse(key.example).is_ok(), "the example of {} is not TOML", key.path);
        }
    }
}

#[test]
fn the_schema_knows_sections_arrays_and_maps() {
    let schema = schema();
    assert_eq!(schema["properties"]["version"]["maximum"], 1);
    assert_eq!(schema["properties"]["machine"]["required"], serde_json::json!(["hostname", "role"]));
    assert_eq!(schema["properties"]["kubelet"]["properties"]["max-pods"]["default"], 110);
    let interface = &schema["properties"]["network"]["properties"]["interfaces"]["items"];
    assert_eq!(interface["properties"]["dhcp"]["enum"], serde_json::json!(["none", "ipv4", "ipv6", "both"]));
    let [text, elsewhere] = [0, 1].map(|at| &schema["properties"]["cluster"]["properties"]["token"]["oneOf"][at]);
    assert_eq!((&text["type"], &elsewhere["properties"]["file"]["type"]), (&"string".into(), &"string".into()));
    let mirrors = &schema["properties"]["registries"]["properties"]["mirrors"];
    assert_eq!(mirrors["additionalProperties"]["required"], serde_json::json!(["endpoints"]));
}

#[test]
fn keys_are_explained_as_written_in_messages() {
    for (asked, found) in [
        ("network.interfaces[3].routes[0].via", "network.interfaces[].routes[].via"),
        ("network.interfaces.mac", "network.interfaces[].mac"),
        ("machine.labels.\"example.com/rack\"", "machine.labels.*"),
        ("machine.labels.example.com/rack", "machine.labels.*"),
        ("registries.mirrors.\"docker.io\".ca", "registries.mirrors.*.ca"),
        ("sysctls.net.ipv4.ip_forward", "sysctls.*"),
    ] {
        assert_eq!(explain(asked).unwrap().key, found);
    }
    assert_eq!(explain("cluster.tokne"), None);
    assert_eq!(crate::suggest_key("cluster.tokne"), Some("cluster.token"));
}

#[test]
fn secrets_are_not_shown() {
    let token = "abcdef.0123456789abcdef";
    let text = format!("version = 1\n[machine]\nhostname = \"a\"\nrole = \"single\"\n[cluster]\ntoken = \"{token}\"\n");
    let manifest = parse("m.toml", &text).unwrap();
    assert!(!format!("{manifest:?}").contains("0123456789abcdef"));
    let bad = text.replace(token, "abcdef.0123456789ABCDEF");
    let diagnostics = parse("m.toml", &bad).unwrap_err();
    assert!(!diagnostics.to_string().contains("ABCDEF"), "{diagnostics}");
    let (_, broken) = check("m.toml", &text.replace("def\"", "def"));
    assert!(!broken.to_string().contains("0123456789abcdef"), "{broken}");
}

#[test]
fn secrets_over_several_lines_are_not_shown() {
    let head = "version = 1\nmachine = { hostname = \"a\", role = \"single\" }\n[control-plane]\n";
    let document = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
                    - resources: [secrets]\n  providers: [{aescbc: {keys: [\n{name: one, secret: SECRETKEY+base64==}]}}]\n";
    let text = format!("{head}encryption = '''\n{document}'''\n");
    let manifest = parse("m.toml", &text).unwrap();
    assert!(manifest.control_plane.encryption.as_ref().unwrap().get().unwrap().as_str().contains("SECRETKEY"));
    assert!(!format!("{manifest:?}").contains("SECRETKEY"));
    // Whatever line behind the key is forgotten: no line of the text is shown.
    let lines: Vec<&str> = text.lines().collect();
    for left_out in 4..lines.len() {
        let rest: Vec<&str> =
            lines.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, line)| *line).collect();
        let (_, found) = check("m.toml", &rest.join("\n"));
        assert!(!found.to_string().contains("SECRETKEY"), "without line {}: {found}", left_out + 1);
    }
}

/// Finds one secret, and nothing else.
struct One(&'static str, &'static str);

impl crate::FindSecret for One {
    fn find(&self, key: &str, reference: &crate::Reference) -> Result<crate::SecretText, Option<String>> {
        assert_eq!(reference.place(), "/run/keelson-config/x");
        if key == self.0 { Ok(crate::SecretText::new(self.1.to_owned())) } else { Err(Some("it is empty".to_owned())) }
    }
}

#[test]
fn every_secret_may_be_elsewhere() {
    // Every key that takes a secret, in a manifest that may have it.
    let rows = [
        ("install.encryption.passphrase", "[[install.encryption]]\nvolumes = [\"data\"]\npassphrase = REF"),
        (
            "network.interfaces.wireguard.private-key",
            "[[network.interfaces]]\nname = \"wg0\"\naddresses = \
         [\"10.9.0.1/24\"]\nwireguard = { private-key = REF }",
        ),
        (
            "network.interfaces.wireguard.peers.preshared-key",
            "[[network.interfaces]]\nname = \"wg0\"\naddresses = \
         [\"10.9.0.1/24\"]\nwireguard = { private-key = \"KEY\", peers = [{ allowed = [\"10.9.0.2/32\"], \
         public-key = \"KEY\", preshared-key = REF }] }",
        ),
        ("cluster.token", "[cluster]\ntoken = REF"),
        ("control-plane.secret", "[control-plane]\nsecret = REF"),
        (
            "control-plane.accepted-secret",
            "[control-plane]\nsecret = \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"\n\
             accepted-secret = REF",
        ),
        (
            "control-plane.audit.webhook",
            "[control-plane.audit]\npolicy = '''\napiVersion: audit.k8s.io/v1\nkind: \
         Policy\nrules: [{level: Metadata}]\n'''\nwebhook = REF",
        ),
        ("control-plane.encryption", "[control-plane]\nencryption = REF"),
        ("control-plane.files.content", "[[control-plane.files]]\nname = \"a\"\ncontent = REF"),
        (
            "etcd.snapshots.store.secret-key",
            "[etcd.snapshots]\ninterval = \"1h\"\nstore = { url = \"s3://bucket\", \
         access-key = \"a\", secret-key = REF }",
        ),
        (
            "etcd.snapshots.store.password",
            "[etcd.snapshots]\ninterval = \"1h\"\nstore = { url = \"https://x\", \
         username = \"a\", password = REF }",
        ),
        (
            "etcd.snapshots.store.bearer-token",
            "[etcd.snapshots]\ninterval = \"1h\"\nstore = { url = \"https://x\", \
         bearer-token = REF }",
        ),
        ("outbound.servers.*.password", "[outbound.servers.x]\nusername = \"a\"\npassword = REF"),
        ("outbound.servers.*.bearer-token", "[outbound.servers.x]\nbearer-token = REF"),
        ("outbound.proxy.password", "[outbound.proxy]\nurl = \"http://p:1\"\nusername = \"a\"\npassword = REF"),
    ];
    let known: BTreeSet<String> =
        keys::all().iter().filter(|key| key.is_secret()).map(|key| key.path.replace("[]", "")).collect();
    assert_eq!(rows.iter().map(|(key, _)| (*key).to_owned()).collect::<BTreeSet<_>>(), known);
    for (key, rest) in rows {
        let rest = rest.replace("KEY", "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=");
        let text = format!("version = 1\nmachine = {{ hostname = \"a\", role = \"single\" }}\n{rest}\n");
        let text = text.replace("REF", "{ file = \"/run/keelson-config/x\" }");
        let (manifest, found) = check("m.toml", &text);
        assert!(manifest.is_some() && found.is_empty(), "{key}: {found}");
        let shown = crate::without_secrets(&text);
        assert!(shown.contains("/run/keelson-config/x"), "{shown}");
        let (manifest, found) = crate::check_with("m.toml", &text, &One("", ""));
        assert!(manifest.is_some() && found.errors().count() == 1, "{key}: {found}");
        let at = key.replace('*', "x");
        assert!(crate::without_indices(&found.findings[0].key) == at, "{key}: {found}");
        let changes = crate::diff("", &text);
        let change = changes.iter().find(|change| crate::without_indices(&change.key) == at);
        assert_eq!(change.unwrap().after.as_deref(), Some("{ file = \"/run/keelson-config/x\" }"));
    }
}

#[test]
fn a_secret_that_was_found_is_what_was_written_and_is_not_shown() {
    let text = "version = 1\nmachine = { hostname = \"a\", role = \"single\" }\n[cluster]\ntoken.file = \"/run/keelson-config/x\"\n";
    let (manifest, found) = crate::check_with("m.toml", text, &One("cluster.token", "abcdef.0123456789abcdef"));
    let manifest = manifest.unwrap();
    assert!(found.is_empty() && !format!("{manifest:?}").contains("0123456789abcdef"), "{found}");
    assert_eq!(manifest.cluster.token.as_ref().unwrap().get().unwrap().bearer(), "abcdef.0123456789abcdef");
    assert_eq!(manifest.hidden().collect::<Vec<_>>(), ["0123456789abcdef"]);
    let document = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
                    - resources: [secrets]\n  providers: [{aescbc: {keys: [{name: one, secret: SECRETKEY+base64==}]}}]\n";
    let text = text.replace("[cluster]\ntoken", "[control-plane]\nencryption");
    let (manifest, _) = crate::check_with("m.toml", &text, &One("control-plane.encryption", document));
    assert_eq!(manifest.unwrap().hidden().collect::<Vec<_>>(), ["SECRETKEY+base64=="]);
}

#[test]
fn a_file_that_is_too_large_is_refused_unread() {
    let diagnostics = parse("m.toml", &"#".repeat(crate::MANIFEST_BYTES + 1)).unwrap_err();
    assert_eq!(diagnostics.findings.len(), 1);
}

#[test]
fn deep_nesting_is_refused_not_followed() {
    let text = format!("version = 1\nx = {}1{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(parse("m.toml", &text).is_err());
}

#[test]
fn the_role_decides_about_the_taint() {
    let with_role = |role: &str| {
        let text = format!("version = 1\nmachine = {{ hostname = \"a\", role = \"{role}\" }}\n");
        parse("m.toml", &text).unwrap().node_taints().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(with_role("master"), ["node-role.kubernetes.io/control-plane:NoSchedule"]);
    assert!(with_role("single").is_empty());
}

/// Lines that a manifest may consist of, right and wrong.
fn line() -> impl Strategy<Value = String> {
    let keys: Vec<&'static str> = keys::all().iter().map(keys::Key::name).collect();
    let headers: Vec<&'static str> = keys::all().iter().map(|key| key.path).collect();
    let value = prop_oneof![
        "[ -~]{0,12}".prop_map(|text| format!("{text:?}")),
        any::<i64>().prop_map(|number| number.to_string()),
        proptest::sample::select(vec!["true", "[]", "{}", "[[", "\"\"\"", "1e3", "[1, \"a\", []]", "{ a = 1 }"])
            .prop_map(str::to_owned),
    ];
    prop_oneof![
        (proptest::sample::select(keys), value).prop_map(|(key, value)| format!("{key} = {value}")),
        proptest::sample::select(headers.clone())
            .prop_map(|path| format!("[{}]", path.replace("[]", "").replace('*', "x"))),
        proptest::sample::select(headers).prop_map(|path| format!("[[{}]]", path.replace("[]", "").replace('*', "x"))),
        "\\PC{0,20}",
    ]
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,200}") {
        let (manifest, diagnostics) = check("m.toml", &text);
        prop_assert_eq!(manifest.is_none(), diagnostics.errors().next().is_some());
        let _shown = diagnostics.to_string();
    }

    #[test]
    fn any_lines_are_parsed_or_refused(lines in proptest::collection::vec(line(), 0..30)) {
        let (manifest, diagnostics) = check("m.toml", &lines.join("\n"));
        prop_assert_eq!(manifest.is_none(), diagnostics.errors().next().is_some());
        let _shown = diagnostics.to_string();
    }
}
