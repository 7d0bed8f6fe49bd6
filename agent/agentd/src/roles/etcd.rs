//! `keelson etcd`: the members of etcd, their snapshots, and what mends them. A master's machine API does it all.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use futures::stream;
use machine_api::{
    Chunk, EtcdDefragmentation, EtcdMember, EtcdRecoverRequest, EtcdRemoveRequest, EtcdRestorePart, EtcdStatus,
    FetchEtcdRequest, FileSource,
};
use serde::Serialize;
use tonic::{Response, Status};

use super::target::{Machine, PART_BYTES, Target, next};
use super::token::Output;
use crate::process;

const WITHIN: Duration = Duration::from_secs(60);
/// etcd starts anew and reads its database, or a slow line carries it.
const LONG: Duration = Duration::from_secs(3600);

/// What to do with etcd.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Lists the members, or takes one out.
    Members(Members),
    /// Tells how the members are, and what is wrong.
    Status(Asked),
    /// Takes a snapshot to a file of this machine. Whoever has the file has every secret of the cluster.
    Snapshot {
        /// The file; it appears when the snapshot is whole and verified.
        file: PathBuf,
        #[command(flatten)]
        asked: Asked,
    },
    /// Puts a snapshot in the place of what etcd holds. The master becomes a cluster of its own, which the others join.
    Restore {
        /// The snapshot: a file, or what the master fetches: `https://…`, or `s3://BUCKET/KEY` of the store in its
        /// manifest.
        file: PathBuf,
        /// The SHA-256 of a snapshot that is fetched. Needed where it comes without TLS.
        #[arg(long)]
        sha256: Option<String>,
        /// Do so although etcd works.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        asked: Asked,
    },
    /// Gives unused space of all databases back, one member at a time, the leader's last; clears NOSPACE alarms.
    Defrag(Asked),
    /// Lets a master go on alone with the data that it has, after the majority was lost. Nothing is wiped; masters that
    /// come back join it.
    Recover {
        /// Do so although a majority is left, or another master has more of what was written.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        asked: Asked,
    },
}

/// Which master, and how to tell.
#[derive(Args)]
pub(crate) struct Asked {
    #[command(flatten)]
    target: Target,
    /// How to tell.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// The members, or one that goes.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Members {
    #[command(subcommand)]
    change: Option<Change>,
    #[command(flatten)]
    asked: Asked,
}

/// What is done to a member.
#[derive(Subcommand)]
enum Change {
    /// Takes a member out. It stays out while it has its data; a blank machine of the same name joins by itself.
    Remove {
        /// Its name or number.
        member: String,
        #[command(flatten)]
        asked: Asked,
    },
}

pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Members(Members { change: None, asked }) => {
            asked.tell(WITHIN, async |machine| machine.get_etcd_status(()).await, members)
        }
        Command::Members(Members { change: Some(Change::Remove { member, asked }), .. }) => {
            let wanted = EtcdRemoveRequest { member };
            asked.tell(LONG, async |machine| machine.remove_etcd_member(wanted).await, members)
        }
        Command::Status(asked) => asked.tell(WITHIN, async |machine| machine.get_etcd_status(()).await, status),
        Command::Snapshot { file, asked } => process::ask(LONG, snapshot(&file, &asked)),
        Command::Restore { file, sha256, force, asked } if file.to_string_lossy().contains("://") => {
            let source = Some(FileSource { source: file.to_string_lossy().into_owned(), sha256 });
            let wanted = FetchEtcdRequest { source, force };
            asked.tell(LONG, async |machine| machine.fetch_etcd(wanted).await, status)
        }
        Command::Restore { sha256: Some(_), .. } => bail!("--sha256 is for a snapshot that is fetched"),
        Command::Restore { file, sha256: None, force, asked } => {
            let content = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            let content = Bytes::from(content);
            let parts = (0..content.len()).step_by(PART_BYTES).map(move |start| {
                let end = content.len().min(start + PART_BYTES);
                EtcdRestorePart { force, data: content.slice(start..end) }
            });
            asked.tell(LONG, async |machine| machine.restore_etcd(stream::iter(parts)).await, status)
        }
        Command::Recover { force, asked } => {
            let wanted = EtcdRecoverRequest { force };
            asked.tell(LONG, async |machine| machine.recover_etcd(wanted).await, status)
        }
        Command::Defrag(asked) => asked.tell(LONG, async |machine| machine.defragment_etcd(()).await, defragmented),
    }
}

impl Asked {
    /// Asks, and tells the answer as it was wished.
    fn tell<T: Serialize>(
        &self,
        within: Duration,
        call: impl AsyncFnOnce(&mut Machine) -> Result<Response<T>, Status>,
        render: impl Fn(&T) -> String,
    ) -> Result<()> {
        self.output.show(&process::ask(within, self.target.ask(call))?, render)
    }
}

