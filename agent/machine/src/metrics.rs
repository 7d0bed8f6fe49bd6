//! What monitoring reads of a machine, in Prometheus' text format: `GET /metrics` at the machine API, and `GetMetrics`.
//!
//! Each part is what a call of the API tells, too, but for the counters of DNS; nothing is counted for it alone. What the
//! kubelet, the runtime and etcd tell of themselves at their own addresses is not told again.

use std::collections::BTreeSet;
use std::time::Duration;

use machine_api::{
    Boot, Boots, CertificateList, ControlGroup, ControlGroupList, EtcdStatus, MachineStatus, MountList, MountStatus,
    Stage, TimeStatus, UpdateState,
};
use stdx::exposition::Text;
use sys::{Linux, System};

use crate::api::Server;
use crate::views::Look;

/// Monitoring asks again soon; until then a part that takes longer is missing.
const WITHIN: Duration = Duration::from_secs(5);
/// Control groups below this are pods, of which the kubelet tells.
const PODS: &str = "kubepods";
/// Where the cluster's DNS on this machine writes down what it counts.
pub(crate) const CLUSTER_DNS: &str = "cluster-dns.metrics";

/// What a machine tells of itself, part by part; the reason in place of one that cannot be had.
struct Parts {
    status: Result<MachineStatus, String>,
    boots: Result<Boots, String>,
    time: Result<TimeStatus, String>,
    certificates: Result<CertificateList, String>,
    groups: Result<ControlGroupList, String>,
    mounts: Result<MountList, String>,
    /// None on a machine that is no master.
    etcd: Option<Result<EtcdStatus, String>>,
}

/// All of it, as it is now. Parts that cannot be had are missing, and `keelson_part_up` says so.
pub(crate) async fn page(server: &Server) -> String {
    let (status, boots, time, certificates, groups, mounts, etcd) = tokio::join!(
        in_time(MachineStatus::look(server)),
        in_time(Boots::look(server)),
        in_time(TimeStatus::look(server)),
        in_time(CertificateList::look(server)),
        in_time(ControlGroupList::look(server)),
        in_time(MountList::look(server)),
        in_time(members(server)),
    );
    let parts = Parts { status, boots, time, certificates, groups, mounts, etcd: etcd.transpose() };
    let mut out = Text::default();
    parts.write(&mut out);
    out.finish() + &names(server)
}

/// What the resolvers of this machine count: that of its own look-ups, and that of its pods, which is in another process.
fn names(server: &Server) -> String {
    let own = server.look_ups.as_ref().map(|look_ups| look_ups.metrics()).unwrap_or_default();
    // Where no pods run, or not yet, there is none.
    let pods = Linux.read(&server.run.join(CLUSTER_DNS)).unwrap_or_default();
    stdx::exposition::merged([own.as_str(), &String::from_utf8_lossy(&pods)])
}

async fn in_time<T>(look: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(WITHIN, look).await.unwrap_or_else(|_elapsed| Err("it did not answer in time".to_owned()))
}

async fn members(server: &Server) -> Result<Option<EtcdStatus>, String> {
    let Some(etcd) = &server.etcd else { return Ok(None) };
    etcd.status().await.map(Some).map_err(|error| stdx::chain(&error).to_string())
}

impl Parts {
    fn write(&self, out: &mut Text) {
        self.write_parts(out);
        if let Ok(status) = &self.status {
            write_status(status, out);
        }
        if let Some(boot) = self.boots.as_ref().ok().and_then(|boots| boots.boots.last()) {
            write_boot(boot, out);
        }
        if let Ok(time) = &self.time {
            write_time(time, out);
        }
        if let Ok(certificates) = &self.certificates {
            write_certificates(certificates, out);
        }
        if let Ok(groups) = &self.groups {
            write_groups(groups, out);
        }
        if let Ok(mounts) = &self.mounts {
            write_mounts(mounts, out);
        }
        if let Some(Ok(etcd)) = &self.etcd {
            write_etcd(etcd, out);
        }
    }

