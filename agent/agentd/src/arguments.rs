//! Roles by file name: a link called like an upstream component is that component.

use std::ffi::OsString;
use std::path::Path;

/// File names and the roles they stand for.
const BY_NAME: &[(&str, &str)] = &[
    ("init", "init"),
    ("keelson-cni", "cni"),
    ("kube-apiserver", "apiserver"),
    ("kube-controller-manager", "controller-manager"),
    ("kube-scheduler", "scheduler"),
    ("kube-proxy", "proxy"),
    ("kubelet", "kubelet"),
    ("modprobe", "modprobe"),
    ("sample", "sample-server"),
];

/// The arguments with the role that the file's name stands for put in, where it stands for one.
pub(crate) fn by_file_name(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let name = arguments.first().and_then(|path| Path::new(path).file_name()).and_then(|name| name.to_str());
    let role = BY_NAME.iter().find(|(file, _)| Some(*file) == name).map(|(_, role)| *role);
    if let Some(role) = role
        && arguments.get(1).is_none_or(|first| first != role)
    {
        arguments.insert(1, role.into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inserted(words: &[&str]) -> Vec<String> {
        by_file_name(words.iter().map(OsString::from)).into_iter().map(|w| w.into_string().unwrap()).collect()
    }

    #[test]
    fn a_link_s_name_is_a_role() {
        assert_eq!(inserted(&["/x/kube-scheduler", "--v=2"]), ["/x/kube-scheduler", "scheduler", "--v=2"]);
        assert_eq!(inserted(&["/usr/bin/keelson", "node"]), ["/usr/bin/keelson", "node"]);
        assert_eq!(inserted(&["/sbin/init"]), ["/sbin/init", "init"]);
    }
}