async fn snapshot(file: &Path, asked: &Asked) -> Result<()> {
    let mut body = asked.target.ask(async |machine| machine.take_etcd_snapshot(()).await).await?;
    let mut incoming = etcd::Incoming::create(file)?;
    while let Some(Chunk { data }) = next(&mut body).await? {
        incoming.add(&data)?;
    }
    let bytes = incoming.finish()?;
    match asked.output {
        Output::Json => println!("{}", serde_json::json!({ "path": file, "bytes": bytes })),
        Output::Text => println!("{}: {bytes} bytes, whole and verified", file.display()),
    }
    Ok(())
}

fn members(status: &EtcdStatus) -> String {
    let mut lines = vec![format!("{:<18} {:<20} {:<10} {:<8} PEER URLS", "ID", "NAME", "ROLE", "STATE")];
    for member in &status.members {
        let state = if member.is_healthy() { "healthy" } else { "ill" };
        let urls = member.peer_urls.join(",");
        lines.push(format!("{:<18} {:<20} {:<10} {state:<8} {urls}", member.id, member.name, role(member)));
    }
    lines.join("\n") + "\n"
}

fn role(member: &EtcdMember) -> &'static str {
    match (member.is_leader(), member.is_learner) {
        (true, _) => "leader",
        (false, true) => "learner",
        (false, false) => "voter",
    }
}

fn status(status: &EtcdStatus) -> String {
    let quorum = if status.has_quorum { "has a quorum" } else { "has no quorum" };
    let mut lines = vec![format!("etcd {quorum}, as {} sees it", status.master)];
    lines.extend(status.conditions.iter().cloned());
    let head = ["NAME", "ROLE", "VERSION", "DATABASE", "IN USE", "TERM", "INDEX"];
    let row = |[name, role, version, size, used, term, index]: [&str; 7]| {
        format!("{name:<20} {role:<8} {version:<8} {size:>10} {used:>10} {term:>6} {index:>10}")
    };
    lines.extend([String::new(), row(head)]);
    for member in &status.members {
        let Some(state) = &member.state else {
            lines.push(format!(
                "{:<20} {:<8} {}",
                member.label(),
                role(member),
                member.trouble.as_deref().unwrap_or("")
            ));
            continue;
        };
        let (size, used) = (mebibytes(state.database_bytes), mebibytes(state.used_bytes));
        let (term, index) = (state.term.to_string(), state.raft_index.to_string());
        lines.push(row([member.label(), role(member), &state.version, &size, &used, &term, &index]));
    }
    if let (Some(newest), count) = (status.snapshots.last(), status.snapshots.len()) {
        let time = api::time::format_seconds(i64::try_from(newest.taken).unwrap_or(i64::MAX));
        lines.push(format!("\n{count} snapshots; the newest of {time}: {}", newest.path));
    }
    lines.join("\n") + "\n"
}

fn mebibytes(bytes: u64) -> String {
    format!("{}.{}Mi", bytes >> 20, ((bytes & ((1 << 20) - 1)) * 10) >> 20)
}

fn defragmented(done: &EtcdDefragmentation) -> String {
    let member = |member: &machine_api::EtcdDefragmented| {
        let (before, after) = (mebibytes(member.before_bytes), mebibytes(member.after_bytes));
        format!("{}: {before}, and now {after}\n", member.name)
    };
    let cleared = done.cleared.iter().map(|alarm| format!("cleared: {alarm}\n"));
    done.members.iter().map(member).chain(cleared).collect()
}

#[cfg(test)]
mod tests {
    use machine_api::EtcdMemberState;

    use super::*;

    #[test]
    fn a_status_names_what_is_wrong_before_the_members() {
        let state = EtcdMemberState { database_bytes: 5_767_168, is_leader: true, ..EtcdMemberState::default() };
        let up = EtcdMember { name: "m1".to_owned(), state: Some(state), ..EtcdMember::default() };
        let trouble = Some("no answer".to_owned());
        let down = EtcdMember { name: "m2".to_owned(), trouble, ..EtcdMember::default() };
        let seen = EtcdStatus {
            master: "m1".to_owned(),
            conditions: vec!["EtcdMemberDown: m2".to_owned()],
            members: vec![up, down],
            ..EtcdStatus::default()
        };
        let text = status(&seen);
        assert!(text.starts_with("etcd has no quorum, as m1 sees it\nEtcdMemberDown: m2\n"), "{text}");
        assert!(text.contains("5.5Mi") && text.contains("no answer"), "{text}");
        assert!(members(&seen).contains("leader"), "{}", members(&seen));
    }
}
