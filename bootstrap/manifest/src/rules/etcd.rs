//! Rules of `[etcd]` and of more than one master.

use std::time::Duration;

use super::Rules;
use super::cluster::in_cluster_range;
use crate::model::{Etcd, Machine, SnapshotStore};
use crate::words::{MirrorScheme, StoreUrl};

/// etcd's own advice.
const HEARTBEATS_PER_ELECTION: u32 = 5;
const MOST_ELECTION_SECS: u64 = 50;
const LEAST_SNAPSHOT_INTERVAL: Duration = Duration::from_secs(60);
const QUOTA_ADVICE_BYTES: u64 = 8 << 30;
/// Beside its database, STATE holds etcd's log and snapshots, keys and manifests.
const STATE_OVERHEAD_BYTES: u64 = 512 << 20;

/// Keys of a store that say something of one kind only.
const S3_KEYS: &[&str] = &["endpoint", "region", "bucket-in", "access-key", "secret-key"];
const WEB_KEYS: &[&str] = &["username", "password", "bearer-token"];

pub(super) fn check(rules: &mut Rules<'_>) {
    let parts = rules.parts;
    let (Some(etcd), Some(machine)) = (&parts.etcd, &parts.machine) else {
        return;
    };
    if !machine.role.has_control_plane() {
        return;
    }
    members(rules, etcd, machine);
    times(rules, etcd);
    quota(rules, etcd);
    snapshots(rules, etcd);
}

fn members(rules: &mut Rules<'_>, etcd: &Etcd, machine: &Machine) {
    const KEY: &str = "etcd.members";
    // Members that could not be read are missing, and then nothing can be said about their number and names.
    if etcd.members.is_empty() || rules.has(&format!("{KEY}[{}]", etcd.members.len())) {
        return;
    }
    if !etcd.members.iter().any(|member| member.name == machine.hostname) {
        rules
            .error(KEY, format!("this machine, `{}`, is not among the members", machine.hostname))
            .expected("every master, this one too");
    }
    for (index, member) in etcd.members.iter().enumerate() {
        let earlier = &etcd.members[..index];
        if earlier.iter().any(|other| other.name == member.name) {
            rules.error(&format!("{KEY}[{index}].name"), format!("`{}` is a member already", member.name));
        }
        if earlier.iter().any(|other| other.address == member.address) {
            rules.error(&format!("{KEY}[{index}].address"), format!("`{}` is a member already", member.address));
        }
        in_cluster_range(rules, &format!("{KEY}[{index}].address"), member.address);
    }
    if etcd.members.len().is_multiple_of(2) {
        let count = etcd.members.len();
        let losses = (count - 1) / 2;
        rules
            .warning(KEY, format!("{count} masters survive the loss of {losses}, as {} would", count - 1))
            .help("use an odd number of masters");
    }
    if etcd.members.len() > 1 {
        for (key, why) in [
            ("control-plane.secret", "from which all of them derive the same CAs"),
            ("cluster.endpoint", "at which all machines reach the API"),
            ("cluster.token", "with which the others join"),
        ] {
            if !rules.has(key) {
                rules.missing(key, format!("more than one master needs `{key}`")).expected(format!("a value {why}"));
            }
        }
    }
}

fn times(rules: &mut Rules<'_>, etcd: &Etcd) {
    let (heartbeat, election) = (etcd.heartbeat_interval.duration(), etcd.election_timeout.duration());
    if heartbeat.is_zero() {
        rules.error("etcd.heartbeat-interval", "the interval is zero").expected("about the round trip between masters");
    } else if election < heartbeat * HEARTBEATS_PER_ELECTION {
        let reason = format!(
            "an election after `{}` is too early for a heartbeat of `{}`",
            etcd.election_timeout, etcd.heartbeat_interval
        );
        rules.error("etcd.election-timeout", reason).expected(format!("at least {HEARTBEATS_PER_ELECTION} heartbeats"));
    } else if election.as_secs() > MOST_ELECTION_SECS {
        rules
            .error("etcd.election-timeout", format!("`{}` is longer than etcd allows", etcd.election_timeout))
            .expected(format!("at most {MOST_ELECTION_SECS}s"));
    }
}

fn snapshots(rules: &mut Rules<'_>, etcd: &Etcd) {
    if let Some(snapshots) = &etcd.snapshots
        && snapshots.interval.duration() < LEAST_SNAPSHOT_INTERVAL
    {
        rules
            .error("etcd.snapshots.interval", format!("a snapshot each `{}` is too often", snapshots.interval))
            .expected("at least 1m");
    }
    if let Some(store) = etcd.snapshots.as_ref().and_then(|snapshots| snapshots.store.as_ref()) {
        self::store(rules, store);
    }
}

/// Keys of one kind of store say nothing to the other.
fn store(rules: &mut Rules<'_>, store: &SnapshotStore) {
    const KEY: &str = "etcd.snapshots.store";
    let at = |name: &str| format!("{KEY}.{name}");
    let is_s3 = matches!(store.url, StoreUrl::S3 { .. });
    let (own, foreign) = if is_s3 { (S3_KEYS, WEB_KEYS) } else { (WEB_KEYS, S3_KEYS) };
    let kind = if is_s3 { "an S3 store" } else { "a web server" };
    for name in foreign.iter().map(|name| at(name)).filter(|name| rules.has(name)).collect::<Vec<_>>() {
        rules.error(&name, format!("`{name}` says nothing of {kind}")).expected(format!("of {}", own.join(", ")));
    }
    let (user, secret) = if is_s3 { ("access-key", "secret-key") } else { ("username", "password") };
    let (has_user, has_secret) = (rules.has(&at(user)), rules.has(&at(secret)));
    if has_user != has_secret || (is_s3 && !has_user) {
        let (given, missing) = if has_user { (user, secret) } else { (secret, user) };
        let reason = match has_user || has_secret {
            true => format!("`{}` is nothing without `{}`", at(given), at(missing)),
            false => format!("an S3 store needs `{}` and `{}`", at(user), at(secret)),
        };
        let path = if has_user || has_secret { at(given) } else { KEY.to_owned() };
        rules.error(&path, reason).expected("both of them");
    }
    if has_user && rules.has(&at("bearer-token")) {
        rules.error(&at("bearer-token"), "there are a user and a token").expected("one of them");
    }
    let is_plain = match &store.url {
        StoreUrl::S3 { .. } => store.endpoint.as_ref().is_some_and(|it| it.scheme == MirrorScheme::Http),
        StoreUrl::Web(url) => url.starts_with("http:"),
    };
    if is_plain {
        rules
            .warning(
                &at(if is_s3 { "endpoint" } else { "url" }),
                "snapshots hold every secret of the cluster, and go unencrypted",
            )
            .help("use https, with the store's CA in `ca` if nobody else knows it");
    }
}

fn quota(rules: &mut Rules<'_>, etcd: &Etcd) {
    const KEY: &str = "etcd.quota";
    let Some(install) = &rules.parts.install else {
        return;
    };
    let needed = etcd.quota.bytes().saturating_add(STATE_OVERHEAD_BYTES);
    if needed > install.state_size.bytes() {
        let key = if rules.has(KEY) { KEY } else { "install.state-size" };
        let reason =
            format!("a database of `{}` does not fit into a STATE partition of `{}`", etcd.quota, install.state_size);
        rules.error(key, reason).expected("512Mi more in `install.state-size` than in `etcd.quota`");
    }
    if etcd.quota.bytes() > QUOTA_ADVICE_BYTES {
        rules.warning(KEY, "etcd advises against databases of more than 8Gi");
    }
}
