use std::io::Write;

use super::*;

fn plan(words: &[&str]) -> Result<Plan> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    SURFACE.parse(&words).and_then(Plan::new)
}

const HERE: [&str; 3] = ["--node-ip=10.0.0.7", "--fail-swap-on=false", "--fail-cgroupv1=false"];

#[test]
fn every_field_that_a_flag_stands_for_is_in_the_table_of_fields() {
    for flag in SURFACE.flags() {
        if let crate::flags::Effect::Field(path) = flag.effect {
            assert!(fields::SCHEMA.fields.iter().any(|field| field.path == path), "--{}: {path}", flag.name);
        }
    }
}

#[test]
fn flags_come_before_the_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(
        file,
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 50\nclusterDomain: a.b\n\
         failSwapOn: false\nfailCgroupV1: false\n"
    )
    .unwrap();
    let config = format!("--config={}", file.path().display());
    let plan = plan(&[
        &config,
        "--max-pods=60",
        "--node-ip=10.0.0.7",
        "--hostname-override=N1",
        "--node-labels=a=b,c=d",
        "--register-with-taints=x=y:NoSchedule",
        "--root-dir=/r",
        "--v=4",
    ])
    .unwrap();
    let kubelet = &plan.kubelet;
    assert_eq!((kubelet.max_pods, kubelet.cluster_domain.as_str(), kubelet.node_name.as_str()), (60, "a.b", "n1"));
    assert_eq!(kubelet.labels.len(), 2);
    assert_eq!(kubelet.taints[0].key, "x");
    assert_eq!(kubelet.root_dir, PathBuf::from("/r"));
    assert_eq!(plan.given.without_effect().len(), 1, "{:?}", plan.given.without_effect());
}

#[test]
fn what_is_not_supported_is_refused_with_a_reason() {
    let table = [
        ("--runonce", "runOnce: true is not supported, only false: a kubelet runs on"),
        ("--lock-file=/x", "--lock-file is not supported: there is no lock file"),
        ("--network-plugin=cni", "--network-plugin is no flag of kubelet."),
        ("--anonymous-auth=true", "authentication.anonymous.enabled: true is not supported"),
        ("--read-only-port=10255", "readOnlyPort: 10255 is not supported"),
        ("--cloud-provider=aws", "--cloud-provider=aws is not supported"),
        ("--node-ip=nowhere", "--node-ip: \"nowhere\" is no address"),
        ("--feature-gates=MemoryQoS=true", "featureGates"),
    ];
    for (word, message) in table {
        let found = plan(&[&HERE[..], &[word]].concat()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(found.starts_with(message), "{word}: {found}");
    }
}
