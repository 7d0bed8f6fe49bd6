//! `keelson events`: what happened on a machine, as objects.

use anyhow::{Context, Result};
use clap::Args;
use clap::builder::PossibleValuesParser;
use machine_api::{Event, EventKind, EventRequest, Events, Severity, table};

use super::look::{Part, shown};
use super::token::Output;

/// Which events.
#[derive(Args)]
pub(crate) struct Options {
    /// Only those of this kind; may be said more than once.
    #[arg(long = "kind", value_name = "KIND", hide_possible_values = true,
          value_parser = PossibleValuesParser::new(EventKind::ALL.iter().map(|kind| kind.as_str())))]
    only: Vec<String>,
    /// Only those that matter so much, or more.
    #[arg(long, value_name = "SEVERITY", default_value = Severity::Info.word(),
          value_parser = PossibleValuesParser::new(Severity::ALL.map(Severity::word)))]
    at_least: String,
    /// Lists the kinds that there are, and asks no machine.
    #[arg(long, conflicts_with_all = ["only", "follow", "since", "tail"])]
    kinds: bool,
    #[command(flatten)]
    part: Part,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.kinds {
        print!("{}", table(EventKind::ALL));
        return Ok(());
    }
    let at_least = Severity::of_word(&options.at_least).unwrap_or_default().into();
    let wanted = EventRequest { part: Some(options.part.wanted()), kinds: options.only.clone(), at_least };
    let line = |event: Event| match options.part.output() {
        Output::Json => serde_json::to_string(&event).map(|text| text + "\n").context("writing an event"),
        Output::Text => Ok(shown(&event.describe()) + "\n"),
    };
    let call = async |machine: &mut super::target::Machine| machine.read_events(wanted).await;
    options.part.stream(call, |Events { events }| events.into_iter().map(line).collect())
}
