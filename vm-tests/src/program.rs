//! A program of others that talks to a cluster: run to its end, and held to what it says.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use images::tools;
use tokio::io::AsyncWriteExt;

/// No command is left alone with a server that does not answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// The program, and the cluster that it talks to.
pub(crate) struct Program {
    name: &'static str,
    file: PathBuf,
    kubeconfig: PathBuf,
    environment: Vec<(&'static str, &'static str)>,
}

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) is_success: bool,
    pub(crate) output: String,
    pub(crate) errors: String,
}

impl Program {
    pub(crate) fn new(name: &'static str, file: PathBuf, kubeconfig: PathBuf) -> Self {
        Self { name, file, kubeconfig, environment: Vec::new() }
    }

    /// The same with a variable in its environment.
    pub(crate) fn with(mut self, key: &'static str, value: &'static str) -> Self {
        self.environment.push((key, value));
        self
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::from(tools::command(&self.file.display().to_string()));
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        // Neither the user's settings nor what an earlier cluster said at the same address.
        let home = self.kubeconfig.with_file_name(self.name);
        command.env("HOME", &home).env("KUBECACHEDIR", home.join("cache")).envs(self.environment.iter().copied());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    fn line(&self, arguments: &[&str]) -> String {
        format!("{} {}", self.name, arguments.join(" "))
    }

    pub(crate) async fn end(&self, arguments: &[&str], input: Option<&str>) -> Result<Ended> {
        let line = self.line(arguments);
        let mut command = self.command(arguments);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().with_context(|| format!("start `{line}`"))?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            stdin.write_all(input.as_bytes()).await.with_context(|| format!("write to `{line}`"))?;
        }
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let output = output.with_context(|| format!("`{line}` does not end"))??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let is_success = output.status.success();
        Ok(Ended { is_success, output: text(&output.stdout), errors: text(&output.stderr) })
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with(arguments, None).await
    }

    pub(crate) async fn run_with(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let ended = self.end(arguments, input).await?;
        if !ended.is_success {
            bail!("`{}` failed: {}{}", self.line(arguments), ended.output, ended.errors.trim());
        }
        Ok(ended.output)
    }

    /// Runs a command whose output must hold all of `wanted`.
    pub(crate) async fn expect(&self, arguments: &[&str], wanted: &[&str]) -> Result<String> {
        let output = self.run(arguments).await?;
        for word in wanted {
            ensure!(output.contains(word), "`{}` does not tell {word:?}:\n{output}", self.line(arguments));
        }
        Ok(output)
    }

    /// Runs a command that must fail with `wanted` in what it says.
    pub(crate) async fn refuse(&self, arguments: &[&str], wanted: &str) -> Result<()> {
        let (ended, line) = (self.end(arguments, None).await?, self.line(arguments));
        ensure!(!ended.is_success, "`{line}` says that all went well: {}", ended.output);
        ensure!(ended.errors.contains(wanted), "`{line}` fails, but not with {wanted:?}: {}", ended.errors);
        Ok(())
    }
}
