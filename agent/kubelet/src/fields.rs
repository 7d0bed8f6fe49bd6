//! `fieldRef`: a pod's own fields as text.

use std::collections::BTreeMap;

use api::core::v1::Pod;

/// A field of the pod, or why there is none.
pub(crate) fn pod_field(pod: &Pod, path: &str, live: &LiveFields) -> Result<String, String> {
    let meta = &pod.metadata;
    if let Some((base, key)) = subscript(path) {
        return match base {
            "metadata.annotations" => Ok(meta.annotations.get(key).cloned().unwrap_or_default()),
            "metadata.labels" => Ok(meta.labels.get(key).cloned().unwrap_or_default()),
            _ => Err(format!("fieldPath {path:?} does not support subscript")),
        };
    }
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => format_map(&meta.labels),
        "metadata.annotations" => format_map(&meta.annotations),
        "spec.nodeName" => pod.spec.node_name.clone(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone(),
        "spec.restartPolicy" => pod.spec.restart_policy.clone(),
        "status.phase" => pod.status.phase.clone(),
        "status.hostIP" => live.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => live.host_ips.join(","),
        "status.podIP" => live.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => live.pod_ips.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// Fields that the node knows better than the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LiveFields {
    pub(crate) host_ips: Vec<String>,
    pub(crate) pod_ips: Vec<String>,
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (base, rest) = path.split_once('[')?;
    let key = rest.strip_suffix(']')?;
    let key = key.strip_prefix(['\'', '"']).unwrap_or(key);
    Some((base, key.strip_suffix(['\'', '"']).unwrap_or(key)))
}

/// One `key="value"` a line.
fn format_map(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={}", stdx::quoted(value))).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_and_subscripts_are_read() {
        let mut pod = Pod::default();
        pod.metadata.labels.insert("a".to_owned(), "x\"y\n".to_owned());
        pod.metadata.labels.insert("b".to_owned(), "2".to_owned());
        let live = LiveFields::default();
        assert_eq!(pod_field(&pod, "metadata.labels", &live).unwrap(), "a=\"x\\\"y\\n\"\nb=\"2\"");
        assert_eq!(pod_field(&pod, "metadata.labels['b']", &live).unwrap(), "2");
        assert_eq!(pod_field(&pod, "metadata.annotations['none']", &live).unwrap(), "");
        assert!(pod_field(&pod, "spec.nothing", &live).is_err());
    }
}