    fn write_parts(&self, out: &mut Text) {
        let parts = [
            ("status", Some(self.status.is_ok())),
            ("boots", Some(self.boots.is_ok())),
            ("time", Some(self.time.is_ok())),
            ("certificates", Some(self.certificates.is_ok())),
            ("control-groups", Some(self.groups.is_ok())),
            ("mounts", Some(self.mounts.is_ok())),
            ("etcd", self.etcd.as_ref().map(Result::is_ok)),
        ];
        let name = "keelson_part_up";
        out.family(name, "gauge", "Whether this part of what follows could be had.");
        for (part, is_up) in parts {
            if let Some(is_up) = is_up {
                out.sample(name, &[("part", part)], u8::from(is_up));
            }
        }
    }
}

fn write_status(status: &MachineStatus, out: &mut Text) {
    let name = "keelson_machine_info";
    out.family(name, "gauge", "The system that runs; always 1.");
    let [version, slot] = [&status.version, &status.slot].map(|text| text.as_deref().unwrap_or_default());
    let labels = [("hostname", &*status.hostname), ("version", version), ("slot", slot), ("boot_id", &status.boot_id)];
    out.sample(name, &labels, 1);
    out.single(
        ("keelson_machine_ready", "gauge"),
        "Whether it has a manifest and every service is ready.",
        u8::from(status.ready),
    );
    out.single(("keelson_machine_uptime_seconds", "gauge"), "Seconds since the kernel started.", status.uptime_seconds);
    let name = "keelson_machine_stage";
    out.family(name, "gauge", "What it is busy with: 1 for the stage it is in.");
    for (stage, word) in STAGES {
        out.sample(name, &[("stage", word)], u8::from(status.stage() == stage));
    }
    let name = "keelson_unmet_seconds";
    let help = "How long something has been wrong; a concern does not keep the machine from being ready.";
    out.family(name, "gauge", help);
    for condition in &status.conditions {
        let concern = if condition.is_concern { "true" } else { "false" };
        let labels = [("condition", &*condition.name), ("subject", &condition.subject), ("concern", concern)];
        out.sample(name, &labels, (status.uptime_seconds - condition.since_seconds).max(0.0));
    }
    write_services(status, out);
    let name = "keelson_last_update";
    out.family(name, "gauge", "What became of the last update: 1 for how far it has come.");
    for (state, word) in UPDATES {
        out.sample(name, &[("state", word)], u8::from(status.state_of_update() == Some(state)));
    }
    let told = [
        (
            "keelson_manifest_pending",
            "Whether another manifest counts from the next start.",
            status.manifest_pending.is_some(),
        ),
        (
            "keelson_manifest_refused",
            "Whether the manifest that was offered last was refused.",
            status.diagnostics.is_some(),
        ),
        ("keelson_crashed", "Whether the start before this one ended in a crash.", status.crash.is_some()),
    ];
    for (name, help, is_so) in told {
        out.single((name, "gauge"), help, u8::from(is_so));
    }
}

const STAGES: [(Stage, &str); 4] = [
    (Stage::Booting, "booting"),
    (Stage::Maintenance, "maintenance"),
    (Stage::Running, "running"),
    (Stage::Stopping, "stopping"),
];
const UPDATES: [(UpdateState, &str); 4] = [
    (UpdateState::Trying, "trying"),
    (UpdateState::Good, "good"),
    (UpdateState::TakenBack, "taken-back"),
    (UpdateState::CutShort, "cut-short"),
];

fn write_services(status: &MachineStatus, out: &mut Text) {
    let name = "keelson_service_ready";
    out.family(name, "gauge", "Whether a service is ready, or did what it was for.");
    for service in &status.services {
        let is_ready = matches!(&*service.state, "ready" | "done");
        out.sample(name, &[("service", &service.name)], u8::from(is_ready));
    }
    let name = "keelson_service_restarts_total";
    out.family(name, "counter", "How often a service was started again.");
    for service in &status.services {
        out.sample(name, &[("service", &service.name)], service.restarts);
    }
}

