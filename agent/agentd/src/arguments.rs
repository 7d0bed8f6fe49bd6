//! Roles by file name: a link called like an upstream component is that component. And files that are none.

use std::any::TypeId;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Command;

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

/// The words without flags that name no file: to upstream's components a flag for a file that is empty was not given.
pub(crate) fn without_empty_paths(role: &Command, mut words: Vec<OsString>) -> Vec<OsString> {
    let is_path = |name: &str| {
        let named = role.get_arguments().find(|flag| flag.get_long() == Some(name));
        named.is_some_and(|flag| flag.get_value_parser().type_id() == TypeId::of::<PathBuf>())
    };
    let empty = |word: &OsString| word.to_str()?.strip_prefix("--")?.strip_suffix('=').map(is_path);
    words.retain(|word| empty(word) != Some(true));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_name_is_none() {
        let flag = |name: &'static str| clap::Arg::new(name).long(name);
        let role = Command::new("x").arg(flag("file").value_parser(clap::value_parser!(PathBuf))).arg(flag("text"));
        let words = ["--file=", "--text=", "--file=/a", "--other=", "x="].map(OsString::from).to_vec();
        assert_eq!(without_empty_paths(&role, words.clone()), words[1..]);
    }

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
