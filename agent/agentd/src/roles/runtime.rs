//! `keelson runtime`: becomes containerd, with the way to servers elsewhere that the manifest has.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use manifest::OutboundProxy;
use url::Url;

use crate::{node, paths};

pub(crate) fn run() -> Result<()> {
    crate::logs::Logs::default().start();
    let manifest = node::manifest_in_force()?;
    let proxy = manifest.outbound.proxy.as_ref().map(environment).transpose().context("`outbound.proxy`")?;
    let mut command = Command::new(paths::CONTAINERD);
    let error = command.args(["--config", paths::CONTAINERD_CONFIG]).envs(proxy.into_iter().flatten()).exec();
    bail!("executing {}: {error}", paths::CONTAINERD)
}

/// The proxy as programs of others are told of it.
fn environment(proxy: &OutboundProxy) -> Result<[(&'static str, String); 3]> {
    let mut url: Url = proxy.url.as_str().parse()?;
    // Without its password the proxy says no, where it has to.
    if let Some((name, password)) = proxy.user.as_ref().and_then(|(name, it)| Some((name, it.known()?))) {
        let is_set = url.set_username(name.as_str()).is_ok() && url.set_password(Some(password.as_str())).is_ok();
        anyhow::ensure!(is_set, "its address takes no user");
    }
    let except: Vec<String> = proxy.except.iter().map(ToString::to_string).collect();
    let url = url.to_string();
    Ok([("HTTP_PROXY", url.clone()), ("HTTPS_PROXY", url), ("NO_PROXY", except.join(","))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_is_told_of_the_proxy_as_a_url() {
        let text = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n[outbound.proxy]\n\
                    url = \"http://proxy.example.com:3128\"\nusername = \"node\"\npassword = \"p@ss/w:rd\"\n\
                    except = [\"10.0.0.0/8\", \".example.com\"]\n";
        let manifest = manifest::parse("m.toml", text).unwrap_or_else(|error| panic!("{error}"));
        let told = environment(manifest.outbound.proxy.as_ref().unwrap()).unwrap();
        let url = "http://node:p%40ss%2Fw%3Ard@proxy.example.com:3128/";
        let expected = [("HTTP_PROXY", url), ("HTTPS_PROXY", url), ("NO_PROXY", "10.0.0.0/8,.example.com")];
        assert_eq!(told, expected.map(|(name, value)| (name, value.to_owned())));
    }
}
