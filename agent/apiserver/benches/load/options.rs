//! What is asked for on the command line.

use std::path::PathBuf;
use std::str::FromStr;

use crate::figures::{Figure, Whose};
use crate::launched::Program;
use crate::{Failure, Result};

pub(crate) struct Options {
    ours: PathBuf,
    pub(crate) upstream: Option<PathBuf>,
    etcd: Option<PathBuf>,
    /// How many pods there are, one server each.
    pub(crate) pods: Vec<usize>,
    pub(crate) watchers: usize,
    pub(crate) definitions: usize,
    /// Processor time that the server uses at least for work that can be repeated.
    pub(crate) seconds: f64,
    /// Parts of the names of what is wanted; none means all.
    words: Vec<String>,
}

impl Options {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            ours: PathBuf::new(),
            upstream: None,
            etcd: None,
            pods: vec![1_000, 10_000, 30_000],
            watchers: 1_000,
            definitions: 500,
            seconds: 2.0,
            words: Vec::new(),
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} wants a value"));
            match argument.as_str() {
                // As cargo calls every benchmark.
                "--bench" => {}
                "--ours" => options.ours = value()?.into(),
                "--upstream" => options.upstream = Some(value()?.into()),
                "--etcd" => options.etcd = Some(value()?.into()),
                "--pods" => options.pods = value()?.split(',').map(number).collect::<Result<_>>()?,
                "--watchers" => options.watchers = number(&value()?)?,
                "--crds" => options.definitions = number(&value()?)?,
                "--seconds" => options.seconds = number(&value()?)?,
                flag if flag.starts_with('-') => return Err(format!("there is no {flag}").into()),
                word => options.words.push(word.to_owned()),
            }
        }
        if options.ours.as_os_str().is_empty() {
            return Err("--ours names no binary, such as that of cargo build --release -p agentd".into());
        }
        if options.pods.contains(&0) || options.watchers == 0 || options.definitions == 0 {
            return Err("of pods, watchers and definitions there has to be at least one".into());
        }
        Ok(options)
    }

    /// Who is measured, in this order.
    pub(crate) fn servers(&self) -> impl Iterator<Item = Whose> {
        self.upstream.iter().map(|_| Whose::Upstream).chain([Whose::Ours])
    }

    pub(crate) fn program(&self, whose: Whose) -> Program {
        match (&self.upstream, whose) {
            (Some(folder), Whose::Upstream) => Program::upstream(folder),
            _ => Program::ours(self.ours.clone()),
        }
    }

    /// The binary that was named, or that beside upstream's server, or that of the system.
    pub(crate) fn etcd(&self) -> PathBuf {
        let beside = || self.upstream.as_ref().map(|folder| folder.join("etcd"));
        self.etcd.clone().or_else(beside).unwrap_or_else(|| "etcd".into())
    }

    pub(crate) fn wants(&self, figure: Figure) -> bool {
        let (name, _) = figure.row();
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word.as_str()))
    }
}

fn number<T: FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| Failure::from(format!("{text:?} is not such a number")))
}