fn write_boot(boot: &Boot, out: &mut Text) {
    let name = "keelson_boot_seconds";
    out.family(
        name,
        "gauge",
        "How long the parts of this start took: firmware and loader, and from the kernel to ready.",
    );
    let parts = [("firmware", boot.firmware_seconds), ("loader", boot.loader_seconds), ("ready", boot.ready_seconds)];
    for (part, seconds) in parts {
        if let Some(seconds) = seconds {
            out.sample(name, &[("part", part)], seconds);
        }
    }
}

fn write_time(time: &TimeStatus, out: &mut Text) {
    let follows = u8::from(time.follows);
    out.single(("keelson_clock_follows", "gauge"), "Whether the clock follows time servers.", follows);
    let ages = time.synchronized_seconds.map(|at| (time.uptime_seconds - at).max(0.0));
    let told = [
        (
            "keelson_clock_offset_seconds",
            "How far the clock was behind the server that answered last.",
            time.offset_seconds,
        ),
        ("keelson_clock_answer_age_seconds", "How long ago a time server answered.", ages),
    ];
    for (name, help, value) in told {
        if let Some(value) = value {
            out.single((name, "gauge"), help, value);
        }
    }
}

fn write_certificates(certificates: &CertificateList, out: &mut Text) {
    let name = "keelson_certificate_expiry_timestamp_seconds";
    out.family(name, "gauge", "Until when a certificate is valid, in seconds since 1970.");
    let mut told = BTreeSet::new();
    for certificate in certificates.items.iter().filter(|certificate| certificate.trouble.is_none()) {
        // A file may hold several of one name.
        if told.insert((&certificate.file, &certificate.subject)) {
            let labels = [("file", &*certificate.file), ("subject", &certificate.subject)];
            out.sample(name, &labels, certificate.not_after);
        }
    }
    let name = "keelson_certificate_damaged";
    out.family(name, "gauge", "Files of certificates that cannot be read; always 1.");
    for certificate in certificates.items.iter().filter(|certificate| certificate.trouble.is_some()) {
        if told.insert((&certificate.file, &certificate.subject)) {
            out.sample(name, &[("file", &certificate.file)], 1);
        }
    }
}

/// A number of a row, if it has it.
type Value<T> = fn(&T) -> Option<u64>;

fn write_groups(groups: &ControlGroupList, out: &mut Text) {
    let own: Vec<_> = groups.items.iter().filter(|group| !group.path.starts_with(PODS)).collect();
    let whole: [(&str, &str, &str, Value<ControlGroup>); 2] = [
        (
            "keelson_control_group_working_set_bytes",
            "gauge",
            "Memory that cannot be dropped at once; of the group without a name, the whole machine's.",
            |group| Some(group.working_set_bytes),
        ),
        (
            "keelson_control_group_memory_kills_total",
            "counter",
            "How often a process was ended for want of memory.",
            |group| Some(group.memory_kills),
        ),
    ];
    for (name, kind, help, value) in whole {
        out.family(name, kind, help);
        for (group, value) in own.iter().filter_map(|group| Some((group, value(group)?))) {
            out.sample(name, &[("group", &group.path)], value);
        }
    }
    let name = "keelson_control_group_cpu_seconds_total";
    out.family(name, "counter", "Processor time.");
    own.iter().for_each(|group| out.sample(name, &[("group", &group.path)], group.cpu_seconds));
    let name = "keelson_control_group_pressure_ratio";
    out.family(name, "gauge", "Part of the last 10 s in which some of the group waited for something.");
    for group in own {
        let waits = [("cpu", group.cpu_pressure), ("memory", group.memory_pressure), ("io", group.io_pressure)];
        for (resource, percent) in waits {
            if let Some(percent) = percent {
                out.sample(name, &[("group", &group.path), ("resource", resource)], percent / 100.0);
            }
        }
    }
}

