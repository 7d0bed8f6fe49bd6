//! DefaultTolerationSeconds: pods stay a while on nodes that fall ill.

use serde_json::{Value, json};

use crate::tree;

const SECONDS: i64 = 300;

pub(super) fn add_defaults(pod: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = tree::list(pod, "/spec/tolerations").iter().any(|t| {
            let own_key = matches!(t["key"].as_str(), None | Some("")) || t["key"] == key;
            let own_effect = matches!(t["effect"].as_str(), None | Some("" | "NoExecute"));
            own_key && own_effect
        });
        if !tolerated {
            let toleration =
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS});
            tree::list_at(&mut pod["spec"], "tolerations").push(toleration);
        }
    }
}
