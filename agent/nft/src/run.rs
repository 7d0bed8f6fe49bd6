//! Handing a script to the kernel by the `nft` program.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::change::Script;
use crate::counters;
use crate::table::{Count, Table};

/// More than a whole rule set of 250,000 endpoints takes on a slow machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// How much of a wrong line an error shows.
const SHOWN_CHARACTERS: usize = 200;

/// Why a script was not applied. Nothing of it holds then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program could not be started or fed.
    #[error("cannot run {program}")]
    Run {
        /// What was started.
        program: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The program took too long and was killed.
    #[error("{program} did not finish within {deadline:?}")]
    Deadline {
        /// What was started.
        program: PathBuf,
        /// How long it had.
        deadline: Duration,
    },
    /// The program told something else than what was asked.
    #[error("nft told no counters of the table {table}")]
    NoCounters {
        /// The table.
        table: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The program or the kernel refused the script.
    #[error("nft refused the rule set: {message}{}", at_line(.line))]
    Refused {
        /// The first complaint.
        message: String,
        /// The line it is about, as far as it can be told.
        line: Option<String>,
    },
}

fn at_line(line: &Option<String>) -> String {
    line.as_ref().map(|line| format!(" (in line: {line})")).unwrap_or_default()
}

/// The `nft` program.
#[derive(Clone, Debug)]
pub struct Nft {
    program: PathBuf,
    deadline: Duration,
}

impl Default for Nft {
    fn default() -> Self {
        Self { program: PathBuf::from("nft"), deadline: DEADLINE }
    }
}

impl Nft {
    /// The `nft` at a path.
    #[must_use]
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), ..Self::default() }
    }

    /// Applies a script in one transaction, in the network namespace of the calling thread. An empty one costs
    /// nothing. Not cancel safe: dropped midway, the script may or may not hold.
    pub async fn run(&self, script: &Script) -> Result<(), Error> {
        if script.is_empty() {
            return Ok(());
        }
        let output = self.call(&["-f", "-"], script).await?;
        if output.status.success() { Ok(()) } else { Err(refusal(&String::from_utf8_lossy(&output.stderr), script)) }
    }

    /// What the named counters of a table have seen since it was made, in the network namespace of the calling thread.
    /// Cancel safe.
    pub async fn counters(&self, table: &Table) -> Result<BTreeMap<String, Count>, Error> {
        let (family, name) = (table.family.to_string(), table.name.as_str());
        let nothing = Script::default();
        let output = self.call(&["-j", "list", "counters", "table", &family, name], &nothing).await?;
        if !output.status.success() {
            return Err(refusal(&String::from_utf8_lossy(&output.stderr), &nothing));
        }
        counters::parse(&output.stdout).map_err(|source| Error::NoCounters { table: table.id(), source })
    }

    async fn call(&self, arguments: &[&str], script: &Script) -> Result<Output, Error> {
        let failed = |source| Error::Run { program: self.program.clone(), source };
        let mut child = Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let stdin = child.stdin.take();
        let work = async {
            let feed = async {
                // A program that stops reading says why on its error output.
                if let Some(mut stdin) = stdin
                    && stdin.write_all(script.as_str().as_bytes()).await.is_ok()
                {
                    drop(stdin.shutdown().await);
                }
            };
            tokio::join!(feed, child.wait_with_output()).1
        };
        match tokio::time::timeout(self.deadline, work).await {
            Ok(output) => output.map_err(failed),
            Err(_elapsed) => Err(Error::Deadline { program: self.program.clone(), deadline: self.deadline }),
        }
    }
}

/// Finds the first complaint and the line of the script that it is about.
fn refusal(stderr: &str, script: &Script) -> Error {
    for text in stderr.lines() {
        let Some((place, message)) = text.split_once(" Error: ") else { continue };
        let number = place.trim_end_matches(':').rsplit(':').nth(1).and_then(|number| number.parse::<usize>().ok());
        let line = number.and_then(|number| script.as_str().lines().nth(number.saturating_sub(1)));
        let line = line.map(|line| line.chars().take(SHOWN_CHARACTERS).collect());
        return Error::Refused { message: message.to_owned(), line };
    }
    let message = stderr.lines().find(|line| !line.is_empty()).unwrap_or("it gave no reason").to_owned();
    Error::Refused { message, line: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Chain, Family, Table};

    #[test]
    fn a_refusal_names_the_complaint_and_its_line() {
        let mut table = Table::new(Family::Ip, "t");
        table.chains.insert("a".into(), Chain::new(["frobnicate"]));
        let stderr = "/dev/stdin:5:17-26: Error: syntax error, unexpected string\nadd rule\n   ^^^\n";
        let error = refusal(stderr, &table.replace_script());
        assert_eq!(
            error.to_string(),
            "nft refused the rule set: syntax error, unexpected string (in line: add rule ip t a frobnicate)"
        );
        assert_eq!(refusal("", &Script::default()).to_string(), "nft refused the rule set: it gave no reason");
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let script = Table::new(Family::Ip, "t").delete_script();
        let error = Nft::at("/nonexistent/nft").run(&script).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot run /nonexistent/nft");
    }
}