fn write_mounts(mounts: &MountList, out: &mut Text) {
    let mut devices = BTreeSet::new();
    // What is mounted again elsewhere is not another one.
    let own: Vec<_> =
        mounts.items.iter().filter(|m| m.source.starts_with("/dev/") && devices.insert(&m.source)).collect();
    let told: [(&str, &str, Value<MountStatus>); 3] = [
        ("keelson_filesystem_size_bytes", "Size of a file system.", |mount| mount.bytes),
        ("keelson_filesystem_free_bytes", "Space that is left there.", |mount| mount.free_bytes),
        ("keelson_filesystem_free_inodes", "Files that can still be made there.", |mount| mount.free_inodes),
    ];
    for (name, help, value) in told {
        out.family(name, "gauge", help);
        for mount in &own {
            if let Some(value) = value(mount) {
                let labels = [("device", &*mount.source), ("mount", &mount.target), ("type", &mount.filesystem)];
                out.sample(name, &labels, value);
            }
        }
    }
}

fn write_etcd(etcd: &EtcdStatus, out: &mut Text) {
    out.single(
        ("keelson_etcd_has_quorum", "gauge"),
        "Whether a majority of the voting members takes part.",
        u8::from(etcd.has_quorum),
    );
    let name = "keelson_etcd_member_up";
    out.family(name, "gauge", "Whether a member answers this one.");
    for member in &etcd.members {
        let learner = if member.is_learner { "true" } else { "false" };
        let labels = [("id", &*member.id), ("member", &member.name), ("learner", learner)];
        out.sample(name, &labels, u8::from(member.state.is_some()));
    }
    let last = etcd.snapshots.last();
    let name = "keelson_etcd_last_snapshot_timestamp_seconds";
    out.family(name, "gauge", "When the last snapshot by schedule was taken here, in seconds since 1970.");
    if let Some(last) = last {
        out.sample(name, &[], last.taken);
    }
}

#[cfg(test)]
mod tests {
    use machine_api::{CertificateStatus, Condition, EtcdMember, EtcdSnapshot, Service};

    use super::*;

    fn parts() -> Parts {
        let status = MachineStatus {
            stage: Stage::Running.into(),
            hostname: "m1".to_owned(),
            version: Some("0.2.0".to_owned()),
            uptime_seconds: 90.5,
            conditions: vec![Condition {
                name: "ServiceNotReady".to_owned(),
                subject: "etcd".to_owned(),
                since_seconds: 60.0,
                ..Condition::default()
            }],
            services: vec![
                Service { name: "etcd".to_owned(), state: "starting".to_owned(), restarts: 2, ..Service::default() },
                Service { name: "node".to_owned(), state: "ready".to_owned(), ..Service::default() },
            ],
            update_state: Some(UpdateState::TakenBack.into()),
            ..MachineStatus::default()
        };
        let certificate = |file: &str, trouble: Option<&str>| CertificateStatus {
            file: file.to_owned(),
            subject: "CN=kubernetes".to_owned(),
            not_after: 1_790_000_000,
            trouble: trouble.map(str::to_owned),
            ..CertificateStatus::default()
        };
        let group = |path: &str| ControlGroup {
            path: path.to_owned(),
            working_set_bytes: 4096,
            cpu_seconds: 2.5,
            io_pressure: Some(12.5),
            ..ControlGroup::default()
        };
        let mount = |source: &str, target: &str| MountStatus {
            source: source.to_owned(),
            target: target.to_owned(),
            filesystem: "ext4".to_owned(),
            bytes: Some(1 << 30),
            free_bytes: Some(1 << 20),
            ..MountStatus::default()
        };
        Parts {
            status: Ok(status),
            boots: Ok(Boots { boots: vec![Boot { ready_seconds: Some(8.25), ..Boot::default() }] }),
            time: Ok(TimeStatus {
                follows: true,
                offset_seconds: Some(-0.5),
                synchronized_seconds: Some(80.0),
                uptime_seconds: 90.5,
                ..TimeStatus::default()
            }),
            certificates: Ok(vec![
                certificate("ca.crt", None),
                certificate("ca.crt", None),
                certificate("etcd/ca.crt", Some("it is damaged")),
            ]
            .into()),
            groups: Ok(vec![group(""), group("services/etcd"), group("kubepods/pod1")].into()),
            mounts: Ok(
                vec![mount("/dev/vda5", "/data"), mount("/dev/vda5", "/data/pods/a"), mount("tmpfs", "/tmp")].into()
            ),
            etcd: Some(Ok(EtcdStatus {
                has_quorum: true,
                members: vec![EtcdMember { id: "1f".to_owned(), name: "m1".to_owned(), ..EtcdMember::default() }],
                snapshots: vec![EtcdSnapshot { taken: 1_780_000_000, ..EtcdSnapshot::default() }],
                ..EtcdStatus::default()
            })),
        }
    }

