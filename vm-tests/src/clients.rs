//! Clients that are written in Go, as those of upstream are: built here, with whatever Go there is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use images::tools;

/// Where the Go project's own archive is unpacked.
const USUAL: &str = "/usr/local/go/bin/go";
/// Since this version Go gets a newer one where a module wants that.
const OLDEST: (u32, u32) = (1, 21);

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Upstream's Helm.
    Helm,
    /// An operator of our own on upstream's libraries: `clients/operator`.
    Operator,
}

/// A Go that can build them.
#[derive(Debug)]
pub struct Go(PathBuf);

impl Go {
    /// Finds one, or installs Debian's.
    ///
    /// # Errors
    /// There is none that can be used.
    pub fn find() -> Result<Self> {
        let known = tools::find("go").or_else(|| Some(PathBuf::from(USUAL)).filter(|path| path.is_file()));
        let go = match known {
            Some(go) => Self(go),
            None => {
                tools::require(&[("go", "golang-go")])?;
                Self(tools::find("go").context("golang-go holds no go")?)
            }
        };
        let said = tools::run(go.command(&["env", "GOVERSION"]).current_dir("/"))?;
        let version = version(&said).with_context(|| format!("{} says its version is {said:?}", go.0.display()))?;
        if version < OLDEST {
            bail!("{} is Go {}.{}, and {}.{} is needed", go.0.display(), version.0, version.1, OLDEST.0, OLDEST.1);
        }
        // Only in the module it becomes known which version that wants, and whether it can be had.
        tools::run(go.command(&["version"]).current_dir(Client::folder()))?;
        Ok(go)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tools::command(&self.0.display().to_string());
        command.args(arguments).env("GOTOOLCHAIN", "auto").env("GOFLAGS", "-mod=readonly");
        command
    }
}

/// `go1.26.8` is (1, 26).
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("go")?.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

impl Client {
    /// Helm's version; its sums are those that everybody's Go checks.
    const HELM: &str = "v4.3.1";

    fn folder() -> PathBuf {
        images::workspace().join("vm-tests/clients/operator")
    }

    /// Builds it, unless it is there, and says where it is.
    ///
    /// # Errors
    /// It cannot be built.
    pub fn build(self, go: &Go) -> Result<PathBuf> {
        let out = images::workspace().join("target/clients");
        match self {
            Self::Helm => build_helm(go, &out.join(Self::HELM)),
            Self::Operator => {
                let program = out.join("operator");
                let mut command = go.command(&["build", "-o"]);
                tools::run(command.arg(&program).arg(".").current_dir(Self::folder()))?;
                Ok(program)
            }
        }
    }
}

fn build_helm(go: &Go, out: &Path) -> Result<PathBuf> {
    let program = out.join("helm");
    if !program.is_file() {
        let module = format!("helm.sh/helm/v4/cmd/helm@{}", Client::HELM);
        tools::run(go.command(&["install", &module]).env("GOBIN", out).current_dir("/"))?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version("go1.26.8\n"), Some((1, 26)));
        assert_eq!(version("go1.27rc1"), Some((1, 27)));
        assert_eq!(version("devel +abc"), None);
        assert!((1, 9) < OLDEST && (1, 24) > OLDEST);
    }
}