    fn shown(parts: &Parts) -> String {
        let mut out = Text::default();
        parts.write(&mut out);
        out.finish()
    }

    #[test]
    fn each_part_is_told_once() {
        let text = shown(&parts());
        let expected = [
            r#"keelson_machine_info{hostname="m1",version="0.2.0",slot="",boot_id=""} 1"#,
            "keelson_machine_ready 0",
            r#"keelson_machine_stage{stage="running"} 1"#,
            r#"keelson_machine_stage{stage="booting"} 0"#,
            r#"keelson_unmet_seconds{condition="ServiceNotReady",subject="etcd",concern="false"} 30.5"#,
            r#"keelson_service_ready{service="etcd"} 0"#,
            r#"keelson_service_ready{service="node"} 1"#,
            r#"keelson_service_restarts_total{service="etcd"} 2"#,
            r#"keelson_last_update{state="taken-back"} 1"#,
            r#"keelson_boot_seconds{part="ready"} 8.25"#,
            "keelson_clock_offset_seconds -0.5",
            "keelson_clock_answer_age_seconds 10.5",
            r#"keelson_certificate_expiry_timestamp_seconds{file="ca.crt",subject="CN=kubernetes"} 1790000000"#,
            r#"keelson_certificate_damaged{file="etcd/ca.crt"} 1"#,
            r#"keelson_control_group_working_set_bytes{group="services/etcd"} 4096"#,
            r#"keelson_control_group_pressure_ratio{group="",resource="io"} 0.125"#,
            r#"keelson_filesystem_free_bytes{device="/dev/vda5",mount="/data",type="ext4"} 1048576"#,
            "keelson_etcd_has_quorum 1",
            r#"keelson_etcd_member_up{id="1f",member="m1",learner="false"} 0"#,
            "keelson_etcd_last_snapshot_timestamp_seconds 1780000000",
            r#"keelson_part_up{part="etcd"} 1"#,
        ];
        for line in expected {
            assert_eq!(text.lines().filter(|found| *found == line).count(), 1, "{line}\n{text}");
        }
        assert!(!text.contains(PODS) && !text.contains("tmpfs") && !text.contains("/data/pods"), "{text}");
        let series: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let names: BTreeSet<&str> =
            series.iter().filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name).collect();
        assert_eq!(names.len(), series.len(), "no series occurs twice");
        for line in series {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(text.contains(&format!("# TYPE {name} ")), "{line}");
        }
    }

    #[test]
    fn a_part_that_cannot_be_had_leaves_the_others() {
        let away = || "away".to_owned();
        let text = shown(&Parts { groups: Err(away()), etcd: None, boots: Err(away()), ..parts() });
        assert!(text.contains("keelson_part_up{part=\"control-groups\"} 0\n"), "{text}");
        assert!(text.contains("keelson_part_up{part=\"mounts\"} 1\n"), "{text}");
        assert!(!text.contains("keelson_control_group") && !text.contains("etcd_") && !text.contains("keelson_boot"));
        assert!(!text.contains("part=\"etcd\""), "of a worker etcd is no part: {text}");
    }
}
